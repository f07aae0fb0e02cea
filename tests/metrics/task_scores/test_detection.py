"""Detection scores are COCO's, to the last digit, also of sets that are drawn again."""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fuseloop.errors import LabelError
from fuseloop.metrics.task_scores import (
    DetectionFrame,
    DetectionScores,
    detection_frame,
    differences,
    intervals,
    score_detection,
)

CLASSES = ("person", "bike", "car")
KEYS = {
    "mAP50:95": "AP_all",
    "mAP50": "AP_50",
    "mAP75": "AP_75",
    "mAP50:95/small": "AP_small",
    "mAP50:95/medium": "AP_medium",
    "mAP50:95/large": "AP_large",
}


def frame(name: str, wanted: Any = (), found: Any = (), **changes: Any) -> DetectionFrame:
    """From (class, x1, y1, x2, y2) of labelled boxes, and (class, x1, y1, x2, y2, score) of found ones."""
    labelled = np.array(wanted, float).reshape(-1, 5)
    detected = np.array(found, float).reshape(-1, 6)
    given = {
        "truth": labelled[:, 1:],
        "truth_classes": labelled[:, 0].astype(int),
        "boxes": detected[:, 1:5],
        "scores": detected[:, 5],
        "classes": detected[:, 0].astype(int),
        "class_count": len(CLASSES),
    }
    return detection_frame(name, **(given | changes))


def score(frames: list[DetectionFrame]) -> DetectionScores:
    return score_detection(frames, CLASSES, score_threshold=0.001, nms_iou=0.6)


def by_the_library(frames: list[DetectionFrame]) -> tuple[dict[str, float], np.ndarray]:
    """The statistics of faster-coco-eval, and AP50:95 of each class, from COCO files as its manual makes them."""
    from faster_coco_eval import COCO, COCOeval_faster

    dataset: dict[str, Any] = {
        "images": [{"id": number, "width": 640, "height": 480} for number in range(len(frames))],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
        "annotations": [],
    }
    results = []
    for number, each in enumerate(frames):
        for (x1, y1, x2, y2), label in zip(each.truth.tolist(), each.truth_classes.tolist(), strict=True):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            ids = {"id": len(dataset["annotations"]) + 1, "image_id": number, "category_id": label}
            dataset["annotations"].append(box | ids)
        for (x1, y1, x2, y2), label, value in zip(
            each.boxes.tolist(), each.classes.tolist(), each.scores.tolist(), strict=True
        ):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "image_id": number, "category_id": label, "score": value}
            results.append(box)
    truth = COCO(dataset)
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes = [
        values[values > -1].mean() if (values > -1).any() else math.nan for values in np.moveaxis(precision, 2, 0)
    ]
    return evaluation.stats_as_dict, np.array(classes)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-12, nan_ok=True), key


# Corners on a coarse grid and few scores, so that equal overlaps, equal scores, exact thresholds and all sizes occur.
CORNERS = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4), st.integers(1, 4))
GRIDS = st.sampled_from([8, 24, 32])


@st.composite
def boxes(draw: st.DrawFn, scored: bool) -> list[list[float]]:
    found = []
    for _ in range(draw(st.integers(0, 6))):
        x, y, width, height = draw(CORNERS)
        grid = draw(GRIDS)
        box = [draw(st.integers(0, 2)), x * grid, y * grid, (x + width) * grid, (y + height) * grid]
        found.append([*box, draw(st.sampled_from([0.1, 0.5, 0.7, 0.9]))] if scored else box)
    return found


FRAMES = st.lists(st.tuples(boxes(False), boxes(True)), min_size=1, max_size=4).map(
    lambda drawn: [frame(str(number), *each) for number, each in enumerate(drawn)]
)


