"""Networks of one's own behind the protocol: any `nn.Module`, and what `transformers` saved in a folder.

A segmenter or a saliency network that gives maps of logits needs nothing more; a detector says how its output becomes
a loss and boxes:

>>> import torch
>>> from torch import nn
>>> module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=4), nn.ReLU(), nn.Conv2d(8, 2, 1))
>>> network = wrap(module, task="segmentation", classes=("background", "car"), feature="1")
>>> outputs = network(torch.rand(1, 3, 50, 70))
>>> outputs.feature.shape, network.predict(outputs)[0].segmentation.shape
(torch.Size([1, 8, 16, 24]), torch.Size([50, 70]))
"""

from __future__ import annotations

import json
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError, LabelError, WeightsError
from fuseloop.tasks.detection.boxes import to_corners
from fuseloop.tasks.detection.detr import Choice, choose
from fuseloop.tasks.detection.set_loss import Truth, Weights, focal_set_loss, softmax_set_loss
from fuseloop.tasks.kinds import Detector, SaliencyNetwork, Segmenter
from fuseloop.tasks.protocol import (
    Outputs,
    Prediction,
    Target,
    Task,
    TaskNetwork,
    View,
    first_tensor,
    hooked,
    labels,
)
from fuseloop.tasks.segmentation.maps import likeliest, pixel_losses

Loss = Callable[[Any, Sequence[Target], View], Tensor]
Predict = Callable[[Any, View], list[Prediction]]
Triple = tuple[float, float, float]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation that networks of `transformers` have unless they say otherwise."""


@dataclass(frozen=True)
class Look:
    """How a wrapped network sees images.

    Attributes:
        mean: Of each channel of images in [0, 1].
        std: Deviation of each channel.
        size: Height and width that images are stretched to; a number is what the shorter side becomes; None keeps the
            size.
        longest: The longer side becomes no longer than this, None without a limit.
        stride: Without a height and width, images are stretched up to multiples of this.
        reverse: Whether the network sees BGR.
    """

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    size: tuple[int, int] | int | None = None
    longest: int | None = None
    stride: int = 32
    reverse: bool = False

    def view(self, height: int, width: int) -> View:
        """How images of a size are seen."""
        if isinstance(self.size, tuple):
            return View.stretched(height, width, input_height=self.size[0], input_width=self.size[1])
        scale = 1.0 if self.size is None else self.size / min(height, width)
        if self.longest is not None:
            scale = min(scale, self.longest / max(height, width))
        input_height, input_width = (
            max(1, math.ceil(round(scale * side) / self.stride)) * self.stride for side in (height, width)
        )
        return View.stretched(height, width, input_height=input_height, input_width=input_width)

    def prepare(self, images: Tensor, view: View) -> Tensor:
        """Images B×3×H×W in [0, 1] as the input."""
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        shown = view.show(images)
        return ((shown.flip(1) if self.reverse else shown) - mean) / std


class Wrapped(TaskNetwork):
    """What all wrapped networks share: how they see images, run, and where their feature is taken.

    Args:
        module: The network; it takes B×3×H×W.
        classes: Names of the classes.
        look: How it sees images.
        feature: Name of the layer whose output is fed back, "" where `run` finds it itself.
        loss: Makes the loss of each image, (B,); None for that of the kind.
        predict: Makes the predictions; None for those of the kind.

    Raises:
        ConfigurationError: There is no such layer.
    """

    def __init__(
        self,
        module: nn.Module,
        classes: Sequence[str],
        look: Look,
        feature: str = "",
        loss: Loss | None = None,
        predict: Predict | None = None,
    ) -> None:
        super().__init__()
        if feature:
            hooked(module, feature)  # complains of a wrong name at once
        self.classes = tuple(classes)
        self.module, self.look, self.feature = module, look, feature
        self._loss, self._predict = loss, predict

    def view(self, height: int, width: int) -> View:
        """See `Look`."""
        return self.look.view(height, width)

    def prepare(self, images: Tensor, view: View) -> Tensor:
        """See `Look`."""
        return self.look.prepare(images, view)

    def run(self, prepared: Tensor) -> tuple[Any, Tensor]:
        """What the module gives, and what its layer gave."""
        with hooked(self.module, self.feature) as caught:
            raw = self.module(prepared)
        return raw, caught.output

    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        """The loss of each image, (B,).

        Raises:
            LabelError: The labels of the task are missing or do not fit.
            ConfigurationError: The loss that was given is not one for each image.
        """
        losses = (self._loss or self.usual_loss)(outputs.raw, targets, outputs.view)
        if losses.shape != (len(targets),):
            raise ConfigurationError(
                f"loss of a wrapped network gives one value an image, ({len(targets)},), got {tuple(losses.shape)}"
            )
        return losses

    @torch.no_grad()
    def predict(self, outputs: Outputs) -> list[Prediction]:
        """What the network says of each image."""
        return (self._predict or self.usual_prediction)(outputs.raw, outputs.view)

    @abstractmethod
    def usual_loss(self, raw: Any, targets: Sequence[Target], view: View) -> Tensor:
        """The loss unless another was given."""

    @abstractmethod
    def usual_prediction(self, raw: Any, view: View) -> list[Prediction]:
        """The prediction unless another was given."""

    def maps(self, raw: Any, channels: int) -> Tensor:
        """The maps of logits B×C×h×w in what the module gave.

        Raises:
            ConfigurationError: There are none, or not as many as wanted.
        """
        logits = getattr(raw, "logits", None)
        maps = first_tensor(raw if logits is None else logits)
        if maps.ndim != 4 or maps.shape[1] != channels:
            raise ConfigurationError(
                f"a {self.task} network gives maps of logits, B×{channels}×h×w here, but "
                f"{type(self.module).__name__} gave {tuple(maps.shape)}; pass loss and predict for another output"
            )
        return maps


class WrappedSegmenter(Wrapped, Segmenter):
    """A segmenter of one's own; see `wrap`."""

    def usual_loss(self, raw: Any, targets: Sequence[Target], view: View) -> Tensor:
        """See `pixel_losses`."""
        return pixel_losses(self.maps(raw, len(self.classes)), targets, view)

    def usual_prediction(self, raw: Any, view: View) -> list[Prediction]:
        """See `likeliest`."""
        return likeliest(self.maps(raw, len(self.classes)), view)


