"""The sections of docs/results.md, in their order. Another question is another row of `SECTIONS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.pages import markdown
from benchmarks.results import networks
from benchmarks.results.figures import MAIN, RESAMPLES, SEED, Figure, Grid, change, number
from benchmarks.results.images import PREVIOUS, PROFILE, Image
from benchmarks.results.looks import CONVENTION, QUALITY, Look
from benchmarks.results.networks import BASELINE
from benchmarks.results.study import JOINT, OWN, PROFILED, RETRAINED, Study
from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.results import SHOWN, weights_hash
from fuseloop.fusers.loop_weights import read_loop
from fuseloop.metrics import METRICS, Evaluation
from fuseloop.metrics.summary import Summary, difference, summarise
from fuseloop.networks.cost import parameter_count

LOOP = f"{OWN} + RSC"
LIGHTS = (0.4, 0.5, 0.6, 0.7, 0.8)
NEAR = (0.25, 0.5)
"""Two strengths of a loop that make nearly the same image."""

POWER = 1 + 0.84 / 1.96
"""By how many half-widths of its 95 % interval a difference has to be off zero to be found in 4 of 5 tests."""

PUBLISHED = {"loop": 0.0228, "unseen": 0.0200}
"""Gains in mAP50:95 that CLDyN reports on M3FD, with its own detector and with DETR."""


@dataclass(frozen=True)
class Section:
    """A part of the document.

    Attributes:
        title: Its heading.
        needs: What has to be looked at in MSRS; images alone are scored for their fusion quality.
        text: What it says, once that was gathered.
        lacks: What is missing for it, empty where nothing is.
    """

    title: str
    needs: Callable[[Study], Sequence[Look | Image]]
    text: Callable[[Study], str]
    lacks: Callable[[Study], str] = lambda study: ""


def _lacks_loops(study: Study) -> str:
    return "" if study.loops else "there is no trained closed loop; give --loops"


# Which difference so many frames can show


class Pair(NamedTuple):
    """Two images that are compared, and what the comparison stands for."""

    label: str
    looks: Callable[[Study, str], tuple[list[Look], list[Look]]]


def _pairs(study: Study) -> list[Pair]:
    pairs = [Pair(f"{BASELINE} and {OWN}", lambda _, name: ([Look(Image(BASELINE), name)], [Look(Image(OWN), name)]))]
    if study.loops:
        first = next(iter(study.loops.values()))

        def at(strength: float, name: str) -> list[Look]:
            return [Look(Image(first, name, strength=strength), name)]

        weak, stronger = NEAR
        pairs += [
            Pair(f"strength {weak:g} and {stronger:g} of a loop", lambda _, name: (at(weak, name), at(stronger, name))),
            Pair(f"{LOOP} and {OWN}", lambda study, name: (_customised(study, name), [Look(Image(OWN), name)])),
        ]
    return pairs


def detectable_looks(study: Study) -> list[Look]:
    """What tells how far chance goes."""
    names = [*study.own.values(), *study.others]
    return [look for name in names for pair in _pairs(study) for looks in pair.looks(study, name) for look in looks]


def detectable(study: Study) -> str:
    """How far chance goes, for each network."""
    pairs, frames = _pairs(study), len(study.looks.frames)
    rows = [["task network", f"score on {OWN}", "the score itself", *(pair.label for pair in pairs), "to be found"]]
    said = []
    for name in (*study.own.values(), *study.others):
        key, label = _main(study, name)
        score = study.figures.of(Look(Image(OWN), name), key)
        widths = [_half_width(study.figures.difference(*pair.looks(study, name), key)) for pair in pairs]
        found = POWER * widths[-1]
        rows.append(
            [f"`{name}`, {label}", number(score.value), *(f"± {one:.3f}" for one in (_half_width(score), *widths))]
        )
        rows[-1].append(f"{found:.3f}")
        said.append(f"{found:.3f} in {label} of `{name}`")
    return f"""With {frames} frames the 95 % interval of a paired difference between {pairs[-1].label} reaches so
far to both sides that a true difference has to be {_and(said)} to be told from none in 4 of 5 such tests. What is
smaller may be there, and these frames do not show it.

Half-widths of 95 % intervals; those of differences are smaller where both sides see alike, since they are of the same
frames. "To be found" is {POWER:.2f} times the last one.

