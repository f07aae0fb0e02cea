"""Draws docs/figures/overview.png, the picture of the README: synthetic scenes as the shipped weights fuse them.

python tools/overview.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import fuseloop
from fuseloop.datasets.synthetic import generate

TARGET = Path(__file__).parents[1] / "docs" / "figures" / "overview.png"
SEEDS = (20, 37, 39)  # night, fog, smoke


def main() -> None:
    fuser = fuseloop.load("vfn")
    figure, axes = plt.subplots(len(SEEDS), 3, figsize=(9, 6.9 * len(SEEDS) / 3), dpi=96, layout="constrained")
    for row, seed in zip(axes, SEEDS, strict=True):
        scene = generate(seed, height=360, width=480)
        images = {"visible": scene.visible, "infrared": scene.infrared, "fused": fuser(scene.infrared, scene.visible)}
        for axis, (name, image) in zip(row, images.items(), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
            if seed == SEEDS[0]:
                axis.set_title(name, fontsize=11)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET)
    print(TARGET)


if __name__ == "__main__":
    main()
