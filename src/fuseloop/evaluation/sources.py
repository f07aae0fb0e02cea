"""What gives the images that task networks look at: rules, fusion networks, folders of fused images.

Every image is rounded to 8 bits as it would be saved, so that a folder of saved images has the scores of what made it.
"""

from __future__ import annotations

import difflib
import os
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.pixels import read_visible
from fuseloop.errors import ConfigurationError, PairError
from fuseloop.fusers.closed_loop import PROFILE, ClosedLoopFuser
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.loop_weights import Loop, find_loop, is_loop, read_loop
from fuseloop.fusers.rules import RULES
from fuseloop.fusers.weights import LOOPS, SHIPPED, find_weights, load
from fuseloop.pairs.folders import list_images, some_names
from fuseloop.pairs.images import Picture
from fuseloop.pairs.levels import Limits, from_unit
from fuseloop.tasks.protocol import TaskNetwork
from fuseloop.weights.files import SHARED, SUFFIX

Pixels = NDArray[np.uint8]


class ImageSource(Protocol):
    """Gives an image for a pair."""

    def image(self, pair: LabelledPair) -> Pixels:
        """The image, H×W×3 uint8 RGB, of the size of the pair.

        Raises:
            FuseloopError: There is none for this pair.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, for JSON."""
        ...


class RuleSource:
    """Images made by a rule without weights, see `fuseloop.fusers.rules`.

    Args:
        name: A key of `RULES`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def image(self, pair: LabelledPair) -> Pixels:
        """See `ImageSource`."""
        infrared, visible = (torch.from_numpy(part).float() / 255 for part in (pair.infrared, pair.visible))
        fused = RULES[self.name](infrared[None, None], visible.movedim(-1, 0)[None])
        return np.ascontiguousarray(from_unit(fused[0].movedim(0, -1).numpy(), np.uint8, Limits(0, 255)))

    def describe(self) -> dict[str, Any]:
        """See `ImageSource`."""
        return {"kind": "rule", "rule": self.name}


class FuserSource:
    """Images made by a fusion network.

    Args:
        fuser: The fuser.
        weights: Its weight file, where there is one.
    """

    def __init__(self, fuser: Fuser, weights: Path | None = None) -> None:
        self.fuser, self.weights = fuser, weights

    def image(self, pair: LabelledPair) -> Pixels:
        """See `ImageSource`."""
        return self.fuser.fuse_picture(Picture(pair.infrared), Picture(pair.visible)).pixels

    def describe(self) -> dict[str, Any]:
        """See `ImageSource`."""
        engine = self.fuser.engine
        said = {"kind": "network", "network": type(self.fuser.network).__name__, "engine": engine.name}
        said |= {"precision": engine.precision}
        return said | ({} if self.weights is None else {"weights_sha256": file_hash(self.weights)})


class LoopSource:
    """A closed loop, which makes an image of its own for each task network.

    Args:
        loop: Its networks.
        weights: Their file, where there is one.
        engine: What runs the fusion network.
        strength: See `ClosedLoopFuser`.
        feedback: See `ClosedLoopFuser`; with "previous" the pairs are taken as the frames of a video, and a profile
            makes the same images for all task networks.
        first_look: See `ClosedLoopFuser`.
    """

    def __init__(
        self,
        loop: Loop,
        weights: Path | None = None,
        *,
        engine: str = "torch",
        strength: float = 1.0,
        feedback: str = "frame",
        first_look: float = 1.0,
    ) -> None:
        self.loop, self.weights = loop, weights
        self.engine, self.strength, self.feedback, self.first_look = engine, strength, feedback, first_look

    def bound(self, network: TaskNetwork) -> ImageSource:
        """What makes the images for a task network.

        Raises:
            ConfigurationError: The strength or the first look is out of range, or the feedback is unknown or does not
                fit the loop.
            WeightsError: The file of a profile cannot be read.
        """
        options: dict[str, Any] = {"strength": self.strength, "feedback": self.feedback, "first_look": self.first_look}
        return _Customised(ClosedLoopFuser(self.loop, network, engine=self.engine, **options), self)

    def describe(self) -> dict[str, Any]:
        """What it is, for JSON."""
        said: dict[str, Any] = {"kind": "closed loop", "network": type(self.loop.network).__name__}
        said |= {"engine": self.engine, "strength": self.strength, "feedback": self.feedback}
        said |= {"first_look": self.first_look, "tasks": list(self.loop.tasks)}
        if self.feedback.startswith(PROFILE):
            said["profile_sha256"] = file_hash(Path(self.feedback.removeprefix(PROFILE)))
        return said | ({} if self.weights is None else {"weights_sha256": file_hash(self.weights)})


class _Customised:
    """Images of a closed loop for one task network."""

    def __init__(self, fuser: ClosedLoopFuser, source: LoopSource) -> None:
        self.fuser, self.source = fuser, source

    def image(self, pair: LabelledPair) -> Pixels:
        """See `ImageSource`."""
        return self.fuser.fuse_picture(Picture(pair.infrared), Picture(pair.visible)).pixels

    def describe(self) -> dict[str, Any]:
        """See `ImageSource`."""
        return self.source.describe()


Source: TypeAlias = ImageSource | LoopSource
"""What makes one image for all task networks, or one for each."""


class FolderSource:
    """Images that were fused before, found by the names of the pairs.

    A frame `train/00001` of several splits is looked for as `00001` in the folder `train` of it, or else in it itself.

    Args:
        folder: The folder.

    Raises:
        PairError: It cannot be read, or holds neither images nor folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, dict[str, list[Path]]] = {}
        self._frames: dict[Path, str] = {}
        if not any(path.is_dir() for path in folder.iterdir()):
            list_images(folder)  # which says what is wrong with it

    def image(self, pair: LabelledPair) -> Pixels:
        """See `ImageSource`."""
        path = self._find(pair.name)
        pixels = read_visible(path)
        if pixels.shape != pair.visible.shape:
            sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pixels, pair.visible)]
            raise PairError(
                f"{path}: is {sizes[0]}, its pair {sizes[1]}; fuse it at that size, or its labels do not fit"
            )
        return pixels

    def describe(self) -> dict[str, Any]:
        """See `ImageSource`."""
        return {"kind": "folder", "folder": str(self.folder)}

    def _find(self, name: str) -> Path:
        parts = PurePosixPath(name)
        own = self.folder / parts.parent
        folder = own if own.is_dir() else self.folder
        if folder not in self._files:
            by_stem: dict[str, list[Path]] = {}
            for path in list_images(folder):
                by_stem.setdefault(path.stem, []).append(path)
            self._files[folder] = by_stem
        found = self._files[folder].get(parts.name, [])
        if len(found) != 1:
            there = f"holds {some_names(path.name for path in found)} for" if found else "holds no image of"
            raise PairError(f"{folder}: {there} the frame {name}; it needs one, named by the frame")
        earlier = self._frames.setdefault(found[0], name)
        if earlier != name:
            raise PairError(f"{found[0]}: is of which frame, {earlier} or {name}? Give each split a folder of its own")
        return found[0]


