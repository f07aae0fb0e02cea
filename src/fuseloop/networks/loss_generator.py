"""G, the loss generator of TDFusion (arXiv 2412.03240): it looks at a pair and weights both images, pixel by pixel.

The weights say which image the fusion loss pulls the fused one to. Submodule names follow the published code's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fuseloop.networks.restormer_block import CHANNELS, encoder, spatial


class LossGenerator(nn.Module):
    """The loss generator of TDFusion, 44,529 parameters.

    Freshly made its weights are near one half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed1 = spatial(1, CHANNELS)
        self.patch_embed2 = spatial(1, CHANNELS)
        self.encoder1 = encoder(CHANNELS)
        self.encoder2 = encoder(CHANNELS)
        self.encoder3 = encoder(2 * CHANNELS)
        self.out1 = spatial(2 * CHANNELS, CHANNELS)
        self.out2 = nn.PReLU()
        self.out3 = spatial(CHANNELS, 2)

    def encode(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Features of a pair: two B×1×H×W in [0, 1] to B×32×H×W."""
        both = [self.encoder1(self.patch_embed1(infrared)), self.encoder2(self.patch_embed2(luma))]
        joint: Tensor = self.encoder3(torch.cat(both, dim=1))
        return joint

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Weights of both images.

        Args:
            infrared: B×1×H×W in [0, 1].
            luma: Y of the visible image, the same shape and range.

        Returns:
            B×2×H×W, positive with sum 1 at each pixel, that of the infrared image first.
        """
        scores: Tensor = self.out3(self.out2(self.out1(self.encode(infrared, luma))))
        return scores.softmax(dim=1)
