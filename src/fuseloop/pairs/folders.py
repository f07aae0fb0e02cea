"""Pairing the files of two folders by their names."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted

from fuseloop.errors import PairError
from fuseloop.pairs.images import is_image


class PairPaths(NamedTuple):
    """The two files of a pair.

    Attributes:
        name: What their names have in common: the stem without the suffix of the modality.
        infrared: The infrared file.
        visible: The visible file.
    """

    name: str
    infrared: Path
    visible: Path


class Pairing(NamedTuple):
    """The pairs of two folders in natural order, and the images of both that have no partner."""

    pairs: list[PairPaths]
    unpaired: list[Path]


def pair_folders(
    infrared: str | PathLike[str],
    visible: str | PathLike[str],
    *,
    infrared_suffix: str = "",
    visible_suffix: str = "",
) -> Pairing:
    """Pairs the images of two folders by their stems, whatever their extensions.

    Files that are no images by their extension, hidden files and sub-folders are passed over.

    Args:
        infrared: Folder of the infrared images.
        visible: Folder of the visible images; may be the same folder when the suffixes differ.
        infrared_suffix: End of the infrared stems that is not part of the name, such as `_ir` in `x_ir.png`.
        visible_suffix: The same for the visible stems.

    Returns:
        The pairs in natural order (`x2` before `x10`), and every image without a partner.

    Raises:
        PairError: A folder is missing or empty, two files of a folder have the same name but for the extension,
            or no name occurs on both sides.
    """
    infrared_files = list_images(Path(infrared))
    visible_files = list_images(Path(visible))
    infrared_names = _by_name(infrared_files, infrared_suffix)
    visible_names = _by_name(visible_files, visible_suffix)
    common = infrared_names.keys() & visible_names.keys()
    pairs = [PairPaths(name, infrared_names[name], visible_names[name]) for name in natsorted(common)]
    # Two suffixes that let one file stand on both sides would fuse it with itself.
    pairs = [pair for pair in pairs if pair.infrared != pair.visible]
    if not pairs:
        raise PairError(
            f"no image of {infrared} has the same name as one of {visible}: "
            f"{some_names(path.stem for path in infrared_files)} against "
            f"{some_names(path.stem for path in visible_files)}; "
            "rename them, or say by suffixes how the names of the two modalities end"
        )
    paired = {path for pair in pairs for path in (pair.infrared, pair.visible)}
    unpaired = natsorted({*infrared_files, *visible_files} - paired, key=str)
    return Pairing(pairs, unpaired)


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order; other files, hidden files and sub-folders are passed over.

    Raises:
        PairError: The folder is missing or holds no images.
    """
    try:
        files = [path for path in folder.iterdir() if is_image(path) and path.is_file()]
    except OSError as problem:
        raise PairError(f"{folder}: cannot be read as a folder ({problem.strerror}); check the path") from problem
    if not files:
        raise PairError(f"{folder}: holds no images; check the path")
    return natsorted(files, key=str)


def _by_name(files: list[Path], suffix: str) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in files:
        if not path.stem.endswith(suffix):
            continue
        name = path.stem.removesuffix(suffix)
        if name in names:
            raise PairError(f"{names[name]} and {path} have the same name; keep one of them")
        names[name] = path
    return names


def some_names(names: Iterable[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
