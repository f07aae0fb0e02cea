"""CTDNet, the saliency network with which CLDyN closes its loop, written from its published description.

A ResNet-18 gives features at strides 4, 8, 16 and 32, and a decoder of 64 channels has three paths: the semantic one
sets the two coarsest against the mean of the whole image, the spatial one attends to places at stride 8, and the
boundary one finds outlines at stride 4 where the semantic one says that something is. Cross aggregation joins the first
two, boundary refinement adds the third. What is fed back is the output of that refinement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.tasks.kinds import SaliencyNetwork
from fuseloop.tasks.protocol import Outputs, Part, Prediction, Target, View, labels

STRIDE = 32

MEAN = (124.55 / 255, 118.90 / 255, 102.94 / 255)
"""Published mean of the input's red, green and blue in [0, 1]."""

DEVIATION = (56.77 / 255, 55.97 / 255, 57.50 / 255)
"""Published standard deviation."""

MAP_WEIGHTS = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Published weights of the losses of the five saliency maps, the finest first."""

CROSS_ENTROPY_WEIGHT = 0.6
"""Published weight of the cross-entropy beside the IoU loss in the loss of a saliency map."""


class Maps(NamedTuple):
    """What the network says, as logits.

    Attributes:
        saliency: Five maps B×1×h×w: after refinement (stride 4), after aggregation (8), of the spatial path (8), and of
            the semantic path (16 and 32). The first is the prediction, the others help training.
        edges: Outline of what is salient, B×1×H/4×W/4.
    """

    saliency: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    edges: Tensor


class ConvNorm(nn.Module):
    """Convolution that keeps the size or divides it, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W."""
        y: Tensor = self.norm(self.conv(x))
        return y


class ConvNormAct(ConvNorm):
    """Convolution, batch norm, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W."""
        return F.relu(super().forward(x))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, around which the input is added; a 1×1 convolution brings it to their shape."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNormAct(inputs, outputs, stride=stride), ConvNorm(outputs, outputs))
        self.stride = stride
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else ConvNorm(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W."""
        # The 1×1 convolution sees every other pixel. Its own stride would say the same, but the backward pass of such a
        # convolution of 8 channels on channels_last writes beyond its memory (PyTorch 2.13 on AMD EPYC).
        return F.relu(self.layers(x) + self.shortcut(x[..., :: self.stride, :: self.stride]))


class ResNet18(nn.Module):
    """The encoder: ResNet-18 without its classifier."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, widths[0], 7, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(before, after, stride=stride), BasicBlock(after, after, stride=1))
            for before, after, stride in zip([widths[0], *widths[:-1]], widths, (1, 2, 2, 2), strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """B×3×H×W, sides divisible by 32, to features at strides 4, 8, 16 and 32."""
        x = F.max_pool2d(self.stem(x), 3, stride=2, padding=1)
        return [x := stage(x) for stage in self.stages]


class Fusion(nn.Module):
    """FFM: two features are multiplied, so that what both say stays, and go through two 3×3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNormAct(channels, channels), ConvNormAct(channels, channels))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """B×C×h×w and B×C×H×W to the shape of the second."""
        fused: Tensor = self.layers(resized_like(coarse, fine) * fine)
        return fused


class SpatialAttention(nn.Module):
    """A 3×3 convolution whose output is weighted by place, after the mean and the maximum of its channels there."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(inputs, outputs)
        self.attend = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W."""
        x = self.conv(x)
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        weights: Tensor = self.attend(summary).sigmoid()
        return x * weights


