"""Scores as JSON, which has everything, and as CSV with a row for each value; docs/score.md describes both."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuseloop.metrics.evaluate import Evaluation
from fuseloop.pairs.atomic import written_aside
from fuseloop.scoring.files import Scores

COLUMNS = ("method", "frame", "metric", "value", "convention", "undefined")


def write_json(path: Path, scores: Scores, *, overwrite: bool = False) -> None:
    """Writes all scores with their summaries, reasons and conventions, whole or not at all.

    Raises:
        ImageError: The file exists and may not be replaced, or the system refused to write.
    """
    text = json.dumps(as_document(scores), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with written_aside(path, overwrite=overwrite) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that no text can hold


def as_document(scores: Scores) -> dict[str, Any]:
    """The content of the JSON file: numbers, null for what is undefined, and "inf" for what is infinite."""
    return {
        "fuseloop": version("fuseloop"),
        "convention": scores.convention,
        "levels": scores.levels._asdict(),
        "methods": {method: _method(scores.evaluations.get(method)) for method in scores.methods},
        "failed": [failure._asdict() for failure in scores.failures],
    }


def _method(evaluation: Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        return {"frames": {}, "conventions": {}, "undefined": {}, "summary": {}}
    summaries = evaluation.summaries()
    undefined = {
        frame: reasons
        for frame in evaluation.frames
        if (reasons := {key: why[frame] for key, why in evaluation.reasons.items() if frame in why})
    }
    return {
        "frames": {
            frame: {key: _number(values[index]) for key, values in evaluation.values.items()}
            for index, frame in enumerate(evaluation.frames)
        },
        "conventions": dict.fromkeys(evaluation.frames, evaluation.conventions),
        "undefined": undefined,
        "summary": {
            key: {
                "mean": _number(summary.mean),
                "std": _number(summary.std),
                "low": _number(summary.low),
                "high": _number(summary.high),
                "n": summary.count,
            }
            for key, summary in summaries.items()
        },
    }


def _number(value: float) -> float | str | None:
    """JSON has neither NaN nor infinity."""
    if math.isnan(value):
        return None
    return str(float(value)) if math.isinf(value) else float(value)


def write_csv(path: Path, scores: Scores, *, overwrite: bool = False) -> None:
    """Writes a row for each value, whole or not at all.

    Raises:
        ImageError: The file exists and may not be replaced, or the system refused to write.
    """
    with (
        written_aside(path, overwrite=overwrite) as aside,
        aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_rows(scores))


def _rows(scores: Scores) -> Iterator[tuple[str, ...]]:
    for method, evaluation in scores.evaluations.items():
        for index, frame in enumerate(evaluation.frames):
            for key, values in evaluation.values.items():
                value = float(values[index])
                reason = evaluation.reasons[key].get(frame, "")
                text = "" if math.isnan(value) else repr(value)
                yield method, frame, key, text, evaluation.conventions[key], reason
