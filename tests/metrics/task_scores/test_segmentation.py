"""Segmentation scores come from one confusion matrix over the set, and say what the background is to them."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.metrics.task_scores import (
    SegmentationFrame,
    SegmentationScores,
    classes_of,
    differences,
    intervals,
    score_segmentation,
    segmentation_frame,
)

CLASSES = ("background", "car", "person", "guardrail")
LABEL = np.array([[0, 0, 1, 1], [0, 2, 2, 255]])
PREDICTED = np.array([[0, 1, 1, 1], [2, 2, 0, 3]])


def frame(predicted: Any, label: Any, name: str = "a", **changes: Any) -> SegmentationFrame:
    return segmentation_frame(name, predicted, label, **({"class_count": len(CLASSES)} | changes))


def score(*frames: SegmentationFrame, background: Any = "exclude") -> SegmentationScores:
    return score_segmentation(frames, CLASSES, background=background)


def test_the_confusion_matrix_counts_labels_in_rows_and_drops_ignored_pixels():
    assert frame(PREDICTED, LABEL).confusion.tolist() == [[1, 1, 1, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert frame(PREDICTED, np.where(LABEL == 255, 3, LABEL), ignore_index=None).confusion[3, 3] == 1
    assert frame(PREDICTED, LABEL, ignore_index=255).confusion.sum() == 7


@pytest.mark.parametrize(
    ("background", "iou", "accuracy"),
    [
        # background 1/4, car 2/3, person 1/3
        ("include", (1 / 4 + 2 / 3 + 1 / 3) / 3, (1 / 3 + 1 + 1 / 2) / 3),
        ("exclude", (2 / 3 + 1 / 3) / 2, (1 + 1 / 2) / 2),
        # Without the pixels labelled as background car and person have no false ones.
        ("ignore", (1 + 1 / 2) / 2, (1 + 1 / 2) / 2),
    ],
)
def test_policies_differ_as_they_say(background: str, iou: float, accuracy: float):
    found = score(frame(PREDICTED, LABEL), background=background).values
    assert found["mIoU"] == pytest.approx(iou)
    assert found["mAcc"] == pytest.approx(accuracy)
    assert found["mIoU/include"] == pytest.approx((1 / 4 + 2 / 3 + 1 / 3) / 3)
    assert found["mAcc/include"] == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)
    assert math.isnan(found["IoU/background"]) == (background == "ignore")


def test_excluding_is_the_default():
    made = score_segmentation([frame(PREDICTED, LABEL)], CLASSES)
    assert made.values == pytest.approx(score(frame(PREDICTED, LABEL)).values, nan_ok=True)
    assert made.background == "exclude"


def test_a_class_that_is_never_labelled_is_absent_though_it_was_predicted():
    found = score(frame(np.full((2, 4), 3), LABEL))
    assert found.absent == ("guardrail",)
    assert found.undefined == dict.fromkeys(("IoU/guardrail", "Acc/guardrail"), "no pixel of the set is labelled so")
    assert found.values["mIoU"] == 0


def test_no_frame_is_averaged_by_itself():
    one, other = (
        frame(np.array([[1, 1]]), np.array([[1, 1]])),
        frame(np.array([[0] * 8]), np.array([[1] * 8]), name="b"),
    )
    assert score(one, other).values["IoU/car"] == pytest.approx(0.2)


def test_ignored_background_is_undefined_for_its_own_reason():
    found = score(frame(PREDICTED, LABEL), background="ignore")
    assert found.undefined["IoU/background"] == "pixels of the background are ignored"
    assert found.undefined["IoU/guardrail"] == "no pixel of the set is labelled so"


IDS = st.shared(st.tuples(st.integers(1, 5), st.integers(1, 5)))
LABELS = arrays(np.int64, IDS, elements=st.sampled_from([0, 1, 2, 3, 255]))
PREDICTIONS = arrays(np.uint8, IDS, elements=st.integers(0, 3))
SETS = st.lists(st.tuples(PREDICTIONS, LABELS), min_size=1, max_size=4).map(
    lambda drawn: [frame(*each, name=str(number)) for number, each in enumerate(drawn)]
)
POLICIES = st.sampled_from(["include", "exclude", "ignore"])


@settings(deadline=None)
@given(PREDICTIONS, LABELS, POLICIES)
def test_scores_are_those_of_counting_pixels_one_by_one(predicted: Any, label: Any, background: str):
    counted = label != 255
    if background == "ignore":
        counted &= label != 0
    found = score(frame(predicted, label), background=background).values
    ious, accuracies = [], []
    for number, name in enumerate(CLASSES):
        wanted, given = (label == number) & counted, (predicted == number) & counted
        if not wanted.any():
            assert math.isnan(found[f"IoU/{name}"])
            continue
        iou, accuracy = (wanted & given).sum() / (wanted | given).sum(), (wanted & given).sum() / wanted.sum()
        assert (found[f"IoU/{name}"], found[f"Acc/{name}"]) == pytest.approx((iou, accuracy))
        if number or background == "include":
            ious.append(iou)
            accuracies.append(accuracy)
    expected = (np.mean(ious), np.mean(accuracies)) if ious else (math.nan, math.nan)
    assert (found["mIoU"], found["mAcc"]) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(LABELS, POLICIES)
def test_a_perfect_prediction_scores_one(label: Any, background: str):
    found = score(frame(np.where(label == 255, 0, label), label), background=background).values
    assert {value for value in found.values() if not math.isnan(value)} <= {1.0}


@settings(deadline=None)
@given(SETS, POLICIES, st.data())
def test_drawn_sets_are_scored_as_if_the_frames_were_copied(
    frames: list[SegmentationFrame], background: str, data: st.DataObject
):
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(frames), max_size=len(frames)).filter(any)))
    drawn = score(*frames, background=background).resample(counts[None])
    copies = [
        SegmentationFrame(f"{each.name} {copy}", each.confusion)
        for each, number in zip(frames, counts, strict=True)
        for copy in range(number)
    ]
    expected = score(*copies[::-1], background=background).values
    assert {key: float(values[0]) for key, values in drawn.items()} == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(PREDICTIONS, LABELS, POLICIES)
def test_a_frame_cut_in_two_scores_the_same(predicted: Any, label: Any, background: str):
    whole = score(frame(predicted, label), background=background)
    rows = [frame(predicted[row : row + 1], label[row : row + 1], name=str(row)) for row in range(len(label))]
    assert score(*rows, background=background).values == pytest.approx(whole.values, nan_ok=True)


def test_logits_are_resized_before_the_maximum_is_taken():
    logits = torch.tensor([[[0.0, 4.0]], [[1.0, 1.0]]])  # class 0 grows to the right, class 1 is even
    assert classes_of(logits, 1, 2).tolist() == [[1, 0]]
    # Interpolated, class 0 is 0, 0, 1/3·..., and passes 1 before the middle; repeated ids would switch at the middle.
    assert classes_of(logits, 1, 8).tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    batch = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    together = classes_of(batch.half(), 9, 7)
    assert together.shape == (3, 9, 7)
    assert together.dtype == torch.int64
    assert all((classes_of(batch.half()[i], 9, 7) == together[i]).all() for i in range(3))
    with pytest.raises(ValueError, match="B×C×h×w"):
        classes_of(torch.zeros(4, 5), 4, 5)


@pytest.mark.parametrize(
    ("predicted", "label", "message"),
    [
        (PREDICTED[:, :3], LABEL, "frame 7N: the prediction is 3×2, the label 4×2; resize the logits"),
        (PREDICTED, LABEL[None], r"frame 7N: the label has the shape \(1, 2, 4\)"),
        (PREDICTED[:0], LABEL[:0], "frame 7N: the prediction has the shape"),
        (PREDICTED / 1, LABEL, "frame 7N: the prediction is float64; give class ids"),
        (PREDICTED + 2, LABEL, "frame 7N: the prediction holds 4 in 2 pixels; class ids are 0 to 3"),
        (PREDICTED, LABEL + 3, r"frame 7N: the label holds 4, 5, 258 in 5 pixels; class ids are 0 to 3, 255 in the"),
        (PREDICTED, LABEL - 1, "frame 7N: the label holds -1, 254"),
    ],
)
def test_what_cannot_be_scored_is_an_error_that_names_the_frame(predicted: Any, label: Any, message: str):
    with pytest.raises(LabelError, match=message):
        frame(predicted, label, name="7N")


def test_pixels_that_do_not_count_may_hold_anything():
    assert frame(np.where(LABEL == 255, 255, PREDICTED), LABEL).confusion.sum() == 7


def test_a_set_needs_one_number_of_classes_and_a_known_policy():
    with pytest.raises(LabelError, match="frame a: counted with 4 classes, but 2 are named"):
        score_segmentation([frame(PREDICTED, LABEL)], CLASSES[:2])
    with pytest.raises(ConfigurationError, match="no background policy 'drop'; it is include or exclude or ignore"):
        score(frame(PREDICTED, LABEL), background="drop")
    with pytest.raises(ConfigurationError, match="names of their own, got background, car, car, cone"):
        score_segmentation([frame(PREDICTED, LABEL)], ("background", "car", "car", "cone"))
    with pytest.raises(LabelError, match="no frame"):
        score()


def some_frames(mistakes: float) -> list[SegmentationFrame]:
    random = np.random.default_rng(3)
    made = []
    for number in range(20):
        label = random.integers(0, 3, (12, 12))
        wrong = random.uniform(size=label.shape) < mistakes
        made.append(frame(np.where(wrong, random.integers(0, 3, label.shape), label), label, name=str(number)))
    return made


def test_intervals_hold_the_scores_and_differences_are_paired():
    good, bad = score(*some_frames(0.2)), score(*some_frames(0.3))
    found = intervals(good, resamples=300)
    assert found["mIoU"].low < found["mIoU"].value == good.values["mIoU"] < found["mIoU"].high
    assert math.isnan(found["IoU/guardrail"].low)
    assert differences(good, bad, resamples=300)["mIoU"].low > 0
    with pytest.raises(ValueError, match="same settings"):
        differences(good, score(*some_frames(0.2), background="include"))


def test_the_result_says_how_it_was_made():
    scores = score(frame(PREDICTED, LABEL))
    content = json.loads(json.dumps(scores.to_json(intervals(scores, resamples=10)), allow_nan=False))
    assert content["settings"] == {"background": "exclude", "classes": list(CLASSES)}
    assert content["pixels"] == {"background": 3, "car": 2, "person": 2, "guardrail": 0}
    assert content["scores"]["IoU/guardrail"] is None
    assert "IoU/guardrail" in content["undefined"]
    assert content["intervals"]["IoU/guardrail"] is None


def test_the_table_prints_the_other_policy_beside_it():
    scores = score(frame(PREDICTED, LABEL))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(scores.table(), scores.table(intervals(scores, resamples=10)))
    text = console.export_text()
    for part in (
        "Background exclude",
        "background included",
        "0.417",
        "left out of the means: guardrail",
        "not in the means",
    ):
        assert part in text
