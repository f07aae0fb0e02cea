"""What makes bf16 accurate enough: eight bits of mantissa, spent well.

Plain rounding is off by up to 2.5/255 on real pairs, mostly by three causes, which are mended before an engine runs:

* Pixels: an image in [0, 1] loses half a grey level at once. It goes in as two channels, a coarse and a fine part.
* Weights: the errors of the nine taps of a kernel add up where the image is smooth, which is nearly everywhere. The
  taps are rounded so that their sum stays.
* Biases of the first and the last convolutions, which nothing later evens out.

What remains is the rounding of features. How much it matters is in the weights: `fuseloop.training.rounding` makes such
that survive it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from fuseloop.engines.deployment import Convolution, Deployment


def split_image(image: Tensor) -> Tensor:
    """An image in [0, 1], B×1×H×W, as two channels that bf16 holds and that sum to it within 2^-18; B×2×H×W."""
    coarse = torch.round(image * 256) / 256  # 0, 1/256, ..., 1 are exact in bf16
    return torch.cat([coarse, image - coarse], dim=1)


def round_weight(weight: Tensor) -> Tensor:
    """Rounds a kernel O×I×K×K to values that bf16 holds, such that the sum of every K×K stays.

    The error of each tap is handed on to the next smaller one; the smallest has the finest steps. Zeros stay zero.
    """
    taps = weight.flatten(2)
    order = taps.abs().argsort(dim=2, descending=True)
    rounded = torch.zeros_like(taps)
    error = torch.zeros_like(taps[..., :1])
    for index in torch.split(order, 1, dim=2):
        tap = taps.gather(2, index)
        wanted = tap + error
        value = torch.where(tap == 0, tap, wanted.bfloat16().float())
        rounded.scatter_(2, index, value)
        error = wanted - value
    return rounded.view_as(weight)


def _round_bias(convolution: Convolution, follower: Convolution) -> None:
    """Makes a bias exact in bf16 by scaling the channel by less than 2^-8, which the next convolution takes back.

    A leaky ReLU passes positive factors on.
    """
    rounded = convolution.bias.bfloat16().float()
    scale = torch.where(convolution.bias == 0, 1.0, rounded / convolution.bias)
    convolution.bias = rounded
    convolution.weight = convolution.weight * scale[:, None, None, None]
    follower.weight = follower.weight / scale[:, None, None]


def _convolutions(layers: nn.Sequential, first: int, second: int) -> tuple[Convolution, Convolution]:
    return cast(Convolution, layers[first]), cast(Convolution, layers[second])


def to_bfloat16(deployment: Deployment) -> None:
    """Prepares a deployment for bf16, in place: weights that bf16 holds, and images as `split_image` makes them."""
    stems = [_convolutions(cast(nn.Sequential, stream), 0, 1) for stream in deployment.frame.encoder.streams]
    for pair in (*stems, _convolutions(deployment.frame.decoder.reconstruction, -2, -1)):
        _round_bias(*pair)
    for module in deployment.frame.modules():
        if isinstance(module, Convolution):
            module.weight = round_weight(module.weight)
    for first, _ in stems:
        first.weight = first.weight.repeat_interleave(2, dim=1)