class WrappedSaliencyNetwork(Wrapped, SaliencyNetwork):
    """A saliency network of one's own; see `wrap`."""

    def usual_loss(self, raw: Any, targets: Sequence[Target], view: View) -> Tensor:
        """The binary cross-entropy of each image at its resolution, (B,)."""
        maps = view.maps_to_image(self.maps(raw, 1).float())[:, 0]
        masks = labels(targets, "saliency", maps.device)
        for index, mask in enumerate(masks):
            if mask.shape != maps.shape[1:]:
                size, got = tuple(maps.shape[1:]), tuple(mask.shape)
                raise LabelError(f"image {index} of the batch is of {size}, but its mask of {got} pixels")
        return F.binary_cross_entropy_with_logits(maps, torch.stack(masks), reduction="none").mean(dim=(1, 2))

    def usual_prediction(self, raw: Any, view: View) -> list[Prediction]:
        """The probability of every pixel."""
        maps = view.maps_to_image(self.maps(raw, 1).float().sigmoid())
        return [Prediction(saliency=found[0].clamp(0, 1)) for found in maps]


class WrappedDetector(Wrapped, Detector):
    """A detector of one's own; see `wrap`."""

    choice: Choice = Choice(score_threshold=0.0)
    suppression: float | None = None

    @property
    def score_threshold(self) -> float:
        """As given to `wrap`."""
        return self.choice.score_threshold

    @property
    def nms_iou(self) -> float | None:
        """As given to `wrap`."""
        return self.suppression

    def usual_loss(self, raw: Any, targets: Sequence[Target], view: View) -> Tensor:
        """There is none, since outputs of detectors differ."""
        raise ConfigurationError("a wrapped detector needs a loss of its own; pass loss")

    def usual_prediction(self, raw: Any, view: View) -> list[Prediction]:
        """There is none, since outputs of detectors differ."""
        raise ConfigurationError("a wrapped detector needs predictions of its own; pass predict")


