"""Training pairs: sequences of (infrared, luma) from folders on disk, from public layouts, or from synthetic scenes.

Every sequence has a length, gives its pair `i` as two uint8 arrays of one size, and describes itself in a line. The
sizes may differ between pairs: cropping and batching are the business of training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.finder import find_pairs
from fuseloop.datasets.pixels import read_infrared, read_luma, rgb_to_luma
from fuseloop.datasets.spec import SYNTHETIC, Spec, parse_spec, scene_numbers
from fuseloop.datasets.synthetic import generate, scene_seed
from fuseloop.datasets.table import GENERIC
from fuseloop.errors import PairError
from fuseloop.pairs.align import check_same_size
from fuseloop.pairs.folders import PairPaths


class LumaPair(NamedTuple):
    """One training pair.

    Attributes:
        infrared: H×W uint8.
        luma: H×W uint8, Y = .299 R + .587 G + .114 B of the visible image.
    """

    infrared: NDArray[np.uint8]
    luma: NDArray[np.uint8]


class Pairs(Protocol):
    """What training needs of a data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LumaPair: ...

    def describe(self) -> str:
        """What these pairs are, in one line."""
        ...


class _Cached:
    """Pairs that are made once and kept, which is small: 0.6 MB for a pair of 640×480."""

    def __init__(self, count: int, make: Callable[[int], LumaPair]) -> None:
        self._count = count
        self._make = make
        self._kept: dict[int, LumaPair] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> LumaPair:
        index = range(self._count)[index]  # negative indices, and an IndexError past the end
        if index not in self._kept:
            self._kept[index] = self._make(index)
        return self._kept[index]


class FolderPairs(_Cached):
    """The pairs of a folder, a public layout or a manifest, paired by stem and read once.

    Args:
        place: A folder with two modalities in it, by their usual names such as ``ir`` or ``thermal`` and ``vi`` or
            ``rgb``, in upper or lower case; or a specification.

    Raises:
        PairError: The two folders cannot be told, or have no stem in common.
        ConfigurationError: The specification makes no sense.
    """

    def __init__(self, place: Path | str | Spec) -> None:
        self.spec = place if isinstance(place, Spec) else Spec(GENERIC.key, str(place))
        pairing = find_pairs(self.spec)
        self.paths: list[PairPaths] = pairing.pairs
        self.unpaired: list[Path] = pairing.unpaired
        super().__init__(len(self.paths), self._read)

    def _read(self, index: int) -> LumaPair:
        paths = self.paths[index]
        infrared, luma = read_infrared(paths.infrared), read_luma(paths.visible)
        try:
            check_same_size(infrared, luma)
        except PairError as problem:
            raise PairError(f"{paths.infrared} and {paths.visible}: {problem}") from None
        return LumaPair(infrared, luma)

    def describe(self) -> str:
        """What these pairs are, in one line."""
        alone = f", {len(self.unpaired)} files without a partner left out" if self.unpaired else ""
        return f"{len(self)} pairs of {self.spec.title}{alone}"


class SyntheticPairs(_Cached):
    """Synthetic scenes as training pairs, each made when first asked for.

    Args:
        count: Number of pairs.
        seed: Seed of the set. Pair `i` of a seed is the same whatever the count.
        height: Rows of every pair.
        width: Columns of every pair.
    """

    def __init__(self, count: int, seed: int = 0, height: int = 240, width: int = 320) -> None:
        self.seed, self.height, self.width = seed, height, width
        super().__init__(count, self._render)

    def _render(self, index: int) -> LumaPair:
        scene = generate(scene_seed(self.seed, index), self.height, self.width)
        return LumaPair(scene.infrared, rgb_to_luma(scene.visible))

    def describe(self) -> str:
        """What these pairs are, in one line."""
        return f"{len(self)} synthetic scenes of {self.width}x{self.height}, seed {self.seed}"


def open_pairs(spec: str) -> Pairs:
    """Opens the pairs that a configuration names, whatever their labels.

    Args:
        spec: ``PATH``, a folder with two modalities in it (see `FolderPairs`); ``NAME:PATH`` or ``NAME:PATH:SPLIT``, a
            data set of `DATA_SETS` or a CSV manifest (see `parse_spec`); ``synthetic:COUNT`` or
            ``synthetic:COUNT:SEED``, scenes of 320×240.

    Raises:
        ConfigurationError: When the name or the numbers cannot be understood.
        PairError: When no pairs are found there.
    """
    parsed = parse_spec(spec)
    return SyntheticPairs(*scene_numbers(parsed)) if parsed.name == SYNTHETIC else FolderPairs(parsed)
