"""Looks at every file of a labelled data set: what is there, what is broken, how many there are of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.files import LabelledScenes, Reading, read_frame
from fuseloop.datasets.finder import find_frames
from fuseloop.datasets.findings import Finding, broken
from fuseloop.datasets.labelled import IGNORED, SALIENT, LabelledPair
from fuseloop.datasets.manifest import manifest_splits
from fuseloop.datasets.places import splits_of
from fuseloop.datasets.spec import MANIFEST, SYNTHETIC, Spec, scene_numbers
from fuseloop.errors import ConfigurationError

Counts = NDArray[np.int64]
_IDS = IGNORED + 1


@dataclass(frozen=True)
class ClassCount:
    """How much there is of a class in the frames that can be used.

    Attributes:
        name: Of the class.
        count: Boxes, or pixels.
        frames: Frames with at least one.
    """

    name: str
    count: int
    frames: int


@dataclass(frozen=True)
class Source:
    """Frames to look at.

    Attributes:
        title: What they are.
        frames: Their names.
        names: The classes.
        labels: The kinds of labels that are there.
        findings: What is wrong with the files as such.
        read: Reads frame `i`.
    """

    title: str
    frames: tuple[str, ...]
    names: ClassNames
    labels: tuple[str, ...]
    findings: tuple[Finding, ...]
    read: Callable[[int], Reading]


@dataclass(frozen=True)
class Checked:
    """What was found in a data set, or in a split of it.

    Attributes:
        title: What was looked at.
        frames: How many frames there are, the broken ones among them.
        usable: Names of the frames that can be used.
        labels: The kinds of labels that are there.
        sizes: How many usable frames there are of each width and height.
        boxes: Boxes of each class.
        pixels: Pixels of each segmentation id, and of those that are ignored.
        salient_frames: Usable frames with a salient pixel.
        salient_share: Share of their pixels that are salient, over all usable frames with a mask; 0 without any.
        findings: All that is broken or worth knowing.
    """

    title: str
    frames: int
    usable: tuple[str, ...]
    labels: tuple[str, ...]
    sizes: dict[tuple[int, int], int]
    boxes: tuple[ClassCount, ...]
    pixels: tuple[ClassCount, ...]
    salient_frames: int
    salient_share: float
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> list[Finding]:
        """What makes frames unusable."""
        return broken(self.findings)

    @property
    def notes(self) -> dict[str, list[Finding]]:
        """What is legal and worth knowing, by its kind."""
        kinds: dict[str, list[Finding]] = {}
        for finding in self.findings:
            if not finding.broken:
                kinds.setdefault(finding.kind, []).append(finding)
        return kinds


class _Seen(NamedTuple):
    """What is kept of a frame: little, since there may be many.

    Attributes:
        findings: What was found.
        size: Width and height; None when the frame is broken, and nothing else counts.
        boxes: Boxes of each class.
        pixels: Pixels of each id.
        salient: Salient pixels.
        masked: Pixels of the saliency mask.
    """

    findings: list[Finding]
    size: tuple[int, int] | None
    boxes: Counts
    pixels: Counts
    salient: int
    masked: int


def _look(index: int, source: Source) -> _Seen:
    pair, findings = source.read(index)
    boxes, pixels, salient, masked = np.zeros(len(source.names.boxes), np.int64), np.zeros(_IDS, np.int64), 0, 0
    if pair is None:
        return _Seen(findings, None, boxes, pixels, salient, masked)
    if pair.classes is not None:
        boxes = np.bincount(pair.classes, minlength=len(boxes))
    if pair.segmentation is not None:
        pixels = np.bincount(pair.segmentation.ravel(), minlength=_IDS)
    if pair.saliency is not None:
        salient, masked = int(np.count_nonzero(pair.saliency >= SALIENT)), pair.saliency.size
    height, width = pair.infrared.shape
    return _Seen(findings, (width, height), boxes, pixels, salient, masked)


def sources(spec: Spec) -> list[Source]:
    """What a specification names; each split by itself where it names none and the data set has several.

    Raises:
        PairError: There are no pairs.
        ConfigurationError: The specification, the manifest or the names of classes make no sense.
    """
    if spec.name == SYNTHETIC:
        count, seed = scene_numbers(spec)
        scenes = LabelledScenes(count, seed)
        names = ClassNames(scenes.box_names, scenes.segmentation_names)
        frames = tuple(f"{index:05d}" for index in range(count))
        return [Source(scenes.describe(), frames, names, scenes.labels, (), lambda index: Reading(scenes[index], []))]
    splits = [spec.split]
    if not spec.split:
        there = manifest_splits(Path(spec.path)) if spec.name == MANIFEST else _folder_splits(spec)
        splits = there or splits
    return [_files(spec._replace(split=split)) for split in splits]


def _folder_splits(spec: Spec) -> list[str]:
    """The folders of splits; none where the folder itself holds the pairs."""
    root = Path(spec.path)
    return splits_of(spec.row, root) if root.is_dir() else []


def _files(spec: Spec) -> Source:
    found = find_frames(spec)

    def read(index: int) -> Reading:
        return read_frame(found.frames[index], found.names)

    return Source(
        found.title, tuple(frame.name for frame in found.frames), found.names, found.labels, found.findings, read
    )


def check(source: Source, *, workers: int | None = None, report: Callable[[], None] = lambda: None) -> Checked:
    """Reads every frame and counts what is in it.

    Args:
        source: The frames.
        workers: How many are read at a time; by default a few more than there are cores.
        report: Called after every frame.
    """
    bad = {finding.frame for finding in broken(source.findings)}
    seen: dict[str, _Seen] = {}
    with ThreadPoolExecutor(workers) as threads:
        try:
            running = threads.map(partial(_look, source=source), range(len(source.frames)))
            for name, look in zip(source.frames, running, strict=True):
                seen[name] = look
                report()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    good = {name: look for name, look in seen.items() if look.size is not None and name not in bad}
    looks = list(good.values())
    masked = sum(look.masked for look in looks)
    return Checked(
        title=source.title,
        frames=len({*source.frames} | {name for name in bad if name is not None}),
        usable=tuple(good),
        labels=source.labels,
        sizes=dict(Counter(look.size for look in looks if look.size is not None).most_common()),
        boxes=_count(source.names.boxes, [look.boxes for look in looks]) if "boxes" in source.labels else (),
        pixels=_count_ids(source.names, [look.pixels for look in looks]) if "segmentation" in source.labels else (),
        salient_frames=sum(look.salient > 0 for look in looks),
        salient_share=sum(look.salient for look in looks) / masked if masked else 0.0,
        findings=(*source.findings, *(finding for look in seen.values() for finding in look.findings)),
    )


def _count(names: Sequence[str], counts: Sequence[Counts]) -> tuple[ClassCount, ...]:
    """The first counts of all frames by the names of their classes."""
    if not counts:
        return ()
    totals, frames = np.sum(counts, axis=0), np.sum(np.array(counts) > 0, axis=0)
    return tuple(ClassCount(name, int(totals[number]), int(frames[number])) for number, name in enumerate(names))


def _count_ids(names: ClassNames, counts: Sequence[Counts]) -> tuple[ClassCount, ...]:
    ignored = _count(["ignored"], [frame[IGNORED:] for frame in counts])
    return (*_count(names.segmentation, counts), *(count for count in ignored if count.count))


def read_some(source: Source, checked: Checked, count: int) -> list[LabelledPair]:
    """Usable frames, spread evenly over all of them.

    Args:
        source: The frames.
        checked: What was found in them.
        count: How many at most.

    Raises:
        ConfigurationError: `count` is below 1.
    """
    if count < 1:
        raise ConfigurationError(f"at least one frame can be shown, got {count}")
    places = np.linspace(0, len(checked.usable) - 1, min(count, len(checked.usable))).round().astype(int)
    numbers = {name: index for index, name in enumerate(source.frames)}
    readings = [source.read(numbers[checked.usable[place]]) for place in places]
    return [reading.pair for reading in readings if reading.pair is not None]
