"""The benchmark of the meta step measures what it says, and both sides take the same step."""

from __future__ import annotations

import pytest

from benchmarks import bench_meta as bench


def test_every_figure_is_there_and_both_sides_agree(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "WARM_UP", 8)
    measured = {mode: bench.measure(mode, 16) for mode in ("jvp", "double")}
    monkeypatch.setattr(bench, "_child", lambda mode, allocator: measured[mode])
    figures = bench.run()
    assert {*figures} == {*bench.KEYS}
    assert all(value > 0 for key, value in figures.items() if key != "meta.error")
    assert figures["meta.error"] < 1e-3
    assert figures["meta.time_ratio"] == measured["jvp"]["seconds"] / measured["double"]["seconds"]
