"""Fusion losses as pure functions on tensors, and the registry of terms that a training loss is made of.

Sources: CLDyN (arXiv 2604.08924, equation 1) for the intensity and gradient terms, its public settings for their
weights, equations 6 and 7 for the objective of the closed loop. The other terms are fusion metrics turned into losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.metrics import functional
from fuseloop.metrics.functional import MetricFunction


def sobel_magnitude(image: Tensor) -> Tensor:
    """|gx| + |gy| by the plain 3×3 Sobel kernels with zero border; B×1×H×W to the same shape."""
    kernel_x = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([kernel_x, kernel_x.T])[:, None]
    return F.conv2d(image, kernels, padding=1).abs().sum(dim=1, keepdim=True)


def intensity_loss(fused: Tensor, infrared: Tensor, luma: Tensor) -> Tensor:
    """Mean L1 distance to the element-wise maximum of the sources; all B×1×H×W in [0, 1], returns a scalar."""
    return F.l1_loss(fused, torch.maximum(infrared, luma))


def separate_intensity_loss(
    fused: Tensor, infrared: Tensor, luma: Tensor, infrared_weight: float = 1.0, luma_weight: float = 1.0
) -> Tensor:
    """Weighted sum of the mean L1 distances to each source; all B×1×H×W in [0, 1], returns a scalar."""
    return infrared_weight * F.l1_loss(fused, infrared) + luma_weight * F.l1_loss(fused, luma)


def gradient_loss(fused: Tensor, infrared: Tensor, luma: Tensor) -> Tensor:
    """Mean L1 distance of the Sobel magnitude to the larger one of the sources; all B×1×H×W, returns a scalar."""
    target = torch.maximum(sobel_magnitude(infrared), sobel_magnitude(luma))
    return F.l1_loss(sobel_magnitude(fused), target)


def gradient_pair_loss(fused: Tensor, source: Tensor) -> Tensor:
    """Mean L1 distance of the Sobel magnitudes of two images, B×1×H×W, returns a scalar."""
    return F.l1_loss(sobel_magnitude(fused), sobel_magnitude(source))


def visual_loss(fused: Tensor, infrared: Tensor, luma: Tensor) -> Tensor:
    """The published loss of the fusion network: 0.2 × intensity + 1 × gradient, which is λ=5 up to a factor."""
    return 0.2 * intensity_loss(fused, infrared, luma) + gradient_loss(fused, infrared, luma)


def reward_penalty(
    after: Tensor, before: Tensor, *, penalty: float = 5.0, per: Literal["sample", "batch"] = "sample"
) -> Tensor:
    """The objective of the closed loop: the task loss after compensation, and a penalty where that made it worse.

    Its gradient is (1 + penalty) times the gradient of `after` where `after` exceeds `before`, else once it, exactly;
    none reaches `before`.

    Source: CLDyN (arXiv 2604.08924), equations 6 and 7.

    Args:
        after: Task loss of every image on the compensated one, (B,).
        before: Task loss of every image on the image before compensation, (B,).
        penalty: δ, weight of how much worse it became, at least 0.
        per: Whether each image is compared with itself, or, as the published code does, the means of the batch, where
            images that gained hide those that lost.

    Returns:
        A scalar, the mean over the images.

    Raises:
        ValueError: The losses are not of the same images, or an option is out of range.
    """
    if after.ndim != 1 or after.shape != before.shape:
        raise ValueError(
            f"losses of each image are needed, got shapes {tuple(after.shape)} after and {tuple(before.shape)} before"
        )
    if penalty < 0:
        raise ValueError(f"the penalty must be at least 0, got {penalty}")
    if per not in ("sample", "batch"):
        raise ValueError(f"the penalty is per 'sample' or 'batch', got {per!r}")
    before = before.detach()
    if per == "batch":
        after, before = after.mean()[None], before.mean()[None]
    worse = penalty * (after > before).to(after.dtype)
    return ((1 + worse) * after - worse * before).mean()


def _metric_loss(metric: MetricFunction, worth: Callable[[Tensor], Tensor]) -> Loss:
    """Makes a loss of a metric, taken on the unrounded images.

    Pairs for which the metric is undefined, such as flat crops, add nothing.
    """

    def loss(fused: Tensor, infrared: Tensor, luma: Tensor) -> Tensor:
        if not bool(torch.isfinite(fused).all()):
            return fused.mean() * torch.nan  # metrics refuse such images; the loop reports a diverged training
        return worth(metric(infrared, luma, fused, quantize=False)).nan_to_num(nan=0.0).mean()

    return loss


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function of (fused, infrared, luma), all B×1×H×W in [0, 1], that gives a scalar to be made small."""

LOSSES: dict[str, Loss] = {
    "intensity": intensity_loss,
    "gradient": gradient_loss,
    "qabf": _metric_loss(functional.qabf, lambda value: 1 - value),
    "vif": _metric_loss(functional.vif, lambda value: 1 - value),
    "scd": _metric_loss(functional.scd, lambda value: 1 - value),
    "ssim": _metric_loss(functional.ssim, lambda value: 1 - value),
    "qcv": _metric_loss(functional.qcv, lambda value: value / 1000),
}
"""The terms that a training loss is made of, by name."""