@settings(deadline=None, max_examples=60)
@given(FRAMES)
def test_the_scores_are_those_of_faster_coco_eval(frames: list[DetectionFrame]):
    found = score(frames).values
    statistics, classes = by_the_library(frames)
    for key, name in KEYS.items():
        expected = math.nan if statistics[name] == -1 else statistics[name]
        assert found[key] == pytest.approx(expected, abs=1e-12, nan_ok=True), key
    assert [found[f"AP50:95/{name}"] for name in CLASSES] == pytest.approx(list(classes), abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(FRAMES)
def test_every_frame_once_gives_the_scores_themselves(frames: list[DetectionFrame]):
    scores = score(frames)
    again = scores.resample(np.ones((1, len(frames)), np.int64))
    assert_same({key: float(values[0]) for key, values in again.items()}, scores.values)


def ranked(each: DetectionFrame) -> bool:
    """Whether no two detections of a class have one score."""
    return len(set(zip(each.classes, each.scores, strict=True))) == len(each.scores)


@settings(deadline=None, max_examples=60)
@given(FRAMES.filter(lambda frames: all(map(ranked, frames))), st.data())
def test_drawn_sets_are_scored_as_if_the_frames_were_copied(frames: list[DetectionFrame], data: st.DataObject):
    count = st.lists(st.integers(0, 3), min_size=len(frames), max_size=len(frames)).filter(any)
    counts = np.array(data.draw(st.lists(count, min_size=1, max_size=3)))
    drawn = score(frames).resample(counts)
    for row, times in enumerate(counts):
        copies = [
            replace(each, name=f"{each.name} {copy}")
            for each, number in zip(frames, times, strict=True)
            for copy in range(number)
        ]
        assert_same({key: float(values[row]) for key, values in drawn.items()}, score(copies).values)


@settings(deadline=None, max_examples=25)
@given(FRAMES, st.randoms())
def test_the_order_of_frames_and_detections_does_not_matter(frames: list[DetectionFrame], random: Any):
    """As long as no two scores are equal: COCO ranks equal ones in the order of the files."""
    total = sum(len(each.scores) for each in frames)
    values = iter(np.random.default_rng(0).permutation(total) / max(total, 1))
    shuffled = []
    distinct = []
    for each in frames:
        scores = np.array([next(values) for _ in each.scores])
        given = {"truth": each.truth, "truth_classes": each.truth_classes, "class_count": len(CLASSES)}
        distinct.append(detection_frame(each.name, boxes=each.boxes, scores=scores, classes=each.classes, **given))
        order = random.sample(range(len(scores)), len(scores))
        shuffled.append(
            detection_frame(
                each.name, boxes=each.boxes[order], scores=scores[order], classes=each.classes[order], **given
            )
        )
    random.shuffle(shuffled)
    assert_same(score(shuffled).values, score(distinct).values)


@settings(deadline=None, max_examples=25)
@given(FRAMES)
def test_a_perfect_prediction_scores_one(frames: list[DetectionFrame]):
    perfect = [
        replace(each, boxes=each.truth, classes=each.truth_classes, scores=np.ones(len(each.truth))) for each in frames
    ]
    assert {value for value in score(perfect).values.values() if not math.isnan(value)} <= {1.0}


BOX = (100, 100, 160, 160)
SHIFTED = (110, 100, 170, 160)  # overlaps by 5/7 = .714


def test_a_found_box_counts_up_to_its_overlap():
    found = score([frame("a", [(0, *BOX)], [(0, *SHIFTED, 0.9)])]).values
    assert found["mAP50"] == found["AP50/person"] == 1
    assert found["mAP75"] == 0
    assert found["mAP50:95"] == pytest.approx(0.5)  # .5, .55, .6, .65 and .7 of the ten


def test_a_false_detection_before_the_right_one_halves_the_precision():
    found = score([frame("a", [(0, *BOX)], [(0, 0, 0, 50, 50, 0.9), (0, *BOX, 0.8)])])
    assert found.values["mAP50"] == pytest.approx(0.5)


def test_a_false_detection_after_the_last_right_one_costs_nothing():
    found = score([frame("a", [(0, *BOX)], [(0, *BOX, 0.8), (0, 0, 0, 50, 50, 0.1)])])
    assert found.values["mAP50"] == 1


def test_half_of_the_boxes_give_half_of_the_recall_points():
    found = score([frame("a", [(0, *BOX)], [(0, *BOX, 0.8)]), frame("b", [(0, *BOX)])])
    assert found.values["mAP50"] == pytest.approx(51 / 101)


def test_frames_without_boxes_stay_in():
    right = frame("a", [(0, *BOX)], [(0, *BOX, 0.5)])
    assert score([right, frame("b")]).values["mAP50"] == 1
    assert score([right, frame("b", [], [(0, *BOX, 0.9)])]).values["mAP50"] == pytest.approx(0.5)


def test_nothing_found_scores_zero():
    found = score([frame("a", [(0, *BOX), (2, *BOX)]), frame("b")])
    assert found.values["mAP50:95"] == 0
    assert set(intervals(found, resamples=20)) == set(found.values)


def test_an_absent_class_is_named_and_left_out_of_the_means():
    """Also its false detections cost nothing, which the table says."""
    found = score([frame("a", [(0, *BOX)], [(0, *BOX, 0.5), (1, *BOX, 0.9)])])
    assert found.values["mAP50"] == 1
    assert found.absent == ("bike", "car")
    assert math.isnan(found.values["AP50/bike"])
    assert found.undefined["AP50/bike"] == "no such box is labelled in the set"
    assert "AP50:95/small/person" in found.undefined
    assert found.detected.tolist() == [1, 1, 0]


@pytest.mark.parametrize(("side", "size"), [(32, "small"), (33, "medium"), (96, "medium"), (97, "large")])
def test_sizes_are_those_of_coco(side: int, size: str):
    box = (0, 0, side, side)
    found = score([frame("a", [(0, *box)], [(0, *box, 0.5)])]).values
    assert found[f"mAP50:95/{size}"] == 1


def test_only_the_hundred_best_detections_of_a_frame_count():
    wrong = [(0, 200, 200, 260, 260, 0.9)] * 99
    assert score([frame("a", [(0, *BOX)], [*wrong, (0, *BOX, 0.5)])]).values["mAP50"] == pytest.approx(0.01)
    late = frame("a", [(0, *BOX)], [*wrong, wrong[0], (0, *BOX, 0.5)])
    assert len(late.scores) == 100
    assert score([late]).values["mAP50"] == 0


def test_tensors_are_taken_as_they_are():
    given = frame(
        "a",
        [(0, *BOX)],
        boxes=torch.tensor([BOX], dtype=torch.float32),
        scores=torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True),
        classes=torch.tensor([0]),
    )
    assert score([given]).values["mAP50"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": [[160, 100, 100, 160]]}, r"frame 00012N: detected box 0 is .*ends before it starts.*not \(x, y, w"),
        ({"truth": [[100, 100, 100, 160]]}, "frame 00012N: labelled box 0 .*without area; remove"),
        ({"boxes": [[1, 2, 3]]}, r"shape \(1, 3\); give N×4"),
        ({"boxes": [[0, 0, 1, math.nan]]}, "detected box has NaN"),
        ({"scores": [math.nan]}, "frame 00012N: a score is NaN"),
        ({"scores": [0.5, 0.4]}, "1 detected boxes have 2 scores; give one for each"),
        ({"classes": [0, 1]}, "1 detected boxes have 2 classes"),
        ({"truth_classes": [0, 1]}, "1 labelled boxes have 2 classes"),
        ({"classes": [3]}, "detected box has class 3; class ids are 0 to 2"),
        ({"truth_classes": [-1]}, "labelled box has class -1"),
        ({"classes": [0.0]}, "classes are float64; give class ids as whole numbers"),
    ],
)
def test_what_cannot_be_scored_is_an_error_that_names_the_frame(changes: dict[str, Any], message: str):
    with pytest.raises(LabelError, match=message):
        frame("00012N", [(0, *BOX)], [(0, *BOX, 0.5)], **changes)


