"""Training pairs: sequences of (infrared, luma) from folders on disk, from public layouts, or from synthetic scenes.

Every sequence has a length, gives its pair `i` as two uint8 arrays of one size, and describes itself in a line. The
sizes may differ between pairs: cropping and batching are the business of training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.synthetic import generate, scene_seed
from fuseloop.errors import ConfigurationError, ImageError, PairError
from fuseloop.pairs.align import check_same_size
from fuseloop.pairs.folders import PairPaths, pair_folders
from fuseloop.pairs.images import read_image
from fuseloop.pairs.levels import INFRARED_DEFAULT, VISIBLE_DEFAULT, Levels, Limits, from_unit, to_unit

INFRARED_NAMES = ("ir", "infrared", "thermal", "lwir", "inf")
VISIBLE_NAMES = ("vi", "vis", "visible", "rgb", "color", "colour")


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


class Layout(NamedTuple):
    """Where a public data set keeps its two modalities, relative to the folder of one split."""

    infrared: str
    visible: str


LAYOUTS = {
    "msrs": Layout("ir", "vi"),
    "m3fd": Layout("Ir", "Vis"),
    "fmb": Layout("Infrared", "Visible"),
    "llvip-train": Layout("infrared/train", "visible/train"),
    "llvip-test": Layout("infrared/test", "visible/test"),
    "roadscene": Layout("cropinfrared", "crop_LR_visible"),
}
"""Public layouts by name, for `open_pairs("NAME:PATH")`."""


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
    """The pairs of two folders under one root, paired by stem and read once.

    Args:
        root: Folder that holds the two, for example ``MSRS/train`` with ``ir`` and ``vi``.
        layout: Where the two lie under the root. By default they are found by their usual names, such as ``ir`` or
            ``thermal`` and ``vi`` or ``rgb``, in upper or lower case.

    Raises:
        PairError: When the two folders cannot be told, or have no stem in common.
    """

    def __init__(self, root: Path | str, layout: Layout | None = None) -> None:
        self.root = Path(root)
        infrared, visible = _find_modalities(self.root, layout)
        pairing = pair_folders(infrared, visible)
        self.paths: list[PairPaths] = pairing.pairs
        self.unpaired: list[Path] = pairing.unpaired
        super().__init__(len(self.paths), self._read)

    def _read(self, index: int) -> LumaPair:
        paths = self.paths[index]
        infrared = _read_luma(paths.infrared, INFRARED_DEFAULT)
        luma = _read_luma(paths.visible, VISIBLE_DEFAULT)
        try:
            check_same_size(infrared, luma)
        except PairError as problem:
            raise PairError(f"{paths.infrared} and {paths.visible}: {problem}") from None
        return LumaPair(infrared, luma)

    def describe(self) -> str:
        """What these pairs are, in one line."""
        alone = f", {len(self.unpaired)} files without a partner left out" if self.unpaired else ""
        return f"{len(self)} pairs of {self.root}{alone}"


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
    """Opens the pairs that a configuration names.

    Args:
        spec: ``PATH``, a folder with two modalities in it (see `FolderPairs`); ``NAME:PATH``, a public layout of
            `LAYOUTS`; ``synthetic:COUNT`` or ``synthetic:COUNT:SEED``, scenes of 320×240.

    Raises:
        ConfigurationError: When the name or the numbers cannot be understood.
        PairError: When no pairs are found there.
    """
    name, colon, rest = spec.partition(":")
    if colon and name == "synthetic":
        numbers = rest.split(":")
        if len(numbers) > 2 or not all(number.isdecimal() for number in numbers) or int(numbers[0]) < 1:
            raise ConfigurationError(f"cannot read {spec!r}: write synthetic:COUNT or synthetic:COUNT:SEED")
        return SyntheticPairs(*map(int, numbers))
    if colon and name in LAYOUTS:
        return FolderPairs(rest, LAYOUTS[name])
    if colon and not Path(spec).exists():
        known = ", ".join(["synthetic", *LAYOUTS])
        raise ConfigurationError(f"{spec!r} is no folder, and {name!r} is no known data set; known are {known}")
    return FolderPairs(spec)


def rgb_to_luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H×W×3 uint8 RGB to its H×W uint8 luma, rounded."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def _read_luma(path: Path, rule: str) -> NDArray[np.uint8]:
    """A file of any depth as H×W uint8, its values mapped by the given rule."""
    pixels = read_image(path).pixels
    if pixels.dtype != np.uint8:
        try:
            limits = Levels.parse(rule).limits(pixels)
        except ImageError as problem:
            raise ImageError(f"{path}: {problem}") from None
        pixels = from_unit(to_unit(pixels, limits), np.uint8, Limits(0, 255))
    return rgb_to_luma(pixels) if pixels.ndim == 3 else pixels


def _find_modalities(root: Path, layout: Layout | None) -> tuple[Path, Path]:
    """The infrared and the visible folder under a root."""
    if not root.is_dir():
        raise PairError(f"{root} is not a folder; training pairs need a folder with the two modalities in it")
    if layout is not None:
        missing = [str(root / part) for part in layout if not (root / part).is_dir()]
        if missing:
            raise PairError(f"{' and '.join(missing)} missing: this layout keeps its pairs there")
        return root / layout.infrared, root / layout.visible
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    found = [[folders[name] for name in names if name in folders] for names in (INFRARED_NAMES, VISIBLE_NAMES)]
    if any(len(candidates) != 1 for candidates in found):
        there = ", ".join(path.name for path in folders.values()) or "no folders"
        raise PairError(
            f"no pairs found in {root}: expected one infrared folder ({', '.join(INFRARED_NAMES)}) and one visible "
            f"folder ({', '.join(VISIBLE_NAMES)}) with files of the same stems; found {there}"
        )
    return found[0][0], found[1][0]
