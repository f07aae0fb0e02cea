"""What the scores of all tasks share, and the example of their document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseloop.metrics.task_scores import TaskScores, differences, intervals

DOCUMENT = Path(__file__).parents[3] / "docs" / "task-scores.md"


class Share(TaskScores):
    """The share of one frame in a set, undefined where the set has none of another frame."""

    task = "share"
    settings: dict[str, Any] = {}  # noqa: RUF012
    undefined: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, frames: int, scale: float = 1.0) -> None:
        self.frames = tuple(map(str, range(frames)))
        self.scale = scale
        self.sets = 0

    @property
    def values(self) -> dict[str, float]:
        return {"share": self.scale / len(self.frames)}

    def resample(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        assert (counts.sum(axis=1) == len(self.frames)).all()
        self.sets += len(counts)
        return {"share": np.where(counts[:, 1] > 0, self.scale * counts[:, 0] / len(self.frames), np.nan)}

    def table(self, intervals: Any = None) -> Any:
        raise NotImplementedError


def test_as_many_frames_are_drawn_again_as_there_are():
    """The share of a frame in drawn sets is binomial."""
    scores = Share(40)
    found = intervals(scores, resamples=3000, seed=1)["share"]
    assert scores.sets == 3000
    assert found.value == 1 / 40
    assert (found.low, found.high) == (0, 3 / 40)


def test_sets_in_which_a_score_is_undefined_are_left_out_and_counted():
    found = intervals(Share(40), resamples=3000, seed=1)["share"]
    assert found.undefined / 3000 == pytest.approx((1 - 1 / 40) ** 40, abs=0.03)


def test_the_seed_makes_it_repeatable():
    assert intervals(Share(9), resamples=50, seed=3) == intervals(Share(9), resamples=50, seed=3)


def test_differences_are_of_the_same_drawn_sets():
    found = differences(Share(40, scale=3.0), Share(40, scale=2.0), resamples=500)["share"]
    assert found.value == pytest.approx(1 / 40)
    assert differences(Share(40), Share(40), resamples=500)["share"].high == 0
    with pytest.raises(ValueError, match="same frames"):
        differences(Share(40), Share(39))


def test_the_example_of_the_document_runs(capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(DOCUMENT), "exec"), names)
    assert "Interval(value=0." in capsys.readouterr().out
    assert '"task": "segmentation"' in names["text"]
