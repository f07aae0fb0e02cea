"""docs/calibration.md compares every golden value, says honestly how it went, and stays true."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseloop.metrics import METRICS, Score, score_frame
from fuseloop.pairs.images import Picture, write_image
from tests.metrics.tester import triple
from tools import calibration
from tools.calibration import Comparison, Row

TEXT = calibration.DOCUMENT.read_text(encoding="utf-8")
HEAD = "| value | ours | fixture | published | our value | difference |"


def rows_of(text: str) -> list[tuple[str, ...]]:
    """Implementation and cells of every row of the tables below the summary."""
    found, title = [], ""
    for line in text.splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif title and line.startswith("| ") and not line.startswith(HEAD):
            found.append((title, *line.strip("| ").split(" | ")))
    return found


def row(published: float | None, ours: float | None, tolerance: float | None, factor: float = 1.0) -> Row:
    score = None if ours is None else Score(ours, "default", "flat" if math.isnan(ours) else None)
    return Row(Comparison("Zoo", "EN", "en", "default", factor, tolerance, ""), "a", "mean", published, score)


@pytest.mark.parametrize(
    ("published", "ours", "factor", "verdict"),
    [
        (2.0, 2.00001, 1.0, "PASS"),
        (2.0, 2.0001, 1.0, "FAIL"),
        (2.0, 1.0, 0.5, "PASS"),
        (2.0, math.nan, 1.0, "FAIL"),
        (None, math.nan, 1.0, "PASS"),
        (None, 2.0, 1.0, "FAIL"),
        (2.0, None, 1.0, "not built"),
    ],
)
def test_a_verdict_is_by_the_tolerance_of_the_golden_row(
    published: float | None, ours: float | None, factor: float, verdict: str
):
    assert row(published, ours, 1e-5, factor).verdict == verdict
    assert row(published, ours, None, factor).verdict == "-"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small pair with values as values.json has them: some right, one wrong, one unknown."""
    images = [np.round(image[0, 0].numpy() * 255).astype(np.uint8) for image in triple(height=170, width=180)]
    for name, image in zip(("ir", "vi", "mean"), images, strict=True):
        write_image(tmp_path / f"pair_{name}.png", Picture(image))
    scores = score_frame(*images, metrics=["en", "vif", "mi"])
    crop = score_frame(*(image[100:164, 100:164] for image in images), metrics=["en"])
    values = {
        "Zoo": {
            "EN": scores["en"].value,
            "VIF": 2 * scores["vif"].value,
            "MI": 1.1 * scores["mi"].value,
            "EN@crop": crop["en"].value,
            "Odd": 1.0,
        },
        "torchmetrics": {"UQI_mean": 3.0, "VIF_sum": 2.1 * scores["vif"].value},
        "default": {"en": scores["en"].value},
    }
    content = {
        "implementations": {"Zoo": {"source": "zoo.py", "language": "Python", "environment": "1", "profile": "zoo"}},
        "golden": [
            ["Zoo", "EN", "en", "default", 1.0, 1e-5],
            ["Zoo", "VIF", "vif", "default", 0.5, 1e-5],
            ["Zoo", "MI", "mi", "default", 1.0, 1e-5],
            ["Zoo", "EN@crop", "en@crop", "default", 1.0, 1e-5],
        ],
        "pairs": {"pair": {"values": {"mean": values}}},
    }
    (tmp_path / "values.json").write_text(json.dumps(content))
    return tmp_path


def test_the_command_compares_all_there_is_and_fails_for_what_differs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(calibration, "ROOT", tmp_path)
    monkeypatch.setattr(calibration, "DOCUMENT", tmp_path / "calibration.md")
    assert calibration.main([str(folder), "--check"]) == 1
    assert not calibration.DOCUMENT.exists()
    assert calibration.main([str(folder)]) == 1
    assert "FAIL MI `mi` default pair mean" in capsys.readouterr().out
    text = calibration.DOCUMENT.read_text()
    assert "**4 of 5 golden values pass, 1 fail, 0 are not built.**" in text
    assert "zoo.py; Python" in text
    found = {(title, name, fixture): (*rest,) for title, name, _, fixture, *rest in rows_of(text)}
    assert found["Zoo", "EN", "pair mean"][-1] == "PASS"
    assert found["Zoo", "EN", "pair mean, crop"][-1] == "PASS"
    assert found["Zoo", "0.5 × VIF", "pair mean"][-1] == "PASS"
    assert found["Zoo", "MI", "pair mean"][-1] == "FAIL"
    assert found["Zoo", "MI", "pair mean"][2] == "9.1e-02"
    assert found["Zoo", "Odd", "pair mean"][-1] == "no counterpart"
    assert found["torchmetrics", "0.5 × VIF_sum", "pair mean"][2] == "4.8e-02"
    assert "explodes" in found["torchmetrics", "UQI_mean", "pair mean"][-1]
    assert found["Reference program", "en", "pair mean"][-1] == "PASS"


def test_a_folder_without_values_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        calibration.main([str(tmp_path)])
    assert "holds no values.json" in capsys.readouterr().err


def test_what_is_listed_for_information_names_metrics_of_the_table():
    for each in calibration.INFORMATION:
        assert each.metric is None or each.built, each


def test_the_summary_counts_what_the_tables_hold():
    verdicts = Counter((title, cells[-1]) for title, *cells in rows_of(TEXT) if len(cells) == 8)
    summary = re.findall(r"^\| \[(.+?)\]\(\S+\) \| [^|]* \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", TEXT, re.MULTILINE)
    assert [title for title, *_ in summary] == re.findall("^## (.*)", TEXT, re.MULTILINE)
    for title, golden, *counts in summary:
        assert [verdicts[title, verdict] for verdict in ("PASS", "FAIL", "not built")] == [int(n) for n in counts]
        assert int(golden) == sum(map(int, counts))


def test_nothing_fails_and_everything_is_built():
    verdicts = Counter(cells[-1] for _, *cells in rows_of(TEXT) if len(cells) == 8)
    assert set(verdicts) == {"PASS"}
    assert set(METRICS) <= set(re.findall(r"\| `(\w+)` \w+ \| FLIR", TEXT))


@pytest.mark.fixtures
def test_the_document_reproduces():
    """On one of the pairs; verdicts are the same, and values but for what other machines do to the last digits."""
    if "FUSELOOP_FIXTURES" not in os.environ:
        pytest.skip("FUSELOOP_FIXTURES is not set: no golden values")
    folder, pair = Path(os.environ["FUSELOOP_FIXTURES"]) / "metrics", "FLIR_00006"
    about: dict[str, Any] = json.loads((folder / "values.json").read_text())["implementations"]
    text = calibration.document(calibration.measure(folder, {pair}), about, date="", commit="")
    committed, now = [cells for cells in rows_of(TEXT) if cells[3].startswith(pair)], rows_of(text)
    assert len(committed) == len(now) > 300
    for before, after in zip(committed, now, strict=True):
        assert before[:5] == after[:5]
        assert before[7:] == after[7:]
        if after[5] not in ("-", "undefined"):
            assert float(before[5]) == pytest.approx(float(after[5]), rel=1e-6)
        else:
            assert before[5] == after[5]
