"""The fusion loss of TDFusion, whose weights of both images a network learns (arXiv 2412.03240).

It is ℓ(fused, weights) = intensity + α × gradient. The weights are in the intensity alone. Where the published code
differs from the paper an option says so; the defaults follow the paper, but for what it leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.errors import ConfigurationError

Padding = Literal["replicate", "zero"]
GradientRule = Literal["signed_max_per_axis", "magnitude_max"]


def weighted_intensity_loss(
    fused: Tensor, infrared: Tensor, luma: Tensor, weights: Tensor, weight_power: int = 1
) -> Tensor:
    """Mean squared distances to both images, each weighted at every pixel.

    The best image is the mean of both by w^p: w_a I_a + w_b I_b with the paper's power 1. With 2, that of the published
    code, it leans further to the larger weight.

    Args:
        fused: B×1×H×W.
        infrared: The same shape.
        luma: The same shape.
        weights: What a loss generator made, see `full_size`.
        weight_power: 1 or 2.

    Returns:
        A scalar.
    """
    powered = full_size(weights, fused) ** weight_power
    return (powered * (fused - torch.cat([infrared, luma], dim=1)).square()).sum(dim=1).mean()


def full_size(weights: Tensor, image: Tensor) -> Tensor:
    """Weights that fit an image B×1×H×W: as they are, or stretched, which keeps their sum.

    Args:
        weights: B×2×h×w, that of the infrared image first; 1×1 for weights of whole images, or of a lower resolution.
        image: B×1×H×W.

    Raises:
        ConfigurationError: They are not two for each image.
    """
    if weights.ndim != 4 or weights.shape[1] != 2 or len(weights) != len(image):
        raise ConfigurationError(
            f"a loss generator gives B×2×h×w weights, here {len(image)}×2×h×w, but they are {tuple(weights.shape)}"
        )
    if weights.shape[2:] in (image.shape[2:], (1, 1)):
        return weights
    return F.interpolate(weights, image.shape[2:], mode="bilinear", align_corners=False)


def sobel(image: Tensor, padding: Padding = "replicate") -> Tensor:
    """Both derivatives by the plain Sobel kernels (1-2-1, not divided), B×1×H×W to B×2×H×W, along the rows first.

    Args:
        image: B×1×H×W.
        padding: How the image is continued: by its border, or by zeros as in the published code, which see an edge of
            the height of the image all around it.
    """
    image = F.pad(image, (1, 1, 1, 1), mode="replicate") if padding == "replicate" else F.pad(image, (1, 1, 1, 1))
    along_rows = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    return F.conv2d(image, torch.stack([along_rows, along_rows.T])[:, None])


def learned_gradient_loss(
    fused: Tensor,
    infrared: Tensor,
    luma: Tensor,
    *,
    padding: Padding = "replicate",
    rule: GradientRule = "signed_max_per_axis",
) -> Tensor:
    """Mean L1 distance to the stronger gradient of both images, which the paper writes as max ∇I.

    Args:
        fused: B×1×H×W.
        infrared: The same shape.
        luma: The same shape.
        padding: See `sobel`.
        rule: "signed_max_per_axis": along each axis the derivative whose magnitude is larger, with its sign, that of
            the infrared image where they are equal; the distances along both axes are added up. "magnitude_max": the
            larger of the magnitudes |gx| + |gy|, as in the loss of VFN; directions do not count.

    Returns:
        A scalar.
    """
    ours, first, second = (sobel(image, padding) for image in (fused, infrared, luma))
    if rule == "magnitude_max":
        ours, first, second = (x.abs().sum(dim=1, keepdim=True) for x in (ours, first, second))
    stronger = torch.where(first.abs() >= second.abs(), first, second)
    return (ours - stronger).abs().sum(dim=1).mean()


@dataclass(frozen=True)
class LearnedFusionLoss:
    """The fusion loss for given weights, a function of (fused, infrared, luma, weights).

    Attributes:
        weight_power: Power of the weights in the intensity term: 1 in the paper, 2 in the published code.
        gradient_weight: α, of the gradient term; at least 0.
        padding: Of the Sobel derivatives; "zero" in the published code.
        gradient_rule: Which gradient the fused image should have, see `learned_gradient_loss`.

    Raises:
        ConfigurationError: An option is unknown or out of range.
    """

    weight_power: int = 1
    gradient_weight: float = 1.0
    padding: Padding = "replicate"
    gradient_rule: GradientRule = "signed_max_per_axis"

    def __post_init__(self) -> None:
        if self.weight_power not in (1, 2):
            raise ConfigurationError(f"weight_power is 1 (the paper) or 2 (its code), not {self.weight_power}")
        if not self.gradient_weight >= 0:
            raise ConfigurationError(f"gradient_weight must be at least 0, got {self.gradient_weight}")
        for name, kind in (("padding", Padding), ("gradient_rule", GradientRule)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigurationError(
                    f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(get_args(kind))}"
                )

    def __call__(self, fused: Tensor, infrared: Tensor, luma: Tensor, weights: Tensor) -> Tensor:
        """A scalar; images B×1×H×W, weights as `full_size` takes them."""
        loss = weighted_intensity_loss(fused, infrared, luma, weights, self.weight_power)
        if self.gradient_weight == 0:
            return loss
        gradient = learned_gradient_loss(fused, infrared, luma, padding=self.padding, rule=self.gradient_rule)
        return loss + self.gradient_weight * gradient
