"""How long metrics of fusion quality take.

A 640×480 synthetic pair and its pixel maximum, as 8-bit grey images in memory, are scored by `score_frame` in float64:
many metrics in one call, and each alone. The twelve are those of CDDFuse's evaluation, under its convention.
torchmetrics scores the same images, both sources, in float64. One thread on one core; processor time, so that other
work on the machine counts little, the median of all rounds but the first; the allocator of the system as it is, or
tuned as `fuseloop score` does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fuseloop.datasets.synthetic import generate
from fuseloop.engines.allocator import tune_allocator
from fuseloop.metrics import METRICS, metrics_of, score_frame, to_grey
from fuseloop.metrics.table import SLOW

HEIGHT, WIDTH = 480, 640
ROUNDS = 7
TWELVE = ("en", "sd", "sf", "ag", "mi", "scd", "vif", "qabf", "ssim", "cc", "mse", "psnr")
SUITE = tuple(key for key in metrics_of("default") if key not in SLOW)
KEYS = {
    "metrics.seconds_12": f"{' '.join(METRICS[key].name for key in TWELVE)} of a pair, convention cddfuse",
    "metrics.seconds_12_tuned": "the same with the allocator tuned",
    "metrics.seconds_12_default": "the same twelve, convention default",
    "metrics.seconds_all": f"all {len(SUITE)} metrics with a default definition but FMI and Qp",
    "metrics.seconds_all_tuned": "the same with the allocator tuned",
    "metrics.faster_than_torchmetrics": "times as fast as torchmetrics: VIF and SSIM of both sources",
    **{f"metrics.ms_{key}": f"milliseconds, {METRICS[key].name} alone" for key in metrics_of("default")},
}

Pixels = NDArray[np.uint8]


def run() -> dict[str, float]:
    """All figures of `KEYS`, measured in processes of their own with one thread on one core."""
    plain, tuned = _child("plain"), _child("tuned")
    figures = plain | {key: tuned[key.removesuffix("_tuned")] for key in KEYS if key.endswith("_tuned")}
    return {key: figures[key] for key in KEYS}


def _child(allocator: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_metrics", allocator]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    folder = Path(__file__).parents[1]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=environment)
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def measure(height: int = HEIGHT, width: int = WIDTH, rounds: int = ROUNDS) -> dict[str, float]:
    """The figures of `KEYS`, with the allocator of this process as it is."""
    scene = generate(0, height, width)
    infrared, visible = scene.infrared, to_grey(scene.visible)
    images = infrared, visible, np.maximum(infrared, visible)
    sides: dict[str, Callable[[], object]] = {
        "twelve": partial(score_frame, *images, metrics=TWELVE, convention="cddfuse"),
        "default": partial(score_frame, *images, metrics=TWELVE),
        "suite": partial(score_frame, *images, metrics=SUITE),
        "ours": partial(score_frame, *images, metrics=("vif", "ssim")),
        "torchmetrics": partial(score_by_torchmetrics, *images),
        **{key: partial(score_frame, *images, metrics=(key,)) for key in metrics_of("default")},
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(1 + rounds):
        for side, score in sides.items():
            start = time.process_time()
            score()
            seconds[side].append(time.process_time() - start)
    median = {side: statistics.median(values[1:]) for side, values in seconds.items()}
    return {
        "metrics.seconds_12": median["twelve"],
        "metrics.seconds_12_default": median["default"],
        "metrics.seconds_all": median["suite"],
        "metrics.faster_than_torchmetrics": median["torchmetrics"] / median["ours"],
        **{f"metrics.ms_{key}": 1000 * median[key] for key in metrics_of("default")},
    }


@torch.inference_mode()
def score_by_torchmetrics(infrared: Pixels, visible: Pixels, fused: Pixels) -> None:
    """VIF and SSIM of both sources."""
    from torchmetrics.functional.image import structural_similarity_index_measure, visual_information_fidelity

    made = torch.from_numpy(fused.astype(np.float64))[None, None]
    for source in (infrared, visible):
        wanted = torch.from_numpy(source.astype(np.float64))[None, None]
        visual_information_fidelity(made, wanted)
        structural_similarity_index_measure(made, wanted, data_range=255.0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if sys.argv[1:] == ["tuned"]:
        tune_allocator()
    json.dump(measure(), sys.stdout)
