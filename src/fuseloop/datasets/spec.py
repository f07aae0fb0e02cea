"""Specifications: how a configuration, a command or a call names a data set and the frames that it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, TypeVar

from fuseloop.datasets.table import DATA_SETS, GENERIC, DataSet
from fuseloop.errors import ConfigurationError

MANIFEST = "csv"
SYNTHETIC = "synthetic"
_FORMER = {"llvip-train": ("llvip", "", "train"), "llvip-test": ("llvip", "", "test")}

T = TypeVar("T")


class Spec(NamedTuple):
    """What a specification names.

    Attributes:
        name: A key of `DATA_SETS`, `MANIFEST` or `SYNTHETIC`.
        path: The folder or the manifest; count and seed of synthetic scenes.
        split: One split, or several as "train+val"; empty for what the folder itself holds.
        frames: Which of the frames.
    """

    name: str
    path: str
    split: str = ""
    frames: slice = slice(None)

    @property
    def row(self) -> DataSet:
        """The row of the table."""
        return DATA_SETS[self.name]

    @property
    def title(self) -> str:
        """What it names, in a few words."""
        own = self.name if self.name not in (GENERIC.key, MANIFEST) else ""
        what = " ".join(filter(None, (own, self.split)))
        return f"{what} in {self.path}" if what else self.path

    def choose(self, frames: Sequence[T]) -> list[T]:
        """The frames that the slice leaves.

        Raises:
            ConfigurationError: It is no slice, or leaves none.
        """
        try:
            chosen = list(frames[self.frames])
        except ValueError as problem:
            raise ConfigurationError(f"the slice of {self.title} makes no sense: {problem}") from None
        if frames and not chosen:
            raise ConfigurationError(f"the slice of {self.title} leaves none of its {len(frames)} frames")
        return chosen


_TAIL = re.compile(r"(?P<path>.+?):(?P<split>[\w.-]+(?:\+[\w.-]+)*)?(?P<slice>\[-?\d*(?::-?\d*){1,2}\])?")


def parse_spec(text: str) -> Spec:
    """Reads ``PATH``, ``NAME:PATH``, ``NAME:PATH:SPLIT``, ``PATH:SPLIT`` or ``synthetic:COUNT:SEED``.

    NAME is a key of `DATA_SETS`, or "csv" for a manifest. SPLIT is one split or several as ``train+val``, and may end
    with a slice of the frames as ``train[::10]``.

    Raises:
        ConfigurationError: The name is unknown.

    >>> parse_spec("fmb:data/FMB:train[::10]")
    Spec(name='fmb', path='data/FMB', split='train', frames=slice(None, None, 10))
    """
    name, colon, rest = text.partition(":")
    if colon and name == SYNTHETIC:
        return Spec(name, rest)
    if not colon or Path(text).exists():
        return Spec(GENERIC.key, text)
    if name in _FORMER:
        return Spec(*_FORMER[name])._replace(path=rest)
    known = [*DATA_SETS, MANIFEST]
    if name in known:
        return _with_split(name, rest)
    spec = _with_split(GENERIC.key, text)
    if Path(spec.path).exists():
        return spec
    near = get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigurationError(
        f"{text!r} is no folder, and {name!r} is no known data set{meant}; known are {', '.join([*known, SYNTHETIC])}"
    )


def _with_split(name: str, rest: str) -> Spec:
    """The path and the split of "PATH:SPLIT"; what exists as it stands is a path."""
    matched = None if Path(rest).exists() else _TAIL.fullmatch(rest)
    if matched is None or not (matched["split"] or matched["slice"]):
        return Spec(name, rest)
    parts = [int(part) if part else None for part in (matched["slice"] or "[:]")[1:-1].split(":")]
    return Spec(name, matched["path"], matched["split"] or "", slice(*parts))


def scene_numbers(spec: Spec) -> tuple[int, int]:
    """Count and seed of synthetic scenes.

    Raises:
        ConfigurationError: They are no numbers, or there would be no scene.
    """
    numbers = spec.path.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers) or int(numbers[0]) < 1:
        raise ConfigurationError(f"cannot read {spec.name}:{spec.path}; write synthetic:COUNT or synthetic:COUNT:SEED")
    return int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 0
