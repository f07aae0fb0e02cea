"""Draws the split of M3FD that fuseloop ships: groups of neighbouring frames, by a seed.

python tools/m3fd_split.py

Frames with neighbouring numbers often show one street a moment later. Whole groups of them go to one split, so that a
network is not tested on what it was trained on.
"""

from __future__ import annotations

import random
from pathlib import Path

PLACE = Path(__file__).parents[1] / "src" / "fuseloop" / "datasets" / "splits" / "m3fd.yaml"
FRAMES, GROUP, SEED = 4200, 50, 0
SHARES = {"test": 1050, "val": 350, "train": 2800}  # drawn in this order


def draw() -> dict[str, list[tuple[int, int]]]:
    """The first and last frame of every run of groups of each split."""
    # Its sequence of random() is promised to stay the same between versions of Python; that of shuffle() is not.
    generator = random.Random(SEED)
    order = sorted(range(0, FRAMES, GROUP), key=lambda _: generator.random())
    splits: dict[str, list[tuple[int, int]]] = {}
    for name, share in SHARES.items():
        chosen, order = sorted(order[: share // GROUP]), order[share // GROUP :]
        runs: list[tuple[int, int]] = []
        for start in chosen:
            first = runs.pop()[0] if runs and runs[-1][1] == start - 1 else start
            runs.append((first, start + GROUP - 1))
        splits[name] = runs
    return splits


def text() -> str:
    """The file."""
    lines = [
        f"# Made by `python tools/m3fd_split.py`: groups of {GROUP} neighbouring frames, seed {SEED}.",
        "# Names of the first and the last frame of every run.",
        "splits:",
    ]
    splits = draw()
    for name in ("train", "val", "test"):
        lines += [f"  {name}:", *(f"    - {first:05d}-{last:05d}" for first, last in splits[name])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(text(), encoding="utf-8")
