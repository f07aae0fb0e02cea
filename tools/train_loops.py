"""Trains the closed loop with several seeds and once without each of its parts, some beside each other.

    python -m tools.train_loops --root DATA --steps 750 --device cuda --jobs 3
    python -m tools.train_loops --root DATA --minutes 30 --only 'ablations/*' tasks.0.task_network=detector.safetensors

DATA holds MSRS (train, val); synthetic scenes are written into DATA/synthetic when they are missing. The runs are those
of `RUNS`: each is a preset of `fuseloop train closed-loop` with the changes of its row, and those on the command line
for all. Ablations have a third of the steps. OUT/NAME/best.safetensors is what `python -m benchmarks.bench_results
--loops OUT/seeds --ablations OUT/ablations` compares.

The same command again continues: runs that were stopped go on where they were, and those that have ended are kept. One
that fails is reported, and the others are done.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fuseloop.errors import ConfigurationError
from fuseloop.training.config import AnyStage, ClosedLoopConfig, load_config
from tools.train_tasks import fuseloop, write_scenes

DEEP = "{deep}"
"""Stands for the weights of a fusion network with L=3."""

RUNS: dict[str, tuple[str, ...]] = {
    "seeds/seed-0": ("seed=0",),
    "seeds/seed-1": ("seed=1",),
    "seeds/seed-2": ("seed=2",),
    "ablations/main": (),
    # of the paper
    "ablations/no-penalty": ("penalty=0",),
    "ablations/no-bank": ("compensation.without=[bank]",),
    "ablations/fixed-structure": ("compensation.without=[choice]",),
    "ablations/plain-convolution": ("compensation.without=[requirement]",),
    "ablations/L-3": (f"fusion={DEEP}",),
    "ablations/M-2": ("compensation.branches=2",),
    "ablations/M-8": ("compensation.branches=8",),
    "ablations/delta-1": ("penalty=1",),
    "ablations/delta-10": ("penalty=10",),
    "ablations/e2-128": ("compensation.width=128",),
    "ablations/e2-512": ("compensation.width=512",),
    # what is done otherwise than in the published code, undone
    "ablations/D1-no-query-gradient": ("compensation.without=[query_gradient]",),
    "ablations/D2-noise": ("compensation.without=[determinism]",),
    "ablations/D3-coupled-decay": ("coupled_decay=true",),
    "ablations/D8-batch-norm": ("compensation.without=[image_norm]",),
    "ablations/D9-flat-descriptor": ("compensation.without=[descriptor]",),
}
"""Changes to the preset by the names of the runs. Main has δ=5, L=2, M=4 and e2=256; δ=0 is no penalty."""

SHARE = 1 / 3
"""Steps of an ablation as a share of those of the others."""

SHOWN_EVERY = 30.0
TO_BEGIN = 0.2
"""Minutes without which no run is begun."""

HOW_TO_GO_DEEP = """\
ablations/L-3 is left out: it needs a fusion network with L=3, given as --deep FILE. To train one:
    fuseloop train visual --preset shipped-1 root=DATA depth=3 --out runs/deep-1
    fuseloop train visual --preset shipped-2 root=DATA depth=3 start=runs/deep-1/best.safetensors --out runs/deep-2
    fuseloop train visual --preset shipped-3 root=DATA depth=3 start=runs/deep-2/best.safetensors --out runs/deep-3"""


class Run(NamedTuple):
    """A training to be run.

    Attributes:
        folder: Its folder.
        source: Its preset or configuration file.
        changes: "key=value" each.
    """

    folder: Path
    source: str
    changes: tuple[str, ...]

    @property
    def config(self) -> ClosedLoopConfig:
        return load_config(ClosedLoopConfig, self.source, self.changes)

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.config.stages)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", help="key=value changes to all runs")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--preset", default="cldyn", help="a preset or a configuration file")
    parser.add_argument("--steps", type=int, help="of the runs that are no ablations; by default those of the preset")
    parser.add_argument("--minutes", type=float, help="stop in good order after this time")
    parser.add_argument("--only", action="append", metavar="NAME", help="a run, or several by a *; again for more")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="how many are trained beside each other")
    parser.add_argument("--scenes", type=int, default=1280)
    parser.add_argument("--deep", type=Path, help="weights of a fusion network with L=3")
    arguments = parser.parse_intermixed_args()
    try:
        names = chosen(arguments.only or ["*"], deep=arguments.deep)
        common = (f"root={arguments.root}", f"device={arguments.device}", *arguments.changes)
        stages = load_config(ClosedLoopConfig, arguments.preset, common).stages
    except ConfigurationError as error:
        parser.error(str(error))
    share = 1 if arguments.steps is None else arguments.steps / sum(stage.steps for stage in stages)
    runs = {}
    for name in names:
        own = [change.replace(DEEP, str(arguments.deep)) for change in RUNS[name]]
        scaled = shortened(stages, share * (SHARE if name.startswith("ablations/") else 1))
        runs[name] = Run(arguments.out / name, arguments.preset, (*common, *own, *scaled))
    write_scenes(arguments.root / "synthetic", arguments.scenes)
    failed = run_all(runs, jobs=arguments.jobs, minutes=arguments.minutes)
    for name, run in runs.items():
        print(f"{name}: {'failed' if name in failed else summary(run)}")
    return 1 if failed else 0


def chosen(patterns: Sequence[str], *, deep: Path | None) -> list[str]:
    """The names of the runs that are asked for, in the order of the table.

    Raises:
        ConfigurationError: A pattern has none.
    """
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in RUNS):
            raise ConfigurationError(f"--only {pattern}: there is no such run; there are {', '.join(RUNS)}")
    names = [name for name in RUNS if any(fnmatch(name, pattern) for pattern in patterns)]
    needy = [name for name in names if deep is None and any(DEEP in change for change in RUNS[name])]
    if needy:
        print(HOW_TO_GO_DEEP, flush=True)
    return [name for name in names if name not in needy]


def shortened(stages: Iterable[AnyStage], share: float) -> list[str]:
    """The changes that give all stages a share of their steps.

    >>> shortened([AnyStage(steps=750, warmup=30)], 1 / 3)
    ['stages.0.steps=250', 'stages.0.warmup=10']
    """
    changes = []
    for index, stage in enumerate(stages):
        changes.append(f"stages.{index}.steps={max(1, round(share * stage.steps))}")
        if stage.warmup:
            changes.append(f"stages.{index}.warmup={max(1, round(min(share, 1) * stage.warmup))}")
    return changes


def run_all(runs: dict[str, Run], *, jobs: int = 1, minutes: float | None = None) -> set[str]:
    """Runs what has not ended, some at a time, and shows how far all are.

    Returns:
        The names of those that failed.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    waiting = {name: run for name, run in runs.items() if not has_ended(run)}
    stopped = threading.Event()
    failed: set[str] = set()

    def work(name: str) -> str:
        left = None if deadline is None else (deadline - time.monotonic()) / 60
        if stopped.is_set() or (left is not None and left < TO_BEGIN):
            return f"{name}: not begun, since the time is over; the same command continues"
        complaint = train(waiting[name], left)
        if complaint:
            failed.add(name)
        return f"{name}: {complaint or summary(waiting[name])}"

    clock = Clock(runs)
    with ThreadPoolExecutor(max(1, jobs)) as threads:
        pending: set[Future[str]] = {threads.submit(work, name) for name in waiting}
        try:
            while pending:
                done, pending = wait(pending, SHOWN_EVERY, FIRST_COMPLETED)
                for future in done:
                    print(future.result(), flush=True)
                print(clock.show(), flush=True)
        except KeyboardInterrupt:  # the trainings have it too, and write a checkpoint
            stopped.set()
            raise SystemExit("interrupted; the same command continues") from None
    return failed