def wrap(
    module: nn.Module | str | os.PathLike[str],
    *,
    task: Task | None = None,
    classes: Sequence[str] = (),
    feature: str = "",
    loss: Loss | None = None,
    predict: Predict | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    size: tuple[int, int] | None = None,
    stride: int = 32,
    score_threshold: float = 0.0,
    nms_iou: float | None = None,
) -> TaskNetwork:
    """A network of one's own as a task network.

    Args:
        module: The network, which takes B×3×H×W; or a folder, see `wrap_transformers`, for which `feature`, `mean`,
            `std` and `size` alone count.
        task: What it does.
        classes: Names of the classes, for segmentation the background first; for saliency none.
        feature: Name of the layer whose output is fed back, as in `named_modules`; its first dimension is the batch.
        loss: From what the module gave, the targets and the view, the loss of each image, (B,). By default the
            cross-entropy of B×C×h×w logits for segmentation and the binary one of B×1×h×w logits for saliency, at
            the resolution of the images. A detector needs it.
        predict: From what the module gave and the view, the predictions of all images, in pixels of the images
            (`View.boxes_to_image`). By default from logits as above. A detector needs it.
        mean: Taken from each channel of images in [0, 1]; by default 0.
        std: What the channels are divided by then; by default 1.
        size: Height and width that images are stretched to; by default up to multiples of `stride`.
        stride: See `size`.
        score_threshold: What `predict` of a detector uses, to be recorded with the scores.
        nms_iou: Likewise.

    Raises:
        ConfigurationError: The layer is unknown, or something that the task needs is missing.
    """
    if not isinstance(module, nn.Module):
        return wrap_transformers(module, feature=feature, mean=mean, std=std, size=size)
    look = Look(mean or (0.0, 0.0, 0.0), std or (1.0, 1.0, 1.0), size, stride=stride)
    if not feature:
        raise ConfigurationError("wrap needs feature, the name of the layer whose output is fed back")
    if task != "saliency" and not classes:
        raise ConfigurationError(f"wrap needs classes, the names of the classes, for {task}")
    if task == "segmentation":
        return WrappedSegmenter(module, classes, look, feature, loss, predict)
    if task == "saliency":
        return WrappedSaliencyNetwork(module, (), look, feature, loss, predict)
    if task != "detection":
        raise ConfigurationError(f"wrap needs a task, one of detection, segmentation and saliency, not {task!r}")
    if loss is None or predict is None:
        raise ConfigurationError("wrap needs loss and predict for a detector, since outputs of detectors differ")
    network = WrappedDetector(module, classes, look, feature, loss, predict)
    network.choice, network.suppression = Choice(score_threshold=score_threshold), nms_iou
    return network


