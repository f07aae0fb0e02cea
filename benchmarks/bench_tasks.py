"""What the task networks cost, and how fast they learn and look.

A step of training is forward, loss, backward and SGD on synthetic scenes with their labels, a prediction goes from a
640×480 image to boxes, masks or maps; both from tensors, in milliseconds. Times are medians, with all cores and the
allocator tuned as in training. The networks have random weights, with which a detector finds as many boxes as it may:
the slowest case. Multiply-accumulates are those of one 640×480 image.

Another network is another line of `NETWORKS`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES, generate
from fuseloop.engines.allocator import tune_allocator
from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.tasks.detection.detr import DETR, RTDETR
from fuseloop.tasks.detection.yolov5 import YOLOv5
from fuseloop.tasks.protocol import Target, TaskNetwork
from fuseloop.tasks.saliency.ctdnet import CTDNet
from fuseloop.tasks.segmentation.segformer import SegFormer

NETWORKS: dict[str, Callable[[], TaskNetwork]] = {
    "yolov5n": partial(YOLOv5, BOX_NAMES, "n"),
    "yolov5s": partial(YOLOv5, BOX_NAMES, "s"),
    "ctdnet-18": CTDNet,
    "detr": partial(DETR, BOX_NAMES),
    "rtdetr": partial(RTDETR, BOX_NAMES),
    "segformer-b0": partial(SegFormer, SEGMENTATION_NAMES, "b0"),
}

HEIGHT, WIDTH = 480, 640
ROUNDS = 7


class Batch(NamedTuple):
    """A size of training batches."""

    size: int
    height: int
    width: int


BATCHES = {"320x256": Batch(8, 256, 320), "640x480": Batch(4, 480, 640)}
PRECISIONS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "fp32": nullcontext,
    "bf16": partial(torch.autocast, "cpu", torch.bfloat16),
}

KEYS = {
    key: f"{network}: {meaning}"
    for network in NETWORKS
    for key, meaning in {
        f"tasks.parameters_{network}": "parameters, for the classes of MSRS",
        f"tasks.gmac_{network}": "billions of multiply-accumulates, 640×480",
        **{
            f"tasks.ms_step_{network}_{batch}_{precision}": f"a step of training, {size.size} images, {precision}"
            for batch, size in BATCHES.items()
            for precision in PRECISIONS
        },
        **{f"tasks.ms_predict_{network}_{precision}": f"a prediction, {precision}" for precision in PRECISIONS},
    }.items()
}


def run() -> dict[str, float]:
    """All figures of `KEYS`; each network in a process of its own."""
    figures: dict[str, float] = {}
    for network in NETWORKS:
        command = [sys.executable, "-m", "benchmarks.bench_tasks", network]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
        figures |= json.loads(answer.stdout)
    return {key: figures[key] for key in KEYS}


def measure(name: str) -> dict[str, float]:
    """The figures of one network."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    predictions = {
        f"tasks.ms_predict_{name}_{precision}": partial(predict, network, image, context)
        for precision, context in PRECISIONS.items()
    }
    figures = {
        f"tasks.parameters_{name}": float(parameter_count(network)),
        f"tasks.gmac_{name}": multiply_accumulates(network.eval(), image) / 1e9,
        **medians(predictions),
    }
    for batch, size in BATCHES.items():
        images, targets = labelled(size)
        optimiser = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
        figures |= medians(
            {
                f"tasks.ms_step_{name}_{batch}_{precision}": partial(step, network, optimiser, images, targets, context)
                for precision, context in PRECISIONS.items()
            }
        )
    return figures


def medians(sides: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds of each side; they take turns."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(2 + ROUNDS):
        for side, work in sides.items():
            start = time.perf_counter()
            work()
            seconds[side].append(time.perf_counter() - start)
    return {side: 1000 * statistics.median(values[2:]) for side, values in seconds.items()}


def labelled(batch: Batch) -> tuple[Tensor, list[Target]]:
    """Visible images of synthetic scenes with their labels."""
    pairs = [LabelledPair.of(generate(seed, batch.height, batch.width)) for seed in range(batch.size)]
    images = torch.stack([torch.from_numpy(pair.visible).movedim(-1, 0).float() / 255 for pair in pairs])
    return images, [Target.of(pair) for pair in pairs]


def step(
    network: TaskNetwork,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    targets: list[Target],
    context: Callable[[], AbstractContextManager[object]],
) -> None:
    network.train()
    optimiser.zero_grad()
    with context():
        loss = network.loss(network(images), targets)
    loss.backward()
    optimiser.step()


@torch.inference_mode()
def predict(network: TaskNetwork, image: Tensor, context: Callable[[], AbstractContextManager[object]]) -> None:
    network.eval()
    with context():
        outputs = network(image)
    network.predict(outputs)


if __name__ == "__main__":
    tune_allocator()
    print(json.dumps(measure(sys.argv[1])))
