"""YOLOv5, the detector with which CLDyN closes its loop, written from its published description.

A backbone of cross-stage partial blocks (C3), pyramid pooling (SPPF), a neck that passes features down and up again
(PAN), and a 1×1 convolution at each of the strides 8, 16 and 32 that says for three anchors a cell: box, objectness,
classes. A box is decoded from t as centre (2σ(t) - 1/2 + cell) · stride and size (2σ(t))² · anchor. What is fed back is
the output of the last C3 block, at stride 32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.pairs.colour import rgb_to_ycbcr
from fuseloop.tasks.detection.anchors import assign, cluster_sizes, fit_of
from fuseloop.tasks.detection.boxes import complete_iou, suppress, to_centres, to_corners
from fuseloop.tasks.kinds import Detector
from fuseloop.tasks.protocol import Outputs, Prediction, Target, View, labels

STRIDES = (8, 16, 32)

COCO_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Published anchors: width and height in pixels of a 640 pixel input, three for each stride."""

GREY = 114 / 255
"""What fills the border of a letterbox."""


class Size(NamedTuple):
    """Multipliers of the repeated blocks and of the channels of size `l`."""

    depth: float
    width: float


SIZES = {
    "n": Size(1 / 3, 1 / 4),
    "s": Size(1 / 3, 1 / 2),
    "m": Size(2 / 3, 3 / 4),
    "l": Size(1, 1),
    "x": Size(4 / 3, 5 / 4),
}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss.

    Attributes:
        box: Of 1 - CIoU of the boxes.
        objectness: Of the objectness of all cells of a 640×640 input; smaller inputs have fewer cells and get less.
        classification: Of the classes, if there were 80 of them; fewer get less.
        scales: Of the objectness at strides 8, 16 and 32.
    """

    box: float = 0.05
    objectness: float = 1.0
    classification: float = 0.5
    scales: tuple[float, float, float] = (4.0, 1.0, 0.4)


@dataclass(frozen=True)
class Selection:
    """Which boxes are predictions. The defaults are those for scoring, where even faint boxes count.

    Attributes:
        score_threshold: Objectness times class probability must be above this.
        nms_iou: A box whose IoU with a better one of its class is above this is suppressed.
        candidates: So many of the best boxes are looked at.
        limit: So many are left at most.
    """

    score_threshold: float = 0.001
    nms_iou: float = 0.6
    candidates: int = 10_000
    limit: int = 300


class ConvNormAct(nn.Module):
    """Convolution that keeps the size or halves it, batch norm, SiLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W."""
        return F.silu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """1×1 and 3×3 convolution, around which the input may be added."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNormAct(channels, channels), ConvNormAct(channels, channels, 3))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to the same shape."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class CrossStage(nn.Module):
    """C3: half of the channels go through bottlenecks, half go past them.

    The two 1×1 convolutions that make the halves are one here, with the same parameters.
    """

    def __init__(self, inputs: int, outputs: int, repeats: int, *, residual: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.divide = ConvNormAct(inputs, 2 * half)
        self.blocks = nn.Sequential(*(Bottleneck(half, residual=residual) for _ in range(repeats)))
        self.unite = ConvNormAct(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to as many outputs."""
        through, past = self.divide(x).chunk(2, dim=1)
        united: Tensor = self.unite(torch.cat([self.blocks(through), past], dim=1))
        return united


class PyramidPooling(nn.Module):
    """SPPF: maxima over 5×5, 9×9 and 13×13 pixels, made by pooling three times, beside the features themselves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, channels // 2)
        self.unite = ConvNormAct(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to the same shape."""
        levels = [self.reduce(x)]
        for _ in range(3):
            levels.append(F.max_pool2d(levels[-1], 5, stride=1, padding=2))
        united: Tensor = self.unite(torch.cat(levels, dim=1))
        return united


class Backbone(nn.Module):
    """Features at strides 8, 16 and 32."""

    def __init__(self, channels: int, widths: Sequence[int], repeats: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvNormAct(channels, widths[0], 6, stride=2, padding=2)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNormAct(before, after, 3, stride=2), CrossStage(after, after, repeat, residual=True))
            for before, after, repeat in zip(widths[:-1], widths[1:], repeats, strict=True)
        )
        self.pooling = PyramidPooling(widths[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """B×C×H×W, sides divisible by 32."""
        x = self.stem(x)
        _, fine, middle, coarse = [x := stage(x) for stage in self.stages]
        return fine, middle, self.pooling(coarse)


class Neck(nn.Module):
    """PAN: coarse features are handed down to fine ones, and what these found is handed up again."""

    def __init__(self, fine: int, middle: int, coarse: int, repeats: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> CrossStage:
            return CrossStage(inputs, outputs, repeats, residual=False)

        self.narrow_coarse, self.join_middle = ConvNormAct(coarse, middle), block(2 * middle, middle)
        self.narrow_middle, self.join_fine = ConvNormAct(middle, fine), block(2 * fine, fine)
        self.shrink_fine, self.refine_middle = ConvNormAct(fine, fine, 3, stride=2), block(2 * fine, middle)
        self.shrink_middle, self.refine_coarse = ConvNormAct(middle, middle, 3, stride=2), block(2 * middle, coarse)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8, 16 and 32 to the same shapes."""
        coarse = self.narrow_coarse(coarse)
        middle = self.narrow_middle(self.join_middle(torch.cat([_twice(coarse), middle], dim=1)))
        fine = self.join_fine(torch.cat([_twice(middle), fine], dim=1))
        middle = self.refine_middle(torch.cat([self.shrink_fine(fine), middle], dim=1))
        coarse = self.refine_coarse(torch.cat([self.shrink_middle(middle), coarse], dim=1))
        return fine, middle, coarse


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Labels(NamedTuple):
    """The boxes of a batch.

    Attributes:
        image: Index of the image that each is of, N.
        boxes: N×4 corners in pixels of the input.
        classes: N.
    """

    image: Tensor
    boxes: Tensor
    classes: Tensor


class YOLOv5(Detector):
    """YOLOv5 in any size, untrained.

    By default images are stretched up to multiples of 32, as CLDyN does; with `letterbox` their longer side gets that
    length and their aspect stays. Nothing is normalised. A network of one channel sees the luma of the images.

    Source: the architecture of release 6, docs.ultralytics.com/yolov5. Size s has 7,235,389 parameters with 80 classes
    and 7,035,811 with 6.

    Args:
        classes: Names of the classes.
        size: One of `SIZES`, or multipliers of one's own.
        channels: 3 for RGB, 1 for luma.
        letterbox: Length of the longer side of the input in pixels, None to stretch.
        anchors: 3×3×2 widths and heights in pixels of the input, from stride 8 to 32. They are in the state dictionary.
        loss_weights: Weights of the terms of the loss.
        selection: Which boxes are predictions.

    Raises:
        ConfigurationError: The size, the number of channels or the shape of the anchors is none of these.
    """

    def __init__(
        self,
        classes: Sequence[str],
        size: str | Size = "s",
        *,
        channels: int = 3,
        letterbox: int | None = None,
        anchors: Tensor | Sequence[Sequence[Sequence[float]]] = COCO_ANCHORS,
        loss_weights: LossWeights = LossWeights(),
        selection: Selection = Selection(),
    ) -> None:
        super().__init__()
        if isinstance(size, str) and size not in SIZES:
            raise ConfigurationError(f"YOLOv5 has no size {size!r}; choose one of {', '.join(SIZES)}")
        if channels not in (1, 3):
            raise ConfigurationError(f"YOLOv5 sees 3 channels (RGB) or 1 (luma), not {channels}")
        depth, width = SIZES[size] if isinstance(size, str) else size
        widths = [8 * math.ceil(width * full / 8) for full in (64, 128, 256, 512, 1024)]
        repeats = [max(1, round(depth * full)) for full in (3, 6, 9, 3)]
        self.classes = tuple(classes)
        self.channels, self.letterbox, self.loss_weights, self.selection = channels, letterbox, loss_weights, selection
        self.backbone = Backbone(channels, widths, repeats)
        self.neck = Neck(widths[2], widths[3], widths[4], repeats[0])
        self.head = nn.ModuleList(nn.Conv2d(inputs, 3 * (5 + len(self.classes)), 1) for inputs in widths[2:])
        self.anchors: Tensor
        self.register_buffer("anchors", torch.as_tensor(anchors, dtype=torch.float32).clone())
        if self.anchors.shape != (3, 3, 2):
            raise ConfigurationError(f"YOLOv5 needs anchors of shape 3×3×2, got {tuple(self.anchors.shape)}")
        self._expect_few_objects()

    @torch.no_grad()
    def _expect_few_objects(self) -> None:
        """Sets the biases of the head so that training begins with the belief in a few objects an image."""
        for level, stride in zip(self.head, STRIDES, strict=True):
            bias = cast(nn.Conv2d, level).bias
            assert bias is not None
            by_anchor = bias.view(3, -1)
            by_anchor[:, 4] = torch.logit(torch.tensor(8 / (640 / stride) ** 2))
            by_anchor[:, 5:] = torch.logit(torch.tensor(0.6 / len(self.classes)))

    def fit_anchors(self, sizes: Tensor, *, recall: float = 0.98) -> str:
        """Replaces the anchors by clusters of the boxes of a data set, where too few of these fit the ones it has.

        Args:
            sizes: N×2 widths and heights in pixels of the input.
            recall: Share of the boxes that must fit for the anchors to stay.

        Returns:
            What was done, to be told.
        """
        before = fit_of(self.anchors.cpu(), sizes)
        if before.recall >= recall:
            return f", anchors kept: they fit {before.recall:.1%} of the boxes"
        anchors = cluster_sizes(sizes, 9)
        after = fit_of(anchors, sizes)
        if after.recall <= before.recall:
            return f", anchors kept: clusters do not fit more than their {before.recall:.1%} of the boxes"
        self.anchors.copy_(anchors.view(3, 3, 2))
        return f", anchors made of {len(sizes):,} boxes: they fit {after.recall:.1%}, before {before.recall:.1%}"

    @property
    def score_threshold(self) -> float:
        """See `Selection`."""
        return self.selection.score_threshold

    @property
    def nms_iou(self) -> float:
        """See `Selection`."""
        return self.selection.nms_iou

    def view(self, height: int, width: int) -> View:
        """Stretched up to multiples of 32, or letterboxed."""
        if self.letterbox is None:
            return View.to_multiple(height, width, STRIDES[-1])
        return View.letterboxed(height, width, side=self.letterbox, stride=STRIDES[-1])

    def prepare(self, images: Tensor, view: View) -> Tensor:
        """Images B×3×H×W in [0, 1] as the input, B×C×H'×W', grey around them in a letterbox."""
        if self.channels == 1:
            images = rgb_to_ycbcr(images)[:, :1]
        return view.show(images, fill=GREY)

    def run(self, prepared: Tensor) -> tuple[list[Tensor], Tensor]:
        """Three tensors B×3×h×w×(5 + classes) for strides 8, 16, 32, and the feature B×C×H/32×W/32."""
        # Convolutions of the CPU are much faster on channels_last, and what goes in decides for all of them.
        features = self.neck(*self.backbone(prepared.contiguous(memory_format=torch.channels_last)))
        raw = [
            level(feature).unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2)
            for level, feature in zip(self.head, features, strict=True)
        ]
        return raw, features[-1]

    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        """The loss of each image, (B,): the sum over three scales of the box, class and objectness terms.

        Box and class terms are means over the boxes of the image that a scale answers for; the published ones are means
        over those of the whole batch, times its size. An image without boxes has objectness alone.

        Raises:
            LabelError: An image has no boxes in its target, or a class id that the network does not know.
        """
        wanted = self._stack(targets, outputs.view)
        losses = [
            self._scale_loss(raw.float(), wanted, anchors, stride, balance)
            for raw, anchors, stride, balance in zip(
                outputs.raw, self.anchors, STRIDES, self.loss_weights.scales, strict=True
            )
        ]
        return torch.stack(losses).sum(dim=0)

    def _stack(self, targets: Sequence[Target], view: View) -> Labels:
        device = self.anchors.device
        boxes = [boxes.float().reshape(-1, 4) for boxes in labels(targets, "boxes", device)]
        classes = torch.cat(labels(targets, "classes", device))
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < len(self.classes):
            raise LabelError(f"class ids of {len(self.classes)} classes begin at 0, got {sorted({*classes.tolist()})}")
        image = torch.tensor([index for index, of_image in enumerate(boxes) for _ in of_image], device=device).long()
        return Labels(image, view.boxes_to_input(torch.cat(boxes)), classes)

    def _scale_loss(self, raw: Tensor, wanted: Labels, anchors: Tensor, stride: int, balance: float) -> Tensor:
        """The loss of each image at one scale, (B,)."""
        weights, (count, _, rows, columns, _) = self.loss_weights, raw.shape
        box, anchor, row, column = assign(to_centres(wanted.boxes), anchors, stride, rows, columns)
        image = wanted.image[box]
        said = raw[image, anchor, row, column]
        found = decode(said[:, :4], anchors[anchor], torch.stack([column, row], dim=1), stride)
        overlap = complete_iou(to_corners(found), wanted.boxes[box])
        classes = F.one_hot(wanted.classes[box], len(self.classes)).float()
        mistakes = F.binary_cross_entropy_with_logits(said[:, 5:], classes, reduction="none").mean(dim=1)
        class_weight = weights.classification * len(self.classes) / 80
        of_boxes = _mean_by_image(weights.box * (1 - overlap) + class_weight * mistakes, image, count)

        # A cell that answers for several boxes is to know how well it does for the best.
        cell = ((image * 3 + anchor) * rows + row) * columns + column
        quality = raw.new_zeros(raw[..., 4].numel()).scatter_reduce(0, cell, overlap.detach().clamp(min=0), "amax")
        objectness = F.binary_cross_entropy_with_logits(
            raw[..., 4], quality.view(raw.shape[:-1]), reduction="none"
        ).mean(dim=(1, 2, 3))
        share = rows * columns * stride**2 / 640**2
        return of_boxes + weights.objectness * share * balance * objectness

    @torch.no_grad()
    def predict(self, outputs: Outputs) -> list[Prediction]:
        """Boxes of each image after suppression, in pixels of the image."""
        boxes, scores = zip(*map(self._decode_scale, outputs.raw, self.anchors, STRIDES), strict=True)
        images = zip(torch.cat(boxes, dim=1), torch.cat(scores, dim=1), strict=True)
        return [select(outputs.view.boxes_to_image(b), s, self.selection) for b, s in images]

    def _decode_scale(self, raw: Tensor, anchors: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """All boxes of a scale, B×N×4 in pixels of the input, and their scores for each class, B×N×C."""
        raw = raw.float()
        rows, columns = (torch.arange(length, device=raw.device) for length in raw.shape[2:4])
        cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        centres = decode(raw[..., :4], anchors[:, None, None], cells, stride)
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()
        return to_corners(centres).flatten(1, 3), scores.flatten(1, 3)


def decode(raw: Tensor, anchors: Tensor, cells: Tensor, stride: int) -> Tensor:
    """Boxes ...×4 (x, y, width, height) in pixels of the input.

    Args:
        raw: ...×4 as the head gives them.
        anchors: ...×2 in pixels.
        cells: ...×2 column and row.
        stride: Pixels from cell to cell.
    """
    middle, size = (2 * raw.sigmoid()).chunk(2, dim=-1)
    return torch.cat([(middle - 0.5 + cells) * stride, size.square() * anchors], dim=-1)


def select(boxes: Tensor, scores: Tensor, selection: Selection) -> Prediction:
    """The predictions of one image from boxes N×4 and their scores for each class N×C; a box may be of several."""
    box, name = (scores > selection.score_threshold).nonzero(as_tuple=True)
    found = scores[box, name]
    best = found.argsort(descending=True, stable=True)[: selection.candidates]
    box, name, found = box[best], name[best], found[best]
    stay = suppress(boxes[box], found, name, threshold=selection.nms_iou, limit=selection.limit)
    return Prediction(boxes=boxes[box[stay]], classes=name[stay], scores=found[stay])


def _mean_by_image(values: Tensor, image: Tensor, count: int) -> Tensor:
    """The mean of the values of each image, 0 where there are none."""
    sums = values.new_zeros(count).index_add(0, image, values)
    return sums / image.bincount(minlength=count).clamp(min=1)
