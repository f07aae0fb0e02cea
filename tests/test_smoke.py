"""tools/smoke.py, which runs the real command on real pairs, notices outputs that are wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import smoke


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A grey infrared image and a colour visible one, smooth and unlike each other."""
    rows, columns = np.mgrid[0:40, 0:56]
    infrared = 127 + 90 * np.sin(rows / 5)
    visible = np.stack([127 + 90 * np.cos(columns / shade) for shade in (5, 6, 7)], axis=2)
    for name, pixels in (("ir", infrared), ("vi", visible)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / "a.png")
    return tmp_path / "ir" / "a.png", tmp_path / "vi" / "a.png"


@pytest.fixture
def fused(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    """A plausible fusion: the mean of both."""
    infrared, visible = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in pair)
    Image.fromarray(((infrared + visible) / 2).astype(np.uint8)).save(tmp_path / "fused.png")
    return tmp_path / "fused.png"


def test_a_plausible_fusion_passes(pair, fused):
    smoke.inspect(*pair, fused)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda image: image.resize((56, 41)), "is .* not"),
        (lambda image: image.convert("L"), "is .* not"),
        (lambda image: image.point(lambda level: 90), "flat"),
        (
            lambda image: Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)),
            "little of its",
        ),
    ],
    ids=["another size", "another mode", "flat", "noise"],
)
def test_a_wrong_output_is_noticed(pair, fused, spoil, complaint):
    spoil(Image.open(fused)).save(fused)
    with pytest.raises(AssertionError, match=complaint):
        smoke.inspect(*pair, fused)


def test_a_copy_of_a_source_is_noticed(pair):
    with pytest.raises(AssertionError, match="copy of the visible"):
        smoke.inspect(*pair, pair[1])


def test_pairs_are_matched_by_stem_and_spread_over_the_folder(tmp_path):
    for side, ending in (("ir", "png"), ("vi", "jpg")):
        (tmp_path / side).mkdir()
        for index in range(9):
            (tmp_path / side / f"{index}.{ending}").touch()
    (tmp_path / "ir" / "alone.png").touch()
    picked = smoke.pairs_of(tmp_path, 3)
    assert [(infrared.name, visible.name) for infrared, visible in picked] == [
        (f"{index}.png", f"{index}.jpg") for index in (0, 4, 8)
    ]
