"""What task networks see in single images and in images that are fused for nobody in particular."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.pages import markdown
from benchmarks.results.figures import Figures, Grid, cell, number
from benchmarks.results.images import Image
from benchmarks.results.looks import Look
from benchmarks.results.study import OWN, Study
from fuseloop.evaluation.results import SHOWN
from fuseloop.metrics.task_scores import DetectionScores, SaliencyScores, SegmentationScores, TaskScores
from fuseloop.tasks.protocol import TaskNetwork

BASELINE = "max"
FUSERS = ("infrared", "visible", "mean", BASELINE, OWN)


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


def grids(study: Study) -> list[Grid]:
    """The table of scores."""
    return [grid(_names(study))]


def grid(names: Sequence[str]) -> Grid:
    """The scores of networks on the images of every fuser, and their differences to `BASELINE`."""
    cells = {fuser: {name: [Look(Image(fuser), name)] for name in names} for fuser in FUSERS}
    return Grid(cells, {fuser: BASELINE for fuser in FUSERS if fuser != BASELINE})


def text(study: Study) -> str:
    """The section."""
    parts = [section(study.figures, _names(study))]
    if study.zero_shot is not None:
        salient = [name for name in _names(study) if study.networks[name].task == "saliency"]
        study.zero_shot.gather(grid(salient).looks)
        parts.append(zero_shot(Figures(study.zero_shot), salient))
    return "\n\n".join(parts)


def _names(study: Study) -> list[str]:
    """All networks but those of rivals, which know some rows better than others."""
    return [*study.own.values(), *study.others]


def section(figures: Figures, names: Sequence[str]) -> str:
    """The text about MSRS."""
    lacking = [f"No weights are shipped of a {part}: its figures are missing." for part in missing(names)]
    tables = [
        f"#### {name}\n\n{markdown(class_rows(figures, name))}"
        for name in names
        if figures.looks.networks[name].task != "saliency"
    ]
    about = f"""The networks are frozen. They were trained from random weights on little data: on infrared, visible,
mean, maximum and `{OWN}` images alike, so that they favour none of the rows. All rows are of the same frames; images
are looked at as they would be saved, in 8 bits. Below each score is its 95 % interval: it says how much depends on the
choice of frames, and nothing of how much on the seed of the training."""
    body = f"""{markdown(grid(names).scores(figures))}

{_listed(remarks(figures, names))}

`fuseloop evaluate` gives the same figures, and many more:

```sh
fuseloop evaluate {" ".join(f"--fuser {name}" for name in FUSERS)} --baseline {BASELINE} \\
    {" ".join(f"--task-network {name}" for name in names)} \\
    --dataset msrs:$FUSELOOP_DATA/MSRS:test --json results.json
```

### The bar

On `{OWN}` images.

{markdown(bar_rows(figures, names))}

### Differences to the pixel maximum

Score of the row minus that of `{BASELINE}` on the same frames, with its 95 % interval; bold where that excludes zero.

{markdown(grid(names).differences(figures))}

### Classes

With the number of frames that each is in. The fewer these are, the less an interval says: the bootstrap knows no
others."""
    return "\n\n".join([about, *lacking, body, *tables])


def zero_shot(figures: Figures, names: Sequence[str]) -> str:
    """The text about TNO."""
    return f"""### Saliency without training

{len(figures.looks.frames)} pairs of TNO with masks that were made by hand: other sensors and other scenes. No
task network was trained on TNO; the fusion weights `{OWN}` were, on other pairs.

{markdown(grid(names).scores(figures))}

{_listed(remarks(figures, names))}

Differences to the pixel maximum:

{markdown(grid(names).differences(figures))}"""


def class_rows(figures: Figures, name: str) -> Iterator[list[str]]:
    """The scores of the classes that occur, first the head with the number of frames they are in."""
    scores = figures.looks.scores(Look(Image(FUSERS[0]), name))
    keys = {DetectionScores: ("AP50", "AP50:95"), SegmentationScores: ("IoU",)}[type(scores)]
    counts = occurrences(scores)
    yield ["images", *(f"{of}, {key}<br>{frames(count)}" for key in keys for of, count in counts.items())]
    for fuser in FUSERS:
        look = Look(Image(fuser), name)
        yield [fuser, *(cell(figures.of(look, f"{key}/{of}")) for key in keys for of in counts)]


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


def bar_rows(figures: Figures, names: Sequence[str], fuser: str = OWN) -> Iterator[list[str]]:
    """What the shipped networks have to reach on the images of a fuser, and what they do, first the head."""
    yield ["task network", "what", "at least", "reached", ""]
    for role in ROLES:
        name = next((name for name in role.networks if name in names), None)
        if name is None:
            yield [f"{role.title}: none is shipped", role.wanted, f"{role.bar:.2f}", "nothing", "missed"]
            continue
        look = Look(Image(fuser), name)
        reached = sum(figures.of(look, key).value for key in role.keys) / len(role.keys)
        verdict = "met" if reached >= role.bar else "missed"  # also where it is undefined
        yield [f"{role.title}: `{name}`", role.wanted, f"{role.bar:.2f}", number(reached), verdict]


def missing(names: Sequence[str]) -> list[str]:
    """The parts that no network plays, in words."""
    return [f"{role.title} ({' or '.join(role.networks)})" for role in ROLES if not {*names} & {*role.networks}]


def remarks(figures: Figures, names: Sequence[str]) -> Iterator[str]:
    """What the scores are of, and what is left out of them."""
    for name in names:
        scores = figures.looks.scores(Look(Image(FUSERS[0]), name))
        if isinstance(scores, DetectionScores):
            boxes = ", ".join(f"{count} {of}" for of, count in zip(scores.classes, scores.labelled, strict=True))
            yield f"`{name}`: means over the classes, which have {boxes} boxes; {scores.settings['evaluator']}."
        elif isinstance(scores, SegmentationScores):
            classes = len(occurrences(scores))
            absent = [one for one in scores.absent if one != scores.classes[0]]
            without = f"; {', '.join(absent)} is in no frame and left out" if absent else ""
            yield f"`{name}`: means over the {classes} foreground classes that occur{without}."
        elif isinstance(scores, SaliencyScores):
            empty = f", without {frames(len(scores.empty))} whose mask is empty" if scores.empty else ""
            unstructured = len(scores.without_structure)
            empty += f", S without {frames(unstructured)} where it is undefined" if unstructured else ""
            counted = frames(len(scores.frames) - len(scores.empty))
            evaluator = scores.settings["evaluator"]
            yield f"`{name}`: means over {counted}{empty}; F and E are means over the thresholds; {evaluator}."


def frames(count: int) -> str:
    """So many frames, in words."""
    return "1 frame" if count == 1 else f"{count} frames"


def figures_of(figures: Figures, networks: Mapping[str, TaskNetwork]) -> dict[str, float]:
    """The scores on images of `OWN`, and their differences to `BASELINE` (`..._gain`)."""
    found: dict[str, float] = {"results.frames": len(figures.looks.frames)}
    for name, network in networks.items():
        for key in SHOWN[network.task]:
            own, other = (figures.of(Look(Image(fuser), name), key) for fuser in (OWN, BASELINE))
            found[f"results.{name}.{key.replace('/', '_')}"] = own.value
            found[f"results.{name}.{key.replace('/', '_')}_gain"] = own.minus(other).value
    return found


def _listed(lines: Iterator[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)
