"""DETR and RT-DETR, detectors that say a set of boxes without suppression, from the building blocks of `transformers`.

Nothing is downloaded: they are built from a configuration, untrained, and small, since they are to be trained from
scratch on little data. So their batch norms learn, as does every layer, where `transformers` expects a backbone that
was trained before and freezes parts of it.

DETR (Carion et al. 2020, arXiv 2005.12872): a ResNet, a transformer over its cells at stride 32, and queries that are
learned. What is fed back is the encoder's last hidden state. RT-DETR (Zhao et al. 2023, arXiv 2304.08069): a ResNet, an
encoder that mixes the strides 8, 16 and 32, the best cells of which are the queries, and a decoder with deformable
attention. What is fed back is the encoder's map at stride 32.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError
from fuseloop.tasks.detection.boxes import to_corners
from fuseloop.tasks.detection.set_loss import Truth, Weights, cell_loss, focal_set_loss, softmax_set_loss
from fuseloop.tasks.kinds import Detector
from fuseloop.tasks.protocol import Outputs, Prediction, Target, View

STRIDE = 32
CELLS_IN_STRIDE = 4 * 4 + 2 * 2 + 1
"""Cells of RT-DETR's encoder, of the strides 8, 16 and 32, in 32×32 pixels of the input."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the images that DETR was published with."""


class Size(NamedTuple):
    """What decides how large a network is.

    Attributes:
        stem: Channels before the first stage of the ResNet.
        widths: Channels of its stages, at strides 4, 8, 16 and 32.
        depths: Blocks of two 3×3 convolutions of each stage.
        hidden: Channels of encoder and decoder.
        heads: Of the attention; `hidden` is a multiple.
        feed_forward: Channels within the layers of encoder and decoder.
        encoder_layers: With attention.
        decoder_layers: Each says boxes, which the next one mends.
        queries: So many boxes are said.
    """

    stem: int
    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    hidden: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    queries: int


DETR_SIZE = Size(64, (64, 128, 256, 384), (2, 2, 2, 2), 256, 8, 1024, 3, 3, 100)
RTDETR_SIZE = Size(64, (64, 128, 256, 256), (2, 2, 2, 2), 128, 4, 512, 1, 3, 300)


@dataclass(frozen=True)
class Choice:
    """Which of the boxes said are predictions. The defaults are those for scoring, where even faint boxes count.

    Attributes:
        score_threshold: The score must be above this.
        limit: So many are left at most.
    """

    score_threshold: float = 0.001
    limit: int = 300


class SetDetector(Detector):
    """What DETR and RT-DETR share: how they see images, and that there is no suppression."""

    net: nn.Module
    size: Size
    choice: Choice

    @property
    def score_threshold(self) -> float:
        """See `Choice`."""
        return self.choice.score_threshold

    @property
    def nms_iou(self) -> None:
        """None: a set has no box twice."""
        return

    def view(self, height: int, width: int) -> View:
        """Stretched up to multiples of 32."""
        return View.to_multiple(height, width, STRIDE)

    def truth(self, outputs: Outputs, targets: Sequence[Target]) -> Truth:
        """The objects, as shares of the input."""
        return Truth.of(targets, outputs.view, len(self.classes), outputs.feature.device)

    @torch.no_grad()
    def predict(self, outputs: Outputs) -> list[Prediction]:
        """Boxes of each image, in pixels of the image."""
        view = outputs.view
        boxes, scores = self.last(outputs.raw)
        corners = to_corners(boxes) * boxes.new_tensor([view.input_width, view.input_height] * 2)
        return [
            choose(view.boxes_to_image(of_image), of_boxes, self.choice)
            for of_image, of_boxes in zip(corners, scores, strict=True)
        ]

    @abstractmethod
    def last(self, raw: Any) -> tuple[Tensor, Tensor]:
        """What the last layer says: boxes B×Q×4 (x, y, width, height) as shares of the input, scores B×Q×C."""


