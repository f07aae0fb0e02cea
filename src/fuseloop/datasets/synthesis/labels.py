"""From what was painted to what is labelled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.synthesis.canvas import Canvas

HIDDEN = 0.2  # an object of which less than this share can be seen is not labelled
TINY = 12  # pixels; neither is one that covers fewer


def label(canvas: Canvas) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes of the objects that can be seen; the others lose their segmentation, so that both always agree.

    Args:
        canvas: The finished scene; its labels are changed in place.

    Returns:
        Boxes N×4 (x1, y1, x2, y2), tight around the visible part, and their classes N.
    """
    boxes: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    for thing in canvas.things:
        region = canvas.labels[thing.bounds]
        seen = region[..., 1] == thing.instance
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        area = np.count_nonzero(seen)
        if area < TINY or area < HIDDEN * thing.area:
            region[..., 0][seen] = 0
        elif thing.box_class is not None:
            top, left = thing.bounds[0].start, thing.bounds[1].start
            boxes.append((left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1))
            classes.append(thing.box_class)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)
