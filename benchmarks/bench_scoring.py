"""How fast folders are scored, and in how much memory.

Synthetic 640×480 pairs and what the shipped network makes of them, colour as it is saved, are scored from PNG files by
the twelve metrics of CDDFuse's evaluation, with the allocator tuned as `fuseloop score` does. Times are by the clock,
warm, and without the start of the interpreter; memory is that of the whole command. Each measurement runs in a process
of its own.
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
    "scoring.speedup": "32 frames: times as fast with a worker for every core as with one worker",
    "scoring.ms_all_cores": "milliseconds a frame, 32 frames, all cores",
    "scoring.ms_8": "milliseconds a frame, 8 frames, one worker",
    "scoring.ms_32": "milliseconds a frame, 32 frames, one worker",
    "scoring.peak_mb_8": "largest resident memory in MiB of the command on 8 frames, all cores",
    "scoring.peak_mb_64": "the same on 64 frames",
}


def run() -> dict[str, float]:
    """All figures of `KEYS`."""
    with tempfile.TemporaryDirectory() as folder:
        make_frames(Path(folder), 64)
        found = {
            "scoring.ms_all_cores": _child("time", folder, "32", str(usable_cores())),
            "scoring.ms_8": _child("time", folder, "8", "1"),
            "scoring.ms_32": _child("time", folder, "32", "1"),
            "scoring.peak_mb_8": _child("memory", folder, "8"),
            "scoring.peak_mb_64": _child("memory", folder, "64"),
        }
    return {"scoring.speedup": found["scoring.ms_32"] / found["scoring.ms_all_cores"], **found}


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


def _child(*arguments: str) -> float:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_scoring", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return float(json.loads(answer.stdout))


def measure_time(folder: str, frames: str, workers: str) -> float:
    """Milliseconds a frame; the first frames warm up."""
    tune_allocator()
    root = Path(folder)
    plan = plan_folders(root / "ir", root / "vi", {"fused": root / "fused"})

    def score(count: int) -> None:
        jobs = plan.jobs[:count]
        score_files(plan._replace(jobs=jobs), metrics=TWELVE, convention="cddfuse", workers=int(workers))

    score(2 * int(workers))
    start = time.perf_counter()
    score(int(frames))
    return 1000 * (time.perf_counter() - start) / int(frames)


def measure_memory(folder: str, frames: str) -> float:
    """MiB of the whole command."""
    with tempfile.TemporaryDirectory() as part:
        for kind in ("ir", "vi", "fused"):
            (Path(part) / kind).mkdir()
            for index in range(int(frames)):
                shutil.copy(Path(folder) / kind / f"{index}.png", Path(part) / kind)
        folders = [f"--infrared={part}/ir", f"--visible={part}/vi", f"--fused={part}/fused"]
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(["score", *folders, f"--metrics={','.join(TWELVE)}", "--convention=cddfuse"]) == 0
    return peak_of_this_process()


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
