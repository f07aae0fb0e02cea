"""A tiny data set to score: pairs in folders, and what two methods made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fuseloop.pairs.images import Picture, write_image

Pixels = NDArray[np.generic]


def save(path: Path, pixels: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Picture(pixels), overwrite=True)
    return path


@pytest.fixture
def noise() -> Callable[..., NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return lambda *shape: rng.integers(0, 256, shape, np.uint8)


@pytest.fixture
def folders(tmp_path: Path, noise: Callable[..., NDArray[np.uint8]]) -> Path:
    """`ir`, `vis` (colour), `one` and `two` with the frames a, b and c of 48×44."""
    for name in "abc":
        for folder, shape in (("ir", (44, 48)), ("vis", (44, 48, 3)), ("one", (44, 48)), ("two", (44, 48, 3))):
            save(tmp_path / folder / f"{name}.png", noise(*shape))
    return tmp_path
