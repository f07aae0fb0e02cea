"""The section of the task networks holds what an evaluation finds, and says what it is of and what is missing."""

from __future__ import annotations

import re

import pytest

from benchmarks import bench_results as bench
from benchmarks.results import networks as section
from benchmarks.results.figures import Figures
from benchmarks.results.study import Study
from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES
from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.evaluate import Evaluation, evaluate, uncertainty
from fuseloop.evaluation.sources import open_source
from tests.benchmarks.conftest import NETWORKS
from tests.evaluation.fakes import Painted

NAMES = list(NETWORKS)


@pytest.fixture(scope="module")
def figures(data) -> Figures:
    study = Study(NETWORKS, data=data)
    study.looks.gather(section.grid(NAMES).looks)
    return study.figures


@pytest.fixture(scope="module")
def evaluation(data) -> Evaluation:
    sources = {name: open_source(name) for name in section.FUSERS}
    return evaluate(NETWORKS, sources, open_labelled(f"msrs:{data / 'MSRS'}:test"))


def values(row: list[str]) -> list[float]:
    """The values of a row, without their intervals."""
    return [float(cell.split("<br>")[0].strip("*")) for cell in row[1:]]


def test_every_row_and_column_that_was_promised_is_there(figures):
    head, *rows = section.grid(NAMES).scores(figures)
    labels = ("mAP50", "mAP75", "mAP50:95", "mIoU", "mAcc", "F mean", "E mean", "S", "MAE ↓")
    assert [column.split("<br>")[0] for column in head[1:]] == list(labels)
    assert [row[0] for row in rows] == ["infrared", "visible", "mean", "max", "vfn"]
    assert all(re.fullmatch(r"\d\.\d{3}<br>\d\.\d{3}–\d\.\d{3}", cell) for row in rows for cell in row[1:])


def test_the_figures_are_those_of_fuseloop_evaluate(figures, evaluation):
    _, *rows = section.grid(NAMES).scores(figures)
    for row in rows:
        scores = {name: evaluation.scores[name][row[0]].values for name in NAMES}
        expected = [scores["yolov5s"][key] for key in ("mAP50", "mAP75", "mAP50:95")]
        expected += [scores["segformer-b0"][key] for key in ("mIoU", "mAcc")]
        expected += [scores["ctdnet-18"][key] for key in ("F/mean", "E/mean", "S", "MAE")]
        assert values(row) == pytest.approx(expected, abs=0.0005)
    visible = values(rows[1])
    # What reads the paint is perfect on visible images and blind on infrared ones.
    assert visible[:5] == [1] * 5
    assert max(values(rows[0])[:5]) < 0.5


def test_differences_are_to_the_maximum_and_bold_where_they_are_certain(figures, evaluation):
    found = uncertainty(evaluation, baseline="max").differences
    head, *rows = section.grid(NAMES).differences(figures)
    assert [row[0] for row in rows] == ["infrared", "visible", "mean", "vfn"]
    for row in rows:
        for column, cell in zip(head[1:], row[1:], strict=True):
            label, name = column.split("<br>")
            key = {"F mean": "F/mean", "E mean": "E/mean", "MAE ↓": "MAE"}.get(label, label)
            expected = found[name][row[0]][key]
            value, low, high = (float(one) for one in re.findall(r"[+-][\d.]+", cell))
            assert (value, low, high) == pytest.approx((expected.value, expected.low, expected.high), abs=0.0005)
            assert cell.startswith("**") == (expected.low > 0 or expected.high < 0)