class Layers(NamedTuple):
    """What the layers of a decoder say, in float32.

    Attributes:
        logits: L×B×Q×C, for DETR C + 1.
        boxes: L×B×Q×4, (x, y, width, height) as shares of the input.
    """

    logits: Tensor
    boxes: Tensor


class DETR(SetDetector):
    """DETR with a small ResNet, untrained.

    Images are stretched up to multiples of 32.

    Args:
        classes: Names of the classes.
        size: How large it is.
        dropout: Share of the features that are left out in training.
        no_object: Weight of "no object" among the classes.
        choice: Which boxes are predictions.

    Raises:
        ConfigurationError: The hidden channels cannot be shared by the heads.
    """

    def __init__(
        self,
        classes: Sequence[str],
        size: Size = DETR_SIZE,
        *,
        dropout: float = 0.1,
        no_object: float = 0.1,
        choice: Choice = Choice(),
    ) -> None:
        # Imported where it is used: `import fuseloop` is to be quick.
        import transformers

        super().__init__()
        _check(size)
        make = cast(Any, transformers)  # its configurations take more than their types say
        self.classes = tuple(classes)
        self.size, self.no_object, self.choice = size, no_object, choice
        backbone = make.ResNetConfig(
            embedding_size=size.stem,
            hidden_sizes=list(size.widths),
            depths=list(size.depths),
            layer_type="basic",
            out_features=["stage4"],
        )
        self.net = make.DetrForObjectDetection(
            make.DetrConfig(
                backbone_config=backbone,
                num_labels=len(self.classes),
                num_queries=size.queries,
                d_model=size.hidden,
                encoder_layers=size.encoder_layers,
                decoder_layers=size.decoder_layers,
                encoder_attention_heads=size.heads,
                decoder_attention_heads=size.heads,
                encoder_ffn_dim=size.feed_forward,
                decoder_ffn_dim=size.feed_forward,
                dropout=dropout,
                auxiliary_loss=True,
            )
        )
        let_learn(self.net)
        initialise(self.net)

    def prepare(self, images: Tensor, view: View) -> Tensor:
        """Images B×3×H×W in [0, 1] as the input, with the published mean and deviation."""
        mean, deviation = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        return (view.show(images) - mean) / deviation

    def run(self, prepared: Tensor) -> tuple[Layers, Tensor]:
        """What every layer of the decoder says, and the feature B×C×H/32×W/32."""
        net = cast(Any, self.net)
        model = net.model
        features = model.backbone.model(prepared.contiguous(memory_format=torch.channels_last)).feature_maps[-1]
        features = model.input_projection(features)
        places = model.position_embedding(shape=features.shape, device=prepared.device, dtype=prepared.dtype)
        places = places.flatten(2).transpose(1, 2)
        encoded = model.encoder(
            inputs_embeds=features.flatten(2).transpose(1, 2), spatial_position_embeddings=places
        ).last_hidden_state
        queries = model.query_position_embeddings.weight.expand(len(prepared), -1, -1)
        decoded = model.decoder(
            inputs_embeds=torch.zeros_like(queries),
            encoder_hidden_states=encoded,
            spatial_position_embeddings=places,
            object_queries_position_embeddings=queries,
        ).intermediate_hidden_states
        with full_precision(prepared.device):
            decoded = decoded.to(prepared.dtype)
            said = Layers(net.class_labels_classifier(decoded), net.bbox_predictor(decoded).sigmoid())
        return said, encoded.transpose(1, 2).unflatten(2, features.shape[-2:])

    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        """The loss of each image, (B,): classes, distance and GIoU of the matched boxes, summed over the layers.

        Terms of boxes are means over the boxes of the image; the published ones are over those of the batch.

        Raises:
            LabelError: An image has no boxes in its target, or a class id that the network does not know.
        """
        logits, boxes = outputs.raw
        truth = self.truth(outputs, targets)
        return softmax_set_loss(logits, boxes, truth, costs=Weights(), weights=Weights(), no_object=self.no_object)

    def last(self, raw: Layers) -> tuple[Tensor, Tensor]:
        """See `SetDetector.last`; a query says its most probable class alone."""
        scores = raw.logits[-1].softmax(dim=-1)[..., :-1]
        return raw.boxes[-1], torch.where(scores == scores.amax(dim=-1, keepdim=True), scores, 0)


