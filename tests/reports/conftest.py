"""A score report of made-up scores, whose names are as awkward as names can be, and a browser to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fuseloop.metrics.evaluate import Evaluation
from fuseloop.pairs.images import Picture, write_image
from fuseloop.reports.score import ScoredImages, write_score_report
from tools.browser import Page, find_chromium, open_browser

METHODS = ("mean", "a <b>\"bold\"</b> & 'quoted' {{ 7 * 7 }}", "наш метод #1 100%")
FRAMES = tuple(f"{index} street #{index} 50% <i>'é\".x </script>" for index in range(1, 13))
KEYS = ("en", "qabf", "scd", "psnr", "qcv")


def evaluation(seed: int, frames: tuple[str, ...] = FRAMES, keys: tuple[str, ...] = KEYS) -> Evaluation:
    """Scores by chance; SCD is undefined on the second frame, PSNR is infinite on the third."""
    random = np.random.default_rng(seed)
    values = {key: random.normal(seed, 1, len(frames)) for key in keys}
    values["scd"][1] = np.nan
    if "psnr" in values:
        values["psnr"][2] = np.inf
    reasons: dict[str, dict[str, str]] = {key: {} for key in keys}
    reasons["scd"] = {frames[1]: "fused and <infrared> image differ by a constant"}
    return Evaluation(frames, values, {key: "cddfuse" if key != "qcv" else "default" for key in keys}, reasons)


def evaluations() -> dict[str, Evaluation]:
    return {method: evaluation(seed) for seed, method in enumerate(METHODS)}


def images(folder: Path, frames: tuple[str, ...] = FRAMES, methods: tuple[str, ...] = METHODS) -> ScoredImages:
    """Small images: infrared grey, visible in colour, each method with a grey level of its own."""
    ramp = np.tile(np.arange(96, dtype=np.uint8) * 2, (72, 1))
    colour = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 40)], axis=2)
    pictures = {"infrared": ramp.T.copy()[:72, :72].repeat(2, axis=1)[:, :96], "visible": colour}
    pictures |= {f"fused {index}": np.full((72, 96), 60 * (index + 1), np.uint8) for index in range(len(methods))}
    paths: dict[str, dict[str, Path]] = {}
    for kind, pixels in pictures.items():
        (folder / kind).mkdir(parents=True)
        paths[kind] = {}
        for index, name in enumerate(frames):
            paths[kind][name] = folder / kind / f"{index}.png"
            write_image(paths[kind][name], Picture(np.ascontiguousarray(pixels)))
    fused = {method: paths[f"fused {index}"] for index, method in enumerate(methods)}
    return ScoredImages(paths["infrared"], paths["visible"], fused)


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> ScoredImages:
    return images(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory, scored: ScoredImages) -> Path:
    """The first page of the report."""
    return write_score_report(tmp_path_factory.mktemp("report") / "out", evaluations(), scored, convention="cddfuse")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if find_chromium() is None:
        pytest.skip("no Chromium is installed")
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page