{markdown(rows)}"""


def _half_width(figure: Figure) -> float:
    return (figure.interval.high - figure.interval.low) / 2


# The closed loop beside the fusion network


def _customised(study: Study, made_for: str, seen_by: str = "") -> list[Look]:
    """The looks at what every training of the loop makes for a network."""
    return [Look(image, seen_by or made_for) for image in study.customised(made_for)]


def loop_grid(study: Study, names: Sequence[str]) -> Grid:
    """The loop beside the fusion network and what costs nothing, all trainings together and each alone."""
    plain = ("infrared", "visible", BASELINE, OWN)
    cells = {fuser: {name: [Look(Image(fuser), name)] for name in names} for fuser in plain}
    cells[LOOP] = {name: _customised(study, name) for name in names}
    if len(study.loops) > 1:
        for training, file in study.loops.items():
            cells[f"{LOOP}, {training}"] = {name: [Look(Image(file, name), name)] for name in names}
    return Grid(cells, {row: OWN for row in cells if row != OWN})


def loop_text(study: Study, names: Sequence[str], published: float) -> str:
    """The tables of the loop, and what they show."""
    grid, count = loop_grid(study, names), len(study.loops)
    drawn = (
        f"""Of the row `{LOOP}` each figure is the mean over {count} trainings, and its interval draws trainings again
as well as frames; of {count} trainings this finds {count - 1}/{count} of their variance, so it is a little too narrow.
The rows below are single trainings, and their intervals are of frames alone."""
        if count > 1
        else "There is one training: the intervals say nothing of how much depends on its seed."
    )
    return f"""{drawn}

{_verdicts(study, {name: (_customised(study, name), [Look(Image(OWN), name)]) for name in names})}

CLDyN reports {published:+.4f} in mAP50:95, on M3FD.

{markdown(grid.scores(study.figures))}

Differences to `{OWN}`, bold where the interval excludes zero:

{markdown(grid.differences(study.figures))}"""


def _verdicts(study: Study, compared: dict[str, tuple[list[Look], list[Look]]]) -> str:
    """What was gained in the main score of each network, and whether that is shown."""
    lines = []
    for name, (looks, baseline) in compared.items():
        key, label = _main(study, name)
        found = study.figures.difference(looks, baseline, key).interval
        if np.isnan(found.low):
            verdict = "undefined"
        else:
            verdict = "a gain" if found.low > 0 else "a loss" if found.high < 0 else "neither gain nor loss is shown"
        lines.append(f"* `{name}`: {label} {found.value:+.4f}, {found.low:+.4f} to {found.high:+.4f}: {verdict}")
    return "\n".join(lines)


def _main(study: Study, name: str) -> tuple[str, str]:
    """Key and label of the main score of a network."""
    task = study.networks[name].task
    return MAIN[task], SHOWN[task][MAIN[task]]


# The swap matrix

NEUTRAL, ITS_OWN = "neutral", "for that network"


def swap_grid(study: Study) -> Grid:
    """What each network sees in the images that were made for each."""
    names = list(study.own.values())
    cells = {NEUTRAL: {name: [Look(Image(OWN), name)] for name in names}}
    for made_for in names:
        cells[f"for {made_for}"] = {name: _customised(study, made_for, name) for name in names}
    return Grid(cells, {f"for {name}": NEUTRAL for name in names}, every=False)


def swap(study: Study) -> str:
    """The matrix, and its differences to the neutral image and to a network's own image."""
    grid, names = swap_grid(study), list(study.own.values())
    own = {ITS_OWN: {name: _customised(study, name) for name in names}}
    others = {
        f"for {made_for}": {name: looks for name, looks in grid.cells[f"for {made_for}"].items() if name != made_for}
        for made_for in names
    }
    to_own = Grid({**own, **others}, dict.fromkeys(others, ITS_OWN), every=False)
    return f"""Rows: what the image was made for. Columns: what looks at it. Means over the trainings.

{markdown(grid.scores(study.figures))}

Differences to the neutral image:

{markdown(grid.differences(study.figures))}

Differences to the image that was made for the network that looks; below zero, its own image serves it best:

{markdown(to_own.differences(study.figures))}"""


# Fusion quality


def quality_images(study: Study) -> dict[str, list[Image]]:
    """The images whose quality is compared, those of all trainings in one row."""
    plain = {fuser: [Image(fuser)] for fuser in (BASELINE, OWN)}
    return plain | {f"for {name}": study.customised(name) for name in study.own.values()}


