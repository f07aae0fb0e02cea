"""Saliency scores are those of pysodmetrics; frames with an empty mask stand apart."""

from __future__ import annotations

import io
import json
import math
import sys
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
    SaliencyFrame,
    SaliencyScores,
    differences,
    intervals,
    saliency_frame,
    score_saliency,
)


def blob(seed: int, height: int = 24, width: int = 31) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a mask that resemble each other."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((height, width))
    top, left = random.uniform(6, height - 6), random.uniform(6, width - 6)
    mask = ((rows - top) ** 2 + (columns - left) ** 2 < 30).astype(np.uint8) * 255
    noise = random.uniform(20, 110, mask.shape)
    return np.clip(noise + 0.5 * np.roll(mask, 1, axis=1), 0, 250).astype(np.uint8), mask


def score(*pairs: Any) -> SaliencyScores:
    return score_saliency([saliency_frame(str(number), *pair) for number, pair in enumerate(pairs)])


def by_the_library(pairs: list[Any]) -> dict[str, float]:
    """pysodmetrics over a set, as its manual does it: one object for the whole set."""
    from py_sod_metrics import MAE, Emeasure, FmeasureHandler, FmeasureV2, Smeasure, WeightedFmeasure

    error, plain, structure, alignment, weighted = MAE(), MAE(), Smeasure(), Emeasure(), WeightedFmeasure()
    overlap = FmeasureV2({"fm": FmeasureHandler(with_adaptive=True, with_dynamic=True)})
    for predicted, mask in pairs:
        for measure in (error, structure, alignment, weighted, overlap):
            measure.step(predicted, mask)
        plain.step(predicted / 255, mask > 128, normalize=False)
    e, f = alignment.get_results()["em"], overlap.get_results()["fm"]
    return {
        "MAE": error.get_results()["mae"],
        "MAE/unstretched": plain.get_results()["mae"],
        "S": structure.get_results()["sm"],
        "E/adaptive": e["adp"],
        "E/mean": e["curve"].mean(),
        "E/max": e["curve"].max(),
        "F/adaptive": f["adaptive"],
        "F/mean": f["dynamic"].mean(),
        "F/max": f["dynamic"].max(),
        "F/weighted": weighted.get_results()["wfm"],
    }


def assert_those_of(found: dict[str, float], expected: dict[str, float]) -> None:
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-12), key


def test_a_set_has_the_scores_of_pysodmetrics():
    pairs = [blob(seed) for seed in range(5)]
    assert_those_of(score(*pairs).values, by_the_library(pairs))


SIZE = st.shared(st.tuples(st.integers(2, 9), st.integers(2, 9)))
LEVELS = arrays(np.uint8, SIZE, elements=st.sampled_from([0, 1, 100, 128, 129, 254, 255]))
MASKS = arrays(np.bool_, SIZE)


def centred(mask: np.ndarray) -> bool:
    """Whether the mask has a foreground with its centre before the last row and column."""
    return bool(mask.any()) and bool((np.argwhere(mask).mean(axis=0).round() < np.array(mask.shape) - 1).all())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(LEVELS, MASKS.filter(centred)), min_size=1, max_size=3))
def test_odd_images_have_the_scores_of_pysodmetrics(pairs: list[Any]):
    pairs = [(predicted, mask.astype(np.uint8) * 255) for predicted, mask in pairs]
    assert_those_of(score(*pairs).values, by_the_library(pairs))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_frame_without_an_s_does_not_spoil_the_others():
    """pysodmetrics gives NaN for a mask whose centre lies in the last row or column, and so for any set with one."""
    predicted, mask = blob(0)
    edge = np.zeros_like(mask)
    edge[5:9, -1] = 255
    assert math.isnan(by_the_library([(predicted, edge)])["S"])
    found = score((predicted, mask), (predicted, edge))
    assert found.without_structure == ("1",)
    expected = by_the_library([(predicted, mask), (predicted, edge)]) | {"S": score((predicted, mask)).values["S"]}
    assert_those_of(found.values, expected)
    assert score((predicted, edge)).undefined["S"] == "the centre of the mask lies in the last row or column"


def test_mean_and_maximum_are_taken_after_the_curves_are_averaged():
    """Each frame is perfect at a threshold of its own: the mean of the maxima would be 1."""
    mask = blob(0)[1]
    high, low = np.where(mask, 255, 180).astype(np.uint8), np.where(mask, 60, 0).astype(np.uint8)
    low[0, 0] = high[0, 0] = 255
    low[0, 1] = high[0, 1] = 0
    each = [score((predicted, mask)).values["F/max"] for predicted in (high, low)]
    assert min(each) > 0.95
    assert score((high, mask), (low, mask)).values["F/max"] < 0.9


def test_a_perfect_prediction_has_the_best_scores_there_are():
    mask = blob(1)[1]
    found = score((mask, mask)).values
    assert found["MAE"] == found["MAE/unstretched"] == 0
    for key in ("S", "F/adaptive", "F/max", "F/weighted"):
        assert found[key] == pytest.approx(1, abs=1e-9), key
    assert found["E/max"] == pytest.approx(mask.size / (mask.size - 1))
    assert 0.99 < found["F/mean"] < 1  # threshold 0 marks all


