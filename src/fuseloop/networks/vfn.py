"""VFN, the vision-guided fusion network of CLDyN (arXiv 2604.08924, section "Vision-guided fusion").

The network is written in three steps so that callers can use them apart: `encode` makes features from a pair, `pool`
reduces the features of a whole frame to a few numbers, and `decode` makes the image from both. Only `pool` looks at the
whole frame; the other two look at a neighbourhood of at most `VFN.halo` pixels. Tiled fusion rests on that.

`encode` is itself two steps, `encode_first` and `encode_rest`. Conditioners (`semantic_compensation` for the closed
loop, `instruction_conditioner` for sentences) change the features from block to block in the second one and leave the
first as it is, which two passes can therefore share. They may change what `decode` is given, and its blocks, too.

Submodule names follow the published state dictionaries, so that those load by key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 8
LEAK = 0.2


Compensate = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Changes what block l made, (l, infrared features, visible features) to both features; all B×8×H×W."""

Condition = Callable[[int, Tensor], Tensor]
"""Changes what block l of the reconstruction is given, (l, features) to features; both B×8×H×W."""


class Pooled(NamedTuple):
    """What the gradient attention knows of the whole frame.

    Attributes:
        mean: Mean gradient of every feature channel, B×16.
        peak: Largest gradient of every feature channel, B×16.
    """

    mean: Tensor
    peak: Tensor


def _conv_norm(inputs: int, outputs: int, *, dilated: bool = False) -> list[nn.Module]:
    """A 3×3 convolution that keeps the size, batch norm and leaky ReLU."""
    if dilated:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=2, dilation=2)
    else:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
    return [convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(LEAK)]


class DenseResidualBlock(nn.Module):
    """Two dilated convolutions with dense connections around a residual path (CB), B×8×H×W to B×8×H×W."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.Dcov1 = nn.Sequential(*_conv_norm(channels, channels, dilated=True))
        self.Dcov2 = nn.Sequential(*_conv_norm(2 * channels, channels, dilated=True))
        self.conv = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Refines features; B×8×H×W to the same shape."""
        dense = torch.cat([x, self.Dcov1(x)], dim=1)
        dense = torch.cat([dense, self.Dcov2(dense)], dim=1)
        return x + F.leaky_relu(self.conv(dense), LEAK)


class FeatureEncoder(nn.Module):
    """Feature extraction of one modality (FEB): a stem and L dense residual blocks, B×1×H×W to B×8×H×W.

    Block l of the paper is `block(l, x)`; the stem belongs to block 0.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.bfe = nn.Sequential(*_conv_norm(1, CHANNELS // 2), *_conv_norm(CHANNELS // 2, CHANNELS))
        for level in range(depth):
            self.add_module(f"e{level}", DenseResidualBlock())

    def block(self, level: int, x: Tensor) -> Tensor:
        """Applies block `level` (0 to L-1), the stem first when it is block 0."""
        if level == 0:
            x = self.bfe(x)
        features: Tensor = self.get_submodule(f"e{level}")(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Features of one modality; B×1×H×W to B×8×H×W."""
        for level in range(self.depth):
            x = self.block(level, x)
        return x


def gradient_magnitude(x: Tensor) -> Tensor:
    """|∂x| + |∂y| of every channel by Sobel/8 with replicated border; same shape as `x`."""
    # Sums of shifted views: a depthwise convolution takes a slow path on CPU, above all backwards.
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    smooth_rows = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 8
    smooth_columns = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 8
    along_x = smooth_rows[..., 2:] - smooth_rows[..., :-2]
    along_y = smooth_columns[:, :, 2:] - smooth_columns[:, :, :-2]
    return along_x.abs() + along_y.abs()


class GradientAttention(nn.Module):
    """Weights the features of both modalities by attention to their gradients (FRB1), B×16×H×W to B×16×H×W.

    The weight is sigmoid(channel term × spatial term), the raw product of two unbounded terms as published.
    """

    def __init__(self, channels: int = 2 * CHANNELS) -> None:
        super().__init__()
        self.mlp_aa = self._channel_mlp(channels)
        self.mlp_ma = self._channel_mlp(channels)
        self.conv_mean_a = self._spatial_convolutions(channels)
        self.conv_max_a = self._spatial_convolutions(channels)

    @staticmethod
    def _channel_mlp(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))

    @staticmethod
    def _spatial_convolutions(channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(2 * channels, channels, 3, padding=1, padding_mode="reflect"),
        )

    def forward(self, features: Tensor, pooled: Pooled, gradient: Tensor) -> Tensor:
        """Weighted features.

        Args:
            features: Both modalities, B×16×H×W, infrared channels first.
            pooled: Statistics of the gradient of the whole frame.
            gradient: `gradient_magnitude(features)`.
        """
        channel = self.mlp_aa(pooled.mean) + self.mlp_ma(pooled.peak)
        spatial = self.conv_mean_a(F.avg_pool2d(gradient, 3, stride=1, padding=1)) + self.conv_max_a(
            F.max_pool2d(gradient, 3, stride=1, padding=1)
        )
        return features * torch.sigmoid(channel[:, :, None, None] * spatial)


