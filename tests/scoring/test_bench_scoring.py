"""The benchmark of scoring measures what it says, on frames small enough for a test."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from benchmarks import bench_scoring as bench
from tests.scoring.conftest import save


@pytest.fixture
def frames(tmp_path: Path, noise) -> Path:
    for kind in ("ir", "vi", "fused"):
        for index in range(3):
            save(tmp_path / kind / f"{index}.png", noise(44, 48))
    return tmp_path


def test_every_figure_is_measured_and_explained(monkeypatch):
    monkeypatch.setattr(bench, "make_frames", lambda root, count: None)
    monkeypatch.setattr(bench, "_child", lambda *arguments: {"ms": 2.0, "cpu_ms": 2.0, "peak_mb": 2.0})
    figures = bench.run()
    assert set(figures) == set(bench.KEYS)
    assert figures.pop("scoring.speedup") == 1
    assert set(figures.values()) == {2.0}


def test_a_folder_takes_some_time(frames: Path, monkeypatch):
    monkeypatch.setattr(bench, "tune_allocator", lambda: None)
    measured = bench.measure_time(str(frames), "3", "1")
    assert all(0 < value < 10_000 for value in measured.values())


def test_the_peak_of_memory_is_that_of_this_process():
    peak = bench.peak_of_this_process() * 2**20
    assert psutil.Process().memory_info().rss <= peak < psutil.virtual_memory().total
