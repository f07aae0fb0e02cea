"""Labelled data sets on disk, and the synthetic scenes as one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.finder import find_frames
from fuseloop.datasets.findings import Finding, broken
from fuseloop.datasets.found import Found, Frame
from fuseloop.datasets.labelled import IGNORED, SALIENT, LabelledPair, LabelledPairs
from fuseloop.datasets.labels import read_boxes, read_ids, read_saliency
from fuseloop.datasets.pixels import read_infrared, read_visible
from fuseloop.datasets.spec import SYNTHETIC, parse_spec, scene_numbers
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES, generate, scene_seed
from fuseloop.errors import ConfigurationError, FuseloopError, ImageError, LabelError, PairError
from fuseloop.pairs.images import read_size

OnError = Literal["raise", "skip"]
Size = tuple[int, int]
T = TypeVar("T")

_ERRORS: dict[str, type[FuseloopError]] = {"unreadable image": ImageError, "size": PairError}


class Reading(NamedTuple):
    """A frame as it was read: the pair, None when it is broken, and what was found."""

    pair: LabelledPair | None
    findings: list[Finding]


class LabelledFiles:
    """A labelled data set on disk; pairs are read when they are asked for.

    All labels and the headers of all images are looked at when it is made. So what is broken is known before work
    begins, but for images whose pixels are damaged: these raise when they are read.

    Args:
        found: Its frames.
        on_error: What becomes of frames that are broken: "raise" refuses the data set, "skip" leaves them out, and
            `describe` and `left_out` tell which.

    Attributes:
        box_names: Names of the classes of boxes.
        segmentation_names: Names of the segmentation ids.
        labels: The kinds of labels that are there: "boxes", "segmentation", "saliency", "edges".
        frames: The frames that can be used, in natural order.
        left_out: What was wrong with the others.

    Raises:
        LabelError: A frame is broken and `on_error` is "raise", or all are.
        ConfigurationError: `on_error` is neither.
    """

    def __init__(self, found: Found, on_error: OnError = "raise") -> None:
        if on_error not in get_args(OnError):
            raise ConfigurationError(f"on_error is {on_error!r}; it is one of {', '.join(get_args(OnError))}")
        self.title = found.title
        self.names = found.names
        self.box_names, self.segmentation_names = found.names.boxes, found.names.segmentation
        self.labels = found.labels
        with ThreadPoolExecutor() as threads:
            looked = threads.map(partial(check_frame, names=found.names), found.frames)
            self.left_out = tuple(broken(found.findings) + [item for items in looked for item in broken(items)])
        bad = {finding.frame for finding in self.left_out}
        self.frames = tuple(frame for frame in found.frames if frame.name not in bad)
        if bad and on_error == "raise":
            raise LabelError(
                f"{self.title}: {len(bad)} frames are broken, the first: {self.left_out[0]}; `fuseloop data check` "
                'lists all; mend them, or leave them out with on_error="skip"'
            )
        if not self.frames:
            raise LabelError(f"{self.title}: no frame can be used, the first because: {self.left_out[0]}")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledPair:
        reading = read_frame(self.frames[index], self.names)
        if reading.pair is None:
            finding = broken(reading.findings)[0]
            raise _ERRORS.get(finding.kind, LabelError)(str(finding))
        return reading.pair

    def describe(self) -> str:
        """What these pairs are, in one line."""
        labels = ", ".join(self.labels) or "no labels"
        left = len({finding.frame for finding in self.left_out})
        return f"{len(self)} pairs of {self.title} with {labels}" + (f", {left} broken ones left out" if left else "")


class LabelledScenes:
    """Synthetic scenes as a labelled data set, each drawn when it is asked for.

    Args:
        count: Number of scenes.
        seed: Seed of the set. Scene `i` of a seed is the same whatever the count.
        height: Rows of every scene.
        width: Columns of every scene.
    """

    box_names: tuple[str, ...] = BOX_NAMES
    segmentation_names: tuple[str, ...] = SEGMENTATION_NAMES
    labels: tuple[str, ...] = ("boxes", "segmentation", "saliency")
    left_out: tuple[Finding, ...] = ()

    def __init__(self, count: int, seed: int = 0, height: int = 240, width: int = 320) -> None:
        self.count, self.seed, self.height, self.width = count, seed, height, width

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> LabelledPair:
        index = range(self.count)[index]
        return LabelledPair.of(generate(scene_seed(self.seed, index), self.height, self.width), f"{index:05d}")

    def describe(self) -> str:
        """What these pairs are, in one line."""
        return f"{self.count} synthetic scenes of {self.width}x{self.height}, seed {self.seed}"


def open_labelled(spec: str, on_error: OnError = "raise") -> LabelledPairs:
    """Opens a labelled data set.

    Args:
        spec: ``PATH``, ``NAME:PATH``, ``NAME:PATH:SPLIT`` or ``synthetic:COUNT:SEED`` (see `parse_spec`).
        on_error: What becomes of frames that are broken: "raise" refuses the data set, "skip" leaves them out.

    Raises:
        ConfigurationError: The specification, the slice, the manifest or the names of classes make no sense.
        PairError: There are no pairs; the message says what was expected where.
        LabelError: A frame is broken and `on_error` is "raise", or all are.
    """
    parsed = parse_spec(spec)
    if parsed.name == SYNTHETIC:
        return LabelledScenes(*scene_numbers(parsed))
    return LabelledFiles(find_frames(parsed), on_error)


def read_frame(frame: Frame, names: ClassNames) -> Reading:
    """Reads the images and labels of a frame, and reports all that is wrong with them."""
    findings: list[Finding] = []
    infrared = _tried(frame.infrared, read_infrared, "unreadable image", findings)
    visible = _tried(frame.visible, read_visible, "unreadable image", findings)
    sizes = [None if pixels is None else _size(pixels) for pixels in (infrared, visible)]
    size = _one_size(frame, sizes, findings)
    labels = _read_labels(frame, names, size, findings)
    findings = [replace(finding, frame=frame.name) for finding in findings]
    if broken(findings) or infrared is None or visible is None:
        return Reading(None, findings)
    return Reading(LabelledPair(infrared, visible, **labels, name=frame.name), findings)


def check_frame(frame: Frame, names: ClassNames) -> list[Finding]:
    """Looks at the labels of a frame and the headers of its images, and reports all that is wrong with them."""
    findings: list[Finding] = []
    sizes = [_tried(path, read_size, "unreadable image", findings) for path in (frame.infrared, frame.visible)]
    _read_labels(frame, names, _one_size(frame, sizes, findings), findings)
    return [replace(finding, frame=frame.name) for finding in findings]


def _one_size(frame: Frame, sizes: list[Size | None], findings: list[Finding]) -> Size | None:
    """The size of both images; None where they differ or none is known."""
    known = {size for size in sizes if size is not None}
    if len(known) == 2:
        infrared, visible = (f"{size[1]}x{size[0]}" for size in sizes if size is not None)
        findings.append(Finding("size", frame.infrared, f"is {infrared}, {frame.visible} is {visible}; register them"))
    return known.pop() if len(known) == 1 else None


def _read_labels(frame: Frame, names: ClassNames, size: Size | None, findings: list[Finding]) -> dict[str, Any]:
    """The labels of a frame by their names in `LabelledPair`."""
    labels: dict[str, Any] = {}
    if frame.boxes is not None:
        boxes, found = read_boxes(frame.boxes, names, size)
        labels |= {"boxes": boxes.corners, "classes": boxes.classes}
        findings += found
    masks = {"segmentation": read_ids, "saliency": read_saliency, "edges": read_saliency}
    for part, read in masks.items():
        path = getattr(frame, part)
        mask = None if path is None else _tried(path, read, "unreadable label", findings)
        if mask is None:
            continue
        labels[part] = mask
        if size is not None and _size(mask) != size:
            reason = f"is {mask.shape[1]}x{mask.shape[0]}, its images are {size[1]}x{size[0]}"
            findings.append(Finding("mask size", path, reason))
        if part == "segmentation":
            findings += _strange_ids(path, mask, names)
        if part == "saliency" and not (mask >= SALIENT).any():
            findings.append(Finding("nothing salient", path, "marks nothing as salient"))
    return labels


def _strange_ids(path: Path, mask: NDArray[np.uint8], names: ClassNames) -> list[Finding]:
    """Ids that are no class."""
    last = len(names.segmentation) - 1
    strange = [int(value) for value in np.flatnonzero(np.bincount(mask.ravel())) if last < value != IGNORED]
    if not strange:
        return []
    row, column = np.argwhere(mask == strange[0])[0]
    ids = f"id {', '.join(map(str, strange[:5]))}" + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
    reason = f"holds the {ids}, first in row {row}, column {column}; ids are 0 to {last}, and {IGNORED} is ignored"
    return [Finding("mask id", path, reason)]


def _tried(path: Path, read: Callable[[Path], T], kind: str, findings: list[Finding]) -> T | None:
    """What a reader gives; None where it fails, which is noted."""
    try:
        return read(path)
    except ImageError as problem:
        findings.append(Finding(kind, path, str(problem).removeprefix(f"{path}: ")))
        return None


def _size(pixels: NDArray[Any]) -> Size:
    return pixels.shape[0], pixels.shape[1]
