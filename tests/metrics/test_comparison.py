"""Methods are ranked, differ with intervals, and disagree most on frames that are named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fuseloop.errors import ConfigurationError
from fuseloop.metrics import METRICS, Evaluation, compare

FRAMES = ("a", "b", "c", "d")
NAN = math.nan


def evaluation(frames: tuple[str, ...] = FRAMES, convention: str = "default", **values: list[float]) -> Evaluation:
    return Evaluation(
        frames,
        {key: np.array(row, dtype=np.float64) for key, row in values.items()},
        dict.fromkeys(values, convention),
        {
            key: {name: "flat" for name, value in zip(frames, row, strict=True) if math.isnan(value)}
            for key, row in values.items()
        },
    )


def test_the_better_mean_has_the_better_rank_whatever_the_direction():
    found = compare({"bad": evaluation(en=[1, 2, 3, 4], mse=[9, 9, 9, 9]), "good": evaluation(en=[2] * 4, mse=[1] * 4)})
    assert found.ranks == {"en": {"bad": 1, "good": 2}, "mse": {"bad": 2, "good": 1}}
    assert found.mean_ranks == {"bad": 1.5, "good": 1.5}


def test_near_zero_is_best_where_the_table_says_so(monkeypatch):
    monkeypatch.setitem(METRICS, "toy", replace(METRICS["en"], direction="zero"))
    found = compare({"soft": evaluation(toy=[-0.4] * 4), "right": evaluation(toy=[0.1] * 4)})
    assert found.ranks["toy"] == {"soft": 2, "right": 1}
    difference = found.differences["right"]["toy"]
    assert difference.summary.mean == pytest.approx(0.5)
    assert difference.verdict == "better"


def test_equal_methods_share_their_ranks():
    same = evaluation(en=[1, 2, 3, 4])
    found = compare({"x": same, "y": same, "z": evaluation(en=[0] * 4)})
    assert found.ranks["en"] == {"x": 1.5, "y": 1.5, "z": 3}


def test_ranks_leave_out_frames_where_a_method_is_undefined():
    found = compare({"x": evaluation(en=[0, 9, 9, 9]), "y": evaluation(en=[5, NAN, NAN, NAN])})
    assert found.ranks["en"] == {"x": 2, "y": 1}


def test_what_is_never_defined_for_all_has_no_rank_and_does_not_count():
    found = compare({"x": evaluation(en=[NAN] * 4, sd=[2] * 4), "y": evaluation(en=[1] * 4, sd=[1] * 4)})
    assert math.isnan(found.ranks["en"]["x"])
    assert found.ranks["en"]["y"] == 1
    assert found.ranked == ("sd",)
    assert found.mean_ranks == {"x": 1, "y": 2}


def test_the_others_are_ranked_where_one_is_never_defined():
    never = evaluation(en=[NAN] * 4)
    found = compare({"x": evaluation(en=[1] * 4), "never": never, "y": evaluation(en=[2, NAN, 2, 2])})
    assert found.ranks["en"]["x"] == 2
    assert found.ranks["en"]["y"] == 1
    assert found.differences["never"]["en"].verdict == "undefined"
    nothing = compare({"x": evaluation(en=[1, NAN, NAN, NAN]), "y": evaluation(en=[NAN, 1, 1, 1])})
    assert all(math.isnan(rank) for rank in nothing.ranks["en"].values()), "no frame is defined for both"


def test_infinite_means_are_ranked_and_their_difference_is_undefined():
    found = compare({"x": evaluation(psnr=[math.inf] * 4), "y": evaluation(psnr=[60] * 4)})
    assert found.ranks["psnr"] == {"x": 1, "y": 2}
    twice = compare({"x": evaluation(psnr=[math.inf] * 4), "y": evaluation(psnr=[math.inf] * 4)})
    assert twice.differences["y"]["psnr"].summary.count == 0
    assert twice.differences["y"]["psnr"].verdict == "undefined"


def test_differences_are_taken_to_the_first_method_unless_another_is_named():
    methods = {"x": evaluation(en=[1, 1, 1, 1]), "y": evaluation(en=[2, 3, 2, 3]), "z": evaluation(en=[1, 0, 2, 1])}
    found = compare(methods)
    assert found.baseline == "x"
    assert list(found.differences) == ["y", "z"]
    assert found.differences["y"]["en"].summary.mean == 1.5
    assert found.differences["y"]["en"].verdict == "better"
    assert found.differences["z"]["en"].verdict == "unclear"
    assert compare(methods, baseline="y").differences["x"]["en"].verdict == "worse"


def test_more_is_worse_where_lower_is_better():
    found = compare({"x": evaluation(mse=[1, 1, 2, 1]), "y": evaluation(mse=[2, 3, 4, 5])})
    assert found.differences["y"]["mse"].summary.low > 0
    assert found.differences["y"]["mse"].verdict == "worse"


def test_a_single_frame_decides_nothing():
    found = compare({"x": evaluation(("a",), en=[1]), "y": evaluation(("a",), en=[5])})
    assert found.differences["y"]["en"].summary.mean == 4
    assert found.differences["y"]["en"].verdict == "unclear"


def test_only_frames_that_all_methods_have_are_compared():
    found = compare({"x": evaluation(en=[1, 2, 3, 4]), "y": evaluation(("d", "b"), en=[5, 3])})
    assert found.frames == ("b", "d")
    assert found.differences["y"]["en"].summary.mean == 1
    assert found.differences["y"]["en"].summary.count == 2


def test_frames_are_ordered_by_how_far_apart_the_methods_are():
    x = evaluation(en=[1, 1, 1, 1], mse=[10, 10, 10, 10])
    y = evaluation(en=[1, 2, 1, NAN], mse=[10, 10, 50, 10])
    found = compare({"x": x, "y": y}).disagreements
    assert [one.frame for one in found] == ["c", "b"]
    assert (found[0].metric, found[0].best, found[0].worst) == ("mse", "x", "y")
    assert (found[1].metric, found[1].best, found[1].worst) == ("en", "y", "x")
    # mse has the values 10 (seven times) and 50, en 1 (six times) and 2.
    assert found[0].amount == pytest.approx(40 / np.std([10] * 7 + [50]) / 2)
    assert found[1].amount == pytest.approx(1 / np.std([1] * 6 + [2]) / 2)


def test_methods_without_any_difference_disagree_nowhere():
    same = evaluation(en=[2, 2, 2, 2])
    assert compare({"x": same, "y": same}).disagreements == []


def test_what_cannot_be_compared_is_an_error():
    x = evaluation(en=[1, 2, 3, 4])
    with pytest.raises(ConfigurationError, match=r"no method 'max'.*there are x, y"):
        compare({"x": x, "y": x}, baseline="max")
    with pytest.raises(ConfigurationError, match="no frame was scored for all of x, y"):
        compare({"x": x, "y": evaluation(("e",), en=[1])})
    with pytest.raises(ValueError, match="two methods"):
        compare({"x": x})
    with pytest.raises(ValueError, match="same conventions"):
        compare({"x": x, "y": evaluation(convention="tang", en=[1, 2, 3, 4])})
