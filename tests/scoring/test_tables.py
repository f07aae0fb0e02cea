"""The printed tables say what is better, whose definition was used, and what is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fuseloop.metrics import METRICS, Evaluation, compare
from fuseloop.scoring.files import Mapping8, Scores
from fuseloop.scoring.tables import label, number, tables, undefined_lines


def scores(**methods: dict[str, list[float]]) -> Scores:
    evaluations = {
        method: Evaluation(
            ("a", "b", "c"),
            {key: np.array(row) for key, row in values.items()},
            {key: "default" if key == "qcv" else "cddfuse" for key in values},
            {key: {"b": "F is flat"} if math.isnan(row[1]) else {} for key, row in values.items()},
        )
        for method, values in methods.items()
    }
    return Scores("cddfuse", Mapping8(), tuple(methods), evaluations, [])


def test_one_method_has_a_row_for_each_metric():
    (table,) = tables(scores(mine={"en": [1, 2, 3], "qcv": [300, math.nan, 500]}))
    assert table.header == ["metric", "mean", "std", "95 % interval", "frames"]
    (en,), (qcv,) = table.groups
    assert en == ["EN ↑", "2.000", "1.000", "[1.000, 3.000]", "3"]
    assert qcv == ["Qcv ↓ (default)", "400.0", "141.4", "[300.0, 500.0]", "2 of 3"]


def test_methods_stand_beside_each_other_with_ranks_and_differences():
    found = scores(x={"en": [1, 2, 3], "scd": [math.nan] * 3}, y={"en": [2, 3, 4], "scd": [1, 1, 1]})
    table, ranks, frames = tables(found, compare(found.evaluations))
    assert table.header[-3:] == ["rank", "difference to x", ""]
    (x, y), (x_scd, y_scd) = table.groups
    assert x[-3:] == ["2", "", ""]
    assert y == ["", "y", "3.000", "1.000", "[2.000, 4.000]", "3", "1", "+1.000 [+1.000, +1.000]", "better"]
    assert x_scd[1:7] == ["x", "undefined", "-", "-", "0 of 3", "-"]
    assert y_scd[-3:] == ["1", "undefined", ""]
    left_out = "without SCD: undefined for a method, or on no frame defined for all"
    assert ranks.title == f"Mean ranks (1 of 2 metrics, {left_out}; common frames: 3)"
    assert ranks.groups == [[["y", "1.000"], ["x", "2.000"]]]
    assert frames.groups[0][0][0] == "a"
    assert frames.groups[0][0][2:] == ["EN ↑", "y 2.000", "x 1.000"]


def test_methods_that_cannot_be_compared_are_still_listed():
    (table,) = tables(scores(x={"en": [1, 2, 3]}, y={"en": [2, 3, 4]}))
    assert table.header == ["metric", "method", "mean", "std", "95 % interval", "frames"]
    assert [row[1] for row in table.groups[0]] == ["x", "y"]


def test_what_is_undefined_is_counted_with_its_reason():
    lines = list(undefined_lines(scores(mine={"en": [1, 2, 3], "qcv": [3, math.nan, 5]})))
    assert lines == ["Qcv of mine on 1 of 3 frames: F is flat"]


@pytest.mark.parametrize("key", METRICS)
def test_an_arrow_points_to_what_is_better(key: str):
    arrow = {"higher": "↑", "lower": "↓", "zero": "→0"}[METRICS[key].direction]
    assert label(key, "tang", "tang") == f"{METRICS[key].name} {arrow}"
    assert label(key, "default", "tang").endswith("(default)")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1234.5, "1234"), (431.26, "431.3"), (12.345, "12.35"), (-1.2345, "-1.234"), (0.71234, "0.7123"),
        (0.00012, "1.2e-04"), (math.inf, "inf"), (math.nan, "undefined"),
    ],
)  # fmt: skip
def test_numbers_have_about_four_digits(value: float, text: str):
    assert number(value) == text
    if value > 0:
        assert number(value, sign=True) == f"+{text}"