class TransformersSegmenter(WrappedSegmenter):
    """A segmenter of `transformers`; see `wrap_transformers`."""

    def run(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Logits B×C×h×w and the feature."""
        if self.feature:
            raw, feature = super().run(prepared)
            return raw.logits, feature
        outputs = self.module(prepared, output_hidden_states=True)
        return outputs.logits, channels_first(outputs.hidden_states[-1], prepared)


class TransformersDetector(WrappedDetector):
    """A detector of `transformers` that says a set of boxes; see `wrap_transformers`."""

    choice = Choice()

    def run(self, prepared: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Logits B×Q×C, for softmax B×Q×(C + 1), and boxes B×Q×4 as shares of the input; and the feature."""
        if self.feature:
            outputs, feature = super().run(prepared)
        else:
            outputs = self.module(prepared)
            states = outputs.get("encoder_last_hidden_state")
            if states is None:  # an encoder alone, whose tokens are cells and queries
                feature = outputs.last_hidden_state.transpose(1, 2)
            else:  # of several strides, from fine to coarse, the coarsest is fed back
                feature = channels_first(states if isinstance(states, Tensor) else states[-1], prepared)
        return (outputs.logits.float(), outputs.pred_boxes.float()), feature

    def usual_loss(self, raw: Any, targets: Sequence[Target], view: View) -> Tensor:
        """The set loss of each image, (B,), of what the last layer says.

        Raises:
            LabelError: An image has no boxes in its target, or a class id that the network does not know.
        """
        logits, boxes = raw
        truth = Truth.of(targets, view, len(self.classes), boxes.device)
        if self._softmax(logits):
            return softmax_set_loss(logits[None], boxes[None], truth, costs=Weights(), weights=Weights(), no_object=0.1)
        costs = Weights(classification=2.0)
        return focal_set_loss(logits[None], boxes[None], truth, costs=costs, weights=Weights())

    def usual_prediction(self, raw: Any, view: View) -> list[Prediction]:
        """The boxes of each image, without suppression; where the classes exclude each other, the likeliest of each."""
        logits, boxes = raw
        if self._softmax(logits):
            scores = logits.softmax(dim=-1)[..., :-1]
            scores = torch.where(scores == scores.amax(dim=-1, keepdim=True), scores, 0)
        else:
            scores = logits.sigmoid()
        corners = to_corners(boxes) * boxes.new_tensor([view.input_width, view.input_height] * 2)
        return [
            choose(view.boxes_to_image(of_image), of_boxes, self.choice)
            for of_image, of_boxes in zip(corners, scores, strict=True)
        ]

    def _softmax(self, logits: Tensor) -> bool:
        """Whether there is a logit for no object, after those of the classes."""
        return logits.shape[-1] == len(self.classes) + 1


def wrap_transformers(
    folder: str | os.PathLike[str],
    *,
    feature: str = "",
    mean: Triple | None = None,
    std: Triple | None = None,
    size: tuple[int, int] | None = None,
) -> TaskNetwork:
    """A detector or segmenter of `transformers` from a folder, in evaluation mode.

    The folder is what `save_pretrained` wrote: config.json and safetensors. Nothing is downloaded, and no code of the
    folder is run. Its configuration says what the network is and names the classes; the first class of a segmenter
    counts as the background. A detector is any that says boxes as a set, such as DETR, RT-DETR or YOLOS; its loss is
    that of `fuseloop.tasks.detection.set_loss`, of the last layer.

    Args:
        folder: Where it is.
        feature: Name of the layer whose output is fed back, as it gives it. By default a segmenter's last hidden state,
            and a detector's last hidden state of the encoder (the coarsest, where there are several): as B×C×h×w
            where its tokens are a grid, else B×C×N.
        mean: Taken from each channel of images in [0, 1]; by default as preprocessor_config.json says, without one
            that of ImageNet.
        std: What the channels are divided by then; by default likewise.
        size: Height and width that images are stretched to; by default as preprocessor_config.json says, without one
            up to multiples of 32.

    Raises:
        ConfigurationError: There is no configuration, or that of another kind of network; or no such layer.
        WeightsError: The weights are missing, incomplete, or not in safetensors.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} has no config.json; save the network there with save_pretrained")
    detects, module = _read(folder)
    look = look_of(folder)
    look = replace(look, mean=mean or look.mean, std=std or look.std)
    if size is not None:
        look = replace(look, size=size, longest=None)
    names = module.config.id2label
    kind = TransformersDetector if detects else TransformersSegmenter
    return kind(module, [names[index] for index in sorted(names)], look, feature).eval()


def _read(folder: Path) -> tuple[bool, Any]:
    """Whether it is a detector, and the network of `transformers`."""
    # Imported where it is used: it takes seconds.
    import transformers
    from transformers.models.auto import modeling_auto

    auto: Any = transformers
    known: Any = modeling_auto
    detectors = {*known.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES.values()}
    segmenters = {*known.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES.values()}
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ["none"]
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{folder / 'config.json'} is no configuration of transformers ({error})") from error
    if names[0] not in detectors | segmenters:
        raise ConfigurationError(
            f"{folder / 'config.json'} names the architecture {names[0]!r}, which is no detector and no segmenter that "
            f"transformers knows; use one of {', '.join(sorted(detectors | segmenters))}"
        )
    reader = auto.AutoModelForObjectDetection if names[0] in detectors else auto.AutoModelForSemanticSegmentation
    try:
        with _quiet():
            module, report = reader.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except ImportError as error:
        raise ConfigurationError(f"{folder} needs a library that is not installed: {error}") from error
    except Exception as error:  # of many kinds, from a missing file to a shape that does not fit
        raise WeightsError(f"{folder} cannot be read by transformers: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(f"{folder} lacks weights: {len(missing)} are missing, such as {missing[0]}")
    return names[0] in detectors, module


@contextmanager
def _quiet() -> Iterator[None]:
    """No bar of transformers while it lasts."""
    from transformers.utils import logging

    control: Any = logging
    shown = control.is_progress_bar_enabled()
    control.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            control.enable_progress_bar()


def look_of(folder: Path) -> Look:
    """How a network of `transformers` sees images, from its preprocessor_config.json if there is one.

    Raises:
        ConfigurationError: The file cannot be understood.
    """
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return Look(*IMAGENET)
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        # Images in 0..255 times a factor, less the mean, by the deviation.
        scale = 255 * float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 255.0
        normalised = said.get("do_normalize", "image_mean" in said)
        mean, std = (said["image_mean"], said["image_std"]) if normalised else ((0.0,) * 3, (1.0,) * 3)
        size, longest = said.get("size"), None
        if not said.get("do_resize", True):
            size = None
        elif isinstance(size, dict) and "height" in size:
            size = int(size["height"]), int(size["width"])
        elif isinstance(size, dict):
            longest = size.get("longest_edge")
            size = size["shortest_edge"]
        red, green, blue = (float(value) / scale for value in mean)
        by_red, by_green, by_blue = (float(value) / scale for value in std)
        reverse = bool(said.get("do_flip_channel_order", False))
        return Look((red, green, blue), (by_red, by_green, by_blue), size, longest, reverse=reverse)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{file} does not say how images are prepared ({type(error).__name__}: {error}); pass mean, std and size, "
            "or remove it"
        ) from error


def channels_first(states: Tensor, prepared: Tensor) -> Tensor:
    """Tokens B×N×C as a map B×C×h×w where they are a grid over the input, else as B×C×N; maps as they are."""
    if states.ndim != 3:
        return states
    height, width = prepared.shape[-2:]
    for stride in (8, 16, 32):
        rows, columns = -(-height // stride), -(-width // stride)
        if rows * columns == states.shape[1]:
            return states.transpose(1, 2).reshape(len(states), -1, rows, columns)
    return states.transpose(1, 2)
