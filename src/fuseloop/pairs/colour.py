"""Full-range YCbCr as CLDyN and T-OAR use it, on tensors in [0, 1], in float32 and never clamped."""

from __future__ import annotations

import torch
from torch import Tensor

OFFSET = 128 / 255


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """B×3×H×W RGB in [0, 1] to B×3×H×W (Y, Cb, Cr)."""
    r, g, b = rgb.unbind(dim=1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb = -0.1687 * r - 0.3313 * g + 0.5 * b + OFFSET
    cr = 0.5 * r - 0.4187 * g - 0.0813 * b + OFFSET
    return torch.stack([y, cb, cr], dim=1)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """B×3×H×W (Y, Cb, Cr) to B×3×H×W RGB; values may leave [0, 1]."""
    y, cb, cr = ycbcr.unbind(dim=1)
    cb, cr = cb - OFFSET, cr - OFFSET
    r = y + 1.402 * cr
    g = y - 0.34414 * cb - 0.71414 * cr
    b = y + 1.772 * cb
    return torch.stack([r, g, b], dim=1)
