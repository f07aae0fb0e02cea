"""The benchmark of task networks measures what it says, of every network that it lists."""

from __future__ import annotations

import pytest

from benchmarks import bench_tasks as bench
from fuseloop.tasks.detection.yolov5 import Size, YOLOv5


def test_every_network_has_its_figures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "NETWORKS", {"yolov5n": lambda: YOLOv5(("a", "b", "c"), Size(1 / 3, 1 / 8))})
    monkeypatch.setattr(bench, "BATCHES", {name: bench.Batch(2, 64, 96) for name in bench.BATCHES})
    monkeypatch.setattr(bench, "HEIGHT", 64)
    monkeypatch.setattr(bench, "WIDTH", 96)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    figures = bench.measure("yolov5n")
    assert {*figures} == {key for key in bench.KEYS if "yolov5n" in key}
    assert all(value > 0 for value in figures.values())