def test_predictions_are_stretched_but_for_the_error_beside_it():
    mask = blob(2)[1]
    pale = np.where(mask, 150, 50).astype(np.uint8)
    found = score((pale, mask)).values
    assert found["MAE"] == 0
    share = (mask > 0).mean()
    assert found["MAE/unstretched"] == pytest.approx((share * 105 + (1 - share) * 50) / 255)


def test_frames_with_an_empty_mask_are_left_out_and_reported():
    nothing = np.zeros((24, 31), np.uint8)
    pairs = [blob(3), (np.full_like(nothing, 51), nothing), blob(4)]
    found = score(*pairs)
    assert_those_of(found.values, by_the_library([pairs[0], pairs[2]]))
    assert found.empty == ("1",)
    assert found.values["MAE/empty/unstretched"] == pytest.approx(0.2)
    alone = score(pairs[1])
    assert alone.undefined["S"] == "every mask of the set is empty"
    assert score(pairs[0]).undefined == dict.fromkeys(
        ("MAE/empty", "MAE/empty/unstretched"), "no mask of the set is empty"
    )


def test_a_mask_of_half_levels_is_cut_above_128():
    predicted, mask = blob(5)
    assert score((predicted, np.where(mask, 129, 128).astype(np.uint8))).values == pytest.approx(
        score((predicted, mask)).values, nan_ok=True
    )


def test_floating_point_and_tensors_are_scored_as_they_would_be_saved():
    predicted, mask = blob(6)
    expected = score((predicted, mask)).values
    for saved in (predicted / 255 + 0.4 / 255, torch.from_numpy(predicted / 255).float().requires_grad_()):
        assert score((saved, mask > 0)).values == pytest.approx(expected, nan_ok=True)
    assert score((predicted, torch.from_numpy(mask / 255))).values == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(LEVELS, MASKS), min_size=1, max_size=4), st.data())
def test_drawn_sets_are_scored_as_if_the_frames_were_copied(pairs: list[Any], data: st.DataObject):
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)).filter(any)))
    drawn = score(*pairs).resample(counts[None])
    copies = [pair for pair, number in zip(pairs, counts, strict=True) for _ in range(number)]
    expected = score(*copies[::-1]).values
    assert {key: float(values[0]) for key, values in drawn.items()} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("predicted", "mask", "message"),
    [
        (
            np.zeros((4, 5), np.uint8),
            np.zeros((5, 4), np.uint8),
            "frame 7N: the prediction is 5×4, the mask 4×5; resize",
        ),
        (
            np.zeros((4, 5, 3), np.uint8),
            np.zeros((4, 5), np.uint8),
            r"frame 7N: the prediction has the shape \(4, 5, 3\)",
        ),
        (np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8), "frame 7N"),
        (np.full((4, 5), math.nan), np.zeros((4, 5), bool), "frame 7N: the prediction has NaN"),
        (np.full((4, 5), -3.0), np.zeros((4, 5), bool), "frame 7N: the prediction reaches from -3 to -3.*sigmoid"),
        (np.zeros((4, 5), np.int64), np.zeros((4, 5), bool), "frame 7N: the prediction is int64; give uint8"),
        (np.zeros((4, 5), np.uint8), np.eye(4, 5, dtype=np.uint8), "frame 7N: the mask holds 0 and 1 as uint8"),
    ],
)
def test_what_cannot_be_scored_is_an_error_that_names_the_frame(predicted: Any, mask: Any, message: str):
    with pytest.raises(LabelError, match=message):
        saliency_frame("7N", predicted, mask)


def test_where_pysodmetrics_is_missing_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    with pytest.raises(ConfigurationError, match="pip install pysodmetrics"):
        saliency_frame("a", *blob(0))


def kept(noise: int) -> list[SaliencyFrame]:
    frames = []
    for seed in range(12):
        predicted, mask = blob(seed)
        grain = np.random.default_rng(seed).integers(-noise, noise + 1, mask.shape)
        frames.append(saliency_frame(str(seed), np.clip(predicted + grain, 0, 255).astype(np.uint8), mask))
    return frames


def test_intervals_hold_the_scores_and_differences_are_paired():
    good, bad = score_saliency(kept(0)), score_saliency(kept(80))
    found = intervals(good, resamples=300)
    for key in ("MAE", "S", "E/adaptive", "F/mean", "F/weighted"):
        assert found[key].low < good.values[key] < found[key].high, key
    assert math.isnan(found["MAE/empty"].low)
    assert found["MAE/empty"].undefined == 300
    assert differences(good, bad, resamples=300)["F/weighted"].low > 0


def test_the_result_says_how_it_was_made():
    scores = score(blob(0), (np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool)))
    content = json.loads(json.dumps(scores.to_json(intervals(scores, resamples=10)), allow_nan=False))
    assert content["settings"]["evaluator"].startswith("pysodmetrics 1.")
    assert content["empty"] == ["1"]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(scores.table(), scores.table(intervals(scores, resamples=10)))
    text = console.export_text()
    assert content["without_S"] == []
    for part in ("E adaptive", "F weighted", "predictions as they are", "empty: 1 of 2 frames", "Saliency, 1 frames"):
        assert part in text
