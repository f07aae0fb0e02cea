"""The page of results holds what the evaluation found, and says what it is of and what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import bench_results as bench
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES
from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.results import weights_hash
from fuseloop.tasks.protocol import TaskNetwork
from tests.datasets.trees import yolo
from tests.evaluation.conftest import save
from tests.evaluation.fakes import Painted, PaintedDetector, PaintedSaliency, PaintedSegmenter

NETWORKS: dict[str, TaskNetwork] = {
    "yolov5s": PaintedDetector(BOX_NAMES),
    "segformer-b0": PaintedSegmenter(SEGMENTATION_NAMES),
    "ctdnet-18": PaintedSaliency(),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Four painted pairs as MSRS/test, three of them as TNO_salient; nothing is salient in the first."""
    root, pairs = tmp_path_factory.mktemp("data"), Painted(4)
    for index in range(len(pairs)):
        pair = pairs[index]
        for folder, count in ((root / "MSRS" / "test", 4), (root / "TNO_salient", 3)):
            if index < count:
                save(str(folder / "ir" / f"{pair.name}.png"), pair.infrared)
                save(str(folder / "vi" / f"{pair.name}.png"), pair.visible)
                save(str(folder / ("saliency" if count == 4 else "mask") / f"{pair.name}.png"), pair.saliency)
        save(str(root / "MSRS" / "test" / "Segmentation_labels" / f"{pair.name}.png"), pair.segmentation)
        labels = root / "MSRS" / "test" / "labels" / f"{pair.name}.txt"
        labels.parent.mkdir(exist_ok=True)
        there = pair.classes >= (index > 0)  # a person in the first pair alone
        labels.write_text(yolo(replace(pair, boxes=pair.boxes[there], classes=pair.classes[there])))
    return root


@pytest.fixture(scope="module")
def measured(data) -> tuple[bench.Measured, bench.Measured]:
    first, zero_shot = bench.measure_all(data, NETWORKS)
    assert zero_shot is not None
    return first, zero_shot


def cells(row: list[str]) -> list[float]:
    """The values of a row, without their intervals."""
    return [float(cell.split("<br>")[0].strip("*")) for cell in row[1:]]


def test_every_row_and_column_that_was_promised_is_there(measured):
    head, *rows = bench.score_rows(measured[0])
    labels = ("mAP50", "mAP75", "mAP50:95", "mIoU", "mAcc", "F mean", "E mean", "S", "MAE ↓")
    assert [column.split("<br>")[0] for column in head[1:]] == list(labels)
    assert [row[0] for row in rows] == ["infrared", "visible", "mean", "max", "vfn"]
    assert all(re.fullmatch(r"\d\.\d{3}<br>\d\.\d{3}–\d\.\d{3}", cell) for row in rows for cell in row[1:])


def test_the_figures_are_those_of_the_evaluation(measured):
    _, *rows = bench.score_rows(measured[0])
    scores = measured[0].evaluation.scores
    for row in rows:
        expected = [scores["yolov5s"][row[0]].values[key] for key in ("mAP50", "mAP75", "mAP50:95")]
        expected += [scores["segformer-b0"][row[0]].values[key] for key in ("mIoU", "mAcc")]
        expected += [scores["ctdnet-18"][row[0]].values[key] for key in ("F/mean", "E/mean", "S", "MAE")]
        assert cells(row) == pytest.approx(expected, abs=0.0005)
    visible = cells(rows[1])
    # What reads the paint is perfect on visible images and blind on infrared ones.
    assert visible[:5] == [1] * 5
    assert max(cells(rows[0])[:5]) < 0.5


def test_differences_are_to_the_maximum_and_bold_where_they_are_certain(measured):
    _, *rows = bench.difference_rows(measured[0])
    assert [row[0] for row in rows] == ["infrared", "visible", "mean", "vfn"]
    score = {row[0]: cells(row) for row in list(bench.score_rows(measured[0]))[1:]}
    for row in rows:
        expected = [own - other for own, other in zip(score[row[0]], score["max"], strict=True)]
        assert cells(row) == pytest.approx(expected, abs=0.0011)
        for cell in row[1:]:
            low, high = map(float, re.search(r"<br>(\S+) to (\S+)$", cell).groups())
            if low > 0 or high < 0:
                assert cell.startswith("**")
            if low < 0 < high:
                assert not cell.startswith("**")


