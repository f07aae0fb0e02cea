"""The command makes the sections for which there is something, and keeps the others of the document."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import bench_results as bench
from benchmarks.pages import wrapped
from benchmarks.results.page import document
from benchmarks.results.sections import SECTIONS
from benchmarks.results.study import rivals_in, runs_in
from fuseloop.errors import ConfigurationError
from fuseloop.tasks.weights import build, write_weights
from tests.benchmarks.conftest import NETWORKS


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path, data) -> Path:
    """Painted networks as the shipped ones, and an empty clone."""
    monkeypatch.setenv("FUSELOOP_DATA", str(data))
    monkeypatch.setattr(bench, "SHIPPED", dict.fromkeys(NETWORKS, ""))
    monkeypatch.setattr(bench, "load", NETWORKS.__getitem__)
    monkeypatch.setattr(bench, "tune_allocator", lambda: None)  # this process is pytest's
    monkeypatch.setattr(bench, "DOCUMENT", tmp_path / "results.md")
    monkeypatch.setattr(bench, "STORE", tmp_path / "store")
    return tmp_path


def headings(text: str) -> list[str]:
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def test_one_section_is_written_anew_and_the_others_stay(places, runs, capsys):
    assert bench.main(["--only", "ablations", "--ablations", str(runs / "ablations")]) == 0
    first = bench.DOCUMENT.read_text(encoding="utf-8")
    assert headings(first) == ["Ablations"]
    assert "* made by `python -m benchmarks.bench_results --only ablations --ablations ablations` on " in first
    assert "* 4 frames of MSRS/test, on which nothing was trained or chosen" in first
    assert str(runs) not in first
    assert "* closed loop `no-bank`: " in first
    assert bench.main(["--only", "detectable"]) == 0
    both = bench.DOCUMENT.read_text(encoding="utf-8")
    assert headings(both) == [SECTIONS["detectable"].title, "Ablations"], "in the order of the sections"
    assert first.split("## ")[1].strip() in both
    assert "frame 4 of 4" in capsys.readouterr().err


def test_a_quick_look_is_printed_and_writes_nothing(places, capsys):
    assert bench.main(["--limit", "2", "--only", "detectable"]) == 0
    shown = capsys.readouterr().out
    assert "* 2 frames of MSRS/test" in shown
    assert "--only detectable --limit 2`" in shown
    assert not bench.DOCUMENT.exists()


def test_by_default_what_lacks_something_is_left_out_and_said(places, capsys):
    study = bench.open_study(bench.parse([]))
    assert bench.possible(study, None) == ["networks", "detectable"]
    said = capsys.readouterr().err
    assert "without loop: there is no trained closed loop; give --loops" in said
    assert bench.main(["--only", "swap"]) == 1
    assert "error: swap: there is no trained closed loop; give --loops" in capsys.readouterr().err


def test_sections_that_are_no_more_leave_the_document():
    page = "# Results\n\nold\n\n## Bygone\n\ntext\n\n## Ablations\n\nkept"
    found = document({"swap": "Images made for one task, seen by another\n\nnew"}, page)
    assert headings(found) == ["Images made for one task, seen by another", "Ablations"]
    assert found.endswith("## Ablations\n\nkept\n")
    assert document({}, found) == found


def test_runs_are_found_in_natural_order(tmp_path, runs):
    for name in ("seed10", "seed2"):
        shutil.copytree(runs / "seeds" / "seed0", tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert list(runs_in(tmp_path)) == ["seed2", "seed10"]
    assert runs_in(None) == {}
    with pytest.raises(ConfigurationError, match=r"holds no run with best\.safetensors"):
        runs_in(tmp_path / "empty")


def test_rivals_are_found_with_their_fusion_networks(tmp_path):
    network = build("ctdnet-18", width=0.125)
    for way in ("retrained", "joint"):
        (tmp_path / way / "ctdnet-18").mkdir(parents=True)
        path = tmp_path / way / "ctdnet-18" / "best.safetensors"
        write_weights(path, network, "ctdnet-18", options={"width": 0.125})
    rivals, networks = rivals_in(tmp_path)
    assert [rival.name for rival in rivals] == list(networks) == ["ctdnet-18, retrained", "ctdnet-18, joint"]
    fusions = [rival.fusion for rival in rivals]
    assert fusions == ["vfn", str(tmp_path / "joint" / "ctdnet-18" / "best-fusion.safetensors")]
    with pytest.raises(ConfigurationError, match=r"holds no retrained/NETWORK/best\.safetensors"):
        rivals_in(tmp_path / "joint")


def test_prose_is_filled_and_tables_stay():
    text = "one\ntwo " + "word " * 40 + "\n\n| a | b |\n| --- | --- |\n\n* item\n* other\n\n```sh\nx\n```"
    found = wrapped(text, 60)
    assert max(len(line) for line in found.split("\n\n")[0].splitlines()) <= 60
    assert found.split("\n\n")[1:] == text.split("\n\n")[1:]
