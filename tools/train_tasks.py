"""Trains several task networks beside each other within a time budget, on a GPU or on a CPU.

    python tools/train_tasks.py --root DATA --minutes 9 --device cuda --workers 2 yolov5s segformer-b0 ctdnet-18 rtdetr

DATA holds MSRS (train, train_boxes_only, val); synthetic scenes are written into DATA/synthetic when they are missing.
How fast a machine is when all train at once is measured first, for a part of the time, and the steps of the presets
are shortened or lengthened alike to what fits. Every run folder then tells by its config.yaml what was done, and the
same command again continues runs that were stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fuseloop.training.config import TaskConfig, TaskStage, load_config

MEASURED = 0.12
"""Share of the time in which the speed is measured."""

KEPT_BACK = 0.2
"""Share of the rest that is left for validation and for a machine that slows down."""


class Plan(NamedTuple):
    """A training to be run.

    Attributes:
        name: Name of the run, its folder below the others.
        preset: Its preset.
        changes: "key=value" each.
    """

    name: str
    preset: str
    changes: tuple[str, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", help="presets, or NAME=PRESET,key=value,... for a variant")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=1280)
    arguments = parser.parse_args()
    start = time.monotonic()
    plans = [parse(text) for text in arguments.plans]
    common = (f"root={arguments.root}", f"device={arguments.device}", f"workers={arguments.workers}")
    write_scenes(arguments.root / "synthetic", arguments.scenes)
    trial = MEASURED * arguments.minutes
    rates = all_at_once(
        [plan._replace(changes=(*plan.changes, *common, f"budget_minutes={trial}")) for plan in plans],
        arguments.out / "trial",
    )
    left = max(0.1, arguments.minutes - (time.monotonic() - start) / 60)
    finals = []
    for plan, rate in zip(plans, rates, strict=True):
        stages = load_config(TaskConfig, plan.preset, (*plan.changes, common[0])).stages
        scaled = shortened(stages, rate * left * 60 * (1 - KEPT_BACK))
        changes = (*plan.changes, *common, *scaled, f"budget_minutes={left}")
        print(f"{plan.name}: {rate / 1e6:.2f} megapixels a second, {' '.join(scaled)}", flush=True)
        finals.append(plan._replace(changes=changes))
    all_at_once(finals, arguments.out)
    for plan in finals:
        print(f"{plan.name}: {summary(arguments.out / plan.name)}")
    return 0


def parse(text: str) -> Plan:
    """``PRESET``, or ``NAME=PRESET,key=value,...``.

    >>> parse("small=ctdnet-18,seed=1,options.width=0.5")
    Plan(name='small', preset='ctdnet-18', changes=('seed=1', 'options.width=0.5'))
    """
    first, *changes = text.split(",")
    name, _, preset = first.partition("=")
    return Plan(name, preset or name, tuple(changes))


def write_scenes(folder: Path, count: int) -> None:
    """Synthetic scenes of 640×480, by as many processes as there are cores; nothing when they are there."""
    if folder.exists():
        return
    parts = os.cpu_count() or 1
    aside = folder.with_name(f".{folder.name}.parts")

    def write(part: int) -> None:
        command = ["synthetic", "--out", str(aside / str(part)), "--count", str(-(-count // parts))]
        fuseloop([*command, "--seed", str(100 + part), "--overwrite"], None)

    with ThreadPoolExecutor(parts) as threads:
        list(threads.map(write, range(parts)))
    whole = aside / "whole"
    for path in sorted(aside.glob("[0-9]*/*/*")):
        part, kind = path.parts[-3:-1]
        (whole / kind).mkdir(parents=True, exist_ok=True)
        path.rename(whole / kind / f"{int(part):03d}_{path.name}")
    whole.rename(folder)


def all_at_once(plans: Sequence[Plan], out: Path) -> list[float]:
    """Runs all trainings beside each other; the pixels a second of each, from its own words."""

    def run(plan: Plan) -> float:
        log = out / f"{plan.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = ["train", "task", "--preset", plan.preset, "--out", str(out / plan.name), *plan.changes]
        if fuseloop(command, log):
            raise SystemExit(f"{plan.name} failed: {log.read_text()[-2000:]}")
        stage = load_config(TaskConfig, plan.preset, plan.changes).stages[0]
        rates = re.findall(r"([\d.]+) pairs/s", log.read_text())
        return float(rates[-1]) * stage.height * stage.width if rates else 0.0

    with ThreadPoolExecutor(len(plans)) as threads:
        return list(threads.map(run, plans))


def fuseloop(arguments: Sequence[str], log: Path | None) -> int:
    """Runs the command with a core to itself; what it says goes into a file, or nowhere."""
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if log is None else {})
    with open(log or os.devnull, "w", encoding="utf-8") as said:
        command = [sys.executable, "-W", "ignore", "-m", "fuseloop", *arguments]
        return subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, env=environment).returncode


def shortened(stages: Sequence[TaskStage], pixels: float) -> list[str]:
    """The changes that make the stages take so many pixels in all, each its share.

    >>> shortened([TaskStage(steps=100, batch=4, height=64, width=64, warmup=10)], 64 * 64 * 4 * 50)
    ['stages.0.steps=50', 'stages.0.warmup=5']
    """
    whole = sum(stage.steps * stage.batch * stage.height * stage.width for stage in stages)
    share = pixels / whole
    changes = []
    for index, stage in enumerate(stages):
        changes.append(f"stages.{index}.steps={max(2, round(share * stage.steps))}")
        if stage.warmup:
            changes.append(f"stages.{index}.warmup={max(1, round(min(share, 1) * stage.warmup))}")
    return changes


def summary(folder: Path) -> str:
    """The best validation of a run."""
    entries: list[dict[str, Any]] = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    scores = [(entry["validation"]["selected"], entry["step"]) for entry in entries if "validation" in entry]
    if not scores:
        return "ended before its first validation"
    best, step = min(scores)
    steps = sum(stage["steps"] for stage in yaml.safe_load((folder / "config.yaml").read_text())["stages"])
    return f"best validation {best:.4f} at step {step} of {steps}"


if __name__ == "__main__":
    sys.exit(main())