def test_classes_stand_with_the_frames_they_are_in_and_absent_ones_are_left_out(measured):
    head, *rows = bench.class_rows(measured[0], "yolov5s")
    assert head[1:4] == ["person, AP50<br>1 frame", "bicycle, AP50<br>4 frames", "car, AP50<br>4 frames"]
    assert [column.split("<br>")[0] for column in head[4:]] == [f"{name}, AP50:95" for name in BOX_NAMES]
    head, *rows = bench.class_rows(measured[0], "segformer-b0")
    there = [column.split(", ")[0] for column in head[1:]]
    pairs = Painted(4)
    frames = [{int(one) for one in set(pairs[index].segmentation.flat)} - {0} for index in range(4)]
    assert there == [name for one, name in enumerate(SEGMENTATION_NAMES) if any(one in ids for ids in frames)]
    for column, name in zip(head[1:], there, strict=True):
        count = sum(SEGMENTATION_NAMES.index(name) in ids for ids in frames)
        assert column == f"{name}, IoU<br>{count} frame{'s' * (count > 1)}"
    assert cells(rows[1]) == [1] * len(there)


def test_the_bar_is_met_missed_or_has_no_network(measured):
    _, *met = bench.bar_rows(measured[0], "visible")
    assert [row[4] for row in met] == ["met", "met", "met", "missed"]
    assert met[0][:4] == ["detector: `yolov5s`", "mean AP50 of person and car", "0.50", "1.000"]
    assert met[3][0] == "second detector, of the DETR family: none is shipped"
    values = measured[0].evaluation.scores["yolov5s"]["infrared"].values
    _, *missed = bench.bar_rows(measured[0], "infrared")
    assert missed[0][3:] == [f"{(values['AP50/person'] + values['AP50/car']) / 2:.3f}", "missed"]


def test_the_document_says_how_it_was_made_and_what_is_left_out(measured):
    text, digest = bench.document(*measured), weights_hash(NETWORKS["ctdnet-18"])
    for part in (
        "python -m benchmarks.bench_results",
        "4 frames of MSRS/test",
        "1,000 resamples, seed 0",
        f"* task network `ctdnet-18`: PaintedSaliency, 0 parameters, SHA-256 of its weights {digest}",
        "* no weights are shipped of a second detector, of the DETR family (rtdetr or detr): its figures are missing",
        "* `yolov5s`: means over the classes, which have 1 person, 4 bicycle, 4 car boxes; faster-coco-eval",
        "bump is in no frame and left out",
        "* `ctdnet-18`: means over 3 frames, without 1 frame whose mask is empty; F and E are means over the",
        "3 pairs of TNO with masks that were made by hand",
        "* `ctdnet-18`: means over 2 frames, without 1 frame whose mask is empty",
    ):
        assert part in text, part
    assert "### yolov5s" in text
    assert "### ctdnet-18" not in text


def test_the_figures_of_vfn_stand_beside_their_gain(measured):
    figures = bench.figures(measured[0])
    scores = measured[0].evaluation.scores["ctdnet-18"]
    assert figures["results.frames"] == 4
    assert figures["results.ctdnet-18.MAE"] == scores["vfn"].values["MAE"]
    gain = scores["vfn"].values["F/mean"] - scores["max"].values["F/mean"]
    assert figures["results.ctdnet-18.F_mean_gain"] == pytest.approx(gain)


def test_without_a_saliency_network_there_is_no_part_about_it(data):
    first, zero_shot = bench.measure_all(data, {"yolov5s": NETWORKS["yolov5s"]}, limit=2)
    assert zero_shot is None
    assert len(first.evaluation.frames) == 2
    text = bench.document(first, zero_shot)
    assert "TNO" not in text
    assert text.count("none is shipped") == 3


def test_nothing_is_written_while_no_weights_are_shipped(data, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SHIPPED", {})
    monkeypatch.setattr(bench, "DOCUMENT", tmp_path / "results.md")
    with pytest.raises(ConfigurationError, match="give --network NAME=FILE"):
        bench.run(data)
    assert not bench.DOCUMENT.exists()


def test_a_run_scores_what_is_shipped_and_writes_the_page(data, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SHIPPED", dict.fromkeys(NETWORKS, ""))
    monkeypatch.setattr(bench, "load", NETWORKS.__getitem__)
    monkeypatch.setattr(bench, "DOCUMENT", tmp_path / "results.md")
    figures = bench.run(data)
    assert figures["results.frames"] == 4
    assert bench.DOCUMENT.read_text(encoding="utf-8").startswith("# What task networks see\n")