class Said(NamedTuple):
    """What RT-DETR says.

    Attributes:
        layers: Of the decoder.
        logits: B×A×C, of all cells of the encoder, from stride 8 to 32.
        boxes: B×A×4, of these.
    """

    layers: Layers
    logits: Tensor
    boxes: Tensor


class RTDETR(SetDetector):
    """RT-DETR with a small ResNet, untrained.

    Images are stretched up to multiples of 32; such as have fewer cells than there are queries are magnified.

    Args:
        classes: Names of the classes.
        size: How large it is.
        choice: Which boxes are predictions.

    Raises:
        ConfigurationError: The hidden channels cannot be shared by the heads.
    """

    def __init__(self, classes: Sequence[str], size: Size = RTDETR_SIZE, *, choice: Choice = Choice()) -> None:
        # Imported where it is used: `import fuseloop` is to be quick.
        import transformers

        super().__init__()
        _check(size)
        make = cast(Any, transformers)  # its configurations take more than their types say
        self.classes = tuple(classes)
        self.size, self.choice = size, choice
        backbone = make.RTDetrResNetConfig(
            embedding_size=size.stem,
            hidden_sizes=list(size.widths),
            depths=list(size.depths),
            layer_type="basic",
            out_indices=[2, 3, 4],
        )
        self.net = make.RTDetrForObjectDetection(
            make.RTDetrConfig(
                backbone_config=backbone,
                freeze_backbone_batch_norms=False,
                num_labels=len(self.classes),
                num_queries=size.queries,
                num_denoising=0,
                encoder_in_channels=list(size.widths[1:]),
                decoder_in_channels=[size.hidden] * 3,
                encoder_hidden_dim=size.hidden,
                d_model=size.hidden,
                encoder_layers=size.encoder_layers,
                decoder_layers=size.decoder_layers,
                encoder_attention_heads=size.heads,
                decoder_attention_heads=size.heads,
                encoder_ffn_dim=size.feed_forward,
                decoder_ffn_dim=size.feed_forward,
            )
        )
        let_learn(self.net)
        initialise(self.net)
        self._begin_as_published()

    @torch.no_grad()
    def _begin_as_published(self) -> None:
        """Few objects are expected, boxes begin where their cells are, and attention looks around them evenly."""
        model = cast(Any, self.net).model
        for head in (model.enc_score_head, *model.decoder.class_embed):
            head.bias.fill_(torch.logit(torch.tensor(0.01)))
        for head in (model.enc_bbox_head, *model.decoder.bbox_embed):
            head.layers[-1].weight.zero_()
            head.layers[-1].bias.zero_()
        for layer in model.decoder.layers:
            attention = layer.encoder_attn
            angle = torch.arange(attention.n_heads) * (2 * math.pi / attention.n_heads)
            ways = torch.stack([angle.cos(), angle.sin()], dim=1)
            ways = ways / ways.abs().amax(dim=1, keepdim=True)
            steps = torch.arange(1, attention.n_points + 1)
            places = (ways[:, None, None] * steps[:, None]).expand(-1, attention.n_levels, -1, -1)
            attention.sampling_offsets.weight.zero_()
            attention.sampling_offsets.bias.copy_(places.flatten())
            attention.attention_weights.weight.zero_()

    def view(self, height: int, width: int) -> View:
        """Stretched up to multiples of 32, and magnified where there are fewer cells than queries."""
        view = View.to_multiple(height, width, STRIDE)
        cells = CELLS_IN_STRIDE * (view.input_height // STRIDE) * (view.input_width // STRIDE)
        if cells >= self.size.queries:
            return view
        times = math.ceil(math.sqrt(self.size.queries / cells))
        return View.stretched(
            height, width, input_height=times * view.input_height, input_width=times * view.input_width
        )

    def prepare(self, images: Tensor, view: View) -> Tensor:
        """Images B×3×H×W in [0, 1] as the input; nothing is normalised."""
        return view.show(images)

    def run(self, prepared: Tensor) -> tuple[Said, Tensor]:
        """What the cells of the encoder and every layer of the decoder say, and the feature B×C×H/32×W/32."""
        net = cast(Any, self.net)
        model = net.model
        features = model.backbone.model(prepared.contiguous(memory_format=torch.channels_last)).feature_maps
        projected = [project(level) for project, level in zip(model.encoder_input_proj, features, strict=True)]
        maps = [level.to(prepared.dtype) for level in model.encoder(projected).last_hidden_state]
        with full_precision(prepared.device):
            said = net(pixel_values=None, inputs_embeds=maps[0], encoder_outputs=(maps,))
        layers = Layers(said.intermediate_logits.transpose(0, 1), said.intermediate_reference_points.transpose(0, 1))
        return Said(layers, said.enc_outputs_class, said.enc_outputs_coord_logits.sigmoid()), maps[-1]

    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        """The loss of each image, (B,): that of every layer of the decoder, and that of the cells of the encoder.

        The published encoder is taught by its best cells alone, each object by one; here each object is taught to the
        ten cells that suit it best, as in RT-DETRv3 (Wang et al. 2024, arXiv 2409.08475), which learns from little data
        much sooner.

        Raises:
            LabelError: An image has no boxes in its target, or a class id that the network does not know.
        """
        said: Said = outputs.raw
        truth, view = self.truth(outputs, targets), outputs.view
        costs, weights = Weights(classification=2.0), Weights()
        decoder = focal_set_loss(said.layers.logits, said.layers.boxes, truth, costs=costs, weights=weights)
        cells = centres_of_cells(view.input_height, view.input_width, said.boxes)
        reach = said.boxes.new_tensor([8 / view.input_width, 8 / view.input_height])
        return decoder + cell_loss(said.logits, said.boxes, cells, reach, truth, weights=weights)

    def last(self, raw: Said) -> tuple[Tensor, Tensor]:
        """See `SetDetector.last`."""
        return raw.layers.boxes[-1], raw.layers.logits[-1].sigmoid()


def centres_of_cells(height: int, width: int, like: Tensor) -> Tensor:
    """The centres of all cells at the strides 8, 16 and 32 as shares of the input, A×2 (x, y), row by row."""
    levels = []
    for stride in (8, 16, 32):
        rows, columns = (
            (torch.arange(length // stride, dtype=like.dtype, device=like.device) + 0.5) * (stride / length)
            for length in (height, width)
        )
        levels.append(torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1))
    return torch.cat(levels)


def choose(boxes: Tensor, scores: Tensor, choice: Choice) -> Prediction:
    """The predictions of one image from boxes N×4 and their scores for each class N×C; a box may be of several."""
    box, name = (scores > choice.score_threshold).nonzero(as_tuple=True)
    found = scores[box, name]
    best = found.argsort(descending=True, stable=True)[: choice.limit]
    return Prediction(boxes=boxes[box[best]], classes=name[best], scores=found[best])


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast while it lasts: a box in bf16, is up to two pixels off."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


@torch.no_grad()
def let_learn(net: nn.Module) -> None:
    """Makes batch norms of frozen ones, and lets all weights be trained."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("FrozenBatchNorm2d"):
                setattr(parent, name, nn.BatchNorm2d(len(cast(Tensor, child.weight))))
    net.requires_grad_(True)


@torch.no_grad()
def initialise(net: nn.Module) -> None:
    """Random weights for training from scratch, whatever the version of `transformers`.

    Its own are for fine-tuning: the batch norms of RT-DETR begin near 0 there.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(size: Size) -> None:
    if size.hidden % size.heads or size.hidden % 4:
        raise ConfigurationError(
            f"the hidden channels of a transformer are a multiple of 4 and of its heads; got {size.hidden} for "
            f"{size.heads} heads"
        )
