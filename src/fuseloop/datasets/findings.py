"""What is found when the files of a data set are looked at: of which kind, in which file, on which line, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BROKEN = {
    "no partner": "an image of one modality without the other",
    "no label": "a pair without the label file that its data set keeps for every pair; an empty one says that nothing "
    "is there",
    "no images": "a label file without its pair",
    "unreadable image": "an image that is missing, empty, truncated or no image",
    "size": "two images of a pair that differ in size",
    "unreadable label": "a label file that is missing or cannot be read",
    "malformed": "a line or an object that is no box",
    "class": "a box of a class that the data set does not have",
    "outside": "a box that leaves the image by more than a pixel",
    "degenerate": "a box without area",
    "mask size": "a mask of another size than its images",
    "mask id": "a mask with an id that the data set does not have",
}
"""Kinds of findings that make a frame unusable, and what they mean."""

NOTED = {
    "no objects": "a label file without boxes, which says that nothing is there",
    "nothing salient": "a saliency mask without a salient pixel",
    "clipped": "a box that leaves the image by at most a pixel, and is clipped",
    "repeated": "a box that stands twice in a file",
    "noted size": "a VOC file that notes another size than that of its images",
    "not labelled": "labels that the layout or `classes.yaml` makes one expect and that are not there",
    "other split": "frames that the shipped list of splits names and that are not there",
    "unused": "label files of a folder for all splits that belong to no pair of any",
}
"""Kinds of findings that are legal and worth knowing, and what they mean."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: One of `BROKEN` or `NOTED`.
        file: The file or folder.
        reason: What is wrong there, and what to do.
        line: Line of a text file, from 1; None for what has no lines.
        frame: The frame that it makes unusable; None where that is no single one.
    """

    kind: str
    file: Path
    reason: str
    line: int | None = None
    frame: str | None = None

    @property
    def broken(self) -> bool:
        """Whether it makes a frame unusable."""
        return self.kind in BROKEN

    def __str__(self) -> str:
        """Place and reason: ``labels/00012.txt:3: ...``."""
        place = f"{self.file}" if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"


def broken(findings: Sequence[Finding]) -> list[Finding]:
    """Those that make a frame unusable."""
    return [finding for finding in findings if finding.broken]
