"""Names of classes: those of the table, and those of a user's `classes.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fuseloop.datasets.table import GENERIC, DataSet
from fuseloop.errors import ConfigurationError

CLASSES_FILE = "classes.yaml"


@dataclass(frozen=True)
class ClassNames:
    """The classes of a data set.

    Attributes:
        boxes: Names of the classes of boxes, by their number.
        segmentation: Names of the segmentation ids, the background first.
        numbered: Names that the numbers in YOLO files stand for, where a data set is numbered otherwise on disk.
    """

    boxes: tuple[str, ...] = ()
    segmentation: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()

    def of_name(self, name: str) -> int | None:
        """The class of a name, in any case."""
        known = {_plain(own): number for number, own in enumerate(self.boxes)}
        return known.get(_plain(name))

    def of_number(self, number: int) -> int | None:
        """The class that a number in a YOLO file stands for."""
        names = self.numbered or self.boxes
        return self.of_name(names[number]) if 0 <= number < len(names) else None


def read_names(row: DataSet, root: Path, labels: Mapping[str, Path]) -> ClassNames:
    """The classes of a data set: those of its row, or of the `classes.yaml` in its folder or the one above.

    Args:
        row: The row of the table.
        root: The folder.
        labels: Where each kind of labels lies, of those that are there.

    Raises:
        ConfigurationError: The file is malformed, names a class that the row does not have, or is missing where
            labels cannot be understood without it.
    """
    path = next((folder / CLASSES_FILE for folder in (root, root.parent) if (folder / CLASSES_FILE).is_file()), None)
    own = read_classes(path) if path is not None else ClassNames()
    if row.box_names or row.segmentation_names:
        numbered = own.boxes
        strange = [name for name in numbered if ClassNames(row.box_names).of_name(name) is None]
        if strange:
            raise ConfigurationError(
                f"{path}: {', '.join(strange)} are no classes of {row.title}, which has {', '.join(row.box_names)}; "
                f"read other classes as a folder of your own: {GENERIC.key}:{root}"
            )
        return ClassNames(row.box_names, row.segmentation_names, numbered)
    for part in ("boxes", "segmentation"):
        if part in labels and not getattr(own, part):
            example = "person, car" if part == "boxes" else "background, person, car"
            raise ConfigurationError(
                f"{labels[part]} holds {part} whose classes are not named; write {root / CLASSES_FILE} with a line "
                f"such as {part}: [{example}]"
            )
    return own


def read_classes(path: Path) -> ClassNames:
    """Reads a file of class names: `boxes` and `segmentation`, each a list, or a mapping from numbers to names.

    Raises:
        ConfigurationError: It is malformed.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise ConfigurationError(f"{path}: cannot be read as YAML ({problem})") from problem
    if not isinstance(content, dict) or not {*content} <= {"boxes", "segmentation"}:
        raise ConfigurationError(f"{path}: expected the keys boxes and segmentation, each with a list of names")
    return ClassNames(*(_listed(path, key, content.get(key) or []) for key in ("boxes", "segmentation")))


def _listed(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[number] for number in range(len(value))]
    names = [str(name) for name in value] if isinstance(value, list) else []
    if not isinstance(value, list) or len({name.casefold() for name in names}) < len(names):
        raise ConfigurationError(f"{path}: {key} is not a list of different names, one for each number from 0")
    return tuple(names)


def _plain(name: str) -> str:
    """A name as it is compared: "Car_Stop" and "car stop" are one."""
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())
