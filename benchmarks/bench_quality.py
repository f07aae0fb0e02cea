"""Fusion quality on MSRS/test (or val, for the choice of models), beside what needs no network.

python -m benchmarks.bench_quality --split val --fuser outputs/run/last.safetensors
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fuseloop
from benchmarks.pages import commit, data_folder, markdown
from fuseloop.fusers.weights import find_weights
from fuseloop.metrics import METRICS, Evaluation, score_frames, to_grey
from fuseloop.pairs.folders import PairPaths, pair_folders

Pixels = NDArray[np.uint8]
COLUMNS = ("en", "sd", "sf", "ag", "mi", "scd", "vif", "qabf", "ssim", "qcb", "qcv")
CONVENTION = "cddfuse"
BASELINE = "pixel maximum"
# What the shipped network has to reach, and what it aims at.
BARS = {"qabf": (0.67, 0.73), "scd": (1.60, 1.65), "qcv": (420.0, 370.0), "vif": (0.92, 1.04)}
SEED = 0
DOCUMENT = Path(__file__).parents[1] / "docs" / "quality.md"


def pixel_mean(infrared: Pixels, visible: Pixels) -> Pixels:
    return ((infrared.astype(np.uint16) + visible + 1) // 2).astype(np.uint8)


def pixel_maximum(infrared: Pixels, visible: Pixels) -> Pixels:
    return np.maximum(infrared, visible)


def laplacian_pyramid(infrared: Pixels, visible: Pixels, levels: int = 4) -> Pixels:
    """The larger detail at each level, the mean of the bases."""
    first: Any = infrared.astype(np.float32)
    second: Any = visible.astype(np.float32)
    details = []
    for _ in range(levels):
        smaller, size = (cv2.pyrDown(first), cv2.pyrDown(second)), (first.shape[1], first.shape[0])
        one, other = (
            image - cv2.pyrUp(small, dstsize=size) for image, small in zip((first, second), smaller, strict=True)
        )
        details.append(np.where(np.abs(one) >= np.abs(other), one, other))
        first, second = smaller
    fused = (first + second) / 2
    for detail in reversed(details):
        fused = cv2.pyrUp(fused, dstsize=(detail.shape[1], detail.shape[0])) + detail
    rounded: Pixels = np.floor(np.clip(fused, 0, 255) + 0.5).astype(np.uint8)
    return rounded


RULES: dict[str, Callable[[Pixels, Pixels], Pixels]] = {
    "infrared alone": lambda infrared, visible: infrared,
    "visible alone": lambda infrared, visible: visible,
    "pixel mean": pixel_mean,
    BASELINE: pixel_maximum,
    "Laplacian pyramid, 4 levels": laplacian_pyramid,
}


def measure(
    data: Path, split: str, fusers: Mapping[str, Callable[[Pixels, Pixels], Pixels]], *, limit: int | None = None
) -> dict[str, Evaluation]:
    """Scores the rules and the fusers on a split of MSRS; the first `limit` frames only when given."""
    pairs = pair_folders(data / "MSRS" / split / "ir", data / "MSRS" / split / "vi").pairs[:limit]
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        frames = (fuse_frame(pair, fusers) for pair in bar.track(pairs, description=f"scoring MSRS/{split}"))
        return score_frames(frames, metrics=COLUMNS, convention=CONVENTION)


def fuse_frame(
    pair: PairPaths, fusers: Mapping[str, Callable[[Pixels, Pixels], Pixels]]
) -> tuple[str, Pixels, Pixels, dict[str, Pixels]]:
    """Name, infrared and visible grey levels, and those of what each rule and each fuser makes of the pair."""
    colour = fuseloop.read_image(pair.visible).pixels
    infrared, visible = to_grey(fuseloop.read_image(pair.infrared).pixels), to_grey(colour)
    fused = {name: rule(infrared, visible) for name, rule in RULES.items()}
    # What a fuser saves is scored: its colours, rounded, and then their grey.
    fused |= {name: to_grey(fuser(infrared, colour)) for name, fuser in fusers.items()}
    return pair.name, infrared, visible, fused


def rows(evaluations: Mapping[str, Evaluation]) -> Iterator[list[str]]:
    """The table of means, first its head."""
    yield ["method", *(_label(key) for key in COLUMNS), "Qcv median"]
    for method, evaluation in evaluations.items():
        summaries = [evaluation.summary(key, seed=SEED) for key in COLUMNS]
        median = evaluation.summary("qcv", seed=SEED).median
        yield [method, *(_number(key, s.mean) for key, s in zip(COLUMNS, summaries, strict=True)), f"{median:.0f}"]


def difference_rows(evaluations: Mapping[str, Evaluation]) -> Iterator[list[str]]:
    """The table of paired differences to the pixel maximum with their intervals, first its head."""
    yield ["method", *(_label(key) for key in COLUMNS)]
    for method, evaluation in evaluations.items():
        if method == BASELINE:
            continue
        cells = []
        for key in COLUMNS:
            gain = evaluation.difference(evaluations[BASELINE], key, seed=SEED)
            low, high = _number(key, gain.low, sign=True), _number(key, gain.high, sign=True)
            cells.append(f"{_number(key, gain.mean, sign=True)} [{low}, {high}]" if gain.count else "undefined")
        yield [method, *cells]


def bar_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    """What the shipped network reaches, against the bar and the aim, first the head."""
    yield ["metric", "reached", "bar", "", "aim", ""]
    for key, goals in BARS.items():
        mean = evaluation.summary(key, seed=SEED).mean
        lower = METRICS[key].direction == "lower"
        sign = "≤" if lower else "≥"
        cells = [
            [f"{sign} {_number(key, goal)}", "met" if (mean <= goal if lower else mean >= goal) else "missed"]
            for goal in goals
        ]
        yield [_label(key), _number(key, mean), *cells[0], *cells[1]]


def document(evaluations: Mapping[str, Evaluation], name: str) -> str:
    """The text of docs/quality.md for the fuser of that name."""
    count = len(next(iter(evaluations.values())).frames)
    own = evaluations[name]
    undefined = [
        f"{method}: {METRICS[key].name} on {len(frames)} of {count} frames ({next(iter(frames.values()))})."
        for method, evaluation in evaluations.items()
        for key, frames in evaluation.reasons.items()
        if frames
    ]
    default = " and ".join(METRICS[key].name for key in COLUMNS if own.conventions[key] == "default")
    return f"""# Fusion quality

