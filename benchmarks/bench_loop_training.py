"""How long a step of training of the closed loop takes, and in how much memory, beside the published way.

A step has four synthetic 320×240 frames for each of three tasks, whose networks have random weights: yolov5s,
segformer-b0 and ctdnet-18. The published way, written down as it is described, makes the first look at every sample
anew, computes the first block of the fusion network in both passes, and holds the graphs of all tasks until the step is
done, with the compensation in its published form. `fuseloop train closed-loop` keeps first looks and takes the gradient
of each task by itself. Both ways give the same gradient of the same compensation.

All sides take turns in one process, with all cores and the allocator tuned as in training; each ratio is the median of
the ratios of single rounds. Memory is the largest resident memory of a process that does two steps, less what it had
before them, with a process for each side.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from fuseloop.engines.allocator import tune_allocator
from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.tasks.weights import build, write_weights
from fuseloop.training import gradient_rules
from fuseloop.training.closed_loop import ClosedLoopRecipe, LoopBatch
from fuseloop.training.config import ClosedLoopConfig
from fuseloop.training.trainer import launch

NETWORKS: dict[str, dict[str, Any]] = {"yolov5s": {}, "segformer-b0": {}, "ctdnet-18": {}}
BATCH, HEIGHT, WIDTH = 4, 240, 320
ROUNDS = 3
PENALTY = 5.0
PUBLISHED: dict[str, Any] = {
    "compensation": {"reference_compat": True},
    "rule": "published",
    "penalty_per": "batch",
    "coupled_decay": True,
}
SIDES: dict[str, dict[str, Any]] = {
    "reference": {**PUBLISHED, "cache": False},
    "compat": PUBLISHED,
    "default": {},
    "default_first": {"cache": False},
}
"""Settings by the name of the side; that of the reference is computed the published way."""

KEYS = {
    "loop_training.speedup": "times as fast as the published way: defaults, first looks kept",
    "loop_training.speedup_first": "the same in a first pass over the data, where first looks are made",
    "loop_training.speedup_compat": "the same with the published compensation: what the way of computing alone gains",
    "loop_training.memory": "memory of the published way as a multiple of ours: defaults, first looks kept",
    "loop_training.memory_compat": "the same with the published compensation: what the way of computing alone saves",
    **{f"loop_training.ms_{side}": f"milliseconds of a step, {side}" for side in SIDES},
    **{f"loop_training.mb_{side}": f"MiB of a step, {side}" for side in SIDES},
}


def run() -> dict[str, float]:
    """All figures of `KEYS`."""
    times = _child("times")
    memory = {side: _child("memory", side)[side] for side in SIDES}
    return {
        **times,
        "loop_training.memory": memory["reference"] / memory["default"],
        "loop_training.memory_compat": memory["reference"] / memory["compat"],
        **{f"loop_training.mb_{side}": value for side, value in memory.items()},
    }


def _child(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_loop_training", *arguments]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def measure_times() -> dict[str, float]:
    """Milliseconds of a step of every side, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        networks = write_networks(Path(folder))
        steps = {side: step_of(side, networks) for side in SIDES}
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(1 + ROUNDS):
            for side, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[side].append(time.perf_counter() - start)
    rounds = {side: values[1:] for side, values in seconds.items()}  # the first one made the first looks

    def speedup(side: str) -> float:
        return statistics.median(a / b for a, b in zip(rounds["reference"], rounds[side], strict=True))

    return {
        "loop_training.speedup": speedup("default"),
        "loop_training.speedup_first": speedup("default_first"),
        "loop_training.speedup_compat": speedup("compat"),
        **{f"loop_training.ms_{side}": 1000 * statistics.median(values) for side, values in rounds.items()},
    }


def measure_memory(side: str) -> dict[str, float]:
    """MiB that two steps of a side need beyond what there is before."""
    with tempfile.TemporaryDirectory() as folder:
        step = step_of(side, write_networks(Path(folder)))
        before = psutil.Process().memory_info().rss
        for _ in range(2):
            step()
    return {side: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before / 2**20}


def write_networks(folder: Path) -> dict[str, Path]:
    """Weight files of networks with random weights."""
    torch.manual_seed(0)
    paths = {name: folder / f"{name}.safetensors" for name in NETWORKS}
    for name, path in paths.items():
        write_weights(path, build(name, **NETWORKS[name]), name, options=NETWORKS[name])
    return paths


def open_recipe(networks: dict[str, Path], **changes: Any) -> ClosedLoopRecipe:
    """The recipe of the closed loop around these networks."""
    data = {"data": [{"spec": f"synthetic:{2 * BATCH}:1"}], "validation": ["synthetic:1:2"]}
    stage = {"steps": 1, "batch": BATCH, "height": HEIGHT, "width": WIDTH}
    tasks = [{"task_network": str(path), **data} for path in networks.values()]
    settings = {"device": "cpu", "tasks": tasks, "scale_over": 0, "penalty": PENALTY, "stages": [stage], **changes}
    return ClosedLoopRecipe(ClosedLoopConfig.model_validate(settings), torch.device("cpu"))


def step_of(side: str, networks: dict[str, Path]) -> Callable[[], object]:
    """One step of a side, always of the same samples."""
    recipe = open_recipe(networks, **SIDES[side])
    optimiser = recipe.optimiser()
    recipe.prepare(0, optimiser)
    batches = recipe.batches(0, range(recipe.pairs_in(0)))
    fabric = launch(recipe.config)

    def step() -> None:
        if side == "reference":
            backward_as_published(recipe, batches)
        else:
            recipe.backward(fabric, batches)
        torch.nn.utils.clip_grad_norm_(recipe.network.parameters(), 1.0)
        optimiser.step()

    return step


def backward_as_published(recipe: ClosedLoopRecipe, batches: list[LoopBatch]) -> None:
    """Sets the gradient of a step, computed the published way."""
    compensation, fusion = recipe.network.compensation, recipe.network.fusion
    parameters = [one for one in compensation.parameters() if one.requires_grad]
    gradients, held = [], []
    for batch in batches:
        network, targets = recipe.network.task_network(batch.task), batch.samples.targets
        infrared, ycbcr = batch.samples.infrared.float() / 255, rgb_to_ycbcr(batch.samples.visible.float() / 255)
        with torch.no_grad():
            outputs = network(_coloured(fusion(infrared, ycbcr[:, :1]), ycbcr))
            before = network.loss(outputs, targets)
        noise = torch.Generator().manual_seed(batch.seed)
        requirement = compensation.describe(outputs.feature)
        compensate = partial(compensation, requirement=requirement, generator=noise)
        first = fusion.encode_first(infrared, ycbcr[:, :1])
        luma = fusion.decode(fusion.encode_rest(*first, compensate))
        after = network.loss(network(_coloured(luma, ycbcr)), targets)
        objective = after + PENALTY * torch.relu(after - before)
        objective.backward(retain_graph=True)
        gradients.append(torch.cat([_taken(one).flatten() for one in parameters]))
        held.append(objective)
    together = gradient_rules.combine(torch.stack(gradients), gradient_rules.RULES["published"])
    for parameter, part in zip(parameters, together.split([one.numel() for one in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def _coloured(luma: Tensor, ycbcr: Tensor) -> Tensor:
    return ycbcr_to_rgb(torch.cat([luma, ycbcr[:, 1:]], dim=1)).clamp(0, 1)


def _taken(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which is left without."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    parameter.grad = None
    return gradient


if __name__ == "__main__":
    if sys.argv[1] == "times":
        tune_allocator()
        print(json.dumps(measure_times()))
    else:
        print(json.dumps(measure_memory(sys.argv[2])))