def test_a_set_needs_frames_with_names_of_their_own_and_names_for_all_classes():
    with pytest.raises(LabelError, match="no frame to score"):
        score([])
    with pytest.raises(LabelError, match="several frames are called a"):
        score([frame("a"), frame("a")])
    with pytest.raises(LabelError, match="frame a: holds class 2, but only 1"):
        score_detection([frame("a", [(2, *BOX)])], ["person"], score_threshold=0.001, nms_iou=None)


def some_frames(count: int, spread: float) -> list[DetectionFrame]:
    random = np.random.default_rng(7)
    made = []
    for number in range(count):
        corners = random.uniform(0, 400, (5, 2))
        truth = np.concatenate([corners, corners + random.uniform(10, 150, (5, 2))], axis=1)
        labels = random.integers(0, 2, 5)
        found = np.sort((truth + random.normal(0, spread, truth.shape)).reshape(5, 2, 2), axis=1).reshape(5, 4)
        made.append(
            detection_frame(
                str(number),
                truth=truth,
                truth_classes=labels,
                boxes=found,
                scores=random.uniform(size=5),
                classes=labels,
                class_count=3,
            )
        )
    return made


def test_intervals_hold_the_scores_and_differences_are_paired():
    good, bad = score(some_frames(30, 2)), score(some_frames(30, 6))
    found = intervals(good, resamples=200)
    for key in ("mAP50:95", "AP75/person", "mAP50:95/medium"):
        assert found[key].low < good.values[key] < found[key].high
    gain = differences(good, bad, resamples=200)
    assert gain["mAP50:95"].value == pytest.approx(good.values["mAP50:95"] - bad.values["mAP50:95"])
    assert gain["mAP50:95"].low > 0
    assert differences(good, good, resamples=50)["mAP50"].high == 0


