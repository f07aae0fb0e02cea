"""What a task network requires of images: its feature, checked, and the mean requirement of a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.fusers.fuser import WHOLE, Fuser
from fuseloop.networks.modes import looking
from fuseloop.networks.semantic_compensation import GRID, describe
from fuseloop.pairs.images import Picture
from fuseloop.pairs.tiles import Box
from fuseloop.weights.files import SUFFIX, check_finite, read_tensors, write_tensors

ARCHITECTURE = "Profile"


def as_images(image: NDArray[np.float32]) -> Tensor:
    """H×W or H×W×3 in [0, 1] as task networks see images, 1×3×H×W."""
    rgb = torch.from_numpy(image if image.ndim == 3 else image[..., None])
    return rgb.movedim(-1, 0)[None].expand(-1, 3, -1, -1)


@torch.no_grad()
def look(task_network: nn.Module, images: Tensor) -> tuple[Any, Tensor]:
    """Lets a task network look at images, in evaluation mode and without labels.

    Args:
        task_network: A network behind the task protocol, on any device: what it gives for images has a `feature`.
        images: B×3×H×W RGB in [0, 1].

    Returns:
        What the network gave, and its feature, float32 on the CPU.

    Raises:
        ConfigurationError: The network gives no feature, one whose first dimension is not the batch, or one with NaN
            or infinite values.
    """
    device = next(chain(task_network.parameters(), task_network.buffers()), torch.empty(0)).device
    with looking([task_network]):
        outputs = task_network(images.to(device))
    name, feature = type(task_network).__name__, getattr(outputs, "feature", None)
    if not isinstance(feature, Tensor):
        raise ConfigurationError(
            f"{name} gives no feature that could be fed back; put it behind the task protocol with "
            "fuseloop.tasks.wrapping.wrap"
        )
    if feature.ndim == 0 or len(feature) != len(images):
        raise ConfigurationError(
            f"{name} gave a feature of shape {tuple(feature.shape)} for {len(images)} image; its first dimension must "
            "be that of the images: take the feature of another layer"
        )
    if not bool(torch.isfinite(feature).all()):
        raise ConfigurationError(
            f"{name} gave a feature with NaN or infinite values for this image; its weights are damaged, or the image "
            "is not what it was trained for"
        )
    return outputs, feature.detach().to("cpu", torch.float32)


@dataclass(frozen=True, eq=False)
class Profile:
    """The mean requirement of a task network over a data set, with which no task network is needed.

    Attributes:
        requirement: 1×C×4×4, root mean square 1.
        frames: How many pairs it is the mean of.
        described: Of which task network and which pairs, in a line.
    """

    requirement: Tensor
    frames: int
    described: str = ""


class ProfileMaker:
    """Adds up what a task network requires of neutral images.

    Args:
        fuser: Makes the images.
        task_network: Looks at them.
    """

    def __init__(self, fuser: Fuser, task_network: nn.Module) -> None:
        self.fuser, self.task_network = fuser, task_network
        self.frames = 0
        self._total = torch.zeros(())

    def add(self, infrared: Picture, visible: Picture, **options: Any) -> None:
        """Adds a pair.

        Args:
            infrared: The infrared picture.
            visible: The visible picture.
            options: Those of `Fuser.fuse_picture`.

        Raises:
            FuseloopError: The pair cannot be fused, or the network gives no usable feature for it.
        """
        pair = self.fuser.open_pair(infrared, visible, **options)
        frame = whole_frame(self.fuser, *visible.pixels.shape[:2])
        thermal, luma = pair.read(frame)
        neutral = pair.recoloured(frame, luma, self.fuser.engine.fuse(thermal, luma))
        _, feature = look(self.task_network, as_images(neutral))
        requirement = describe(feature)
        if self.frames and requirement.shape != self._total.shape:
            raise ConfigurationError(
                f"the feature of {type(self.task_network).__name__} has {requirement.shape[1]} channels here and had "
                f"{self._total.shape[1]} before; take the feature of a layer whose channels do not depend on the size"
            )
        self._total = self._total + requirement
        self.frames += 1

    def profile(self, described: str = "") -> Profile:
        """The mean so far.

        Raises:
            ConfigurationError: Nothing was added.
        """
        if not self.frames:
            raise ConfigurationError("a profile needs a pair at least")
        return Profile(describe(self._total / self.frames), self.frames, described)


def whole_frame(fuser: Fuser, height: int, width: int) -> Box:
    """The box of a frame that is looked at as a whole.

    Raises:
        ConfigurationError: It is larger than the fuser does at once.
    """
    limit = WHOLE * fuser.tile_pixels
    if height * width > limit:
        raise ConfigurationError(
            f"the frame is {width}x{height}, {height * width:,} pixels, and the closed loop takes at most {limit:,}, "
            "since its compensation sees the whole frame at once; make the images smaller, fuse them without a task "
            "network, or give the fuser larger tile_pixels where there is memory for that"
        )
    return Box(0, 0, height, width)


def write_profile(path: str | os.PathLike[str], profile: Profile, *, overwrite: bool = False) -> None:
    """Writes a profile, aside first and then renamed.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        profile: The profile.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WeightsError: The suffix is another, the file exists, or it cannot be written.
    """
    metadata = {"architecture": ARCHITECTURE, "frames": str(profile.frames), "described": profile.described}
    write_tensors(Path(path), {"requirement": profile.requirement}, metadata, overwrite=overwrite)


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Reads what `write_profile` wrote.

    Raises:
        WeightsError: The file is missing, corrupt, or holds no profile.
    """
    path = Path(path)
    metadata, tensors = read_tensors(path, pickled=f"only {SUFFIX} files are read")
    requirement = tensors.get("requirement")
    if metadata.get("architecture") != ARCHITECTURE or not metadata.get("frames", "").isdigit() or requirement is None:
        raise WeightsError(f"{path} holds no profile; make one with `fuseloop profile`{_instead(metadata)}")
    if requirement.ndim != 4 or requirement.shape[0] != 1 or requirement.shape[2:] != (GRID, GRID):
        raise WeightsError(
            f"{path} holds a requirement of shape {list(requirement.shape)} instead of 1×C×{GRID}×{GRID}; make it anew "
            "with `fuseloop profile`"
        )
    check_finite(path, tensors)
    return Profile(requirement.float(), int(metadata["frames"]), metadata.get("described", ""))


def _instead(metadata: Mapping[str, str]) -> str:
    held = metadata.get("architecture", "")
    return f" (it says that it is a {held})" if held else ""
