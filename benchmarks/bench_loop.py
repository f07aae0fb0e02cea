"""What the closed loop costs beside the fusion network and beside the published way of computing it.

A 640×480 frame goes through the semantic compensation of both modalities in fp32; the task network is apart, its
feature is given: a detector's, 512×15×20, or a saliency network's, 64×120×160. The speed-ups are of eager modules:
their plain side is the published form written down as it is described, branch by branch, layer by layer; both sides
give the same numbers within 1e-5. All sides take turns in one process, with all cores: two calls, of which the second
counts.
Each ratio is the median of the ratios of single rounds, which a busy machine disturbs less than a ratio of medians.

On every engine its default form stands beside VFN on that engine, features in and out, and the whole loop is
`ClosedLoopFuser` beside `Fuser`, arrays in and out: with the first block kept between the first look and the second
pass, with a first look of half the size, and with the requirement of the previous frame. Its task network costs
nothing, since it gives a feature that is there already. Figures without an engine in their name are those of the engine
whose whole loop costs least in its own passes of VFN: one engine for all of them, above and below the line.

The allocator is that of the system, or tuned where the name says so. The plain side gains most from tuning, because
it makes the largest tensors. Most of what is left to the published form with a detection feature is one convolution
at full resolution, whose 128 outputs only a mean leaves.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.engines import ENGINES, load_engine
from fuseloop.engines.allocator import tune_allocator
from fuseloop.fusers.closed_loop import ClosedLoopFuser
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.loop_weights import Loop
from fuseloop.networks.semantic_compensation import PublishedA2SI, SemanticCompensation, SemanticInjection
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.images import Picture

HEIGHT, WIDTH = 480, 640
ROUNDS = 5
WAYS: dict[str, dict[str, Any]] = {"": {}, "half_": {"first_look": 0.5}, "video_": {"feedback": "previous"}}

COSTS = {
    "rsc.cost_in_vfn": "default form, the dearer of both features: time in passes of VFN on the same engine",
    "loop.cost_in_vfn": "the whole loop but for the task network, the dearer of both features: time in passes of VFN",
    "loop.half_cost_in_vfn": "the same with a first look of half the height and width",
    "loop.video_cost_in_vfn": "the same with the requirement of the previous frame",
}
RATIOS = {
    "rsc.compat_speedup_od": "published form: times as fast as the plain loop over branches, detection feature",
    "rsc.compat_speedup_sod": "the same, saliency feature",
    **COSTS,
    **{f"{key}_{engine}": f"the same with {engine}" for engine in ENGINES for key in COSTS},
}
KEYS = {
    **RATIOS,
    **{f"{key}_tuned_allocator": "the same with the tuned allocator" for key in RATIOS},
    "rsc.error_compat": "largest difference of the published form to the plain loop",
    "rsc.ms_vfn": "milliseconds of one pass of VFN, eager",
    "rsc.ms_default_od": "milliseconds of the default form, eager, detection feature",
    "rsc.ms_default_sod": "milliseconds of the default form, eager, saliency feature",
    **{f"rsc.ms_vfn_{engine}": f"milliseconds of one pass of VFN with {engine}" for engine in ENGINES},
    "rsc.ms_compat_od": "milliseconds of the published form, detection feature",
    "rsc.ms_compat_sod": "milliseconds of the published form, saliency feature",
    "rsc.ms_plain_od": "milliseconds of the plain loop, detection feature",
    "rsc.ms_plain_sod": "milliseconds of the plain loop, saliency feature",
}


def run() -> dict[str, float]:
    """All figures of `KEYS`."""
    figures, tuned = _child("default"), _child("tuned")
    return figures | {f"{key}_tuned_allocator": tuned[key] for key in RATIOS}


def _child(allocator: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_loop", allocator]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


@torch.inference_mode()
def measure() -> dict[str, float]:
    """The figures of `KEYS` with the allocator of this process as it is."""
    torch.manual_seed(0)
    network = VFN().eval()
    default = SemanticCompensation().eval()
    compat = SemanticCompensation(reference_compat=True).eval()
    for module in (*default.modules(), *compat.modules()):
        if isinstance(module, SemanticInjection):
            nn.init.normal_(module.zc.weight)
    infrared, luma = torch.rand(2, 1, 1, HEIGHT, WIDTH)
    first = network.encode_first(infrared, luma)
    features = {
        "od": torch.randn(1, 512, HEIGHT // 32, WIDTH // 32),
        "sod": torch.randn(1, 64, HEIGHT // 4, WIDTH // 4),
    }
    sides: dict[str, Callable[[], object]] = {"vfn": partial(network, infrared, luma)}
    errors = []
    for name, feature in features.items():
        sides |= {
            f"default_{name}": partial(compensate, default, first, feature),
            f"compat_{name}": partial(compensate, compat, first, feature),
            f"plain_{name}": partial(compensate_plainly, compat, first, feature),
        }
        pairs = zip(compensate(compat, first, feature), compensate_plainly(compat, first, feature), strict=True)
        errors += [float((ours - plain).abs().max()) for ours, plain in pairs]
    loop = Loop(network, default)
    for engine in ENGINES:
        sides |= engine_sides(loop, engine, infrared, luma, features) | loop_sides(loop, engine, features)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, work in sides.items():
            work()
            start = time.perf_counter()
            work()
            seconds[side].append(time.perf_counter() - start)

    def ratio(upper: str, lower: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[upper], seconds[lower], strict=True))

    def dearer(engine: str, upper: str, lower: str) -> float:
        return max(ratio(f"{engine}_{upper}{name}", f"{engine}_{lower}") for name in features)

    costs = {
        engine: {
            "rsc.cost_in_vfn": dearer(engine, "rsc_", "vfn"),
            **{f"loop.{way}cost_in_vfn": dearer(engine, way, "neutral") for way in WAYS},
        }
        for engine in ENGINES
    }
    return {
        "rsc.compat_speedup_od": ratio("plain_od", "compat_od"),
        "rsc.compat_speedup_sod": ratio("plain_sod", "compat_sod"),
        "rsc.error_compat": max(errors),
        **{
            f"rsc.ms_{side}": 1000 * statistics.median(values)
            for side, values in seconds.items()
            if f"rsc.ms_{side}" in KEYS
        },
        **{f"rsc.ms_vfn_{engine}": 1000 * statistics.median(seconds[f"{engine}_vfn"]) for engine in ENGINES},
        **{f"{key}_{engine}": cost for engine in ENGINES for key, cost in costs[engine].items()},
        **min(costs.values(), key=lambda cost: cost["loop.cost_in_vfn"]),
    }


class Remembers(nn.Module):
    """A task network that costs nothing: whatever it sees, it gives one feature."""

    def __init__(self, feature: Tensor) -> None:
        super().__init__()
        self.feature = feature

    def forward(self, images: Tensor) -> Remembers:
        """Itself, as outputs with a feature."""
        return self


def engine_sides(
    loop: Loop, name: str, infrared: Tensor, luma: Tensor, features: dict[str, Tensor]
) -> dict[str, Callable[[], object]]:
    """A pass of the fusion network on an engine, and the compensation there, for each feature."""
    engine = load_engine(name, loop.network)
    engine.take(loop.compensation)
    first = engine.encode_first(infrared, luma)

    def compensate(feature: Tensor) -> object:
        return engine.compensate(0, *first, requirement=loop.compensation.describe(feature))

    sides: dict[str, Callable[[], object]] = {f"{name}_vfn": partial(engine.fuse, infrared, luma)}
    return sides | {f"{name}_rsc_{key}": partial(compensate, feature) for key, feature in features.items()}


def loop_sides(loop: Loop, engine: str, features: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """Fusing a colour pair neutrally and in each way of the loop, for each feature."""
    generator = np.random.default_rng(0)
    pair = (generator.integers(0, 256, (HEIGHT, WIDTH, *rest), np.uint8) for rest in ((), (3,)))
    infrared, visible = map(Picture, pair)
    sides: dict[str, Callable[[], object]] = {
        f"{engine}_neutral": partial(Fuser(loop.network, engine=engine).fuse_picture, infrared, visible)
    }
    for name, feature in features.items():
        for way, options in WAYS.items():
            fuser = ClosedLoopFuser(loop, Remembers(feature), engine=engine, **options)
            sides[f"{engine}_{way}{name}"] = partial(fuser.fuse_picture, infrared, visible)
    return sides


def compensate(compensation: SemanticCompensation, first: tuple[Tensor, Tensor], feature: Tensor) -> tuple[Tensor, ...]:
    """Both modalities, from the feature of the task network."""
    compensated: tuple[Tensor, ...] = compensation(0, *first, compensation.describe(feature))
    return compensated


def compensate_plainly(
    compensation: SemanticCompensation, first: tuple[Tensor, Tensor], feature: Tensor
) -> tuple[Tensor, ...]:
    """The published form of both modalities as one writes it down."""
    blocks = (compensation.rsc_ir["a2si0"], compensation.rsc_vi["a2si0"])
    return tuple(
        plain_block(block, features, feature, compensation.bvb)  # type: ignore[arg-type]
        for block, features in zip(blocks, first, strict=True)
    )


def plain_block(block: PublishedA2SI, features: Tensor, feature: Tensor, bank: Tensor) -> Tensor:
    """One A2SI block in evaluation, without noise, with loops over images and branches."""
    sequence = feature.flatten(1)[:, None]
    structure = torch.cat([block.p_task_f(sequence).mean(dim=2), block.p_img_f(features).mean(dim=(2, 3))], dim=1)
    embedding = block.a_task_img(structure).view(len(features), -1, block.branches)
    rms = sequence.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-8
    query_of = block.bv_f
    summary = [query_of.p_task_f(sequence / rms).mean(dim=2), query_of.p_img_f(features).mean(dim=(2, 3))]
    query = query_of.mlp(torch.cat(summary, dim=1))
    outputs = []
    for image in range(len(features)):
        chosen: list[int] = []
        for branch in range(block.branches):
            prototypes = block.orthogonal_convolutional_prototypes
            similarity = F.cosine_similarity(prototypes, embedding[image, :, branch][None], dim=1)
            chosen.append(int(similarity.argmax()))
        for branch, configuration in enumerate(chosen):
            best = F.cosine_similarity(query[image][None], bank[configuration], dim=1).argsort(descending=True)
            vector = bank[configuration, best[chosen[:branch].count(configuration)]]
            x = features[image : image + 1]
            if configuration == 0:
                outputs.append(F.conv2d(x, block.mlp_1x1(vector).view(8, 8, 1, 1)))
            else:
                kernel = block.mlp_3x3(vector).view(8, 8, 3, 3)
                outputs.append(F.conv2d(x, kernel, padding=configuration, dilation=configuration))
    activated = block.B_LR(torch.cat(outputs)).view(len(features), block.branches, *features.shape[1:])
    result: Tensor = features + block.zc(activated.mean(dim=1))
    return result


if __name__ == "__main__":
    if sys.argv[1:] == ["tuned"]:
        tune_allocator()
    print(json.dumps(measure()))
