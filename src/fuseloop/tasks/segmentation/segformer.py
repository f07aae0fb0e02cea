"""SegFormer, the segmenter with which CLDyN closes its loop, built from its configuration in `transformers`.

Four stages of transformer blocks, whose attention sees keys and values reduced, give features at strides 4, 8, 16
and 32; a head of linear layers joins them at stride 4. What is fed back is the output of the last stage's final layer
norm. Nothing is downloaded.

Source: Xie et al., SegFormer, NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError
from fuseloop.tasks.kinds import Segmenter
from fuseloop.tasks.protocol import Outputs, Prediction, Target, View
from fuseloop.tasks.segmentation.maps import likeliest, pixel_losses

STRIDE = 32

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""Mean and deviation of RGB in 0..255, of ImageNet."""


class Size(NamedTuple):
    """What makes a size.

    Attributes:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        head: Channels of the head.
        heads: Attention heads of each stage.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    head: int
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)


_WIDE = (64, 128, 320, 512)
SIZES = {
    "b0": Size((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "b1": Size((2, 2, 2, 2), _WIDE, 256),
    "b2": Size((3, 4, 6, 3), _WIDE, 768),
    "b3": Size((3, 4, 18, 3), _WIDE, 768),
    "b4": Size((3, 8, 27, 3), _WIDE, 768),
    "b5": Size((3, 6, 40, 3), _WIDE, 768),
}


class SegFormer(Segmenter):
    """SegFormer in any size, untrained.

    Images are stretched up to multiples of 32 and normalised by the mean and deviation of ImageNet. The feature is a
    map, B×C×H/32×W/32, as a detector's is; CLDyN's code feeds the same numbers back as tokens, B×N×C, so that its
    layout differs from task to task.

    Source: sizes of table 6 of the publication. With 150 classes, b0 to b5 have 3.8, 13.7, 27.5, 47.3, 64.1 and 84.7
    million parameters.

    Args:
        classes: Names of the classes, the background first.
        size: One of `SIZES`, or a size of one's own.
        class_weights: What the pixels of each class weigh in the loss, None for 1. Where nearly everything is
            background, more for the others makes them be learned.
        drop_path: Share of the last block's images that skip it in training; the share of the blocks before falls to 0.
        dropout: Share of the head's channels that are dropped in training.

    Raises:
        ConfigurationError: The size is unknown, or the weights are not one positive number a class.
    """

    def __init__(
        self,
        classes: Sequence[str],
        size: str | Size = "b0",
        *,
        class_weights: Sequence[float] | None = None,
        drop_path: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        from transformers import SegformerConfig, SegformerForSemanticSegmentation  # slow to import

        super().__init__()
        if isinstance(size, str) and size not in SIZES:
            raise ConfigurationError(f"SegFormer has no size {size!r}; choose one of {', '.join(SIZES)}")
        chosen = SIZES[size] if isinstance(size, str) else size
        self.classes = tuple(classes)
        config = SegformerConfig(
            depths=list(chosen.depths),
            hidden_sizes=list(chosen.widths),
            num_attention_heads=list(chosen.heads),
            decoder_hidden_size=chosen.head,
            drop_path_rate=drop_path,
            classifier_dropout_prob=dropout,
            id2label=dict(enumerate(self.classes)),
        )
        self.network: nn.Module = SegformerForSemanticSegmentation(config)
        initialise(self.network)
        nn.init.normal_(self.network.decode_head.classifier.weight, std=0.01)
        self.mean: Tensor
        self.std: Tensor
        self.class_weights: Tensor | None
        # Constants: they come with the class, or with the arguments, and not with the weights.
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("class_weights", checked_weights(class_weights, len(self.classes)), persistent=False)

    def view(self, height: int, width: int) -> View:
        """Stretched up to multiples of 32."""
        return View.to_multiple(height, width, STRIDE)

    def prepare(self, images: Tensor, view: View) -> Tensor:
        """Images B×3×H×W in [0, 1] as the input, B×3×H'×W', normalised."""
        return (view.show(images) - self.mean) / self.std

    def run(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Logits B×C×H/4×W/4 and the feature B×C×H/32×W/32."""
        network: Any = self.network
        features = network.segformer(prepared, output_hidden_states=True).hidden_states
        return logits(network.decode_head, features), features[-1]

    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        """The cross-entropy of each image at its own resolution, (B,); see `pixel_losses`.

        Raises:
            LabelError: See `masks_like`.
        """
        return pixel_losses(outputs.raw, targets, outputs.view, self.class_weights)

    def predict(self, outputs: Outputs) -> list[Prediction]:
        """The likeliest class of every pixel."""
        return likeliest(outputs.raw, outputs.view)


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Random weights for training from scratch, as published.

    Those of `transformers` are for fine-tuning: its depth-wise convolutions, 9 weights with a deviation of .02, pass
    nearly nothing on, and the network learns no more than how frequent each class is.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            leaving = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2 / leaving) ** 0.5)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def logits(head: Any, features: Sequence[Tensor]) -> Tensor:
    """What the decoding head of `transformers` makes of the features of the stages, for half of the network's work.

    The head brings each stage to 256 channels by a linear layer, magnifies it to stride 4, and joins the 1,024 channels
    by another. Magnifying commutes with a linear layer of each pixel, so the two layers of a stage are one, at its own
    resolution.

    Args:
        head: The head.
        features: Maps B×C×h×w of each stage, the finest first.

    Returns:
        B×classes×h×w at the resolution of the finest.
    """
    parts = head.linear_fuse.weight[:, :, 0, 0].chunk(len(features), dim=1)[::-1]  # the coarsest is joined first
    size = features[0].shape[2:]
    joined: Tensor | None = None
    for part, layer, feature in zip(parts, head.linear_projections, features, strict=True):
        weight, bias = part @ layer.proj.weight, part @ layer.proj.bias
        # What goes in decides for all of the head that channels are last, with which magnifying is far quicker.
        stage = F.conv2d(feature.contiguous(memory_format=torch.channels_last), weight[:, :, None, None], bias)
        joined = stage if joined is None else joined + F.interpolate(stage, size, mode="bilinear", align_corners=False)
    hidden = head.activation(head.batch_norm(joined))
    # Whole channels, as published; `transformers` drops single values, whose draws would cost more than the head.
    dropped: Tensor = head.classifier(F.dropout2d(hidden, head.dropout.p, head.training))
    return dropped


def checked_weights(weights: Sequence[float] | None, classes: int) -> Tensor | None:
    """Weights of classes as a tensor.

    Raises:
        ConfigurationError: They are not one positive number a class.
    """
    if weights is None:
        return None
    tensor = torch.tensor([float(weight) for weight in weights])
    if len(tensor) != classes or not ((tensor > 0) & tensor.isfinite()).all():
        raise ConfigurationError(f"class_weights are one positive number for each of {classes} classes, got {weights}")
    return tensor
