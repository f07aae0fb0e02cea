"""F, the fusion network of TDFusion (arXiv 2412.03240) and of ReFusion, which has the same.

Each modality has a stem and two transformer blocks; cross-attention merges them; two more blocks and two convolutions
make the image. Nothing is down-sampled, and nothing skips from the inputs to the image. Submodule names follow the
published state dictionaries; 1 is the first input, the infrared image, and 2 the second.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.networks.restormer_block import CHANNELS, HEADS, channel_attention, depthwise, encoder, pointwise, spatial

_LEAK = 0.01


class AttentionMerge(nn.Module):
    """Merges the features of both modalities (AFM), two B×16×H×W to B×32×H×W.

    Each modality is asked by the other (cross-attention), which is added to it; then both are gated by what they are
    together.
    """

    def __init__(self) -> None:
        super().__init__()
        joint = 2 * CHANNELS
        self.temperature1 = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.temperature2 = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv1 = pointwise(CHANNELS, 3 * CHANNELS)
        self.qkv1_dwconv = depthwise(3 * CHANNELS)
        self.qkv2 = pointwise(CHANNELS, 3 * CHANNELS)
        self.qkv2_dwconv = depthwise(3 * CHANNELS)
        self.project_mid1 = pointwise(CHANNELS, CHANNELS)
        self.project_mid2 = pointwise(CHANNELS, CHANNELS)
        self.project_E = pointwise(joint, 4 * joint)
        self.project_E_d = depthwise(4 * joint)
        self.project_E1 = pointwise(CHANNELS, 4 * CHANNELS)
        self.project_E1_d = depthwise(4 * CHANNELS)
        self.project_E2 = pointwise(CHANNELS, 4 * CHANNELS)
        self.project_E2_d = depthwise(4 * CHANNELS)
        self.project_out1 = pointwise(4 * CHANNELS, joint)
        self.project_out2 = pointwise(4 * CHANNELS, joint)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two B×16×H×W to B×32×H×W."""
        query1, key1, value1 = self.qkv1_dwconv(self.qkv1(first)).chunk(3, dim=1)
        query2, key2, value2 = self.qkv2_dwconv(self.qkv2(second)).chunk(3, dim=1)
        first = first + self.project_mid1(channel_attention(query2, key1, value1, self.temperature1))
        second = second + self.project_mid2(channel_attention(query1, key2, value2, self.temperature2))
        joint = torch.cat([first, second], dim=1)
        gate1, gate2 = self.project_E_d(self.project_E(joint)).chunk(2, dim=1)
        gated1 = F.gelu(gate1) * self.project_E1_d(self.project_E1(first))
        gated2 = F.gelu(gate2) * self.project_E2_d(self.project_E2(second))
        merged: Tensor = joint + self.project_out1(gated1) + self.project_out2(gated2)
        return merged


class RestormerFusion(nn.Module):
    """The fusion network of TDFusion, 59,856 parameters.

    It fuses an infrared image with the luma of a visible one. Its attention sees whole frames, so that pieces of a
    frame are fused otherwise than the frame.
    """

    minimum_side: ClassVar[int] = 8
    halo: ClassVar[None] = None
    """Tiles cannot be fused apart: no margin around them would be wide enough."""

    def __init__(self) -> None:
        super().__init__()
        self.project_in_1 = spatial(1, CHANNELS)
        self.project_in_2 = spatial(1, CHANNELS)
        self.encoder1 = encoder(CHANNELS)
        self.encoder2 = encoder(CHANNELS)
        self.FM = AttentionMerge()
        self.decoder = encoder(2 * CHANNELS)
        self.project_out_0 = spatial(2 * CHANNELS, CHANNELS)
        self.project_out_1 = spatial(CHANNELS, 1)

    def merge(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Features of a pair: two B×1×H×W in [0, 1] to B×32×H×W."""
        merged: Tensor = self.FM(self.encoder1(self.project_in_1(infrared)), self.encoder2(self.project_in_2(luma)))
        return merged

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Fuses pairs.

        Args:
            infrared: B×1×H×W in [0, 1].
            luma: Y of the visible image, the same shape and range.

        Returns:
            The fused luma, B×1×H×W in (0, 1).
        """
        features = F.leaky_relu(self.project_out_0(self.decoder(self.merge(infrared, luma))), _LEAK)
        return torch.sigmoid(self.project_out_1(features))
