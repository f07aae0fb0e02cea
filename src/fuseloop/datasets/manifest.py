"""CSV manifests: a line for each frame, for data that lies as no layout has it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from natsort import natsorted

from fuseloop.datasets.found import Frame
from fuseloop.datasets.table import LABEL_PARTS
from fuseloop.errors import ConfigurationError, PairError

_FILES = ("infrared", "visible", *LABEL_PARTS)
COLUMNS = ("name", *_FILES, "split")


def read_manifest(path: Path, split: str = "") -> list[Frame]:
    """Reads the frames of a manifest in its order.

    The first line names the columns: `infrared` and `visible`, and any of `name` (by default the stem of the visible
    file), `boxes`, `segmentation`, `saliency`, `edges` and `split`. Files are relative to the folder of the manifest;
    a cell that is empty is not labelled.

    Args:
        path: The file, UTF-8.
        split: One split, or several as "train+val"; it must be named where the manifest has splits.

    Raises:
        PairError: The file is missing, or no frame is of that split.
        ConfigurationError: The file is malformed, or has splits and none is named. The message names the line.
    """
    rows = list(_rows(path))
    splits = natsorted({row["split"] for _, row in rows if row["split"]})
    wanted = split.split("+") if split else []
    if splits and not wanted:
        raise ConfigurationError(f"{path} has the splits {', '.join(splits)}; say which, as in {path}:{splits[0]}")
    strange = [name for name in wanted if name not in splits]
    if strange:
        known = f"its splits are {', '.join(splits)}" if splits else "it has no column split"
        raise PairError(f"{path} has no frame of the split {strange[0]!r}; {known}")
    frames: list[Frame] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        if wanted and row["split"] not in wanted:
            continue
        name = row["name"] or Path(row["visible"]).stem
        if name in lines:
            raise ConfigurationError(
                f"{path}:{line}: is called {name!r} as is line {lines[name]}; give a column name with different ones"
            )
        lines[name] = line
        files = {part: path.parent / row[part] for part in _FILES if row[part]}
        frames.append(Frame(name, **files))
    return frames


def manifest_splits(path: Path) -> list[str]:
    """The splits that a manifest names, in natural order.

    Raises:
        PairError: The file is missing.
        ConfigurationError: The file is malformed. The message names the line.
    """
    return natsorted({row["split"] for _, row in _rows(path) if row["split"]})


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a manifest with their numbers, every column there."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="", strict=True)
            columns = [column.strip() for column in reader.fieldnames or []]
            strange = [column for column in columns if column not in COLUMNS]
            if strange or len(set(columns)) < len(columns) or not {"infrared", "visible"} <= {*columns}:
                any_of = ", ".join(column for column in COLUMNS if column not in ("infrared", "visible"))
                raise ConfigurationError(
                    f"{path}:1: the columns are {', '.join(columns) or 'none'}; "
                    f"expected infrared and visible, and any of {any_of}, each once"
                )
            reader.fieldnames = columns
            empty = True
            for row in reader:
                empty = False
                if "" in row:
                    raise ConfigurationError(f"{path}:{reader.line_num}: has more cells than there are columns")
                cells = {column: row.get(column, "").strip() for column in COLUMNS}
                for column in ("infrared", "visible"):
                    if not cells[column]:
                        raise ConfigurationError(f"{path}:{reader.line_num}: the cell {column} is empty")
                yield reader.line_num, cells
            if empty:
                raise PairError(f"{path}: has no line below its columns")
    except OSError as problem:
        raise PairError(f"{path}: cannot be read ({problem.strerror}); check the path") from problem
    except (csv.Error, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"{path}: is no CSV file in UTF-8 ({problem})") from problem
