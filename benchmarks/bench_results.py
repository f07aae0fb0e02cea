"""What the shipped task networks see on MSRS/test and TNO, in single and in fused images, with intervals.

python -m benchmarks.bench_results --split val --network yolov5s=outputs/run/best.safetensors
"""

from __future__ import annotations

import argparse
import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.pages import commit, data_folder, markdown
from fuseloop.datasets.files import open_labelled
from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.evaluate import Evaluation, Failure, Uncertainty, evaluate, uncertainty
from fuseloop.evaluation.naming import named
from fuseloop.evaluation.results import SHOWN, weights_hash
from fuseloop.evaluation.sources import file_hash, open_source
from fuseloop.fusers.weights import find_weights
from fuseloop.metrics.task_scores import DetectionScores, Interval, SaliencyScores, SegmentationScores, TaskScores
from fuseloop.tasks.protocol import TaskNetwork
from fuseloop.tasks.weights import SHIPPED, load

OWN = "vfn"
BASELINE = "max"
FUSERS = ("infrared", "visible", "mean", BASELINE, OWN)
SEED, RESAMPLES = 0, 1000
BATCH = 4
DOCUMENT = Path(__file__).parents[1] / "docs" / "results.md"


class Role(NamedTuple):
    """A part that a shipped task network plays, and how good it has to be on images of `OWN`.

    Attributes:
        title: What it is.
        networks: Names of the networks that can play it.
        wanted: What has to be reached, in words.
        keys: The scores whose mean that is.
        bar: What it has to be at least.
    """

    title: str
    networks: tuple[str, ...]
    wanted: str
    keys: tuple[str, ...]
    bar: float


PEOPLE_AND_CARS = ("mean AP50 of person and car", ("AP50/person", "AP50/car"))
ROLES = (
    Role("detector", ("yolov5s", "yolov5n"), *PEOPLE_AND_CARS, 0.50),
    Role("segmenter", ("segformer-b0",), "mIoU of the foreground classes that occur", ("mIoU",), 0.30),
    Role("saliency network", ("ctdnet-18",), "mean F of the frames with a mask that is not empty", ("F/mean",), 0.60),
    Role("second detector, of the DETR family", ("rtdetr", "detr"), *PEOPLE_AND_CARS, 0.20),
)


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores of networks on a data set, with intervals.

    Attributes:
        networks: The networks.
        evaluation: Their scores.
        found: Intervals, and differences to `BASELINE`.
    """

    networks: Mapping[str, TaskNetwork]
    evaluation: Evaluation
    found: Uncertainty

    def scores(self, network: str) -> TaskScores:
        """The scores of a network on the first fuser's images, for what all have in common."""
        return next(iter(self.evaluation.scores[network].values()))


def measure(spec: str, networks: Mapping[str, TaskNetwork], fusers: Sequence[str] = FUSERS) -> Measured:
    """Scores networks on what fusers make of a data set.

    Args:
        spec: The data set, see `fuseloop.datasets.spec.parse_spec`.
        networks: The networks by their names.
        fusers: Names of fusers, `BASELINE` among them.
    """
    pairs = open_labelled(spec)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        shown = bar.add_task(f"scoring {spec}", total=len(pairs))

        def advance(failure: Failure | None) -> None:
            bar.advance(shown)

        sources = {name: open_source(name) for name in fusers}
        evaluation = evaluate(networks, sources, pairs, batch=BATCH, report=advance)
    return Measured(networks, evaluation, uncertainty(evaluation, baseline=BASELINE, resamples=RESAMPLES, seed=SEED))


def measure_all(
    data: Path, networks: Mapping[str, TaskNetwork], *, split: str = "test", limit: int | None = None
) -> tuple[Measured, Measured | None]:
    """Scores networks on a split of MSRS, and those for saliency on TNO too, which nothing was trained on.

    Args:
        data: Folder that holds MSRS and TNO_salient.
        networks: The networks by their names.
        split: Split of MSRS.
        limit: Only so many frames of it.
    """
    frames = "" if limit is None else f"[:{limit}]"
    first = measure(f"msrs:{data / 'MSRS'}:{split}{frames}", networks)
    salient = {name: network for name, network in networks.items() if network.task == "saliency"}
    return first, measure(f"tno_salient:{data / 'TNO_salient'}", salient) if salient else None


def score_rows(measured: Measured) -> Iterator[list[str]]:
    """The scores of all networks with their intervals, a row for each fuser, first the head."""
    columns = list(_columns(measured))
    yield ["images", *(f"{label}<br>{network}" for network, _, label in columns)]
    for fuser in measured.evaluation.fusers:
        yield [fuser, *(_cell(measured.found.intervals[network][fuser][key]) for network, key, _ in columns)]


def difference_rows(measured: Measured) -> Iterator[list[str]]:
    """The differences to `BASELINE` with their intervals, first the head; bold where the interval excludes 0."""
    columns = list(_columns(measured))
    yield ["images", *(f"{label}<br>{network}" for network, _, label in columns)]
    for fuser in measured.evaluation.fusers:
        if fuser != measured.found.baseline:
            yield [fuser, *(_change(measured.found.differences[network][fuser][key]) for network, key, _ in columns)]


