"""The frames of a data set as files, before any of them is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.findings import Finding
from fuseloop.datasets.table import LABEL_PARTS


@dataclass(frozen=True)
class Frame:
    """The files of one frame; what is None is not labelled.

    Attributes:
        name: What the names of its files have in common, with the split in front where splits are joined.
        infrared: The infrared image.
        visible: The visible image.
        boxes: VOC XML or YOLO text.
        segmentation: A mask of class ids.
        saliency: A saliency mask.
        edges: An edge map.
    """

    name: str
    infrared: Path
    visible: Path
    boxes: Path | None = None
    segmentation: Path | None = None
    saliency: Path | None = None
    edges: Path | None = None


@dataclass(frozen=True)
class Found:
    """The frames of a data set or of a split of it.

    Attributes:
        title: What they are and where, in a few words.
        frames: Every frame with both images and all labels that its layout promises.
        names: The classes.
        findings: What is wrong with the files as such.
    """

    title: str
    frames: tuple[Frame, ...]
    names: ClassNames
    findings: tuple[Finding, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The kinds of labels that are there."""
        return tuple(part for part in LABEL_PARTS if any(getattr(frame, part) for frame in self.frames))
