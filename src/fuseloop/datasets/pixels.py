"""Images of any depth and colour as the 8-bit arrays that networks are trained on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.errors import ImageError
from fuseloop.pairs.images import read_image
from fuseloop.pairs.levels import INFRARED_DEFAULT, VISIBLE_DEFAULT, Levels, Limits, from_unit, to_unit


def read_infrared(path: Path) -> NDArray[np.uint8]:
    """An infrared file as H×W uint8; the levels of deep ones are those of `INFRARED_DEFAULT`.

    Raises:
        ImageError: It cannot be read, or holds float values outside [0, 1]. The message names the file.
    """
    pixels = read_8bit(path, INFRARED_DEFAULT)
    return rgb_to_luma(pixels) if pixels.ndim == 3 else pixels


def read_visible(path: Path) -> NDArray[np.uint8]:
    """A visible file as H×W×3 uint8 RGB; grey becomes three equal channels.

    Raises:
        ImageError: It cannot be read, or holds float values outside [0, 1]. The message names the file.
    """
    pixels = read_8bit(path, VISIBLE_DEFAULT)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def read_luma(path: Path) -> NDArray[np.uint8]:
    """The luma of a visible file, H×W uint8.

    Raises:
        ImageError: It cannot be read, or holds float values outside [0, 1]. The message names the file.
    """
    pixels = read_8bit(path, VISIBLE_DEFAULT)
    return rgb_to_luma(pixels) if pixels.ndim == 3 else pixels


def read_8bit(path: Path, rule: str) -> NDArray[np.uint8]:
    """A file of any depth as H×W or H×W×3 uint8, deeper values mapped by a rule of `fuseloop.pairs.levels`.

    Raises:
        ImageError: It cannot be read, or does not suit the rule. The message names the file.
    """
    pixels = read_image(path).pixels
    if pixels.dtype == np.uint8:
        return pixels
    try:
        limits = Levels.parse(rule).limits(pixels)
    except ImageError as problem:
        raise ImageError(f"{path}: {problem}") from None
    return np.asarray(from_unit(to_unit(pixels, limits), np.uint8, Limits(0, 255)))


def rgb_to_luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H×W×3 uint8 RGB to its H×W uint8 luma, Y = .299 R + .587 G + .114 B, rounded."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
