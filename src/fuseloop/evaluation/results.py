"""What an evaluation found, as tables to print and as JSON and CSV; docs/task-networks.md describes both."""

from __future__ import annotations

import csv
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fuseloop.evaluation.evaluate import Evaluation, Networks, Uncertainty
from fuseloop.evaluation.sources import Source
from fuseloop.metrics.task_scores import Interval, TaskScores
from fuseloop.pairs.atomic import written_aside
from fuseloop.scoring.tables import TextTable

SHOWN = {
    "detection": {"mAP50": "mAP50", "mAP75": "mAP75", "mAP50:95": "mAP50:95"},
    "segmentation": {"mIoU": "mIoU", "mAcc": "mAcc"},
    "saliency": {"F/mean": "F mean", "E/mean": "E mean", "S": "S", "MAE": "MAE ↓"},
}
"""The scores of each task in the terminal, and their heads."""

OF_CLASSES = {"detection": ("AP50", "AP50:95"), "segmentation": ("IoU", "Acc")}
"""The scores of each class there."""

COLUMNS = ("network", "fuser", "score", "value", "low", "high", "difference", "difference_low", "difference_high")
_LOWER_IS_BETTER = ("MAE",)
_PACKAGES = ("torch", "numpy", "transformers", "faster-coco-eval", "pysodmetrics", "openvino", "onnxruntime")


class Asked(NamedTuple):
    """What was asked for.

    Attributes:
        dataset: How the data set was named.
        described: What it is, in a line.
        networks: The task networks.
        fusers: What made the images.
        settings: What else the figures depend on.
    """

    dataset: str
    described: str
    networks: Networks
    fusers: Mapping[str, Source]
    settings: Mapping[str, Any]


def tables(evaluation: Evaluation, found: Uncertainty) -> Iterator[TextTable]:
    """Scores of every task network by fuser with intervals, differences to the baseline, and scores of the classes."""
    frames = f"{len(evaluation.frames)} frames"
    several = len(evaluation.fusers) > 1
    for name, of_fuser in evaluation.scores.items():
        task = next(iter(of_fuser.values())).task
        heads = SHOWN[task]
        rows = [[fuser, *(_cell(found.intervals[name][fuser][key]) for key in heads)] for fuser in of_fuser]
        yield TextTable(f"{name}, {task}, {frames}; {_means(of_fuser)}", ["fuser", *heads.values()], 1, [rows])
        if several:
            differences = found.differences[name]
            rows = [[fuser, *(_change(differences[fuser][key], key) for key in heads)] for fuser in differences]
            title = f"{name}, differences to {found.baseline} on the same frames"
            yield TextTable(title, ["fuser", *heads.values()], 1, [rows])
        if task in OF_CLASSES:
            yield _class_table(name, of_fuser, OF_CLASSES[task])


def _class_table(name: str, of_fuser: Mapping[str, TaskScores], columns: Sequence[str]) -> TextTable:
    keys = [key for key in next(iter(of_fuser.values())).values if key.startswith(f"{columns[0]}/")]
    classes = [key.partition("/")[2] for key in keys]
    groups = [
        [
            [column if index == 0 else "", fuser, *(_plain(scores.values[f"{column}/{one}"]) for one in classes)]
            for index, (fuser, scores) in enumerate(of_fuser.items())
        ]
        for column in columns
    ]
    return TextTable(f"{name}, classes", ["score", "fuser", *classes], 2, groups)


def _means(of_fuser: Mapping[str, TaskScores]) -> str:
    """Of what the figures in the table are means."""
    scores = next(iter(of_fuser.values()))
    content = scores.to_json()
    if scores.task == "saliency":
        empty = len(content["empty"])
        left_out = "has an empty mask and is left out" if empty == 1 else "have an empty mask and are left out"
        return "95 % intervals below" + (f"; {empty} of them {left_out}" if empty else "")
    absent = f", without {', '.join(content['absent'])}" if content["absent"] else ""
    kind = "foreground classes" if scores.task == "segmentation" else "classes"
    return f"means over the {kind} that occur{absent}; 95 % intervals below"


def notes(evaluation: Evaluation) -> list[str]:
    """What is left out of the scores because the classes of data set and network differ."""
    lines = []
    for name, match in evaluation.matches.items():
        if match.unknown:
            what = "boxes of these were dropped" if match.task == "detection" else "their pixels count nowhere"
            lines.append(f"{name} does not know {', '.join(match.unknown)}: {what}")
        if match.unlabelled:
            lines.append(f"the data set has no class {', '.join(match.unlabelled)}, which {name} knows")
    return lines


