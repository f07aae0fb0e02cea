"""What one meta step of the learned fusion loss costs: by one forward-mode product, and by differentiating twice.

The fusion network and the loss generator are those of TDFusion, the task network is SegFormer-b0, which is looked ahead
with too. A batch of 2 pairs of 256×256 in fp32, two threads. Forward-mode takes the pairs through the networks one at a
time (`at_once=1`), which differentiating twice cannot. Each way runs in a process of its own: a step on a small batch
first, then the one that counts. The memory is the largest that the process ever had, PyTorch included. The
allocator is tuned on both sides, or that of the system where the name says so. Both ways give the same gradient but for
rounding. Differentiating twice needs about 12 GB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from fuseloop.engines.allocator import tune_allocator
from fuseloop.networks.loss_generator import LossGenerator
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.tasks.protocol import Target
from fuseloop.tasks.weights import build
from fuseloop.training.learned_loss import LearnedFusionLoss
from fuseloop.training.lookahead import LabelledTask, Labels, Lookahead, Mode, Samples

BATCH, SIDE, THREADS = 2, 256, 2
WARM_UP = 32  # side of the pairs of the step before

RATIOS = {
    "meta.time_ratio": "time of one meta step by forward-mode, as a share of differentiating twice",
    "meta.memory_ratio": "the same of the peak memory of the process",
}
KEYS = {
    **RATIOS,
    **{f"{key}_default_allocator": f"{meaning}, default allocator" for key, meaning in RATIOS.items()},
    "meta.seconds_jvp": "seconds of one meta step by forward-mode",
    "meta.seconds_double": "seconds of one meta step by differentiating twice",
    "meta.gb_jvp": "peak memory by forward-mode, GB",
    "meta.gb_double": "peak memory by differentiating twice, GB",
    "meta.error": "relative difference of the lengths of both gradients",
}


def run() -> dict[str, float]:
    """All figures of `KEYS`."""
    tuned, default = ({mode: _child(mode, way) for mode in ("jvp", "double")} for way in ("tuned", "default"))
    figures = {}
    for ways, suffix in ((tuned, ""), (default, "_default_allocator")):
        for key, what in (("meta.time_ratio", "seconds"), ("meta.memory_ratio", "gb")):
            figures[f"{key}{suffix}"] = ways["jvp"][what] / ways["double"][what]
    for mode, found in tuned.items():
        figures |= {f"meta.{what}_{mode}": found[what] for what in ("seconds", "gb")}
    lengths = [tuned[mode]["norm"] for mode in ("jvp", "double")]
    return figures | {"meta.error": abs(lengths[0] / lengths[1] - 1)}


def _child(mode: str, allocator: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_meta", mode, allocator, str(SIDE)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def measure(mode: Mode, side: int) -> dict[str, float]:
    """Seconds of one meta step, the peak memory of this process in GB, and the length of the meta-gradient."""
    torch.manual_seed(0)
    fusion, generator = RestormerFusion(), LossGenerator()
    network = build("segformer-b0").eval()  # without dropout, both ways can be compared
    learn = Lookahead(
        fusion,
        generator,
        LearnedFusionLoss(),
        LabelledTask(network),
        mode=mode,
        at_once=None if mode == "double" else 1,
        generator_optimizer=torch.optim.SGD(generator.parameters(), 0.0),
    )
    learn.meta_step(pairs(WARM_UP, 0), pairs(WARM_UP, 1))
    support, query = pairs(side, 0), pairs(side, 1)
    start = time.perf_counter()
    result = learn.meta_step(support, query)
    return {
        "seconds": time.perf_counter() - start,
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 * 1.024,
        "norm": result["meta_grad_norm"],
    }


def pairs(side: int, seed: int) -> Samples:
    """A batch of noise with labels."""
    generator = torch.Generator().manual_seed(seed)
    infrared, luma = torch.rand(2, BATCH, 1, side, side, generator=generator)
    masks = torch.randint(9, (BATCH, side, side), generator=generator)
    return Samples(infrared, luma, Labels([Target(segmentation=mask) for mask in masks]))


if __name__ == "__main__":
    if sys.argv[2] == "tuned":
        tune_allocator()
    torch.set_num_threads(THREADS)
    print(json.dumps(measure(sys.argv[1], int(sys.argv[3]))))  # type: ignore[arg-type]