def class_rows(measured: Measured, network: str) -> Iterator[list[str]]:
    """The scores of the classes that occur, first the head with the number of frames they are in."""
    scores = measured.scores(network)
    keys = {DetectionScores: ("AP50", "AP50:95"), SegmentationScores: ("IoU",)}[type(scores)]
    counts = occurrences(scores)
    yield ["images", *(f"{name}, {key}<br>{_frames(count)}" for key in keys for name, count in counts.items())]
    for fuser in measured.evaluation.fusers:
        found = measured.found.intervals[network][fuser]
        yield [fuser, *(_cell(found[f"{key}/{name}"]) for key in keys for name in counts)]


def occurrences(scores: TaskScores) -> dict[str, int]:
    """In how many frames each class is labelled, without the background and without those that never are."""
    if isinstance(scores, DetectionScores):
        there = [np.isin(np.arange(len(scores.classes)), frame.truth_classes) for frame in scores.kept]
        counts = np.sum(there, axis=0)
    else:
        assert isinstance(scores, SegmentationScores)
        counts = (scores.confusions.sum(axis=2) > 0).sum(axis=0)
        counts[0] = 0
    return {name: int(count) for name, count in zip(scores.classes, counts, strict=True) if count}


def bar_rows(measured: Measured, fuser: str = OWN) -> Iterator[list[str]]:
    """What the shipped networks have to reach on the images of a fuser, and what they do, first the head."""
    yield ["task network", "what", "at least", "reached", ""]
    for role in ROLES:
        name = next((name for name in role.networks if name in measured.networks), None)
        if name is None:
            yield [f"{role.title}: none is shipped", role.wanted, f"{role.bar:.2f}", "nothing", "missed"]
            continue
        values = measured.evaluation.scores[name][fuser].values
        reached = sum(values[key] for key in role.keys) / len(role.keys)
        verdict = "met" if reached >= role.bar else "missed"  # also where it is undefined
        yield [f"{role.title}: `{name}`", role.wanted, f"{role.bar:.2f}", _number(reached), verdict]


def missing(networks: Mapping[str, TaskNetwork]) -> list[str]:
    """The parts that no network plays, in words."""
    return [
        f"{role.title} ({' or '.join(role.networks)})" for role in ROLES if not networks.keys() & set(role.networks)
    ]


def document(measured: Measured, zero_shot: Measured | None) -> str:
    """The text of docs/results.md."""
    evaluation, networks = measured.evaluation, measured.networks
    hashes = [
        f"* task network `{name}`: {type(network).__name__}, {sum(one.numel() for one in network.parameters()):,} "
        f"parameters, SHA-256 of its weights {weights_hash(network)}"
        for name, network in networks.items()
    ]
    hashes += [f"* no weights are shipped of a {part}: its figures are missing" for part in missing(networks)]
    return f"""# What task networks see

* made by `python -m benchmarks.bench_results` on {datetime.date.today().isoformat()}
* commit {commit()}
* bootstrap of the frames: {RESAMPLES:,} resamples, seed {SEED}
* fusion weights `{OWN}`, SHA-256 {file_hash(find_weights(OWN))}
{_lines(hashes)}

{len(evaluation.frames)} frames of MSRS/test, on which nothing was trained or chosen. The networks are frozen. They were
trained from random weights on little data: on infrared, visible, mean, maximum and `{OWN}` images alike, so that they
favour none of the rows. All rows are of the same frames; images are looked at as they would be saved, in 8 bits. Below
each score is its 95 % interval: it says how much depends on the choice of frames, and nothing of how much on the seed
of the training.

{markdown(score_rows(measured))}

{_lines(f"* {line}" for line in _remarks(measured))}

`fuseloop evaluate` gives the same figures, and many more:

```sh
fuseloop evaluate {" ".join(f"--fuser {name}" for name in evaluation.fusers)} --baseline {BASELINE} \\
    {" ".join(f"--task-network {name}" for name in networks)} \\
    --dataset msrs:$FUSELOOP_DATA/MSRS:test --json results.json
```

## The bar

On `{OWN}` images.

{markdown(bar_rows(measured))}

## Differences to the pixel maximum

Score of the row minus that of `{BASELINE}` on the same frames, with its 95 % interval; bold where that excludes zero.

{markdown(difference_rows(measured))}

## Classes

With the number of frames that each is in. The fewer these are, the less an interval says: the bootstrap knows no
others.

{_class_tables(measured)}
{_zero_shot(zero_shot)}"""


def _class_tables(measured: Measured) -> str:
    tables = [
        f"### {name}\n\n{markdown(class_rows(measured, name))}\n"
        for name, network in measured.networks.items()
        if network.task != "saliency"
    ]
    return "\n".join(tables)