def quality(study: Study) -> str:
    """Fusion quality of the neutral image and of those made for the networks."""
    values = {
        row: _mean_quality([study.looks.quality(one) for one in made]) for row, made in quality_images(study).items()
    }
    scores, changes = [["images", *map(_metric, QUALITY)]], [["images", *map(_metric, QUALITY)]]
    for row, of in values.items():
        scores.append([row, *(_mean(key, summarise(of[key], seed=SEED, resamples=RESAMPLES)) for key in QUALITY)])
        if row != OWN:
            gains = [difference(of[key], values[OWN][key], seed=SEED, resamples=RESAMPLES) for key in QUALITY]
            changes.append([row, *(_gain(key, gain) for key, gain in zip(QUALITY, gains, strict=True))])
    return f"""Means over the frames, of each frame first over the trainings. Convention `{CONVENTION}`; CLDyN's tables
have MI, Qabf, Qcb, Qcv and a fifth that is Qc or CC. Other methods on the same frames are in
[quality.md](quality.md), by another convention.

{markdown(scores)}

Differences to `{OWN}` on the same frames, bold where the 95 % interval excludes zero:

{markdown(changes)}"""


def _mean_quality(evaluations: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    return {key: np.mean([one.values[key] for one in evaluations], axis=0) for key in QUALITY}


def _metric(key: str) -> str:
    return METRICS[key].name + (" ↓" if METRICS[key].direction == "lower" else "")


def _mean(key: str, found: Summary) -> str:
    return "undefined" if not found.count else f"{found.mean:.{_decimals(key)}f}"


def _gain(key: str, found: Summary) -> str:
    return change(Figure(found.mean, np.array([found.low, found.high])), _decimals(key)) if found.count else "undefined"


def _decimals(key: str) -> int:
    return 1 if key == "qcv" else 3


# Complex scenes


def light_grid(study: Study) -> Grid:
    """The main rows in less and less light."""
    names = list(study.own.values())
    first = next(iter(study.loops.values()))
    cells, baselines = {}, {}
    for light in (1.0, *reversed(LIGHTS)):
        made = {"visible": Image("visible"), BASELINE: Image(BASELINE), OWN: Image(OWN), LOOP: Image(first)}
        for row, image in made.items():
            cells[f"{light:g}, {row}"] = {
                name: [Look(image._replace(light=light, network=name if row == LOOP else ""), name)] for name in names
            }
            if row != OWN:
                baselines[f"{light:g}, {row}"] = f"{light:g}, {OWN}"
    return Grid(cells, baselines, every=False)


def light(study: Study) -> str:
    """The tables of complex scenes."""
    grid = light_grid(study)
    return f"""The scenes that the paper calls complex: every visible channel times α, rounded to 8 bits, before
anything else. The loop is that of one training, `{next(iter(study.loops))}`. Infrared images stay as they are.

{markdown(grid.scores(study.figures))}

Differences to `{OWN}` at the same α:

{markdown(grid.differences(study.figures))}"""


# Ablations


def ablation_grid(study: Study) -> Grid:
    """Variants of the loop beside the main one."""
    names = list(study.own.values())
    runs = {study.main: study.ablations[study.main]} | dict(study.ablations)
    cells = {OWN: {name: [Look(Image(OWN), name)] for name in names}}
    cells |= {run: {name: [Look(Image(file, name), name)] for name in names} for run, file in runs.items()}
    baselines = {row: study.main for row in cells if row != study.main}
    for run, file in runs.items():
        if weights_hash(read_loop(file).network) != weights_hash(read_loop(runs[study.main]).network):
            cells[f"{run}, {NEUTRAL}"] = {name: [Look(Image(file, name, strength=0.0), name)] for name in names}
    return Grid(cells, baselines, every=False)


def ablations(study: Study) -> str:
    """The table of ablations."""
    grid = ablation_grid(study)
    counts = {run: parameter_count(read_loop(file).compensation) for run, file in study.ablations.items()}
    head, *rows = grid.scores(study.figures)
    rows = [[row[0], f"{counts[row[0]]:,}" if row[0] in counts else "", *row[1:]] for row in rows]
    return f"""Each variant is one training of the same small budget and seed as `{study.main}`, and differs from it in
what its name says. Intervals are of frames: how much another seed would change is not in them. A variant around another
fusion network has a row for the neutral image of that, which is what it began with.

{markdown([[head[0], "parameters", *head[1:]], *rows])}

Differences to `{study.main}`:

{markdown(grid.differences(study.figures))}"""


def _lacks_ablations(study: Study) -> str:
    if not study.ablations:
        return "there is no run of an ablation; give --ablations"
    if study.main not in study.ablations:
        raise ConfigurationError(
            f"there is no run {study.main!r} among {', '.join(study.ablations)}; say which is --main"
        )
    return ""


# The rivals

WAYS = {
    RETRAINED: f"{OWN}, network retrained on its images",
    JOINT: "fusion network and network trained together",
}


def rival_grid(study: Study) -> Grid:
    """The loop beside the two ways of training for a task without one."""
    names = list(study.own.values())
    cells = {OWN: {name: [Look(Image(OWN), name)] for name in names}}
    if study.loops:
        cells[LOOP] = {name: _customised(study, name) for name in names}
    for way, row in WAYS.items():
        looks = {one.network: [Look(Image(one.fusion), one.name)] for one in study.rivals if one.way == way}
        if looks:
            cells[row] = {name: looks[name] for name in names if name in looks}
    return Grid(cells, {row: OWN for row in cells if row != OWN})


def rivals(study: Study) -> str:
    """The table of the rivals."""
    grid = rival_grid(study)
    learnt = [f"`{name}` {parameter_count(study.networks[name]):,}" for name in study.own.values()]
    loop = ""
    if study.loops:
        count = parameter_count(read_loop(next(iter(study.loops.values()))).compensation)
        loop = f" The loop trains {count:,} parameters once, for all tasks."
    return f"""Retraining trains a task network further on `{OWN}` images; joint training trains it together with the
fusion network on the loss of its task. Both go on from the shipped weights for a small budget, so that a part of what
they gain may come from more training alone. They train all of a task network: {", ".join(learnt)} parameters.{loop}

{markdown(grid.scores(study.figures))}

Differences to `{OWN}` with the network as it is shipped:

{markdown(grid.differences(study.figures))}"""


# Where the requirement comes from

FEEDBACKS: dict[str, dict[str, float | str]] = {
    "frame": {},
    "frame, first look of half the size": {"first_look": 0.5},
    "previous": {"feedback": PREVIOUS},
    "profile": {"feedback": PROFILE},
}


def feedback_grid(study: Study) -> Grid:
    """The ways of feedback of one training."""
    names, first = list(study.own.values()), next(iter(study.loops.values()))
    cells = {OWN: {name: [Look(Image(OWN), name)] for name in names}}
    for row, options in FEEDBACKS.items():
        cells[row] = {name: [Look(Image(first, name, **options), name)] for name in names}  # type: ignore[arg-type]
    return Grid(cells, {row: OWN if row == "frame" else "frame" for row in FEEDBACKS}, every=False)


def feedback(study: Study) -> str:
    """The table of feedbacks."""
    grid = feedback_grid(study)
    return f"""Of one training, `{next(iter(study.loops))}`. `previous` takes the frames in the order of their names:
most are no neighbours in a video, so this is its worst case. `profile` is the mean requirement of MSRS/{PROFILED}, and
looks at nothing.

{markdown(grid.scores(study.figures))}

Differences, of `frame` to `{OWN}` and of the others to `frame`:

{markdown(grid.differences(study.figures))}"""


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


SECTIONS: dict[str, Section] = {
    "networks": Section(
        "What task networks see",
        lambda study: [look for grid in networks.grids(study) for look in grid.looks],
        networks.text,
    ),
    "detectable": Section("Which difference the frames can show", detectable_looks, detectable),
    "loop": Section(
        "The closed loop",
        lambda study: loop_grid(study, list(study.own.values())).looks,
        lambda study: loop_text(study, list(study.own.values()), PUBLISHED["loop"]),
        _lacks_loops,
    ),
    "unseen": Section(
        "The closed loop with networks that it never saw",
        lambda study: loop_grid(study, study.others).looks,
        lambda study: loop_text(study, study.others, PUBLISHED["unseen"]),
        lambda study: _lacks_loops(study) or ("" if study.others else "there is no other network; give --unseen"),
    ),
    "swap": Section(
        "Images made for one task, seen by another", lambda study: swap_grid(study).looks, swap, _lacks_loops
    ),
    "quality": Section(
        "Fusion quality of images made for a task",
        lambda study: [image for images in quality_images(study).values() for image in images],
        quality,
        _lacks_loops,
    ),
    "light": Section("Complex scenes", lambda study: light_grid(study).looks, light, _lacks_loops),
    "ablations": Section("Ablations", lambda study: ablation_grid(study).looks, ablations, _lacks_ablations),
    "rivals": Section(
        "The rivals: retraining and joint training",
        lambda study: rival_grid(study).looks,
        rivals,
        lambda study: "" if study.rivals else "there is no rival; give --rivals",
    ),
    "feedback": Section(
        "Where the requirement comes from", lambda study: feedback_grid(study).looks, feedback, _lacks_loops
    ),
}
"""All sections by their names."""