* made by `python -m benchmarks.bench_quality` on {datetime.date.today().isoformat()}
* commit {commit()}
* bootstrap seed {SEED}
* weights `{name}`, SHA-256 {_digest(find_weights(name))}

{count} frames of MSRS/test, which no network here has seen. Fused images are scored as they are saved, 8-bit, by their
grey levels. Convention `{CONVENTION}`; {default}, which it lacks, by `default`. Means over the frames, Qcv also the
median; ↓: lower is better.

{markdown(rows(evaluations))}

Copying one source scores high in MI, VIF, SSIM and Qcb; only Qabf, SCD and Qcv together punish it.

## Bar and aim of `{name}`

{markdown(bar_rows(own))}

## Paired differences to the {BASELINE}

Mean over the frames of method minus {BASELINE}, with the 95 % bootstrap interval (10,000 resamples of the frames).

{markdown(difference_rows(evaluations))}

## Undefined values

Left out of the means and differences above.

{chr(10).join(f"* {line}" for line in undefined) or "None."}
"""


def run(data: Path | None = None) -> dict[str, float]:
    """Measures the shipped network on MSRS/test, writes docs/quality.md, and returns the figures."""
    evaluations = measure(data or data_folder(), "test", {"vfn": fuseloop.load("vfn")})
    _write(evaluations, "vfn")
    return figures(evaluations, "vfn")


def _write(evaluations: Mapping[str, Evaluation], name: str) -> None:
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document(evaluations, name), encoding="utf-8")


def figures(evaluations: Mapping[str, Evaluation], method: str) -> dict[str, float]:
    """Means of a method, and its mean paired differences to the pixel maximum (`..._gain`)."""
    own = evaluations[method]
    found: dict[str, float] = {"quality.frames": len(own.frames)}
    for key in COLUMNS:
        found[f"quality.{key}"] = own.summary(key, seed=SEED).mean
        found[f"quality.{key}_gain"] = own.difference(evaluations[BASELINE], key, seed=SEED).mean
    found["quality.qcv_median"] = own.summary("qcv", seed=SEED).median
    return found


def _label(key: str) -> str:
    return METRICS[key].name + (" ↓" if METRICS[key].direction == "lower" else "")


def _number(key: str, value: float, *, sign: bool = False) -> str:
    if np.isnan(value):
        return "undefined"
    decimals = {"en": 2, "sd": 1, "sf": 2, "ag": 2, "mi": 2, "qcv": 0}.get(key, 3)
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val for the choice of models")
    parser.add_argument("--fuser", action="append", help="name or weight file; may be given more than once")
    parser.add_argument("--limit", type=int, help="only so many frames")
    arguments = parser.parse_args()
    names = arguments.fuser or ["vfn"]
    evaluations = measure(
        data_folder(), arguments.split, {name: fuseloop.load(name) for name in names}, limit=arguments.limit
    )
    print(f"MSRS/{arguments.split}, means", markdown(rows(evaluations)), sep="\n\n", end="\n\n")
    print(f"Paired differences to the {BASELINE}", markdown(difference_rows(evaluations)), sep="\n\n", end="\n\n")
    for name in names:
        print(f"Bar and aim of {name}", markdown(bar_rows(evaluations[name])), sep="\n\n", end="\n\n")
    if arguments.split == "test" and names == ["vfn"] and arguments.limit is None:
        _write(evaluations, "vfn")
        print(f"wrote {DOCUMENT}")


if __name__ == "__main__":
    main()
