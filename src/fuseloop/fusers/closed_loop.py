"""The fuser of the closed loop: it makes the image that a task network asks for.

A first look of the task network at the neutral image leaves a feature; a compensation network reads it and changes the
features of the fusion network in a second pass. The first block of both passes is the same and computed once. No labels
are needed, and neither network is changed.
"""

from __future__ import annotations

import difflib
import os
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.engines import Precision
from fuseloop.errors import ConfigurationError
from fuseloop.fusers.fuser import Align, Fuser, UnitPair, fuse_images
from fuseloop.fusers.kinds import Images
from fuseloop.fusers.loop_weights import Loop, find_loop, read_loop
from fuseloop.fusers.requirement import Profile, as_images, look, read_profile, whole_frame
from fuseloop.pairs.images import MAX_PIXELS, Picture
from fuseloop.pairs.levels import INFRARED_DEFAULT, VISIBLE_DEFAULT
from fuseloop.pairs.tiles import TILE_PIXELS, Box

PROFILE = "profile:"
FEEDBACKS = ("frame", "previous", f"{PROFILE}FILE")
"""Where the requirement comes from."""

Features = tuple[Tensor, Tensor]


class ClosedLoopFuser:
    """Fuses infrared with visible images for a task network.

    >>> import numpy as np
    >>> from torch import nn
    >>> from fuseloop import ClosedLoopFuser
    >>> from fuseloop.fusers.loop_weights import Loop
    >>> from fuseloop.networks.semantic_compensation import SemanticCompensation
    >>> from fuseloop.networks.vfn import VFN
    >>> from fuseloop.tasks.wrapping import wrap
    >>> module = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> network = wrap(module, task="segmentation", classes=("background", "car"), feature="1")
    >>> fuser = ClosedLoopFuser(Loop(VFN(), SemanticCompensation()), network)
    >>> fuser(np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.uint8)).shape
    (48, 64, 3)

    A fuser is not safe to share between threads.

    Args:
        loop: A name of `fuseloop.fusers.weights.LOOPS`, the weight file of a closed loop, or its networks, whose
            weights are taken as they are now.
        task_network: Any network behind the task protocol, also one that the loop was not trained with; on any device.
            None where a profile stands for it. It looks in evaluation mode and is left as it was.
        strength: How much of the compensation is used, from 0 (the neutral image, bit for bit) to 1.
        feedback: Where the requirement comes from:

            * "frame": the task network looks at the neutral image of the same frame.
            * "previous": it has looked at the image that was made of the frame before, so that it runs once a frame in
              all: what it gave is in `seen`. The first frame, and the first after `reset`, is neutral.
            * "profile:FILE" or a `Profile`: the mean requirement of a data set; no task network runs.
        first_look: Size of the neutral image that the task network looks at, as a share of the height and width of
            the frame, above 0 and at most 1. Below 1 the first look costs less.
        engine: What runs the fusion network and the compensation, see `Fuser`; the compensation is always on the CPU.
        precision: See `Fuser`; of the fusion network alone, the compensation has fp32.
        tile_pixels: Frames of up to three tiles of so many pixels are fused. The compensation sees a whole frame at
            once, so larger ones are refused.
        max_pixels: Larger images are refused before that; None for no limit.

    Attributes:
        neutral: The fuser of the open loop.
        compensation: The compensation network.
        tasks: What the loop was trained for.
        seen: What the task network gave when it looked last, None before.

    Raises:
        WeightsError: The name is unknown or no such weights are shipped, or the file is missing, corrupt or foreign.
        ConfigurationError: An option is unknown or out of range, or there is neither a task network nor a profile.
    """

    def __init__(
        self,
        loop: str | os.PathLike[str] | Loop = "cldyn",
        task_network: nn.Module | None = None,
        *,
        strength: float = 1.0,
        feedback: str | Profile = "frame",
        first_look: float = 1.0,
        engine: str = "torch",
        precision: Precision = "fp32",
        tile_pixels: int = TILE_PIXELS,
        max_pixels: int | None = MAX_PIXELS,
    ) -> None:
        self.strength = strength
        self._profile = _profile_of(feedback)
        self.feedback = "profile" if self._profile else str(feedback)
        if not 0 < first_look <= 1:
            raise ConfigurationError(f"the first look has a share of the size above 0 and at most 1, not {first_look}")
        if first_look < 1 and self.feedback != "frame":
            raise ConfigurationError(f"a smaller first look is for feedback 'frame'; {self.feedback!r} has none")
        if self._profile is None and not isinstance(task_network, nn.Module):
            raise ConfigurationError(
                "the closed loop needs a task network, such as fuseloop.tasks.load or fuseloop.tasks.wrapping.wrap "
                f"makes, or a profile of one as feedback; got {task_network!r}"
            )
        found = loop if isinstance(loop, Loop) else read_loop(find_loop(loop))
        if self._profile and not found.compensation.one_layout:
            raise ConfigurationError(
                "a profile needs a compensation of one layout of requirements, and this one is of the published form, "
                "or without the descriptor, and reads features as they are; use feedback 'frame' or 'previous'"
            )
        self.neutral = Fuser(
            found.network, engine=engine, precision=precision, tile_pixels=tile_pixels, max_pixels=max_pixels
        )
        self.compensation = deepcopy(found.compensation).to("cpu").eval()
        self.neutral.engine.take(self.compensation)
        self.tasks = found.tasks
        self.task_network = task_network
        self.first_look = first_look
        self.seen: Any = None
        self._previous: Tensor | None = None

    def __repr__(self) -> str:
        network = "a profile" if self.task_network is None else type(self.task_network).__name__
        return f"ClosedLoopFuser({self.neutral!r} for {network}, strength={self.strength}, feedback={self.feedback!r})"

    @property
    def strength(self) -> float:
        """How much of the compensation is used, in [0, 1]."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ConfigurationError(f"the strength of the closed loop is from 0 to 1, not {value}")
        self._strength = value

    def reset(self) -> None:
        """Forgets the frame before, as where another video begins."""
        self._previous, self.seen = None, None

    def __call__(
        self,
        infrared: Images,
        visible: Images,
        *,
        infrared_levels: str = INFRARED_DEFAULT,
        visible_levels: str = VISIBLE_DEFAULT,
        align: Align = "none",
    ) -> Any:
        """Fuses one pair or several for the task network.

        Several are one after the other: with feedback "previous" a batch or list is taken as the frames of a video.

        Args:
            infrared: See `Fuser.__call__`.
            visible: See `Fuser.__call__`.
            infrared_levels: See `Fuser.__call__`.
            visible_levels: See `Fuser.__call__`.
            align: See `Fuser.__call__`.

        Returns:
            The fused images in the kind of `visible`.

        Raises:
            ImageError: An image is of an unsupported kind, unreadable, too small, too large, or not finite.
            PairError: The two differ in number or, with `align="none"`, in size.
            ConfigurationError: An option is unknown, a frame is too large for the loop, or the task network gives no
                usable feature.
        """
        fuse = partial(self.fuse_picture, infrared_levels=infrared_levels, visible_levels=visible_levels, align=align)
        return fuse_images(fuse, infrared, visible, self.neutral.max_pixels)

    def open_loop(self, infrared: Images, visible: Images, **options: Any) -> Any:
        """Fuses for nobody in particular: the neutral image, as `Fuser` makes it; arguments are those of a call."""
        return self.neutral(infrared, visible, **options)

    @torch.no_grad()
    def fuse_picture(
        self,
        infrared: Picture,
        visible: Picture,
        *,
        infrared_levels: str = INFRARED_DEFAULT,
        visible_levels: str = VISIBLE_DEFAULT,
        align: Align = "none",
    ) -> Picture:
        """Fuses one pair of pictures; arguments, result and errors are those of a call and of `Fuser.fuse_picture`."""
        options: Any = {"infrared_levels": infrared_levels, "visible_levels": visible_levels, "align": align}
        if self.strength == 0:
            return self.neutral.fuse_picture(infrared, visible, **options)
        pair = self.neutral.open_pair(infrared, visible, **options)
        frame = whole_frame(self.neutral, *visible.pixels.shape[:2])
        thermal, luma = pair.read(frame)
        if self._profile is not None:
            fused = self._customise(self.neutral.engine.encode_first(thermal, luma), self._profile.requirement)
        elif self.feedback == "previous":
            fused = self._after_previous(pair, thermal, luma)
        else:
            fused = self._after_first_look(pair, thermal, luma)
        return Picture(pair.raw(pair.recoloured(frame, luma, fused)), visible.alpha)

    def _after_first_look(self, pair: UnitPair, infrared: Tensor, luma: Tensor) -> Tensor:
        engine = self.neutral.engine
        first = engine.encode_first(infrared, luma)
        if self.first_look == 1:
            neutral = engine.finish(*first)
            return self._customise(first, self._requirement(_coloured(pair, luma, neutral)))
        small_infrared, small_luma = (self._small(image) for image in (infrared, luma))
        neutral = engine.fuse(small_infrared, small_luma)
        # The change of the luma is that of every channel, see `UnitPair.recoloured`.
        image = self._small(_coloured(pair, luma, luma)) + (neutral - small_luma)
        return self._customise(first, self._requirement(image))

    def _after_previous(self, pair: UnitPair, infrared: Tensor, luma: Tensor) -> Tensor:
        first = self.neutral.engine.encode_first(infrared, luma)
        fused = self._customise(first, self._previous)
        self._previous = self._requirement(_coloured(pair, luma, fused))
        return fused

    def _customise(self, first: Features, requirement: Tensor | None) -> Tensor:
        """The second pass, B×1×H×W; neutral without a requirement."""
        if requirement is None:
            return self.neutral.engine.finish(*first)
        engine = self.neutral.engine
        return engine.finish(*first, partial(engine.compensate, requirement=requirement, strength=self.strength))

    def _requirement(self, images: Tensor) -> Tensor:
        assert self.task_network is not None
        self.seen, feature = look(self.task_network, images)
        return self.compensation.describe(feature)

    def _small(self, images: Tensor) -> Tensor:
        smallest = self.neutral.network.minimum_side
        size = [max(smallest, round(self.first_look * side)) for side in images.shape[2:]]
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def _coloured(pair: UnitPair, before: Tensor, after: Tensor) -> Tensor:
    """A whole frame with another luma as a task network sees it, 1×3×H×W."""
    height, width = before.shape[2:]
    return as_images(pair.recoloured(Box(0, 0, height, width), before, after))


def _profile_of(feedback: str | Profile) -> Profile | None:
    """The profile that a feedback names, None where it is another one.

    Raises:
        ConfigurationError: There is no such feedback.
        WeightsError: The file holds no profile.
    """
    if isinstance(feedback, Profile):
        return feedback
    if feedback.startswith(PROFILE):
        return read_profile(feedback.removeprefix(PROFILE))
    if feedback not in FEEDBACKS:
        near = difflib.get_close_matches(feedback.lower(), FEEDBACKS, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigurationError(f"unknown feedback {feedback!r}; {guess}Give one of {', '.join(FEEDBACKS)}")
    return None