class CrossAggregation(nn.Module):
    """CAM: the semantic and the spatial path meet at the resolution of each, and the two results are fused."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shrink = ConvNormAct(channels, channels, stride=2)
        self.join_coarse = ConvNormAct(channels, channels)
        self.join_fine = ConvNormAct(channels, channels)
        self.fuse = Fusion(channels)

    def forward(self, semantic: Tensor, spatial: Tensor) -> Tensor:
        """B×C×h×w and B×C×2h×2w to the shape of the second."""
        coarse = self.join_coarse(semantic * self.shrink(spatial))
        fine = self.join_fine(resized_like(semantic, spatial) * spatial)
        fused: Tensor = self.fuse(coarse, fine)
        return fused


class BoundaryRefinement(nn.Module):
    """BRM: region and outline are added, channels weighted by their means over the image, and two 3×3 convolutions.

    The layers have their published names, by which the published loop takes its feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attend = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv_1, self.bn_1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv_2, self.bn_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, region: Tensor, outline: Tensor) -> Tensor:
        """B×C×h×w and B×C×H×W to the shape of the second."""
        x = resized_like(region, outline) + outline
        x = x + x * self.attend(x.mean(dim=(2, 3), keepdim=True)).sigmoid()
        x = F.relu(self.bn_1(self.conv_1(x)))
        return F.relu(self.bn_2(self.conv_2(x)))


