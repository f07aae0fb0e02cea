"""The fusion network in the form that engines run: the same function in fewer and cheaper steps.

The algebra is exact; only the rounding differs (below 1e-6 in fp32):

* Batch norms are folded into the convolutions before them.
* A convolution over concatenated channels is the sum of convolutions over the parts, which need no concatenation.
* The encoders of both modalities run as the groups of one convolution, or apart.
* |x| is a leaky ReLU with a leak of -1, which engines fuse into the Sobel convolution.
* Both channel MLPs are one pair of 1×1 convolutions.

The modules are plain sequences of a few operations, so that `fuseloop.engines.graph` can write them as ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.networks.vfn import CHANNELS, LEAK, VFN

State = Mapping[str, Tensor]


class Convolution(nn.Module):
    """A convolution that keeps the size, and a leaky ReLU.

    Args:
        weight: O×I/groups×K×K.
        bias: O.
        leak: Slope below zero: 1 for no activation, -1 for absolute values.
        border: How the input is continued: "zeros", "reflect", or "none" when the caller did that.
        dilation: Distance of the taps.
        groups: Groups of channels.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        leak: float = 1.0,
        *,
        border: str = "zeros",
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())
        self.leak = leak
        self.border = border
        self.dilation = dilation
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """B×I×H×W to B×O×H×W."""
        margin = self.dilation * (self.weight.shape[-1] // 2)
        if self.border == "reflect":
            x = F.pad(x, (margin, margin, margin, margin), mode="reflect")
        padding = margin if self.border == "zeros" else 0
        x = F.conv2d(x, self.weight, self.bias, padding=padding, dilation=self.dilation, groups=self.groups)
        return x if self.leak == 1 else F.leaky_relu(x, self.leak)


def _layer(state: State, name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, in float64 for the algebra."""
    return state[f"{name}.weight"].double(), state[f"{name}.bias"].double()


def _folded(state: State, name: str, index: int = 0) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution `name.index` with the batch norm behind it folded in."""
    weight, bias = _layer(state, f"{name}.{index}")
    norm = f"{name}.{index + 1}"
    gain, offset = _layer(state, norm)
    scale = gain / torch.sqrt(state[f"{norm}.running_var"].double() + nn.BatchNorm2d(1).eps)
    return weight * scale[:, None, None, None], (bias - state[f"{norm}.running_mean"].double()) * scale + offset


def _block_diagonal(first: Tensor, second: Tensor) -> Tensor:
    """Two kernels O×I×K×K side by side, as one of 2·O×2·I×K×K."""
    zeros = torch.zeros_like(first)
    return torch.cat([torch.cat([first, zeros], dim=1), torch.cat([zeros, second], dim=1)])


class _Block(nn.Module):
    """`DenseResidualBlock` of one or more streams side by side, B×8·streams×H×W."""

    def __init__(self, state: State, *names: str) -> None:
        super().__init__()
        first = [_folded(state, f"{name}.Dcov1") for name in names]
        second = [_folded(state, f"{name}.Dcov2") for name in names]
        third = [_layer(state, f"{name}.conv") for name in names]
        parts = [slice(start, start + CHANNELS) for start in (0, CHANNELS, 2 * CHANNELS)]
        self.first = self._grouped(first, parts[0], LEAK)
        self.second = nn.ModuleList(self._grouped(second, part) for part in parts[:2])
        self.third = nn.ModuleList(self._grouped(third, part) for part in parts)

    @staticmethod
    def _grouped(layers: list[tuple[Tensor, Tensor]], part: slice, leak: float = 1.0) -> Convolution:
        """What the layers make of a part of their input channels; the bias goes with the first part."""
        weight = torch.cat([weight[:, part] for weight, _ in layers])
        bias = torch.cat([bias for _, bias in layers])
        if part.start > 0:
            bias = torch.zeros_like(bias)
        return Convolution(weight, bias, leak, dilation=weight.shape[-1] // 2 + 1, groups=len(layers))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = F.leaky_relu(self.second[0](x) + self.second[1](y), LEAK)
        return x + F.leaky_relu(self.third[0](x) + self.third[1](y) + self.third[2](z), LEAK)


class _Streams(nn.Module):
    """What both modalities go through, as the groups of one stream or in a stream each."""

    def __init__(self, streams: nn.ModuleList) -> None:
        super().__init__()
        self.streams = streams

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Two B×C×H×W to B×16×H×W, infrared channels first."""
        if len(self.streams) == 1:
            together: Tensor = self.streams[0](torch.cat([infrared, visible], dim=1))
            return together
        return torch.cat([self.streams[0](infrared), self.streams[1](visible)], dim=1)


class Step(_Streams):
    """Some layers of the encoders of both modalities."""

    def forward(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Two B×C×H×W to two B×8×H×W."""
        if len(self.streams) == 1:
            together = super().forward(infrared, visible)
            return together[:, :CHANNELS], together[:, CHANNELS:]
        return self.streams[0](infrared), self.streams[1](visible)


class _Encoder(_Streams):
    """`VFN.encode` and `gradient_magnitude`: two images to features and their gradients, B×16×H×W each."""

    def __init__(self, state: State, depth: int, apart: bool) -> None:
        names = ("ir_feb", "vi_feb")
        streams = nn.ModuleList(
            nn.Sequential(
                self._stem(state, 0, *group),
                self._stem(state, 3, *group),
                *(_Block(state, *(f"{name}.e{level}" for name in group)) for level in range(depth)),
            )
            for group in ([names[:1], names[1:]] if apart else [names])
        )
        super().__init__(streams)
        slope = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        slope = slope.to(next(iter(state.values())).device)  # where the weights are
        self.along_x = self._sobel(slope)
        self.along_y = self._sobel(slope.T)

    @staticmethod
    def _stem(state: State, index: int, *names: str) -> Convolution:
        weights, biases = zip(*(_folded(state, f"{name}.bfe", index) for name in names), strict=True)
        weight = _block_diagonal(*weights) if len(weights) > 1 else weights[0]
        return Convolution(weight, torch.cat(biases), LEAK, border="reflect")

    @staticmethod
    def _sobel(kernel: Tensor) -> Convolution:
        channels = 2 * CHANNELS
        return Convolution(
            kernel.repeat(channels, 1, 1, 1), kernel.new_zeros(channels), -1.0, border="none", groups=channels
        )

    def gradient(self, features: Tensor) -> Tensor:
        """`gradient_magnitude`, B×16×H×W."""
        continued = F.pad(features, (1, 1, 1, 1), mode="replicate")
        magnitude: Tensor = self.along_x(continued) + self.along_y(continued)
        return magnitude

    def part(self, start: int, stop: int | None) -> nn.ModuleList:
        """Some of the layers of each stream: two stems, and a block for each level."""
        return nn.ModuleList(cast(nn.Sequential, stream)[start:stop] for stream in self.streams)

    def forward(self, infrared: Tensor, luma: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        features = super().forward(infrared, luma)
        return features, self.gradient(features)


class _Decoder(nn.Module):
    """`GradientAttention` and `Reconstruction`; the statistics are B×16×1×1 here."""

    def __init__(self, state: State, depth: int) -> None:
        super().__init__()
        mean1, mean2, peak1, peak2 = (
            (weight[:, :, None, None], bias)
            for mlp in ("mlp_aa", "mlp_ma")
            for weight, bias in (_layer(state, f"frb1.{mlp}.{index}") for index in (0, 2))
        )
        self.channel = nn.Sequential(
            Convolution(_block_diagonal(mean1[0], peak1[0]), torch.cat([mean1[1], peak1[1]]), 0.0),
            Convolution(torch.cat([mean2[0], peak2[0]], dim=1), mean2[1] + peak2[1]),
        )
        self.spatial_mean = self._spatial(state, "frb1.conv_mean_a")
        self.spatial_peak = self._spatial(state, "frb1.conv_max_a")
        self.reconstruction = nn.Sequential(
            Convolution(*_folded(state, "frb2.f_conv"), LEAK, border="reflect"),
            *(_Block(state, f"frb2.d{level}") for level in range(depth)),
            Convolution(*_folded(state, "frb2.res"), LEAK, border="reflect"),
            Convolution(*_layer(state, "frb2.res.3"), border="reflect"),
        )

    @staticmethod
    def _spatial(state: State, name: str) -> nn.Sequential:
        return nn.Sequential(
            Convolution(*_layer(state, f"{name}.0"), 0.0, border="reflect"),
            Convolution(*_layer(state, f"{name}.2"), border="reflect"),
        )

    def forward(self, features: Tensor, gradient: Tensor, mean: Tensor, peak: Tensor) -> Tensor:
        channel = self.channel(torch.cat([mean, peak], dim=1))
        spatial_mean = self.spatial_mean(F.avg_pool2d(gradient, 3, 1, 1))
        spatial = spatial_mean + self.spatial_peak(F.max_pool2d(gradient, 3, 1, 1))
        signed = self.reconstruction(features * torch.sigmoid(channel * spatial))
        return torch.tanh(signed.float()) * 0.5 + 0.5


class Frame(nn.Module):
    """Fuses whole frames."""

    def __init__(self, encoder: _Encoder, decoder: _Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Two images B×1×H×W to the fused one."""
        features, gradient = self.encoder(infrared, luma)
        mean, peak = gradient.mean((2, 3), keepdim=True), gradient.amax((2, 3), keepdim=True)
        fused: Tensor = self.decoder(features, gradient, mean, peak)
        return fused


class Last(nn.Module):
    """The end of a whole frame: the last block of the encoders, and the image from its features."""

    def __init__(self, encoder: _Encoder, decoder: _Decoder, depth: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.block = _Streams(encoder.part(1 + max(depth, 2), None))
        self.decoder = decoder

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Features B×8×H×W of both modalities to the fused image."""
        features = self.block(infrared, visible)
        gradient = self.encoder.gradient(features)
        mean, peak = gradient.mean((2, 3), keepdim=True), gradient.amax((2, 3), keepdim=True)
        fused: Tensor = self.decoder(features, gradient, mean, peak)
        return fused


class TileStatistics(nn.Module):
    """The first pass over the tiles of a frame, see `Engine.pool`."""

    def __init__(self, encoder: _Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, infrared: Tensor, luma: Tensor, interior: Tensor) -> tuple[Tensor, Tensor]:
        """Two images and a mask B×1×H×W to the sum and the peak of the gradients, B×16×1×1 each."""
        _, gradient = self.encoder(infrared, luma)
        gradient = gradient * interior
        return gradient.sum((2, 3), keepdim=True), gradient.amax((2, 3), keepdim=True)


class Tile(nn.Module):
    """The second pass over the tiles of a frame, see `Engine.fuse_tile`."""

    def __init__(self, encoder: _Encoder, decoder: _Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, infrared: Tensor, luma: Tensor, mean: Tensor, peak: Tensor) -> Tensor:
        """Two images B×1×H×W and the statistics of the frame, B×16×1×1 each, to the fused image."""
        features, gradient = self.encoder(infrared, luma)
        fused: Tensor = self.decoder(features, gradient, mean, peak)
        return fused


Part = Literal["frame", "statistics", "tile"]


class Deployment(NamedTuple):
    """The parts that an engine runs: whole frames at once, the two passes over tiles, or a frame in steps.

    The steps are `first` (images to the features of block 0), `block1` to `block{L-2}`, and `last`. Between them the
    closed loop changes the features.
    """

    frame: Frame
    statistics: TileStatistics
    tile: Tile
    steps: nn.ModuleDict

    def module(self, part: str) -> nn.Module:
        """A part, or one of the steps."""
        return self.steps[part] if part in self.steps else cast(nn.Module, getattr(self, part))

    @property
    def image_channels(self) -> int:
        """Channels of an image: 1, or 2 for bf16."""
        streams = self.frame.encoder.streams
        return next(streams.buffers()).shape[1] * len(streams) // 2


def deploy(network: VFN, *, differentiable: bool = False, apart: bool = False) -> Deployment:
    """Takes the weights of a network, with the running statistics of its batch norms.

    Args:
        network: The network.
        differentiable: Keep the weights functions of the network's parameters, for training.
        apart: Run the encoders one after the other, not as the groups of one convolution. Which is faster depends on
            the kernels of an engine.
    """
    state = network.state_dict(keep_vars=differentiable)
    depth = network.depth
    encoder, decoder = _Encoder(state, depth, apart), _Decoder(state, depth)
    between = {f"block{level}": Step(encoder.part(level + 2, level + 3)) for level in range(1, depth - 1)}
    steps = nn.ModuleDict({"first": Step(encoder.part(0, 3)), **between, "last": Last(encoder, decoder, depth)})
    return Deployment(Frame(encoder, decoder), TileStatistics(encoder), Tile(encoder, decoder), steps)
