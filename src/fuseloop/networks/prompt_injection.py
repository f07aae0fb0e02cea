"""T-OAR with T-DPI (arXiv 2411.09387): a sentence changes the features of a fusion network. As published.

Three networks: `BFN` fuses the luma of a visible image with an infrared one; a language model, which is not here, turns
a sentence into a vector of 4096 numbers; `TOAR` reduces that to 512 and has a `TDPI` block behind encoder blocks 0, 1
and 2 of each modality, which adds

    zero-conv(refine(LReLU(norm(features ⊛ kernel)))),   kernel = linear(linear([means, peaks, text]))

with one kernel for each image. The zero-conv starts at zero, so the fusion begins as that of BFN, bit for bit.

This is the form for reading checkpoints of the reference. Its batch norms mix tasks, its pairs of linear layers have no
activation between them, and text and image only add there; `instruction_conditioner` is what fuseloop trains.
Submodule names follow the published state dictionaries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.networks.vfn import (
    CHANNELS,
    LEAK,
    VFN,
    Compensate,
    DenseResidualBlock,
    FeatureEncoder,
    GradientAttention,
    gradient_magnitude,
)


class WideReconstruction(nn.Module):
    """Makes the image from the weighted features without reducing them first, B×16×H×W to B×1×H×W in [0, 1]."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(depth):
            self.add_module(f"d{level}", DenseResidualBlock(2 * CHANNELS))
        self.res = nn.Sequential(
            nn.Conv2d(2 * CHANNELS, CHANNELS, 3, padding=1, padding_mode="reflect"),
            nn.BatchNorm2d(CHANNELS),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(CHANNELS, CHANNELS // 2, 3, padding=1, padding_mode="reflect"),
            nn.BatchNorm2d(CHANNELS // 2),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(CHANNELS // 2, 1, 3, padding=1, padding_mode="reflect"),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The image; B×16×H×W to B×1×H×W in [0, 1]."""
        for level in range(self.depth):
            x = self.get_submodule(f"d{level}")(x)
        signed: Tensor = self.res(x)
        return (signed + 1) / 2


class BFN(nn.Module):
    """The base fusion network of T-OAR: the encoders and the gate of VFN before a reconstruction of twice the width.

    L=4, the published depth, has 69,881 parameters and 66,636 multiply-accumulates a pixel.

    Args:
        depth: Number L of dense residual blocks in each encoder and in the reconstruction, at least 1.

    Raises:
        ValueError: `depth` is below 1.
    """

    minimum_side = VFN.minimum_side

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"BFN needs a depth of at least 1, got {depth}")
        self.depth = depth
        self.vi_e = FeatureEncoder(depth)
        self.ir_e = FeatureEncoder(depth)
        self.fb = WideReconstruction(depth)
        self.ff = GradientAttention()

    def encode(self, infrared: Tensor, luma: Tensor, compensate: Compensate | None = None) -> Tensor:
        """Features of a pair: two B×1×H×W in [0, 1] to B×16×H×W, infrared channels first.

        Args:
            infrared: B×1×H×W in [0, 1]; H and W at least 8.
            luma: Y of the visible image, the same shape and range.
            compensate: Called between two blocks with the level of the block before and its features; None changes
                nothing.
        """
        infrared, visible = self.ir_e.block(0, infrared), self.vi_e.block(0, luma)
        for level in range(1, self.depth):
            if compensate is not None:
                infrared, visible = compensate(level - 1, infrared, visible)
            infrared, visible = self.ir_e.block(level, infrared), self.vi_e.block(level, visible)
        return torch.cat([infrared, visible], dim=1)

    def gate(self, features: Tensor) -> Tensor:
        """Weights what `encode` made by attention to its gradients, B×16×H×W."""
        gradient = gradient_magnitude(features)
        weighted: Tensor = self.ff(features, VFN.pool(gradient), gradient)
        return weighted

    def forward(self, infrared: Tensor, luma: Tensor, compensate: Compensate | None = None) -> Tensor:
        """The fused luma, B×1×H×W in [0, 1]; arguments are those of `encode`."""
        fused: Tensor = self.fb(self.gate(self.encode(infrared, luma, compensate)))
        return fused


class TDPI(nn.Module):
    """A T-DPI block: a convolution whose kernel the image and the text make, around a residual path.

    8 channels and texts of 512 numbers have 572,320 parameters.

    Args:
        text: Length of the text vectors.
    """

    def __init__(self, text: int = 512) -> None:
        super().__init__()
        inputs, kernel = 2 * CHANNELS + text, CHANNELS * CHANNELS * 9
        self.cppb = nn.Sequential(nn.Linear(inputs, text), nn.Linear(text, kernel))
        self.gap_conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.gmp_conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.zc = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.bn_lrelu = nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.LeakyReLU(LEAK))
        self.conv = nn.Sequential(
            *_conv_norm(CHANNELS, 2 * CHANNELS),
            *_conv_norm(2 * CHANNELS, 2 * CHANNELS),
            *_conv_norm(2 * CHANNELS, CHANNELS),
        )
        for parameter in self.zc.parameters():
            nn.init.zeros_(parameter)

    def kernels(self, features: Tensor, text: Tensor) -> Tensor:
        """The kernel of each image, B×8×8×3×3.

        Args:
            features: B×8×H×W.
            text: What the adapter of `TOAR` made, B×512.
        """
        mean, peak = self.gap_conv(features).mean(dim=(2, 3)), self.gmp_conv(features).amax(dim=(2, 3))
        kernels: Tensor = self.cppb(torch.cat([mean, peak, text], dim=1))
        return kernels.view(-1, CHANNELS, CHANNELS, 3, 3)

    @staticmethod
    def respond(features: Tensor, kernels: Tensor) -> Tensor:
        """Convolves each image with its kernel, zero border, B×8×H×W."""
        folded = features.flatten(0, 1)[None]
        response = F.conv2d(folded, kernels.flatten(0, 1), padding=1, groups=len(features))
        return response.view_as(features)

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """Changed features, B×8×H×W; arguments are those of `kernels`."""
        response = self.respond(features, self.kernels(features, text))
        change: Tensor = self.zc(self.conv(self.bn_lrelu(response)))
        return features + change


class TOAR(nn.Module):
    """T-OAR: the text adapter, and the T-DPI blocks of both modalities between the encoder blocks of a `BFN`.

    L=4 has 5,794,240 parameters: the adapter, which is here once, and six blocks.

    Its call is a `Compensate` once a text is bound:

        text = toar.adapter(sentence)                     # B×4096 of the language model, once for all blocks
        fused = network(infrared, luma, partial(toar, text=text))

    Args:
        depth: Number L of encoder blocks, at least 2; there are L-1 T-DPI blocks for each modality.
        sentence: Length of the vectors of the language model.
        text: Length of what the adapter makes of them.

    Raises:
        ValueError: `depth` is below 2.
    """

    def __init__(self, depth: int = 4, *, sentence: int = 4096, text: int = 512) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"T-DPI blocks stand between blocks: they need a depth of at least 2, got {depth}")
        self.depth = depth
        self.sentence = sentence
        self.text = text
        self.adapter = nn.Sequential(nn.Linear(sentence, text), nn.Linear(text, text))
        self.ir_t_dpi = nn.ModuleDict({f"dpi{level}": TDPI(text) for level in range(depth - 1)})
        self.vi_t_dpi = nn.ModuleDict({f"dpi{level}": TDPI(text) for level in range(depth - 1)})

    def forward(self, level: int, infrared: Tensor, visible: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Changes what block `level` (0 to L-2) of both encoders made.

        Args:
            level: The block.
            infrared: Its infrared features, B×8×H×W.
            visible: Its visible features, the same shape.
            text: What `adapter` made, B×512, a row for each image.

        Returns:
            Infrared and visible features, B×8×H×W each.
        """
        block = f"dpi{level}"
        return self.ir_t_dpi[block](infrared, text), self.vi_t_dpi[block](visible, text)


def _conv_norm(inputs: int, outputs: int) -> list[nn.Module]:
    """A 3×3 convolution with a border of zeros, batch norm and leaky ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(LEAK)]
