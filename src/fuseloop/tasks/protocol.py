"""What a task network is to fuseloop.

A task network looks at images and has a prediction, a loss and a score, and a *feature*: the tensor that the closed
loop feeds back. Everything else in fuseloop knows task networks by this protocol alone. Images are RGB in [0, 1],
B×3×H×W, of any size; how a network wants to see them (size, letterbox, mean and deviation) is its own business and part
of the gradient's path, so that a loss can be differentiated with respect to the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.datasets.labelled import LabelledPair, edges_of
from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.metrics.task_scores import TaskScores

Task = Literal["detection", "segmentation", "saliency"]
Reduction = Literal["mean", "none"]
Part = Literal["boxes", "classes", "segmentation", "saliency", "edges"]


@dataclass(frozen=True)
class Target:
    """The labels of one image, on any device. A task reads its own part; what is None was not labelled.

    Attributes:
        boxes: N×4 float32, absolute (x1, y1, x2, y2) in pixels of the image.
        classes: N int64, the class of each box.
        segmentation: H×W int64, class ids, `IGNORED` where nothing counts.
        saliency: H×W float32 in [0, 1].
        edges: H×W float32 in [0, 1], the outline of what is salient.
    """

    boxes: Tensor | None = None
    classes: Tensor | None = None
    segmentation: Tensor | None = None
    saliency: Tensor | None = None
    edges: Tensor | None = None

    @classmethod
    def of(cls, pair: LabelledPair) -> Target:
        """The labels of a pair as tensors; edges are made of the saliency where the pair has none of its own."""
        edges = edges_of(pair)
        return cls(
            boxes=None if pair.boxes is None else torch.from_numpy(pair.boxes).float(),
            classes=None if pair.classes is None else torch.from_numpy(pair.classes).long(),
            segmentation=None if pair.segmentation is None else torch.from_numpy(pair.segmentation).long(),
            saliency=None if pair.saliency is None else torch.from_numpy(pair.saliency).float() / 255,
            edges=None if edges is None else torch.from_numpy(edges).float() / 255,
        )

    def to(self, device: torch.device | str) -> Target:
        """The same labels on another device."""
        return Target(**_moved(self, device))


def labels(targets: Sequence[Target], part: Part, device: torch.device | None = None) -> list[Tensor]:
    """One part of the labels of all images.

    Args:
        targets: The labels of each image.
        part: The attribute of `Target`.
        device: Where they are wanted; None leaves them where they are.

    Raises:
        LabelError: It is missing for an image.
    """
    found: list[Tensor] = []
    for index, target in enumerate(targets):
        value = getattr(target, part)
        if value is None:
            raise LabelError(f"image {index} of the batch has no {part} in its target, which its loss or score needs")
        found.append(value.to(device))
    return found


@dataclass(frozen=True)
class Prediction:
    """What a task network says of one image, in pixels of that image; only the parts of its task are set.

    Attributes:
        boxes: N×4 float32, absolute (x1, y1, x2, y2), best first.
        classes: N int64.
        scores: N float32 in [0, 1].
        segmentation: H×W int64.
        saliency: H×W float32 in [0, 1].
    """

    boxes: Tensor | None = None
    classes: Tensor | None = None
    scores: Tensor | None = None
    segmentation: Tensor | None = None
    saliency: Tensor | None = None

    def to(self, device: torch.device | str) -> Prediction:
        """The same prediction on another device."""
        return Prediction(**_moved(self, device))


def _moved(parts: Target | Prediction, device: torch.device | str) -> dict[str, Tensor | None]:
    return {name: None if part is None else part.to(device) for name, part in vars(parts).items()}


class View(NamedTuple):
    """How a network sees images: which size they have, and where they lie in its input.

    Attributes:
        height: Of the images.
        width: Of the images.
        input_height: Of the network's input.
        input_width: Of the network's input.
        top: First row of the input that shows the image.
        left: First column of the input that shows the image.
        shown_height: Rows of the input that show the image.
        shown_width: Columns of the input that show the image.
    """

    height: int
    width: int
    input_height: int
    input_width: int
    top: int
    left: int
    shown_height: int
    shown_width: int

    @classmethod
    def stretched(cls, height: int, width: int, *, input_height: int, input_width: int) -> View:
        """The image fills the input; its aspect may change."""
        return cls(height, width, input_height, input_width, 0, 0, input_height, input_width)

    @classmethod
    def to_multiple(cls, height: int, width: int, stride: int) -> View:
        """The image is stretched up to the next multiples of a stride."""
        return cls.stretched(
            height, width, input_height=-(-height // stride) * stride, input_width=-(-width // stride) * stride
        )

    @classmethod
    def letterboxed(cls, height: int, width: int, *, side: int, stride: int) -> View:
        """The longer side becomes `side`, the shorter keeps the aspect and is filled up to a multiple of `stride`."""
        scale = side / max(height, width)
        shown_height, shown_width = max(1, round(height * scale)), max(1, round(width * scale))
        input_height, input_width = (-(-length // stride) * stride for length in (shown_height, shown_width))
        top, left = (input_height - shown_height) // 2, (input_width - shown_width) // 2
        return cls(height, width, input_height, input_width, top, left, shown_height, shown_width)

    def show(self, images: Tensor, *, fill: float = 0.0) -> Tensor:
        """Images B×C×H×W as the input shows them, bilinear and differentiable; `fill` around them."""
        if (self.shown_height, self.shown_width) != (self.height, self.width):
            images = F.interpolate(
                images, (self.shown_height, self.shown_width), mode="bilinear", align_corners=False, antialias=True
            )
        right = self.input_width - self.left - self.shown_width
        bottom = self.input_height - self.top - self.shown_height
        if not any((self.left, right, self.top, bottom)):
            return images
        return F.pad(images, (self.left, right, self.top, bottom), value=fill)

    def boxes_to_input(self, boxes: Tensor) -> Tensor:
        """Boxes N×4 (x1, y1, x2, y2) in pixels of the image to pixels of the input."""
        return boxes * self._scale(boxes) + self._offset(boxes)

    def boxes_to_image(self, boxes: Tensor) -> Tensor:
        """Boxes N×4 in pixels of the input to pixels of the image, clipped to it."""
        boxes = (boxes - self._offset(boxes)) / self._scale(boxes)
        limit = boxes.new_tensor([self.width, self.height, self.width, self.height])
        return torch.minimum(boxes.clamp(min=0), limit)

    def maps_to_image(self, maps: Tensor) -> Tensor:
        """Maps B×C×h×w over the whole input, of any resolution, to the pixels of the image, bilinear."""
        if (self.shown_height, self.shown_width) != (self.input_height, self.input_width):
            maps = F.interpolate(maps, (self.input_height, self.input_width), mode="bilinear", align_corners=False)
            maps = maps[..., self.top : self.top + self.shown_height, self.left : self.left + self.shown_width]
        return F.interpolate(maps, (self.height, self.width), mode="bilinear", align_corners=False)

    def _scale(self, boxes: Tensor) -> Tensor:
        across, down = self.shown_width / self.width, self.shown_height / self.height
        return boxes.new_tensor([across, down, across, down])

    def _offset(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor([self.left, self.top, self.left, self.top])


@dataclass(frozen=True)
class Outputs:
    """What a task network gave for a batch.

    Attributes:
        raw: The network's own output, whatever its loss and prediction need.
        feature: The tensor that is fed back, first dimension B; part of the graph until it is detached.
        view: How the network saw the images.
    """

    raw: Any
    feature: Tensor
    view: View


class TaskNetwork(nn.Module, ABC):
    """A detector, segmenter or saliency network behind one protocol.

    A network derives from `Detector`, `Segmenter` or `SaliencyNetwork` (`fuseloop.tasks.kinds`), which score what it
    predicts. It says its classes, makes its input (`view`, `prepare`), runs (`run`), and has a loss and a prediction.
    `loss` and `predict` take what calling the network gave; neither `predict` nor the feature needs labels.

    Attributes:
        task: What it does.
        classes: Names of the classes, in the order of their ids; for segmentation id 0 is the background.
    """

    task: Task
    classes: tuple[str, ...]

    @abstractmethod
    def view(self, height: int, width: int) -> View:
        """How images of a size are seen."""

    @abstractmethod
    def prepare(self, images: Tensor, view: View) -> Tensor:
        """Images B×3×H×W RGB in [0, 1] (fused images may leave it a little) as the network's input; differentiable."""

    @abstractmethod
    def run(self, prepared: Tensor) -> tuple[Any, Tensor]:
        """The network's own output and its feature, from its input."""

    @abstractmethod
    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        """The training loss of each image, (B,)."""

    @abstractmethod
    def predict(self, outputs: Outputs) -> list[Prediction]:
        """What the network says of each image, independent of the others in the batch."""

    @abstractmethod
    def keep(self, name: str, prediction: Prediction, target: Target) -> Any:
        """What the score of any set needs of one image.

        Raises:
            LabelError: The target lacks the labels of the task, or prediction and target cannot be compared.
        """

    @abstractmethod
    def score(self, kept: Sequence[Any]) -> TaskScores:
        """The scores of a set of images from what was kept of each."""

    def forward(self, images: Tensor) -> Outputs:
        """Looks at images.

        Args:
            images: B×3×H×W RGB in [0, 1].

        Raises:
            ValueError: The images have another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"a task network takes B×3×H×W RGB images, got {tuple(images.shape)}")
        view = self.view(*images.shape[-2:])
        raw, feature = self.run(self.prepare(images, view))
        return Outputs(raw, feature, view)

    def loss(self, outputs: Outputs, targets: Sequence[Target], reduction: Reduction = "mean") -> Tensor:
        """The training loss.

        Args:
            outputs: What calling the network gave.
            targets: The labels of each image; those of the task must be there.
            reduction: "mean" for a scalar, "none" for one value an image, (B,). The mean of the second is the first.

        Raises:
            ValueError: The number of targets is not that of the images.
            LabelError: An image lacks the labels of the task, or they do not fit the network.
        """
        if len(outputs.feature) != len(targets):
            raise ValueError(f"{len(outputs.feature)} images but {len(targets)} targets")
        losses = self.sample_losses(outputs, targets)
        return losses.mean() if reduction == "mean" else losses


class hooked:  # noqa: N801 - reads as a verb: with hooked(network, "layer") as feature
    """Catches what a named layer gives while the block runs.

    The output is cloned at once, since some networks change it in place afterwards.

    Args:
        module: The network.
        layer: Dotted name of a submodule, as in `named_modules`.

    Raises:
        ConfigurationError: There is no such layer; the message lists those of similar names and those at the top.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        layers = dict(module.named_modules())
        if layer not in layers or not layer:
            names = [name for name in layers if name]
            similar = get_close_matches(layer, names, n=8)
            shown = ", ".join(dict.fromkeys([*similar, *(name for name, _ in module.named_children())]))
            raise ConfigurationError(
                f"{type(module).__name__} has no layer {layer!r} to take the feature from; of its {len(names)} layers "
                f"try one of {shown}, or a deeper one as `named_modules` lists them"
            )
        self._layer = layers[layer]
        self._name = layer
        self._output: Tensor | None = None

    @property
    def output(self) -> Tensor:
        """What the layer gave last.

        Raises:
            ConfigurationError: The network ran without this layer.
        """
        if self._output is None:
            raise ConfigurationError(f"the network ran without its layer {self._name!r}; take the feature from another")
        return self._output

    def __enter__(self) -> hooked:
        self._handle = self._layer.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._output = first_tensor(output).clone()


def first_tensor(output: Any) -> Tensor:
    """The first tensor in a layer's output, which may be a tuple, a list, a mapping or a `transformers` output."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    for value in values or ():
        if value is not None:
            return first_tensor(value)
    raise ConfigurationError("the layer gives no tensor that could be fed back")
