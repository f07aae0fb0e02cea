"""The grey levels of colour images. Conventions differ in the weights and the rounding: some pixels by one level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# MATLAB's rgb2gray: luma as the matrix of NTSC's YIQ, in its usual three decimals, says it when inverted.
_RGB_OF_YIQ = np.array([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])


def to_grey(pixels: Pixels, convention: str = "default") -> Pixels:
    """Grey levels of an 8-bit image: .299 R + .587 G + .114 B, rounded half up.

    Args:
        pixels: H×W or H×W×3 (RGB), uint8.
        convention: "tang" takes the weights of MATLAB's rgb2gray, which differ in the fifth decimal; "ivif_zoo" those
            of Pillow's mode L, in units of 1/65536; all others the above.

    Returns:
        H×W, uint8.
    """
    if pixels.ndim == 2:
        return pixels
    grey: Pixels
    if convention == "tang":
        grey = np.floor(pixels @ np.linalg.inv(_RGB_OF_YIQ)[0] + 0.5).astype(np.uint8)
    elif convention == "ivif_zoo":
        grey = ((pixels.astype(np.int64) @ np.array([19595, 38470, 7471]) + (1 << 15)) >> 16).astype(np.uint8)
    else:
        grey = ((pixels.astype(np.int64) @ np.array([299, 587, 114]) + 500) // 1000).astype(np.uint8)
    return grey
