"""Metrics of local structure."""

from __future__ import annotations

from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Result, metric
from fuseloop.metrics.functional.windows import covariance, gaussian, moments, uniform


@metric(
    minimum_side=11,
    cddfuse="the sum of both sources; 7×7 uniform windows with sample (co)variances; L = 2, the range that an old "
    "scikit-image assumed for floats",
)
def ssim(frame: Frame, convention: str) -> Result:
    """Structural similarity to the sources, their mean, -1 to 1, higher is better (Wang 2004).

    11×11 Gaussian windows (σ 1.5) inside the image, K = (.01, .03), L = 255.
    """
    published = convention == "cddfuse"
    kernel = uniform(7) if published else gaussian(11, 1.5)
    sample = 49 / 48 if published else 1.0
    span = 2.0 if published else 255.0
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    fused = frame.fused.once(moments, kernel)
    centred = frame.fused.levels - 128.0
    scores: list[Tensor] = []
    for source in frame.sources:
        own = source.once(moments, kernel)
        shared = covariance(source.levels - 128.0, centred, own, fused, kernel) * sample
        mean, fused_mean = own.centred_mean + 128.0, fused.centred_mean + 128.0
        luminance = (2 * mean * fused_mean + c1) / (mean * mean + fused_mean * fused_mean + c1)
        structure = (2 * shared + c2) / ((own.variance + fused.variance) * sample + c2)
        scores.append((luminance * structure).mean(dim=(1, 2, 3)))
    total = scores[0] + scores[1]
    return Result(total if published else total / 2)
