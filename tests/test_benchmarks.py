"""The page of benchmarks is made from the figures, and a run changes nothing of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as bench


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty clone."""
    monkeypatch.setattr(bench, "FIGURES", tmp_path / "outputs" / "benchmarks.json")
    monkeypatch.setattr(bench, "RUNS", tmp_path / "outputs" / "benchmark_runs.json")
    monkeypatch.setattr(bench, "DOCUMENT", tmp_path / "docs" / "benchmarks.md")
    return tmp_path


def test_the_page_has_every_figure_with_its_meaning_and_circumstances():
    bench.keep("fuse", {"fuse.exact_speedup": 3.14159})
    assert json.loads(bench.FIGURES.read_text()) == {"fuse.exact_speedup": 3.14159}
    page = bench.DOCUMENT.read_text(encoding="utf-8")
    assert "| `fuse.exact_speedup` | 3.142 | fastest exact engine: times as fast as the plain module |\n" in page
    assert "* command: python -m benchmarks fuse\n" in page


def test_another_run_replaces_its_own_figures_only():
    bench.keep("synthetic", {"synthetic.pairs_per_second": 1.0})
    bench.keep("fuse", {"fuse.exact_speedup": 2.0, "fuse.ms_plain": 5.0})
    bench.keep("fuse", {"fuse.exact_speedup": 3.0})
    assert json.loads(bench.FIGURES.read_text()) == {"fuse.exact_speedup": 3.0, "synthetic.pairs_per_second": 1.0}
    page = bench.DOCUMENT.read_text(encoding="utf-8")
    assert page.count("\n## ") == 2
    assert "`synthetic.pairs_per_second` | 1 |" in page
    assert "ms_plain" not in page


def test_a_fresh_clone_keeps_what_the_page_says_of_other_benchmarks():
    for name in ("synthetic", "metrics", "fuse"):
        bench.keep(name, {f"{name}.figure": 1.0})
    before = bench.DOCUMENT.read_text(encoding="utf-8")
    bench.FIGURES.unlink()
    bench.RUNS.unlink()
    bench.keep("metrics", {"metrics.figure": 2.0})
    assert bench.DOCUMENT.read_text(encoding="utf-8") == before.replace(
        "| `metrics.figure` | 1 |", "| `metrics.figure` | 2 |"
    )


def test_a_benchmark_that_is_gone_leaves_the_page():
    bench.keep("fuse", {"fuse.exact_speedup": 2.0})
    page = bench.DOCUMENT.read_text(encoding="utf-8")
    bench.DOCUMENT.write_text(page + "\n## bygone\n\ntext\n", encoding="utf-8")
    bench.keep("fuse", {"fuse.exact_speedup": 2.0})
    assert bench.DOCUMENT.read_text(encoding="utf-8") == page
