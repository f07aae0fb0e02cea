"""How fast folders are scored, and in how much memory.

Synthetic 640×480 pairs and what the shipped network makes of them, colour as it is saved, are scored from PNG files by
the twelve metrics of CDDFuse's evaluation, with the allocator tuned as `fuseloop score` does. Times are warm, without
the start of the interpreter: by the clock, which other work on the machine disturbs, and of the processor, which it
disturbs little. Memory is that of the whole command. Each measurement runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fuseloop
from fuseloop import cli
from fuseloop.datasets.synthetic import generate
from fuseloop.engines.allocator import tune_allocator
from fuseloop.pairs.images import Picture, write_image
from fuseloop.scoring.files import score_files
from fuseloop.scoring.plan import plan_folders, usable_cores

HEIGHT, WIDTH = 480, 640
SCENES = 4
TWELVE = ("en", "sd", "sf", "ag", "mi", "scd", "vif", "qabf", "ssim", "cc", "mse", "psnr")

KEYS = {
    "scoring.speedup": "32 frames: times as fast by the clock with a worker for every core as with one worker",
    "scoring.ms_all_cores": "milliseconds a frame by the clock, 32 frames, all cores",
    "scoring.ms_one_core": "milliseconds a frame by the clock, 32 frames, one worker",
    "scoring.cpu_ms_all_cores": "milliseconds of processor time a frame, 32 frames, all cores",
    "scoring.cpu_ms_8": "milliseconds of processor time a frame, 8 frames, one worker",
    "scoring.cpu_ms_32": "milliseconds of processor time a frame, 32 frames, one worker",
    "scoring.peak_mb_8": "largest resident memory in MiB of the command on 8 frames, all cores",
    "scoring.peak_mb_64": "the same on 64 frames",
}


def run() -> dict[str, float]:
    """All figures of `KEYS`."""
    with tempfile.TemporaryDirectory() as folder:
        make_frames(Path(folder), 64)
        everyone = _child("time", folder, "32", str(usable_cores()))
        few, many = (_child("time", folder, count, "1") for count in ("8", "32"))
        peaks = [_child("memory", folder, count)["peak_mb"] for count in ("8", "64")]
    return {
        "scoring.speedup": many["ms"] / everyone["ms"],
        "scoring.ms_all_cores": everyone["ms"],
        "scoring.ms_one_core": many["ms"],
        "scoring.cpu_ms_all_cores": everyone["cpu_ms"],
        "scoring.cpu_ms_8": few["cpu_ms"],
        "scoring.cpu_ms_32": many["cpu_ms"],
        "scoring.peak_mb_8": peaks[0],
        "scoring.peak_mb_64": peaks[1],
    }


def make_frames(root: Path, count: int) -> None:
    """Writes the folders ir, vi and fused; the frames are a few scenes again and again."""
    fuser = fuseloop.load("vfn")
    for kind in ("ir", "vi", "fused"):
        (root / kind).mkdir()
    for index in range(count):
        if index < SCENES:
            scene = generate(index, HEIGHT, WIDTH)
            images = {"ir": scene.infrared, "vi": scene.visible, "fused": fuser(scene.infrared, scene.visible)}
            for kind, pixels in images.items():
                write_image(root / kind / f"{index}.png", Picture(pixels))
        else:
            for kind in ("ir", "vi", "fused"):
                shutil.copy(root / kind / f"{index % SCENES}.png", root / kind / f"{index}.png")


def _child(*arguments: str) -> dict[str, float]:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_scoring", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def measure_time(folder: str, frames: str, workers: str) -> dict[str, float]:
    """Milliseconds a frame by the clock and of the processor; the first frames warm up."""
    tune_allocator()
    root = Path(folder)
    plan = plan_folders(root / "ir", root / "vi", {"fused": root / "fused"})

    def score(count: int) -> None:
        jobs = plan.jobs[:count]
        score_files(plan._replace(jobs=jobs), metrics=TWELVE, convention="cddfuse", workers=int(workers))

    score(2 * int(workers))
    clock, processor = time.perf_counter(), time.process_time()
    score(int(frames))
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return {"ms": 1000 * clock / int(frames), "cpu_ms": 1000 * processor / int(frames)}


def measure_memory(folder: str, frames: str) -> dict[str, float]:
    """MiB of the whole command."""
    with tempfile.TemporaryDirectory() as part:
        for kind in ("ir", "vi", "fused"):
            (Path(part) / kind).mkdir()
            for index in range(int(frames)):
                shutil.copy(Path(folder) / kind / f"{index}.png", Path(part) / kind)
        folders = [f"--infrared={part}/ir", f"--visible={part}/vi", f"--fused={part}/fused"]
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(["score", *folders, f"--metrics={','.join(TWELVE)}", "--convention=cddfuse"]) == 0
    return {"peak_mb": peak_of_this_process()}


def peak_of_this_process() -> float:
    """Largest resident memory in MiB. The usual ru_maxrss would begin with that of the parent process."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


MEASUREMENTS: dict[str, Any] = {"time": measure_time, "memory": measure_memory}


def main(arguments: Sequence[str]) -> None:
    print(json.dumps(MEASUREMENTS[arguments[0]](*arguments[1:])))


if __name__ == "__main__":
    main(sys.argv[1:])
