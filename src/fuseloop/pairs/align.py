"""Bringing the two images of a pair to one size, only when asked to."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.errors import PairError


def check_same_size(infrared: NDArray[Any], visible: NDArray[Any]) -> None:
    """Checks that two images, H×W or H×W×C, have the same height and width.

    Raises:
        PairError: They differ; the message names both sizes.
    """
    if infrared.shape[:2] != visible.shape[:2]:
        raise PairError(
            f"the infrared image is {_size(infrared)} and the visible image {_size(visible)} pixels; "
            'register them first, or use --align resize (align="resize") when they show exactly the same view'
        )


def resize_to(infrared: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resizes an image, H×W or H×W×C, by area averages when it shrinks and bilinearly when it grows."""
    if infrared.shape[:2] == (height, width):
        return infrared
    shrinks = height <= infrared.shape[0] and width <= infrared.shape[1]
    return np.asarray(
        cv2.resize(infrared, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    )


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