def test_a_thousand_draws_of_a_test_set_take_seconds():
    random = np.random.default_rng(8)
    frames = []
    for each in some_frames(76, 4):
        corners = random.uniform(0, 400, (95, 2))
        wrong = np.concatenate([corners, corners + random.uniform(10, 150, (95, 2))], axis=1)
        frames.append(
            detection_frame(
                each.name,
                truth=each.truth,
                truth_classes=each.truth_classes,
                boxes=np.concatenate([each.boxes, wrong]),
                scores=random.uniform(size=100),
                classes=np.concatenate([each.classes, random.integers(0, 3, 95)]),
                class_count=3,
            )
        )
    scores = score(frames)
    start = time.process_time()
    intervals(scores, resamples=1000)
    assert time.process_time() - start < 10


def test_the_result_says_how_it_was_made():
    scores = score([frame("a", [(0, *BOX)], [(0, *BOX, 0.5)]), frame("b")])
    content = json.loads(json.dumps(scores.to_json(intervals(scores, resamples=10)), allow_nan=False))
    assert content["task"] == "detection"
    assert content["settings"]["evaluator"].startswith("faster-coco-eval 1.")
    assert (content["settings"]["score_threshold"], content["settings"]["nms_iou"]) == (0.001, 0.6)
    assert content["scores"]["AP50/car"] is None
    assert content["absent"] == ["bike", "car"]
    assert content["boxes"]["person"] == {"labelled": 1, "detected": 1}
    assert content["intervals"]["mAP50"] == [1, 1]
    assert content["frames"] == ["a", "b"]


def test_the_table_shows_scores_settings_and_what_is_missing():
    scores = score([frame("a", [(0, *BOX)], [(0, *BOX, 0.5)])])
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(scores.table(), scores.table(intervals(scores, resamples=10)))
    text = console.export_text()
    for part in ("mean", "1.000–1.000", "absent", "scores from 0.001", "IoU 0.6", "100 boxes a frame", "cost nothing"):
        assert part in text
