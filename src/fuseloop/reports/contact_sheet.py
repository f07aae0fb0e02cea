"""The contact sheet of a labelled data set: some of its pairs with their labels on one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.labelled import LabelledPair
from fuseloop.reports.overlays import (
    GAP,
    Colour,
    Pixels,
    brightest,
    class_colours,
    draw_boxes,
    filled,
    legend,
    paint_ids,
    paint_saliency,
    titled,
)

CELL = 240
"""Width of an image of the sheet in pixels."""


def contact_sheet(pairs: Sequence[LabelledPair], names: ClassNames) -> Pixels:
    """Draws a sheet: a line for each pair with visible and infrared image and each kind of labels that it has.

    Boxes, masks and saliency lie over the brighter of both images, since an object may be seen in one of them only.
    Below stand the colours of the classes.

    Args:
        pairs: The pairs; their sizes may differ.
        names: The classes.

    Returns:
        H×W×3 uint8.
    """
    strips = [_strip(pair, names) for pair in pairs]
    across = max(strip.shape[1] for strip in strips)
    columns = 2 if across <= 2 * (CELL + GAP) and len(strips) > 1 else 1  # pairs without labels are narrow
    lines = [strips[start : start + columns] for start in range(0, len(strips), columns)]
    rows = [np.hstack([filled(strip, max(s.shape[0] for s in line), across + GAP) for strip in line]) for line in lines]
    width = max(row.shape[1] for row in rows)
    legends = {"boxes": names.boxes, "segmentation": names.segmentation[1:]}
    there = [kind for kind in legends if any(getattr(pair, kind) is not None for pair in pairs)]
    rows += [legend(kind, legends[kind], _colours(names), width) for kind in there]
    return np.vstack([filled(row, row.shape[0], width) for row in rows])


def _colours(names: ClassNames) -> dict[str, Colour]:
    return class_colours(names.segmentation[1:], names.boxes)


def _strip(pair: LabelledPair, names: ClassNames) -> Pixels:
    """One pair: its images side by side under their names."""
    height, width = pair.infrared.shape
    rows = max(1, round(height * CELL / width))

    def fit(image: Pixels, method: int) -> Pixels:
        return np.asarray(cv2.resize(image, (CELL, rows), interpolation=method))

    smooth = cv2.INTER_AREA if width > CELL else cv2.INTER_LINEAR
    visible, infrared = fit(pair.visible, smooth), fit(pair.infrared, smooth)
    ground = brightest(infrared, visible)
    colours = _colours(names)
    cells = {"visible": visible, "infrared": np.repeat(infrared[..., None], 3, axis=2)}
    if pair.boxes is not None and pair.classes is not None:
        scaled = pair.boxes * np.array([CELL / width, rows / height] * 2, np.float32)
        cells["boxes"] = draw_boxes(ground, scaled, [colours[names.boxes[kind]] for kind in pair.classes])
    if pair.segmentation is not None:
        cells["segmentation"] = paint_ids(
            ground, fit(pair.segmentation, cv2.INTER_NEAREST), [colours[name] for name in names.segmentation[1:]]
        )
    if pair.saliency is not None:
        cells["saliency"] = paint_saliency(ground, fit(pair.saliency, smooth))
    return np.hstack([titled(cell, _title(pair, kind)) for kind, cell in cells.items()])


def _title(pair: LabelledPair, kind: str) -> str:
    """What stands over a cell; numbers say what is too small to see."""
    if kind == "visible":
        return f"{pair.name}  {pair.infrared.shape[1]}x{pair.infrared.shape[0]}"
    if kind == "boxes" and pair.boxes is not None:
        return f"{len(pair.boxes)} box{'es' if len(pair.boxes) != 1 else ''}"
    return kind
