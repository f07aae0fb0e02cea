"""The transformer block that the fusion network and the loss generator of TDFusion are made of.

Attention is between channels, over all pixels: its matrices are a few numbers a side however large the image is, and
its cost is linear in the pixels. Every output pixel depends on the whole frame, so the networks cannot work in tiles.

Every operation has a forward-mode derivative, which the lookahead of the learned loss needs.

Sources: Restormer (Zamir et al., CVPR 2022) in the form of TDFusion (arXiv 2412.03240): 8 heads, no biases in
convolutions. Submodule names follow the published state dictionaries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
CHANNELS = 16
"""Channels of the features of one modality; those of both together are twice as many."""

_TINY = 1e-12  # least length that a query or key is divided by


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1×1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def depthwise(channels: int) -> nn.Conv2d:
    """A 3×3 convolution of each channel by itself, without bias."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def spatial(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3×3 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def channel_attention(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> Tensor:
    """Mixes the channels of each head by how alike they are over the frame: softmax(cosines × temperature) · value.

    Args:
        query: B×C×H×W.
        key: B×C×H×W.
        value: B×C×H×W.
        temperature: One of each head, heads×1×1.

    Returns:
        B×C×H×W.
    """
    batch, channels, height, width = value.shape
    heads = (batch, len(temperature), channels // len(temperature), height * width)
    query, key, value = query.reshape(heads), key.reshape(heads), value.reshape(heads)
    # The few products are divided by the lengths, not the many pixels.
    across, down = (torch.linalg.vector_norm(x, dim=-1).clamp(min=_TINY) for x in (query, key))
    cosines = query @ key.transpose(-2, -1) / across[..., :, None] / down[..., None, :]
    mixed: Tensor = (cosines * temperature).softmax(dim=-1) @ value
    return mixed.reshape(batch, channels, height, width)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, with scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to the same shape."""
        normed: Tensor = self.body(x.movedim(1, -1))
        return normed.movedim(-1, 1)


class ChannelAttention(nn.Module):
    """Self-attention between channels (MDTA), B×C×H×W to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv = pointwise(channels, 3 * channels)
        self.qkv_dwconv = depthwise(3 * channels)
        self.project_out = pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to the same shape."""
        query, key, value = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        mixed: Tensor = self.project_out(channel_attention(query, key, value, self.temperature))
        return mixed


class GatedFeedForward(nn.Module):
    """Two convolved halves, of which one gates the other (GDFN), B×C×H×W to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project_in = pointwise(channels, 4 * channels)
        self.dwconv = depthwise(4 * channels)
        self.project_out = pointwise(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to the same shape."""
        gate, gated = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        mixed: Tensor = self.project_out(F.gelu(gate) * gated)
        return mixed


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each normed before and added to its input (RTB); 10C² + 67C + 8 parameters.

    Args:
        channels: C, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attn = ChannelAttention(channels)
        self.norm2 = ChannelNorm(channels)
        self.ffn = GatedFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to the same shape."""
        x = x + self.attn(self.norm1(x))
        refined: Tensor = x + self.ffn(self.norm2(x))
        return refined


def encoder(channels: int) -> nn.Sequential:
    """Two blocks."""
    return nn.Sequential(TransformerBlock(channels), TransformerBlock(channels))