class CTDNet(SaliencyNetwork):
    """CTDNet-18, untrained.

    By default images are stretched up to multiples of 32, with `side` to a square; the published side is 352.

    Source: Zhao, Xia, Xie, Li, "Complementary Trilateral Decoder for Fast and Accurate Salient Object Detection", ACM
    MM 2021, with ResNet-18. It has the 11,825,368 parameters and, at 352×352, the 6.15 G operations that were measured
    on the public network; these are 6.11 G multiply-accumulates and 4 operations for each value of a batch norm. That
    cross aggregation ends in two convolutions was inferred from these figures. From which features the third to fifth
    map are made they do not tell; here all go from fine to coarse. The names of the layers are not the public ones but
    for `fuse23.bn_2`, so weights of the public network do not fit.

    Args:
        width: Multiplier of all channels, rounded up to multiples of 8.
        side: Height and width of the input in pixels, a multiple of 32; None keeps about those of the images.

    Raises:
        ConfigurationError: The width is not positive, or the side no multiple of 32.
    """

    def __init__(self, width: float = 1.0, *, side: int | None = None) -> None:
        super().__init__()
        if not 0 < width < math.inf:
            raise ConfigurationError(f"the width of CTDNet multiplies its channels and must be above 0, got {width}")
        if side is not None and (side <= 0 or side % STRIDE):
            raise ConfigurationError(f"the side of CTDNet's input must be a multiple of {STRIDE} pixels, got {side}")
        self.side = side
        widths = [8 * math.ceil(width * full / 8) for full in (64, 128, 256, 512)]
        channels = widths[0]
        self.encoder = ResNet18(widths)
        self.boundary = ConvNormAct(widths[0], channels, 1)
        self.spatial = SpatialAttention(widths[1], channels)
        self.semantic = ConvNormAct(widths[2], channels, 1)
        self.deepest = ConvNormAct(widths[3], channels, 1)
        self.overall = ConvNormAct(widths[3], channels, 1)
        self.fuse_deepest, self.fuse_semantic, self.fuse_boundary = (Fusion(channels) for _ in range(3))
        self.fuse12 = CrossAggregation(channels)
        self.fuse23 = BoundaryRefinement(channels)
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for _ in MAP_WEIGHTS)
        self.edge_head = nn.Conv2d(channels, 1, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Keeps the variance of what passes through the convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def view(self, height: int, width: int) -> View:
        """Stretched up to multiples of 32, or to a square."""
        if self.side is None:
            return View.to_multiple(height, width, STRIDE)
        return View.stretched(height, width, input_height=self.side, input_width=self.side)

    def prepare(self, images: Tensor, view: View) -> Tensor:
        """Images B×3×H×W in [0, 1] as the input B×3×H'×W', of mean about 0 and deviation about 1."""
        mean, deviation = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        return (view.show(images) - mean) / deviation

    def run(self, prepared: Tensor) -> tuple[Maps, Tensor]:
        """The six maps, and the feature B×C×H/4×W/4, which is not below 0 as the published loop takes it after ReLU.

        Raises:
            ConfigurationError: It is trained with one image, for which the mean of the whole image has no variance.
        """
        if self.training and len(prepared) < 2:
            raise ConfigurationError("CTDNet needs two images or more in a batch to be trained; call eval() to use it")
        # Convolutions of the CPU are much faster on channels_last, and what goes in decides for all of them.
        finest, fine, coarse, coarsest = self.encoder(prepared.contiguous(memory_format=torch.channels_last))
        overall = self.overall(coarsest.mean(dim=(2, 3), keepdim=True))
        deepest = self.fuse_deepest(overall, self.deepest(coarsest))
        semantic = self.fuse_semantic(deepest, self.semantic(coarse))
        spatial = self.spatial(fine)
        boundary = self.fuse_boundary(semantic, self.boundary(finest))
        region = self.fuse12(semantic, spatial)
        refined = self.fuse23(region, boundary)
        first, second, third, fourth, fifth = (
            head(feature)
            for head, feature in zip(self.heads, (refined, region, spatial, semantic, deepest), strict=True)
        )
        return Maps((first, second, third, fourth, fifth), self.edge_head(boundary)), refined

    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        """The loss of each image, (B,): of five saliency maps with weights 1 to 1/16, and of the edges with 1.

        All maps are brought to the size of the images.

        Raises:
            LabelError: An image has no saliency or edges in its target, or of another size than its own.
        """
        maps: Maps = outputs.raw
        masks, edges = (self._stack(targets, part, outputs.view, maps.edges.device) for part in ("saliency", "edges"))
        losses = [
            weight * map_loss(self._full(logits, outputs.view), masks)
            for weight, logits in zip(MAP_WEIGHTS, maps.saliency, strict=True)
        ]
        return torch.stack([*losses, cross_entropy(self._full(maps.edges, outputs.view), edges)]).sum(dim=0)

    @staticmethod
    def _full(logits: Tensor, view: View) -> Tensor:
        """Logits B×1×h×w in the size of the images, B×H×W."""
        return view.maps_to_image(logits.float())[:, 0]

    @staticmethod
    def _stack(targets: Sequence[Target], part: Part, view: View, device: torch.device) -> Tensor:
        found = labels(targets, part, device)
        for index, label in enumerate(found):
            if label.shape != (view.height, view.width):
                raise LabelError(
                    f"the {part} of image {index} of the batch have the shape {tuple(label.shape)}, "
                    f"its image has {view.height}×{view.width} pixels; labels must be of the size of their image"
                )
        return torch.stack(found).float()

    @torch.no_grad()
    def predict(self, outputs: Outputs) -> list[Prediction]:
        """The saliency of each pixel of each image. The finest map is enlarged as logits, as the loss sees it."""
        maps: Maps = outputs.raw
        return [Prediction(saliency=saliency) for saliency in self._full(maps.saliency[0], outputs.view).sigmoid()]


def resized_like(x: Tensor, other: Tensor) -> Tensor:
    """Features B×C×h×w in the size of others, bilinear; a single place is repeated."""
    if x.shape[-2:] in (other.shape[-2:], (1, 1)):
        return x
    return F.interpolate(x, other.shape[-2:], mode="bilinear", align_corners=False)


def map_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The loss of one saliency map for each image, (B,): 1 - IoU of the soft masks plus 0.6 times the cross-entropy.

    One pixel is added to intersection and union.

    Args:
        logits: B×H×W.
        masks: B×H×W in [0, 1].
    """
    saliency = logits.sigmoid()
    common = (saliency * masks).sum(dim=(1, 2))
    union = (saliency + masks).sum(dim=(1, 2)) - common
    return 1 - (common + 1) / (union + 1) + CROSS_ENTROPY_WEIGHT * cross_entropy(logits, masks)


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """The mean cross-entropy of the pixels of each image, (B,), from B×H×W."""
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=(1, 2))
