"""The numbers of the report are those of the metrics, however they are shown."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.metrics import Evaluation, compare
from fuseloop.metrics.summary import redraws
from fuseloop.reports.score_numbers import (
    Numbers,
    data,
    decimals_for,
    frame_rows,
    method_rows,
    number,
    rank_intervals,
)
from tests.reports.conftest import FRAMES, KEYS, METHODS, evaluation, evaluations


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers.of(evaluations(), "cddfuse")


@pytest.fixture(scope="module")
def found(numbers) -> dict:
    pages = [f"{index:04d}" for index in range(len(FRAMES))]
    return json.loads(json.dumps(data(numbers, pages, ["a", "b", "c"]), allow_nan=False))


class TestText:
    @pytest.mark.parametrize(
        ("value", "decimals", "text"),
        [
            (0.71974, 3, "0.720"),
            (-0.5, 1, "−0.5"),
            (-0.0001, 2, "0.00"),
            (math.inf, 2, "∞"),
            (-math.inf, 2, "−∞"),
            (5, 0, "5"),
        ],
    )
    def test_numbers(self, value, decimals, text):
        assert number(value, decimals) == text

    @pytest.mark.parametrize(
        ("largest", "decimals"),
        [(5341, 0), (430.1, 1), (54.68, 2), (7.44, 3), (0.72, 3), (0.012, 4), (1e-20, 9), (0, 3), (math.inf, 3)],
    )
    def test_decimals_fit_the_size(self, largest, decimals):
        assert decimals_for(np.array([largest, -0.0, math.nan])) == decimals

    @given(st.floats(1e-6, 1e6))
    def test_two_values_that_differ_by_two_percent_look_different(self, value):
        decimals = decimals_for(np.array([value]))
        assert number(value, decimals) != number(value * 0.98, decimals)


class TestRanks:
    def test_intervals_are_those_of_comparisons_of_frames_drawn_again(self):
        """What is done at once for all resamples equals comparing the methods on the frames of each."""
        keys = ("en", "scd", "qcv")  # PSNR is infinite, see below
        finite = {name: evaluation(seed, keys=keys) for seed, name in enumerate(METHODS)}
        low, high = rank_intervals(Numbers.of(finite, "cddfuse"), resamples=30)
        drawn = []
        for times in np.concatenate(list(redraws(len(FRAMES), resamples=30))):
            again = {}
            for name, one in finite.items():
                values = {key: np.repeat(column, times.astype(int)) for key, column in one.values.items()}
                again[name] = Evaluation(tuple(map(str, range(len(FRAMES)))), values, one.conventions, one.reasons)
            compared = compare(again)
            drawn.append(
                [[*(compared.ranks[key][m] for key in finite[m].values), compared.mean_ranks[m]] for m in METHODS]
            )
        np.testing.assert_allclose(low, np.percentile(drawn, 2.5, axis=0))
        np.testing.assert_allclose(high, np.percentile(drawn, 97.5, axis=0))

    def test_a_method_that_is_always_best_is_certainly_first(self):
        base = evaluation(0)
        better = Evaluation(base.frames, {"en": base.values["en"] + 0.01}, {"en": "default"}, {"en": {}})
        worse = Evaluation(base.frames, {"en": base.values["en"]}, {"en": "default"}, {"en": {}})
        low, high = rank_intervals(Numbers.of({"worse": worse, "better": better}, "default"))
        assert low.tolist() == high.tolist() == [[2, 2], [1, 1]]

    def test_infinite_values_come_first_and_undefined_metrics_have_none(self, numbers):
        values = {"psnr": np.array([math.inf, 1.0]), "scd": np.array([math.nan, math.nan])}
        other = {"psnr": np.array([2.0, 3.0]), "scd": np.array([1.0, 1.0])}
        conventions, reasons = dict.fromkeys(values, "default"), {key: {} for key in values}
        both = [Evaluation(("1", "2"), one, conventions, reasons) for one in (values, other)]
        low, high = rank_intervals(Numbers.of({"copy": both[0], "other": both[1]}, "default"))
        assert np.isnan(low[:, 1]).all()
        assert np.isnan(high[:, 1]).all()
        assert low[0, 0] == 1  # whenever the infinite value is drawn
        assert not np.isnan(low[:, 2]).any()


class TestData:
    def test_summaries_are_those_of_the_evaluations(self, found, numbers):
        for method, name in enumerate(METHODS):
            for metric, key in enumerate(KEYS):
                mean, std, low, high, count = found["summaries"][method][metric]
                expected = numbers.evaluations[name].summary(key)
                assert count == expected.count
                if key == "psnr":
                    assert [mean, std, low, high] == ["inf", None, None, None]
                else:
                    assert [mean, std, low, high] == pytest.approx(
                        [expected.mean, expected.std, expected.low, expected.high], rel=1e-5
                    )

    def test_differences_are_there_for_every_baseline(self, found):
        for baseline, name in enumerate(METHODS):
            compared = compare(evaluations(), baseline=name)
            assert found["differences"][baseline][baseline] is None
            for method, other in enumerate(METHODS):
                for metric, key in enumerate(KEYS):
                    if other != name and key != "psnr":
                        mean, *_, verdict = found["differences"][baseline][method][metric]
                        assert mean == pytest.approx(compared.differences[other][key].summary.mean, rel=1e-5)
                        assert verdict == compared.differences[other][key].verdict

    def test_extremes_are_the_worst_and_best_frames(self, found, numbers):
        qcv = KEYS.index("qcv")  # lower is better
        order = np.argsort(numbers.values[1, qcv])
        extremes = found["extremes"][1][qcv]
        assert [frame for frame, *_ in extremes["best"]] == order[:6].tolist()
        assert [frame for frame, *_ in extremes["worst"]] == order[::-1][:6].tolist()
        assert [place for *_, place in extremes["worst"]] == [12, 11, 10, 9, 8, 7]

    def test_undefined_frames_are_no_extremes_and_infinite_ones_are(self, found):
        scd, psnr = (found["extremes"][0][KEYS.index(key)] for key in ("scd", "psnr"))
        assert len(scd["best"]) == len(scd["worst"]) == 5
        assert 1 not in [frame for frame, *_ in scd["best"] + scd["worst"]]
        assert psnr["best"][0] == [2, "inf", 1]

    def test_gaps_are_where_two_methods_differ_most(self, found, numbers):
        en = KEYS.index("en")
        gap = numbers.values[2, en] - numbers.values[0, en]
        best, worst = found["gaps"]["0,2"][en]["best"], found["gaps"]["0,2"][en]["worst"]
        assert best[0] == [int(gap.argmax()), pytest.approx(gap.max(), rel=1e-5)]
        assert worst[0] == [int(gap.argmin()), pytest.approx(gap.min(), rel=1e-5)]
        assert [frame for frame, _ in best] == [frame for frame in np.argsort(-gap) if gap[frame] > 0][:6]

    def test_a_method_that_loses_nowhere_has_no_frame_where_it_loses(self):
        one = evaluation(0)
        better = Evaluation(one.frames, {"en": one.values["en"] + 1}, {"en": "default"}, {"en": {}})
        worse = Evaluation(one.frames, {"en": one.values["en"]}, {"en": "default"}, {"en": {}})
        gaps = data(Numbers.of({"worse": worse, "better": better}, "default"), FRAMES, ["a", "b"])["gaps"]["0,1"][0]
        assert (len(gaps["best"]), gaps["worst"]) == (6, [])

    def test_it_does_not_grow_with_the_frames_but_for_names(self):
        def size(count: int) -> int:
            names = tuple(f"{index:06d}" for index in range(count))
            found = Numbers.of({name: evaluation(seed, names) for seed, name in enumerate("ab")}, "default")
            plain = data(found, names, ["a", "b"])
            plain["frames"], plain["pages"] = [], []
            return len(json.dumps(plain))

        assert size(400) < 1.2 * size(40)


class TestRows:
    def test_the_best_is_marked_and_never_where_all_are_equal(self):
        same = {"en": np.array([1.0, 2.0])}
        one = Evaluation(("1", "2"), same, {"en": "default"}, {"en": {}})
        numbers = Numbers.of({"a": one, "b": one}, "default")
        rows = method_rows(numbers, data(numbers, ["1", "2"], ["a", "b"]))
        assert [row["cells"][0]["best"] for row in rows] == [False, False]
        assert [row["cells"][0]["place"] for row in rows] == ["rank 1.5", "rank 1.5"]

    def test_lower_is_better_where_the_table_of_metrics_says_so(self, numbers, found):
        rows = method_rows(numbers, found)
        means = [numbers.evaluations[name].summary("qcv").mean for name in METHODS]
        assert [row["cells"][4]["best"] for row in rows] == [mean == min(means) for mean in means]

    def test_a_frame_has_its_place_in_the_folder(self, numbers):
        order = np.argsort(-numbers.values[0, 0])
        first, last = (
            frame_rows(numbers, int(f), numbers.places(), numbers.decimals())[0] for f in (order[0], order[-1])
        )
        assert (first["cells"][0]["place"], last["cells"][0]["place"]) == ("1/12", "12/12")
        assert "high" in first["cells"][0]["classes"]
        assert "low" in last["cells"][0]["classes"]

    def test_an_undefined_value_has_its_reason(self, numbers):
        row = frame_rows(numbers, 1, numbers.places(), numbers.decimals())[KEYS.index("scd")]
        assert row["cells"][0]["text"] == "undefined"
        assert row["cells"][0]["reason"] == "fused and <infrared> image differ by a constant"


def test_a_tiny_value_keeps_two_digits():
    assert number(-5e-7, 6) == "−5.0e-07"
    assert number(0.0, 6) == "0.000000"
    assert number(0.0123, 3) == "0.012"
