"""Trains what rivals the closed loop: task networks further on fused images, and together with the fusion network.

    python -m tools.train_rivals --root DATA --steps 500 --device cuda
    python -m tools.train_rivals --root DATA --only joint yolov5s=runs/yolov5s/best.safetensors

DATA holds MSRS (train, val) and synthetic scenes, as for the presets of the networks. Each rival goes on from trained
weights, the shipped ones or those of NAME=FILE, by the last stage of the preset of its name, cut to --steps, at a part
of its learning rate, on images of `vfn` alone. OUT/retrained/NAME and OUT/joint/NAME are what
`python -m benchmarks.bench_results --rivals OUT` compares. The same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fuseloop.errors import FuseloopError
from fuseloop.evaluation.naming import named
from fuseloop.training import joint, task
from fuseloop.training.config import TaskConfig, load_config
from fuseloop.training.trainer import Result

FUSION = "vfn"
WAYS: dict[str, Callable[[TaskConfig], Result]] = {"retrained": task.train, "joint": joint.train}
NETWORKS = ("yolov5s", "segformer-b0", "ctdnet-18")
LR = 0.2
"""Share of the learning rate of the preset."""

WARMUP, VALIDATIONS = 0.1, 4


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="shipped names, or NAME=FILE; NAME is that of a preset")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"))
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args(words)
    common = (f"root={arguments.root}", f"device={arguments.device}", f"workers={arguments.workers}")
    try:
        for name, start in named(arguments.networks or NETWORKS, "network").items():
            for way in [arguments.only] if arguments.only else WAYS:
                config = plan(load_config(TaskConfig, name, (*common, f"start={start}")), arguments.steps)
                result = WAYS[way](config.model_copy(update={"folder": arguments.out / way / name}))
                print(f"{way} {name}: step {result.step}, best weights {result.weights}", flush=True)
    except FuseloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def plan(config: TaskConfig, steps: int) -> TaskConfig:
    """The last stage of a training, cut to some steps, on images of the fusion network alone."""
    last = config.stages[-1]
    lr = LR * last.lr
    changes = {"steps": steps, "lr": lr, "lr_end": min(last.lr_end, lr), "warmup": round(WARMUP * steps)}
    stage = last.model_copy(update=changes)
    every = max(1, steps // VALIDATIONS)
    return config.model_copy(update={"stages": (stage,), "fusers": {FUSION: 1.0}, "validate_every": every})


if __name__ == "__main__":
    sys.exit(main())