def test_classes_stand_with_the_frames_they_are_in_and_absent_ones_are_left_out(figures):
    head, *rows = section.class_rows(figures, "yolov5s")
    assert head[1:4] == ["person, AP50<br>1 frame", "bicycle, AP50<br>4 frames", "car, AP50<br>4 frames"]
    assert [column.split("<br>")[0] for column in head[4:]] == [f"{name}, AP50:95" for name in BOX_NAMES]
    head, *rows = section.class_rows(figures, "segformer-b0")
    there = [column.split(", ")[0] for column in head[1:]]
    pairs = Painted(4)
    frames = [{int(one) for one in set(pairs[index].segmentation.flat)} - {0} for index in range(4)]
    assert there == [name for one, name in enumerate(SEGMENTATION_NAMES) if any(one in ids for ids in frames)]
    for column, name in zip(head[1:], there, strict=True):
        count = sum(SEGMENTATION_NAMES.index(name) in ids for ids in frames)
        assert column == f"{name}, IoU<br>{count} frame{'s' * (count > 1)}"
    assert values(rows[1]) == [1] * len(there)


def test_the_bar_is_met_missed_or_has_no_network(figures, evaluation):
    _, *met = section.bar_rows(figures, NAMES, "visible")
    assert [row[4] for row in met] == ["met", "met", "met", "missed"]
    assert met[0][:4] == ["detector: `yolov5s`", "mean AP50 of person and car", "0.50", "1.000"]
    assert met[3][0] == "second detector, of the DETR family: none is shipped"
    found = evaluation.scores["yolov5s"]["infrared"].values
    _, *missed = section.bar_rows(figures, NAMES, "infrared")
    assert missed[0][3:] == [f"{(found['AP50/person'] + found['AP50/car']) / 2:.3f}", "missed"]


def test_the_text_says_what_is_left_out_and_what_is_missing(figures):
    text = section.section(figures, NAMES)
    for part in (
        "No weights are shipped of a second detector, of the DETR family (rtdetr or detr): its figures are missing.",
        "* `yolov5s`: means over the classes, which have 1 person, 4 bicycle, 4 car boxes; faster-coco-eval",
        "bump is in no frame and left out",
        "* `ctdnet-18`: means over 3 frames, without 1 frame whose mask is empty; F and E are means over the",
    ):
        assert part in text, part
    assert "#### yolov5s" in text
    assert "#### ctdnet-18" not in text


def test_the_figures_of_vfn_stand_beside_their_gain(figures, evaluation):
    found = section.figures_of(figures, NETWORKS)
    scores = evaluation.scores["ctdnet-18"]
    assert found["results.frames"] == 4
    assert found["results.ctdnet-18.MAE"] == pytest.approx(scores["vfn"].values["MAE"])
    gain = scores["vfn"].values["F/mean"] - scores["max"].values["F/mean"]
    assert found["results.ctdnet-18.F_mean_gain"] == pytest.approx(gain)


def test_the_part_about_tno_needs_a_saliency_network(data):
    for network, there in (("yolov5s", False), ("ctdnet-18", True)):
        study = Study({network: NETWORKS[network]}, data=data, limit=2)
        study.looks.gather(section.grid([network]).looks)
        text = section.text(study)
        assert ("2 pairs of TNO with masks that were made by hand" in text) == there


def test_nothing_is_written_while_no_weights_are_shipped(data, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SHIPPED", {})
    monkeypatch.setattr(bench, "DOCUMENT", tmp_path / "results.md")
    with pytest.raises(ConfigurationError, match="give --network NAME=FILE"):
        bench.run(data)
    assert not bench.DOCUMENT.exists()


def test_a_run_scores_what_is_shipped_and_writes_its_section(data, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SHIPPED", dict.fromkeys(NETWORKS, ""))
    monkeypatch.setattr(bench, "load", NETWORKS.__getitem__)
    monkeypatch.setattr(bench, "DOCUMENT", tmp_path / "results.md")
    monkeypatch.setattr(bench, "STORE", tmp_path / "store")
    figures = bench.run(data)
    assert figures["results.frames"] == 4
    text = bench.DOCUMENT.read_text(encoding="utf-8")
    assert text.startswith("# Results\n")
    assert "\n## What task networks see\n\n* made by `python -m benchmarks.bench_results --only networks` on " in text