def _cell(interval: Interval) -> str:
    if math.isnan(interval.value):
        return "undefined"
    return f"{interval.value:.3f}" + ("" if math.isnan(interval.low) else f"\n{interval.low:.3f}–{interval.high:.3f}")


def _plain(value: float) -> str:
    return "absent" if math.isnan(value) else f"{value:.3f}"


def _change(interval: Interval, key: str) -> str:
    """A difference, and whether the interval excludes that there is none."""
    if math.isnan(interval.value) or math.isnan(interval.low):
        return "undefined"
    sign = -1 if key.startswith(_LOWER_IS_BETTER) else 1
    gains = sorted((sign * interval.low, sign * interval.high))
    verdict = "better" if gains[0] > 0 else "worse" if gains[1] < 0 else "unclear"
    return f"{interval.value:+.3f} {verdict}\n{interval.low:+.3f} to {interval.high:+.3f}"


def as_document(evaluation: Evaluation, found: Uncertainty, asked: Asked) -> dict[str, Any]:
    """Everything, for JSON: numbers, and null for what is undefined."""
    return {
        "fuseloop": version("fuseloop"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _installed()},
        "dataset": {"spec": asked.dataset, "description": asked.described},
        "settings": {**asked.settings, "resamples": found.resamples, "seed": found.seed, "baseline": found.baseline},
        "frames": list(evaluation.frames),
        "failed": [failure._asdict() for failure in evaluation.failures],
        "fusers": {
            name: {**source.describe(), "images_sha256": evaluation.images[name]}
            for name, source in asked.fusers.items()
        },
        "networks": {name: _network(network, evaluation, name) for name, network in asked.networks.items()},
        "scores": {
            name: {
                fuser: {
                    key: value
                    for key, value in scores.to_json(found.intervals[name][fuser]).items()
                    if key != "frames"  # all scores are of the frames above
                }
                for fuser, scores in of_fuser.items()
            }
            for name, of_fuser in evaluation.scores.items()
        },
        "differences": {
            name: {
                fuser: {key: _numbers(interval) for key, interval in of_key.items()}
                for fuser, of_key in of_fuser.items()
            }
            for name, of_fuser in found.differences.items()
        },
    }


def _installed() -> Iterator[str]:
    from importlib.metadata import PackageNotFoundError

    for name in _PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:  # such as pysodmetrics on Python 3.14
            continue
        yield name


def _network(network: nn.Module | Mapping[str, nn.Module], evaluation: Evaluation, name: str) -> dict[str, Any]:
    match = evaluation.matches[name]
    of_fuser = network if isinstance(network, Mapping) else {"": network}
    one = next(iter(of_fuser.values()))
    hashes = {fuser: weights_hash(each) for fuser, each in of_fuser.items()}
    return {
        "task": match.task,
        "kind": type(one).__name__,
        "classes": list(one.classes),  # type: ignore[arg-type]
        "parameters": sum(parameter.numel() for parameter in one.parameters()),
        "weights_sha256": hashes if isinstance(network, Mapping) else hashes[""],
        "classes_it_does_not_know": list(match.unknown),
        "classes_not_labelled": list(match.unlabelled),
    }


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of the parameters and buffers of a network, with their names, in hexadecimal."""
    total = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _numbers(interval: Interval) -> dict[str, float | None]:
    values = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def write_json(path: Path, evaluation: Evaluation, found: Uncertainty, asked: Asked, *, overwrite: bool) -> None:
    """Writes everything, whole or not at all.

    Raises:
        ImageError: The file exists and may not be replaced, or the system refused to write.
    """
    document = as_document(evaluation, found, asked)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with written_aside(path, overwrite=overwrite) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that no text can hold


def write_csv(path: Path, evaluation: Evaluation, found: Uncertainty, *, overwrite: bool) -> None:
    """Writes a row for each score, whole or not at all; what is undefined is empty.

    Raises:
        ImageError: The file exists and may not be replaced, or the system refused to write.
    """
    with (
        written_aside(path, overwrite=overwrite) as aside,
        aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, of_fuser in found.intervals.items():
            for fuser, of_key in of_fuser.items():
                changes = found.differences[name].get(fuser, {})
                for key, interval in of_key.items():
                    own = _numbers(interval).values()
                    change = _numbers(changes[key]).values() if key in changes else (None,) * 3
                    cells = ("" if number is None else repr(number) for number in (*own, *change))
                    writer.writerow((name, fuser, key, *cells))