class Reconstruction(nn.Module):
    """Makes the image from the weighted features (FRB2), B×16×H×W to B×1×H×W in [0, 1]."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.f_conv = nn.Sequential(*_conv_norm(2 * CHANNELS, CHANNELS))
        for level in range(depth):
            self.add_module(f"d{level}", DenseResidualBlock())
        self.res = nn.Sequential(
            *_conv_norm(CHANNELS, CHANNELS // 2),
            nn.Conv2d(CHANNELS // 2, 1, 3, padding=1, padding_mode="reflect"),
            nn.Tanh(),
        )

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """The image; B×16×H×W to B×1×H×W in [0, 1]."""
        x = self.f_conv(x)
        for level in range(self.depth):
            if condition is not None:
                x = condition(level, x)
            x = self.get_submodule(f"d{level}")(x)
        signed: Tensor = self.res(x)
        return (signed + 1) / 2


class VFN(nn.Module):
    """The vision-guided fusion network of CLDyN.

    It fuses an infrared image with the luma of a visible one, without down-sampling. L=2 has 34,761 parameters and
    32,364 multiply-accumulates a pixel.

    Args:
        depth: Number L of dense residual blocks in each encoder and in the reconstruction, at least 1.

    Raises:
        ValueError: `depth` is below 1.
    """

    minimum_side = 8

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"VFN needs a depth of at least 1, got {depth}")
        self.depth = depth
        self.vi_feb = FeatureEncoder(depth)
        self.ir_feb = FeatureEncoder(depth)
        self.frb1 = GradientAttention()
        self.frb2 = Reconstruction(depth)

    @property
    def halo(self) -> int:
        """Pixels around a region that `decode(encode(·))` looks at; 25 for L=2."""
        encoder = 2 + 4 * self.depth  # two 3×3 convolutions, two of dilation 2 a block
        attention = 1 + 1 + 2  # Sobel, 3×3 pooling, two 3×3 convolutions
        reconstruction = 1 + 4 * self.depth + 2
        return encoder + attention + reconstruction

    def encode(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Features of a pair: two B×1×H×W in [0, 1] to B×16×H×W, infrared channels first."""
        return self.encode_rest(*self.encode_first(infrared, luma))

    def encode_first(self, infrared: Tensor, luma: Tensor) -> tuple[Tensor, Tensor]:
        """Stem and block 0 of both encoders: two B×1×H×W in [0, 1] to two B×8×H×W."""
        return self.ir_feb.block(0, infrared), self.vi_feb.block(0, luma)

    def encode_rest(self, infrared: Tensor, visible: Tensor, compensate: Compensate | None = None) -> Tensor:
        """The blocks after the first, to B×16×H×W, infrared channels first.

        Args:
            infrared: First of what `encode_first` made, B×8×H×W.
            visible: Second of what `encode_first` made, B×8×H×W.
            compensate: Called before each block with the level of the block before and its features; None changes
                nothing.
        """
        for level in range(1, self.depth):
            if compensate is not None:
                infrared, visible = compensate(level - 1, infrared, visible)
            infrared, visible = self.ir_feb.block(level, infrared), self.vi_feb.block(level, visible)
        return torch.cat([infrared, visible], dim=1)

    @staticmethod
    def pool(gradient: Tensor) -> Pooled:
        """Reduces the feature gradients of whole frames, B×16×H×W, to their mean and peak."""
        return Pooled(gradient.mean(dim=(2, 3)), gradient.amax(dim=(2, 3)))

    def decode(self, features: Tensor, pooled: Pooled | None = None, condition: Condition | None = None) -> Tensor:
        """Makes the fused luma, B×1×H×W in [0, 1].

        Args:
            features: What `encode` made, B×16×H×W; possibly only a region of the frame.
            pooled: What `pool` made of the whole frame; None when `features` are the whole frame.
            condition: Called before each block of the reconstruction; None changes nothing.
        """
        gradient = gradient_magnitude(features)
        if pooled is None:
            pooled = self.pool(gradient)
        fused: Tensor = self.frb2(self.frb1(features, pooled, gradient), condition)
        return fused

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Fuses pairs.

        Args:
            infrared: B×1×H×W in [0, 1]; H and W at least 8.
            luma: Y of the visible image, the same shape and range.

        Returns:
            The fused luma, B×1×H×W in [0, 1].
        """
        return self.decode(self.encode(infrared, luma))
