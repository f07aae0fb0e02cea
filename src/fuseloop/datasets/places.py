"""Where the layouts of the table are found on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import yaml
from natsort import natsorted

from fuseloop.datasets.labels import BOX_ENDINGS
from fuseloop.datasets.table import GENERIC, INFRARED_FOLDERS, SPLIT, VISIBLE_FOLDERS, DataSet, Layout
from fuseloop.errors import PairError
from fuseloop.pairs.folders import PairPaths, pair_folders
from fuseloop.pairs.images import is_image


class Place(NamedTuple):
    """Where a layout was found.

    Attributes:
        layout: The layout.
        split: The split; empty for the root itself.
        listed: Names that the list of splits gives to this one; None without a list.
        prefix: What stands before the names of its frames.
        root: The root.
        pairs: The pairs of images.
        unpaired: Images without a partner.
        labels: The folder of each kind of labels that is there.
    """

    layout: Layout
    split: str
    listed: frozenset[str] | None
    prefix: str
    root: Path
    pairs: list[PairPaths]
    unpaired: list[Path]
    labels: dict[str, Path]


def find_place(row: DataSet, root: Path, split: str) -> Place:
    """Where a split lies, or the data set itself: in the layout with most of its labels there, of equals the first.

    Raises:
        PairError: Nowhere; the message says what was expected where.
    """
    matches = [match for layout in row.layouts if (match := _match(layout, row, root, split)) is not None]
    if not matches:
        raise PairError(_not_found(row, root, split))
    infrared, visible, layout = max(matches, key=lambda match: len(_label_folders(match[2], root, split)))
    pairing = pair_folders(infrared, visible)
    pairs, unpaired = pairing.pairs, pairing.unpaired
    listed = None
    if split and SPLIT not in layout.infrared:
        listed = read_split(row.key)[split.lower()]
        pairs = [pair for pair in pairs if pair.name in listed]
        unpaired = [path for path in unpaired if path.stem in listed]
        if not pairs:
            raise PairError(f"{root}: none of its {len(pairing.pairs)} pairs is in the split {split!r} of {row.title}")
    return Place(layout, split, listed, "", root, pairs, unpaired, _label_folders(layout, root, split))


class _Match(NamedTuple):
    """The folders of the two modalities, and the layout that leads to them."""

    infrared: Path
    visible: Path
    layout: Layout


def _match(layout: Layout, row: DataSet, root: Path, split: str) -> _Match | None:
    """The folders of a layout when both hold images."""
    if split and SPLIT not in layout.infrared and not (row.listed and split.lower() in row.splits):
        return None
    infrared, visible = (_folder(root, place, split, _holds_images) for place in (layout.infrared, layout.visible))
    return None if infrared is None or visible is None else _Match(infrared, visible, layout)


def _label_folders(layout: Layout, root: Path, split: str) -> dict[str, Path]:
    """The folder of each kind of labels that is there and holds files of that kind."""
    there = {}
    for part, place in layout.labels.items():
        folder = _folder(root, place, split, _holds_boxes if part == "boxes" else _holds_images)
        if folder is not None:
            there[part] = folder
    return there


def _folder(root: Path, place: str, split: str, holds: Callable[[Path], bool]) -> Path | None:
    """The folder of a place that holds what it should; None when there is none.

    Raises:
        PairError: There are several; which is meant cannot be told.
    """
    found = [folder for folder in folders_of(root, place, split) if holds(folder)]
    if len(found) > 1:
        names = " and ".join(str(folder.relative_to(root)) for folder in found)
        raise PairError(f"{root} holds {names}, of which one folder is expected; move the others, or write a manifest")
    return found[0] if found else None


def folders_of(root: Path, place: str, split: str) -> list[Path]:
    """All folders of a place, in any case; of names that differ in case alone, the exact one."""
    folders = [root]
    for part in place.split("/") if place else []:
        if part == SPLIT and not split:
            continue
        names = [split] if part == SPLIT else part.split("|")
        folders = [child for folder in folders for name in names for child in _children(folder, name)]
    return folders


def _children(folder: Path, name: str) -> list[Path]:
    if not folder.is_dir():
        return []
    alike = [path for path in folder.iterdir() if path.name.casefold() == name.casefold() and path.is_dir()]
    return [path for path in alike if path.name == name] or alike


def _holds_images(folder: Path) -> bool:
    return any(is_image(path) for path in folder.iterdir())


def _holds_boxes(folder: Path) -> bool:
    return any(map(is_box_file, folder.iterdir()))


def is_box_file(path: Path) -> bool:
    """Whether a file counts as a label file with boxes by its name; LabelImg puts a `classes.txt` beside them."""
    return path.suffix.lower() in BOX_ENDINGS and not path.name.startswith(".") and path.name != "classes.txt"


def expected(row: DataSet, split: str = "") -> str:
    """What a root must hold."""
    if row is GENERIC:
        infrared, visible = (names.replace("|", ", ") for names in (INFRARED_FOLDERS, VISIBLE_FOLDERS))
        where = f" for {split!r}" if split else ""
        return (
            f"expected one infrared folder ({infrared}) and one visible folder ({visible}){where} with images of the "
            "same names"
        )
    forms = dict.fromkeys(
        f"{written(layout.infrared, split)} for infrared and {written(layout.visible, split)} for visible images"
        for layout in row.layouts
    )
    splits = f", where SPLIT is {', '.join(row.splits)} or nothing" if any("SPLIT" in form for form in forms) else ""
    return f"expected, with the same names, {'; or '.join(forms)}{splits}; get it from {row.homepage}"


def written(place: str, split: str) -> str:
    """A place as a person reads it: "ir or thermal", "train/Infrared"."""
    return place.replace(SPLIT, split or "SPLIT").replace("|", " or ")


def _not_found(row: DataSet, root: Path, split: str) -> str:
    there = splits_of(row, root)
    if there and not split:
        joined = f" or {root}:{'+'.join(there[:2])}" if len(there) > 1 else ""
        return f"{root} holds the splits {', '.join(there)}; say which, as in {root}:{there[0]}{joined}"
    folders = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) or "no folders"
    what = "pairs" if row is GENERIC else row.title
    if split:
        what = f"pairs of split {split!r}" if row is GENERIC else f"split {split!r} of {what}"
    known = there or row.splits
    others = f"; its splits are {', '.join(known)}" if split and known else ""
    return f"no {what} found in {root}, which holds {folders}{others}; {expected(row, split)}"


def splits_of(row: DataSet, root: Path) -> list[str]:
    """The splits that are folders under a root, in natural order; those of the table first."""
    there: set[str] = set()
    for layout in row.layouts:
        head, marker, _ = layout.infrared.partition(SPLIT)
        for parent in folders_of(root, head.rstrip("/"), "") if marker else []:
            candidates = [path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
            there |= {name for name in candidates if _match(layout, row, root, name) is not None}
    return sorted(natsorted(there), key=lambda name: _rank(row, name))


def _rank(row: DataSet, split: str) -> int:
    return row.splits.index(split.lower()) if split.lower() in row.splits else len(row.splits)


@cache
def read_split(key: str) -> Mapping[str, frozenset[str]]:
    """The shipped list of splits of a data set: the names of the frames of each."""
    text = (files("fuseloop.datasets") / "splits" / f"{key}.yaml").read_text("utf-8")
    splits: dict[str, frozenset[str]] = {}
    for name, ranges in yaml.safe_load(text)["splits"].items():
        names: list[str] = []
        for span in ranges:
            first, last = span.split("-")
            names += [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
        splits[name] = frozenset(names)
    return splits
