"""How raw values map to [0, 1] and back.

Networks see values in [0, 1]; cameras deliver 8-bit, 14-bit, 16-bit or float values. A *rule* chooses two *limits* from
a whole image, and the map between them is linear: `low` becomes 0, `high` becomes 1, and what lies outside is clipped.

The rules, as text:

| text                   | limits                                                                                   |
|------------------------|------------------------------------------------------------------------------------------|
| `full`                 | the range of the type: 0 to 255, 0 to 65535; float must lie in [0, 1] already            |
| `percentile`           | the 0.1th and 99.9th percentile of the image                                             |
| `percentile:LOW,HIGH`  | two percentiles of the image                                                             |
| `range:LOW,HIGH`       | two fixed raw values: the same map for every image of a camera or video                  |
| `auto`                 | `percentile` for 16-bit images, `full` for all others                                    |

Infrared images default to `auto`: raw thermal fills only a part of its 14 or 16 bits, so that the range of the type
would leave a nearly black image, and one dead or burning pixel would do the same to minimum and maximum. Percentiles
ignore one pixel in a thousand at each end: enough for defective pixels, too few to cost a target its contrast, and what
is hotter still becomes white. Visible images default to `full`, because their values are brightness already.

Percentiles follow each image, so the frames of a video flicker where the scene changes; give a video a fixed range.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fuseloop.errors import ConfigurationError, ImageError

INFRARED_DEFAULT = "auto"
VISIBLE_DEFAULT = "full"

_ROBUST = (0.1, 99.9)
_CHUNK = 1 << 20  # pixels counted at a time: bincount widens them to 8 bytes each


class Limits(NamedTuple):
    """The raw values that become 0 and 1; `low` is always below `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Levels:
    """A rule that chooses the limits of an image; see the module for the rules.

    Attributes:
        rule: The name of the rule.
        low: Lower percentile or raw value; only for `percentile` and `range`.
        high: Upper percentile or raw value.
    """

    rule: Literal["auto", "full", "percentile", "range"]
    low: float = _ROBUST[0]
    high: float = _ROBUST[1]

    @classmethod
    def parse(cls, text: str) -> Levels:
        """Reads a rule from its text.

        Raises:
            ConfigurationError: The text is none of the rules, or its numbers are out of range.

        >>> Levels.parse("range:7000,9500")
        Levels(rule='range', low=7000.0, high=9500.0)
        """
        without_numbers = {"auto": cls("auto"), "full": cls("full"), "percentile": cls("percentile")}
        if text in without_numbers:
            return without_numbers[text]
        rule, _, numbers = text.partition(":")
        try:
            low, high = (float(number) for number in numbers.split(","))
        except ValueError:
            rule = "unknown"
        if rule == "percentile" and 0 <= low < high <= 100:
            return cls("percentile", low, high)
        if rule == "range" and low < high and isfinite(low) and isfinite(high):
            return cls("range", low, high)
        raise ConfigurationError(
            f"levels {text!r} are unknown; use auto, full, percentile, percentile:LOW,HIGH with 0 <= LOW < HIGH <= 100 "
            "or range:LOW,HIGH with LOW < HIGH"
        )

    def limits(self, pixels: NDArray[Any]) -> Limits:
        """The raw values of a whole image that become 0 and 1.

        Args:
            pixels: All values of the image, any shape; uint8, uint16 or float32.

        Raises:
            ImageError: The values hold NaN or infinity, or are float values outside [0, 1] under the rule `full`.
        """
        is_float = pixels.dtype.kind == "f"
        lowest, highest = (float(pixels.min()), float(pixels.max())) if is_float else (0.0, 1.0)
        if not (isfinite(lowest) and isfinite(highest)):
            raise ImageError("the values hold NaN or infinity; replace those pixels first")

        rule = self.rule
        if rule == "auto":
            rule = "percentile" if pixels.dtype == np.uint16 else "full"
        if rule == "range":
            return Limits(self.low, self.high)
        if rule == "percentile":
            low, high = _percentiles(pixels, self.low, self.high)
            # Without contrast between the percentiles, one step of the raw values becomes the whole range.
            return Limits(low, high if high > low else low + 1)
        if not is_float:
            return Limits(0, np.iinfo(pixels.dtype).max)
        if lowest < 0 or highest > 1:
            raise ImageError(
                f"the float values go from {lowest:g} to {highest:g}, not from 0 to 1; choose the levels "
                "percentile, percentile:LOW,HIGH or range:LOW,HIGH"
            )
        return Limits(0, 1)


def to_unit(pixels: NDArray[Any], limits: Limits) -> NDArray[np.float32]:
    """Raw values to float32 in [0, 1], any shape."""
    low, high = limits
    unit = pixels.astype(np.float32)
    if low != 0:
        unit -= np.float32(low)
    unit /= np.float32(high - low)
    return np.clip(unit, 0, 1, out=unit)


def from_unit(unit: NDArray[np.float32], dtype: DTypeLike, limits: Limits) -> NDArray[Any]:
    """Values in [0, 1] back to raw values, any shape; what lies outside is clipped.

    Integers are rounded to the nearest, halves upwards, and stay within their type, so that
    `from_unit(to_unit(pixels, limits), pixels.dtype, limits)` gives back every pixel within the limits.
    """
    low, high = limits
    dtype = np.dtype(dtype)
    raw = np.clip(unit, 0, 1)
    raw *= np.float32(high - low)
    if low != 0:
        raw += np.float32(low)
    if dtype.kind == "f":
        return raw.astype(dtype, copy=False)
    raw += np.float32(0.5)  # the cast cuts off, so this rounds
    np.clip(raw, 0, np.iinfo(dtype).max, out=raw)
    return raw.astype(dtype)


def _percentiles(pixels: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Two percentiles: the smallest values that at least so many percent of the pixels do not exceed.

    Integers are counted, in bounded memory and without a sorted copy of the image.
    """
    if pixels.dtype.kind == "f":
        first, last = np.percentile(pixels, [low, high], method="inverted_cdf")
        return float(first), float(last)
    flat = pixels.reshape(-1)
    counts = np.zeros(np.iinfo(pixels.dtype).max + 1, np.int64)
    for start in range(0, flat.size, _CHUNK):
        counts += np.bincount(flat[start : start + _CHUNK], minlength=counts.size)
    reached = np.cumsum(counts)
    ranks = np.maximum(np.ceil(np.array([low, high]) / 100 * flat.size), 1)
    first, last = np.searchsorted(reached, ranks)
    return float(first), float(last)