def train(run: Run, minutes: float | None) -> str:
    """Trains, and gives what went wrong; what the training says is in the file beside the folder."""
    log = run.folder.with_name(f"{run.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    budget = [] if minutes is None else [f"budget_minutes={minutes}"]
    place = [str(run.source)] if Path(run.source).is_file() else ["--preset", run.source]
    code = fuseloop(["train", "closed-loop", *place, "--out", str(run.folder), *run.changes, *budget], log)
    said = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
    return f"failed: {' '.join(said[-3:])} (all of it is in {log})" if code else ""


def history(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run so far."""
    path = folder / "history.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last may be half written


def steps_done(run: Run) -> int:
    """How far a run is."""
    return max((entry["step"] for entry in history(run.folder)), default=0)


def has_ended(run: Run) -> bool:
    """Whether a run has validated its last step; one of other settings has not, and the training will say so."""
    path = run.folder / "config.yaml"
    if not path.exists():
        return False
    then = ClosedLoopConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    same = then.result_settings() == run.config.result_settings()
    validated = [entry["step"] for entry in history(run.folder) if "validation" in entry]
    return same and bool(validated) and max(validated) == run.steps


def summary(run: Run) -> str:
    """The best validation of a run, and what the compensation gains there."""
    validations = [(entry["validation"], entry["step"]) for entry in history(run.folder) if "validation" in entry]
    if not validations:
        return "ended before its first validation"
    best, step = min(validations, key=lambda found: found[0]["selected"])
    gains = ", ".join(f"{name.removesuffix('/gain')} {best[name]:+.4f}" for name in best if name.endswith("/gain"))
    last = steps_done(run)
    stopped = "" if last == run.steps else f", stopped at {last}"
    return f"best validation {best['selected']:.4f} at step {step} of {run.steps}{stopped}; gains: {gains}"


class Clock:
    """Says how far all runs are, and how long the rest takes at the mean speed so far.

    Args:
        runs: The runs.
    """

    def __init__(self, runs: dict[str, Run]) -> None:
        self._runs = {name: (run, run.steps) for name, run in runs.items()}
        self._began, self._first = time.monotonic(), sum(steps_done(run) for run in runs.values())

    def show(self) -> str:
        """One line."""
        done = {name: steps_done(run) for name, (run, _) in self._runs.items()}
        total = sum(steps for _, steps in self._runs.values())
        ended = sum(done[name] >= steps for name, (_, steps) in self._runs.items())
        going = [f"{name} {done[name]}/{steps}" for name, (_, steps) in self._runs.items() if 0 < done[name] < steps]
        rate = (sum(done.values()) - self._first) / max(time.monotonic() - self._began, 1e-9)
        left = f"about {(total - sum(done.values())) / rate / 60:.0f} min left" if rate > 0 else "no speed known yet"
        return "; ".join([f"{ended} of {len(done)} runs have ended", *going, left])


if __name__ == "__main__":
    sys.exit(main())
