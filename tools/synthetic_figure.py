"""Draws the contact sheet of docs/synthetic.md: visible image, infrared image and labels of eight scenes.

python tools/synthetic_figure.py docs/figures/synthetic.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from fuseloop.datasets.synthetic import Scene, generate

SEEDS = (201, 209, 45, 213, 215, 207, 218, 221)
HEIGHT, WIDTH, GAP = 180, 240, 4
STEP = 12  # grey levels between two that are stored: it holds the file under 600 kB, where all of them take 1.6 MB
SEGMENT_COLOURS = np.array(
    [
        (0, 0, 0), (150, 60, 220), (230, 200, 40), (40, 190, 230), (50, 80, 230), (200, 210, 90), (190, 190, 255),
        (255, 130, 110), (255, 140, 30),
    ],
    np.uint8,
)  # fmt: skip
BOX_COLOURS = ((255, 255, 0), (0, 255, 255), (255, 90, 255))


def labels_over(scene: Scene) -> np.ndarray:
    """The segmentation and the boxes over a dimmed visible image, H×W×3 uint8."""
    shown = cv2.addWeighted(scene.visible, 0.45, SEGMENT_COLOURS[scene.segmentation], 0.8, 0)
    for (left, top, right, bottom), box_class in zip(scene.boxes.astype(int).tolist(), scene.box_classes, strict=True):
        cv2.rectangle(shown, (left, top), (right - 1, bottom - 1), BOX_COLOURS[box_class], 1)
    return shown


def contact_sheet(columns: int = 2) -> np.ndarray:
    """All scenes in a grid, three images each."""
    rows = -(-len(SEEDS) // columns)
    across = 3 * WIDTH + 2 * GAP
    sheet = np.full((rows * (HEIGHT + GAP) - GAP, columns * (across + 3 * GAP) - 3 * GAP, 3), 255, np.uint8)
    for index, seed in enumerate(SEEDS):
        scene = generate(seed, HEIGHT, WIDTH)
        infrared = cv2.cvtColor(scene.infrared, cv2.COLOR_GRAY2RGB)
        top, left = index // columns * (HEIGHT + GAP), index % columns * (across + 3 * GAP)
        for place, image in enumerate((scene.visible, infrared, labels_over(scene))):
            start = left + place * (WIDTH + GAP)
            sheet[top : top + HEIGHT, start : start + WIDTH] = image
    return sheet


def main(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.rint(contact_sheet() / STEP) * STEP
    cv2.imwrite(str(path), coarse[..., ::-1].clip(0, 255).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