def open_source(
    text: str,
    *,
    engine: str = "torch",
    strength: float = 1.0,
    feedback: str = "frame",
    first_look: float = 1.0,
) -> Source:
    """What gives the images.

    Args:
        text: A rule (infrared, visible, mean, max), the name of shipped weights or of a closed loop, a weight file of
            either, or a folder of fused images; names come before folders that are called so.
        engine: What runs fusion networks.
        strength: Of a closed loop, see `ClosedLoopFuser`.
        feedback: Of a closed loop, see `LoopSource`.
        first_look: Of a closed loop, see `ClosedLoopFuser`.

    Raises:
        ConfigurationError: It is none of these; the message lists the names.
        WeightsError: The weight file is corrupt or foreign, or no weights of the closed loop are shipped.
        PairError: The folder holds no images.
    """
    if text in RULES:
        return RuleSource(text)
    if is_loop(text):
        file = find_loop(text)
        options: dict[str, Any] = {"strength": strength, "feedback": feedback, "first_look": first_look}
        return LoopSource(read_loop(file), file, engine=engine, **options)
    path = Path(text)
    if text not in SHIPPED and os.path.isdir(path) and not os.path.isfile(path / SHARED):
        return FolderSource(path)
    if text not in SHIPPED and not os.path.exists(path):
        known = [*RULES, *SHIPPED, *LOOPS]
        near = difflib.get_close_matches(text.lower(), known, n=1)
        raise ConfigurationError(
            f"unknown fuser {text!r}; " + (f"did you mean {near[0]!r}? " if near else "") + f"Give one of "
            f"{', '.join(known)}, a {SUFFIX} file, or a folder of fused images"
        )
    return FuserSource(load(text, engine=engine), find_weights(text))


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return sha256(path.read_bytes()).hexdigest()
