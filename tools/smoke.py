"""Fuses some real pairs of every folder of FUSELOOP_DATA by the real command, and looks at what comes out.

    python tools/smoke.py [--pairs 3]

A folder of pairs is one that holds `ir` and `vi`. One line each; the exit code is 1 when anything is wrong, and 0 with
a message when FUSELOOP_DATA is not set.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def pairs_of(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """`count` pairs of a folder, evenly spread, matched by stem."""
    visible = {path.stem: path for path in (folder / "vi").iterdir()}
    pairs = sorted((path, visible[path.stem]) for path in (folder / "ir").iterdir() if path.stem in visible)
    picks = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)
    return [pairs[pick] for pick in picks]


def fuse(pairs: list[tuple[Path, Path]], work: Path) -> list[Path]:
    """Runs `fuseloop fuse` on folders that link to the pairs; returns the outputs in the order of the pairs."""
    for side in ("ir", "vi"):
        (work / side).mkdir()
    for infrared, visible in pairs:
        (work / "ir" / infrared.name).symlink_to(infrared.resolve())
        (work / "vi" / visible.name).symlink_to(visible.resolve())
    command = [str(Path(sys.executable).with_name("fuseloop")), "fuse"]
    command += ["--infrared", f"{work}/ir", "--visible", f"{work}/vi", "--out", f"{work}/out"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise AssertionError(f"exit code {finished.returncode}: {' '.join(finished.stderr.split())[-300:]}")
    outputs = [work / "out" / f"{visible.stem}.png" for _, visible in pairs]
    written = sorted((work / "out").iterdir())
    if written != sorted(outputs):
        raise AssertionError(f"wrote {[path.name for path in written]}, expected {[path.name for path in outputs]}")
    return outputs


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), dtype=np.float64)


def inspect(infrared: Path, visible: Path, fused: Path) -> None:
    """The fused image is like the visible one in kind, shows something, and is neither source."""
    with Image.open(visible) as source, Image.open(fused) as output:
        if (output.size, output.mode) != (source.size, source.mode):
            raise AssertionError(f"{fused.name} is {output.size} {output.mode}, not {source.size} {source.mode}")
    a, b, f = grey(infrared), grey(visible), grey(fused)
    if f.std() < 5:
        raise AssertionError(f"{fused.name} is flat: standard deviation {f.std():.1f}")
    for name, source in (("infrared", a), ("visible", b)):
        if np.array_equal(f, source):
            raise AssertionError(f"{fused.name} is a copy of the {name} image")
    sources = np.stack([np.ones(f.size), a.ravel(), b.ravel()], axis=1)
    rest = f.ravel() - sources @ np.linalg.lstsq(sources, f.ravel(), rcond=None)[0]
    explained = 1 - rest.var() / f.var()
    if explained < 0.3:
        raise AssertionError(f"{fused.name} has little of its sources: they explain {explained:.2f} of its variance")


def smoke(folder: Path, count: int) -> str:
    """Fuses and inspects; returns what the line says."""
    pairs = pairs_of(folder, count)
    if not pairs:
        raise AssertionError("holds no pairs")
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        outputs = fuse(pairs, Path(work))
        seconds = time.perf_counter() - started
        for (infrared, visible), fused in zip(pairs, outputs, strict=True):
            inspect(infrared, visible, fused)
    return f"{len(pairs)} pairs in {seconds:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuses some real pairs of every folder of FUSELOOP_DATA.")
    parser.add_argument("--pairs", type=int, default=3, help="how many of each folder")
    count = parser.parse_args().pairs
    if "FUSELOOP_DATA" not in os.environ:
        print("smoke: skipped, FUSELOOP_DATA is not set")
        return 0
    data = Path(os.environ["FUSELOOP_DATA"])
    folders = sorted(path.parent for path in data.rglob("ir") if (path.parent / "vi").is_dir())
    if not folders:
        print(f"smoke: {data} has no folders that hold ir and vi")
        return 1
    failed = 0
    for folder in folders:
        try:
            status, detail = "PASS", smoke(folder, count)
        except AssertionError as error:
            status, detail = "FAIL", str(error)
            failed += 1
        print(f"{status} {folder.relative_to(data)!s:<24} {detail}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
