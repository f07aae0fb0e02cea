"""The files hold every value, whose definition it follows or why it is missing, and can be read anywhere."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from fuseloop.errors import ImageError
from fuseloop.metrics import Evaluation
from fuseloop.scoring.files import Failure, Mapping8, Scores
from fuseloop.scoring.results import COLUMNS, write_csv, write_json


@pytest.fixture
def scores() -> Scores:
    def evaluation(frames: tuple[str, ...], *rows: list[float]) -> Evaluation:
        return Evaluation(
            frames,
            dict(zip(("en", "scd", "psnr"), map(np.array, rows), strict=True)),
            {"en": "cddfuse", "scd": "default", "psnr": "cddfuse"},
            {"en": {}, "scd": {"b": "F is flat"}, "psnr": {}},
        )

    evaluations = {
        "ours": evaluation(("a", "b", "ü,\udcff"), [1.5, 2.5, 1 / 3], [0.5, math.nan, 0.25], [30.0, math.inf, 20.0]),
        "theirs": evaluation(("a", "b"), [1.0, 2.0], [0.5, math.nan], [10.0, 20.0]),
    }
    failures = [Failure("ü,\udcff", "theirs", "x.png: is empty")]
    return Scores("cddfuse", Mapping8("full", None, None), ("ours", "none", "theirs"), evaluations, failures)


def strictly(text: str) -> object:
    """JSON as every reader takes it: without NaN and Infinity."""

    def refuse(word: str) -> float:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_json_has_the_values_of_every_method_frame_and_metric(scores: Scores, tmp_path: Path):
    write_json(tmp_path / "s.json", scores)
    document = strictly((tmp_path / "s.json").read_text("utf-8"))
    assert set(document) == {"fuseloop", "convention", "levels", "methods", "failed"}
    assert document["convention"] == "cddfuse"
    assert document["levels"] == {"infrared": "full", "visible": None, "fused": None}
    assert list(document["methods"]) == ["ours", "none", "theirs"]
    assert document["methods"]["ours"]["frames"] == {
        "a": {"en": 1.5, "scd": 0.5, "psnr": 30.0},
        "b": {"en": 2.5, "scd": None, "psnr": "inf"},
        "ü,\udcff": {"en": 1 / 3, "scd": 0.25, "psnr": 20.0},
    }
    assert document["failed"] == [{"frame": "ü,\udcff", "method": "theirs", "reason": "x.png: is empty"}]


def test_json_says_why_a_value_is_missing_and_whose_definition_each_follows(scores: Scores, tmp_path: Path):
    write_json(tmp_path / "s.json", scores)
    theirs = strictly((tmp_path / "s.json").read_text("utf-8"))["methods"]["theirs"]
    assert theirs["undefined"] == {"b": {"scd": "F is flat"}}
    assert theirs["conventions"] == {frame: {"en": "cddfuse", "scd": "default", "psnr": "cddfuse"} for frame in "ab"}


def test_json_has_a_summary_of_each_metric(scores: Scores, tmp_path: Path):
    write_json(tmp_path / "s.json", scores)
    methods = strictly((tmp_path / "s.json").read_text("utf-8"))["methods"]
    expected = scores.evaluations["theirs"].summary("en")
    assert methods["theirs"]["summary"]["en"] == {
        "mean": 1.5,
        "std": expected.std,
        "low": expected.low,
        "high": expected.high,
        "n": 2,
    }
    assert methods["theirs"]["summary"]["scd"]["n"] == 1
    assert methods["ours"]["summary"]["psnr"] == {"mean": "inf", "std": None, "low": None, "high": None, "n": 3}
    assert methods["none"] == {"frames": {}, "conventions": {}, "undefined": {}, "summary": {}}


def test_csv_has_a_row_for_each_value(scores: Scores, tmp_path: Path):
    write_csv(tmp_path / "s.csv", scores)
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert len(rows) == 3 * 3 + 2 * 3
    assert rows[0] == ["ours", "a", "en", "1.5", "cddfuse", ""]
    assert ["ours", "b", "scd", "", "default", "F is flat"] in rows
    assert ["ours", "b", "psnr", "inf", "cddfuse", ""] in rows
    assert float(rows[6][3]) == 1 / 3, "every digit is there"


@pytest.mark.parametrize("write", [write_json, write_csv])
def test_a_file_that_exists_is_kept_unless_told_otherwise(write, scores: Scores, tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ImageError, match="exists already"):
        write(path, scores)
    assert path.read_text() == "mine"
    write(path, scores, overwrite=True)
    assert path.read_text("utf-8") != "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
