"""What was found in a data set, as lines and tables to read and as JSON, which has everything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from fuseloop.datasets.check import Checked, ClassCount
from fuseloop.datasets.findings import NOTED, Finding
from fuseloop.pairs.atomic import written_aside


class Table(NamedTuple):
    """A table to print: its head, and its rows."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def summary(checked: Checked) -> str:
    """What is there, in a line."""
    usable = "all usable" if len(checked.usable) == checked.frames else f"{len(checked.usable)} usable"
    labels = ", ".join(checked.labels) or "no labels"
    line = f"{checked.title}: {checked.frames} frames, {usable}; {labels}"
    if checked.sizes:
        sizes = [f"{width}x{height}" for width, height in checked.sizes]
        line += f"; {sizes[0]}" if len(sizes) == 1 else f"; {len(sizes)} sizes, most often {sizes[0]}"
    if "saliency" in checked.labels:
        line += f"; {checked.salient_frames} frames with something salient, {checked.salient_share:.1%} of the pixels"
    return line


def tables(checked: Checked) -> list[Table]:
    """The classes of boxes and of segmentation ids."""
    kinds = {"boxes": checked.boxes, "pixels": checked.pixels}
    return [
        Table(("class", kind, "share", "frames"), [_row(count, counts) for count in counts])
        for kind, counts in kinds.items()
        if counts
    ]


def _row(one: ClassCount, all_: Sequence[ClassCount]) -> tuple[str, ...]:
    total = sum(count.count for count in all_)
    return one.name, f"{one.count:,}", f"{one.count / total:.1%}" if total else "", f"{one.frames:,}"


def notes(checked: Checked) -> list[str]:
    """What is legal and worth knowing: a line for each kind."""
    lines = []
    for kind, findings in checked.notes.items():
        more = f" (and {len(findings) - 1} more: {NOTED[kind]})" if len(findings) > 1 else ""
        lines.append(f"{findings[0]}{more}")
    return lines


def write_json(path: Path, checks: Sequence[Checked], *, overwrite: bool = False) -> None:
    """Writes all that was found, whole or not at all.

    Raises:
        ImageError: The file exists and may not be replaced, or the system refused to write.
    """
    text = json.dumps(as_document(checks), indent=1, ensure_ascii=False) + "\n"
    with written_aside(path, overwrite=overwrite) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that no text can hold


def as_document(checks: Sequence[Checked]) -> dict[str, Any]:
    """The content of the JSON file."""
    return {"fuseloop": version("fuseloop"), "checked": [_as_document(checked) for checked in checks]}


def _as_document(checked: Checked) -> dict[str, Any]:
    return {
        "title": checked.title,
        "frames": checked.frames,
        "usable": list(checked.usable),
        "labels": list(checked.labels),
        "sizes": {f"{width}x{height}": count for (width, height), count in checked.sizes.items()},
        "boxes": [asdict(count) for count in checked.boxes],
        "pixels": [asdict(count) for count in checked.pixels],
        "saliency": {"frames": checked.salient_frames, "share": checked.salient_share},
        "broken": [_finding(finding) for finding in checked.broken],
        "notes": [_finding(finding) for findings in checked.notes.values() for finding in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "file": str(finding.file)}
