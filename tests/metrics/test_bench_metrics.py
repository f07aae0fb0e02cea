"""The benchmark of the metrics measures every metric of the table."""

from __future__ import annotations

import math

from benchmarks import bench_metrics as bench


def test_every_figure_has_a_meaning_and_a_value(monkeypatch):
    once = bench.measure(height=48, width=64, rounds=1)
    monkeypatch.setattr(bench, "_child", lambda allocator: once)
    figures = bench.run()
    assert set(figures) == set(bench.KEYS)
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
