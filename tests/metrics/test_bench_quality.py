"""The quality benchmark scores what needs no network beside the fusers, and reproduces public figures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_quality as bench
from fuseloop.metrics import score_frames, to_grey
from fuseloop.pairs.images import Picture, write_image
from tests.metrics.tester import texture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two small pairs laid out as MSRS."""
    for modality in ("ir", "vi"):
        folder = tmp_path / "MSRS" / "test" / modality
        folder.mkdir(parents=True)
        for index in range(2):
            pixels = np.round(texture(2 * index + (modality == "vi"))[0, 0].numpy() * 255).astype(np.uint8)
            colour = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)
            write_image(folder / f"{index}.png", Picture(pixels if modality == "ir" else colour))
    return tmp_path


def keep_visible(infrared: bench.Pixels, visible: bench.Pixels) -> bench.Pixels:
    return visible


def take_maximum(infrared: bench.Pixels, visible: bench.Pixels) -> bench.Pixels:
    return bench.pixel_maximum(infrared, to_grey(visible))


def test_the_figures_of_a_fuser_stand_beside_the_pixel_maximum(data: Path):
    found = bench.measure(data, "test", {"copy": keep_visible})
    assert list(found) == [*bench.RULES, "copy"]
    figures = bench.figures(found, "copy")
    assert figures["quality.frames"] == 2
    assert figures["quality.vif"] == pytest.approx(found["visible alone"].summary("vif").mean)
    gain = found["visible alone"].values["vif"] - found["pixel maximum"].values["vif"]
    assert figures["quality.vif_gain"] == pytest.approx(gain.mean())


def test_the_document_says_how_it_was_made_and_what_is_undefined(data: Path):
    text = bench.document(bench.measure(data, "test", {"vfn": take_maximum}), "vfn")
    assert "python -m benchmarks.bench_quality" in text
    for part in ("2 frames", "bootstrap seed 0", "SHA-256", "Qcb and Qcv, which it lacks, by `default`"):
        assert part in text
    assert "* infrared alone: SCD on 2 of 2 frames (fused and infrared image differ by a constant)." in text
    assert "| vfn | +0.00 [+0.00, +0.00] |" in text


def test_the_bar_knows_which_way_is_better(data: Path):
    head, *body = bench.bar_rows(bench.measure(data, "test", {})["pixel maximum"])
    assert len(head) == 6
    for row in body:
        reached, bar = float(row[1]), float(row[2][2:])
        assert row[3] == ("met" if (reached <= bar if "≤" in row[2] else reached >= bar) else "missed")


# Means over the 76 frames as public evaluators measured them, to the digits printed there.
PUBLISHED = {
    "infrared alone": {"en": 5.38, "sd": 19.2, "sf": 5.78, "ag": 2.00},
    "visible alone": {"en": 6.55, "sd": 43.2, "sf": 10.98, "ag": 3.41},
    "pixel mean": {"en": 6.03, "sd": 24.7, "sf": 6.44, "ag": 2.25, "scd": 1.235},
    "pixel maximum": {"en": 6.71, "sd": 43.4, "sf": 11.65, "ag": 3.83, "scd": 1.591},
    "Laplacian pyramid, 4 levels": {"en": 6.41, "sd": 33.0, "sf": 12.32, "ag": 4.22, "scd": 1.414},
}


@pytest.mark.data
def test_the_rules_have_their_published_figures():
    if "FUSELOOP_DATA" not in os.environ:
        pytest.skip("FUSELOOP_DATA is not set: no real pairs")
    folder = Path(os.environ["FUSELOOP_DATA"]) / "MSRS" / "test"
    pairs = bench.pair_folders(folder / "ir", folder / "vi").pairs
    found = score_frames(
        (bench.fuse_frame(pair, {}) for pair in pairs), metrics=["en", "sd", "sf", "ag", "scd"], convention="cddfuse"
    )
    for method, figures in PUBLISHED.items():
        for key, expected in figures.items():
            printed = 2 if key == "ag" else len(str(expected).partition(".")[2])
            assert found[method].summary(key).mean == pytest.approx(expected, abs=0.5001 * 10**-printed), (method, key)