def _zero_shot(measured: Measured | None) -> str:
    if measured is None:
        return ""
    return f"""
## Saliency without training

{len(measured.evaluation.frames)} pairs of TNO with masks that were made by hand: other sensors and other scenes. No
task network was trained on TNO; the fusion weights `{OWN}` were, on other pairs.

{markdown(score_rows(measured))}

{_lines(f"* {line}" for line in _remarks(measured))}

Differences to the pixel maximum:

{markdown(difference_rows(measured))}
"""


def _remarks(measured: Measured) -> Iterator[str]:
    """What the scores are of, and what is left out of them."""
    for name in measured.networks:
        scores = measured.scores(name)
        if isinstance(scores, DetectionScores):
            boxes = ", ".join(f"{count} {of}" for of, count in zip(scores.classes, scores.labelled, strict=True))
            yield f"`{name}`: means over the classes, which have {boxes} boxes; {scores.settings['evaluator']}."
        elif isinstance(scores, SegmentationScores):
            classes = len(occurrences(scores))
            absent = [one for one in scores.absent if one != scores.classes[0]]
            without = f"; {', '.join(absent)} is in no frame and left out" if absent else ""
            yield f"`{name}`: means over the {classes} foreground classes that occur{without}."
        elif isinstance(scores, SaliencyScores):
            empty = f", without {_frames(len(scores.empty))} whose mask is empty" if scores.empty else ""
            unstructured = len(scores.without_structure)
            empty += f", S without {_frames(unstructured)} where it is undefined" if unstructured else ""
            counted = _frames(len(scores.frames) - len(scores.empty))
            evaluator = scores.settings["evaluator"]
            yield f"`{name}`: means over {counted}{empty}; F and E are means over the thresholds; {evaluator}."
    for failure in measured.evaluation.failures:
        yield f"Not scored: {failure.frame or failure.reason}."


def _columns(measured: Measured) -> Iterator[tuple[str, str, str]]:
    """Network, key and label of the scores that are shown."""
    for name, network in measured.networks.items():
        for key, label in SHOWN[network.task].items():
            yield name, key, label


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _cell(interval: Interval) -> str:
    if math.isnan(interval.low):
        return _number(interval.value)
    return f"{interval.value:.3f}<br>{interval.low:.3f}–{interval.high:.3f}"


def _change(interval: Interval) -> str:
    if math.isnan(interval.value) or math.isnan(interval.low):
        return "undefined"
    value = f"{interval.value:+.3f}"
    certain = interval.low > 0 or interval.high < 0
    return f"{f'**{value}**' if certain else value}<br>{interval.low:+.3f} to {interval.high:+.3f}"


def _lines(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(lines)


def figures(measured: Measured) -> dict[str, float]:
    """The scores on images of `OWN`, and their differences to `BASELINE` (`..._gain`)."""
    found: dict[str, float] = {"results.frames": len(measured.evaluation.frames)}
    for network, key, _ in _columns(measured):
        name = f"results.{network}.{key.replace('/', '_')}"
        found[name] = measured.found.intervals[network][OWN][key].value
        found[f"{name}_gain"] = measured.found.differences[network][OWN][key].value
    return found


def shipped() -> dict[str, TaskNetwork]:
    """The task networks whose weights are shipped.

    Raises:
        ConfigurationError: There are none.
    """
    if not SHIPPED:
        raise ConfigurationError("no weights of task networks are shipped; give --network NAME=FILE")
    return {name: load(name) for name in SHIPPED}


def run(data: Path | None = None) -> dict[str, float]:
    """Measures what is shipped on MSRS/test, writes docs/results.md, and returns the figures."""
    measured, zero_shot = measure_all(data or data_folder(), shipped())
    DOCUMENT.write_text(document(measured, zero_shot), encoding="utf-8")
    return figures(measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val for the choice of models")
    parser.add_argument("--network", action="append", help="NAME=FILE in place of what is shipped; more than once")
    parser.add_argument("--limit", type=int, help="only so many frames")
    arguments = parser.parse_args()
    if arguments.network:
        networks = {name: load(path) for name, path in named(arguments.network, "--network").items()}
    else:
        networks = shipped()
    measured, zero_shot = measure_all(data_folder(), networks, split=arguments.split, limit=arguments.limit)
    for title, table in _printed(measured, zero_shot):
        print(title, markdown(table), sep="\n\n", end="\n\n")
    if arguments.split == "test" and not arguments.network and arguments.limit is None:
        DOCUMENT.write_text(document(measured, zero_shot), encoding="utf-8")
        print(f"wrote {DOCUMENT}")


def _printed(measured: Measured, zero_shot: Measured | None) -> Iterator[tuple[str, Iterator[list[str]]]]:
    """Tables for the terminal with their titles."""
    yield _frames(len(measured.evaluation.frames)), score_rows(measured)
    yield f"Differences to {BASELINE}", difference_rows(measured)
    for name, network in measured.networks.items():
        if network.task != "saliency":
            yield f"Classes, {name}", class_rows(measured, name)
    yield f"The bar, {OWN} images", bar_rows(measured)
    if zero_shot is not None:
        yield f"TNO with masks, {_frames(len(zero_shot.evaluation.frames))}", score_rows(zero_shot)


if __name__ == "__main__":
    main()
