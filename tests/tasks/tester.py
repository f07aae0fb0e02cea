"""The tests that every task network must pass.

A network's test class derives from `TaskNetworkTester` and says how a narrow one is made:

    class TestYOLOv5(TaskNetworkTester):
        make = partial(YOLOv5, BOX_NAMES, Size(depth=1 / 3, width=1 / 8))
        feature_shape = staticmethod(lambda height, width: (128, height // 32, width // 32))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.synthetic import generate
from fuseloop.tasks.protocol import Outputs, Prediction, Target, TaskNetwork

SIDE = 128
SCENES = 6


@cache
def scenes() -> tuple[Tensor, tuple[Target, ...]]:
    """Synthetic scenes of 128×128 with all labels; the images are means of infrared and visible."""
    pairs = [LabelledPair.of(generate(seed, SIDE, SIDE)) for seed in range(SCENES)]
    means = [pair.visible / 510 + pair.infrared[..., None] / 510 for pair in pairs]
    return torch.from_numpy(np.stack(means)).movedim(-1, 1).float(), tuple(map(Target.of, pairs))


def part(height: int, width: int) -> tuple[Tensor, tuple[Target, ...]]:
    """Lower middle parts of the first three scenes, of the third without its objects."""
    images, targets = scenes()
    top, left = SIDE - height, (SIDE - width) // 2
    corner, limit = torch.tensor([left, top] * 2), torch.tensor([width, height] * 2)

    def of(target: Target) -> Target:
        boxes = torch.minimum((target.boxes - corner).clamp(min=0), limit)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        masks = (mask[top:, left : left + width] for mask in (target.segmentation, target.saliency, target.edges))
        return Target(boxes[inside], target.classes[inside], *masks)

    first, second, third = (of(target) for target in targets[1:4])
    masks = map(torch.zeros_like, (third.segmentation, third.saliency, third.edges))
    empty = Target(third.boxes[:0], third.classes[:0], *masks)
    return images[1:4, :, top:, left : left + width].contiguous(), (first, second, empty)


QUALITY = {"detection": "mAP50", "segmentation": "mIoU/include", "saliency": "F/mean"}


def same(one: Prediction, other: Prediction, tolerance: float) -> bool:
    """Whether two predictions agree; classes and ids exactly but for one in a hundred pixels."""
    for field in fields(Prediction):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if (a is None) != (b is None) or (a is not None and a.shape != b.shape):
            return False
        if a is None:
            continue
        if a.is_floating_point() and not torch.allclose(a, b, rtol=tolerance, atol=tolerance):
            return False
        if not a.is_floating_point() and (a != b).float().mean() > 0.01:
            return False
    return True


class TaskNetworkTester:
    """Behaviour that all task networks share."""

    make: ClassVar[Callable[..., TaskNetwork]]
    """Makes a narrow, untrained network that knows the classes of the synthetic scenes."""

    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Keywords of every variant; the first one is the default."""

    feature_shape: ClassVar[Callable[[int, int], tuple[int, ...]]]
    """The shape of the feature, without the batch, for a height and width of the network's input."""

    overfit_steps: ClassVar[int] = 150
    """Steps in which it learns the six scenes by heart."""

    overfit_rate: ClassVar[float] = 0.01
    """Adam's highest learning rate for that."""

    overfit_quality: ClassVar[float] = 0.95
    """Reached thereby in the score of `QUALITY`."""

    overfit_loss: ClassVar[float | None] = None
    """If set, the loss falls to this share of what it was first, and no quality is asked for."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs what asks for a `variant` once for each."""
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", self.variants, ids=str)

    def network(self, variant: dict[str, Any] | None = None) -> TaskNetwork:
        """A seeded network in eval mode whose batch norms have statistics of their own."""
        torch.manual_seed(0)
        network = type(self).make(**(self.variants[0] if variant is None else variant)).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        return network

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_the_gradient_of_the_loss_reaches_every_image(self, variant, training):
        images, targets = part(96, 96)
        images.requires_grad_()
        network = self.network(variant).train(training)
        network.loss(network(images), targets).backward()
        assert images.grad.isfinite().all()
        assert (images.grad != 0).flatten(1).float().mean(dim=1).min() > 0.9

    def test_every_parameter_that_is_trained_gets_a_gradient(self, variant):
        images, targets = part(128, 128)
        network = self.network(variant).train()
        network.loss(network(images), targets).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    def test_the_loss_of_an_image_is_its_own(self, variant):
        """The mean of the losses of the images is the loss of the batch, and none depends on another image."""
        images, targets = part(96, 128)
        images.requires_grad_()
        network = self.network(variant)
        outputs = network(images)
        losses = network.loss(outputs, targets, "none")
        assert losses.shape == (3,)
        assert losses.isfinite().all()
        torch.testing.assert_close(network.loss(outputs, targets), losses.mean())
        (gradient,) = torch.autograd.grad(losses[1], images)
        assert gradient[1].any()
        assert not gradient[[0, 2]].any()
        for index in range(3):
            alone = network.loss(network(images[index : index + 1]), targets[index : index + 1])
            torch.testing.assert_close(losses[index], alone, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_a_prediction_does_not_depend_on_the_batch(self, variant):
        # In double precision, since another batch rounds differently and the best of equals would change places.
        images, network = part(96, 128)[0].double(), self.network(variant).double()
        together = network.predict(network(images))
        alone = [network.predict(network(image[None]))[0] for image in images]
        assert len(together) == 3
        assert all(same(one, other, 1e-4) for one, other in zip(together, alone, strict=True))

    @torch.no_grad()
    @pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 32), (64, 96), (97, 70)], ids=str)
    def test_any_size_has_a_feature_and_a_prediction_without_labels(self, variant, size):
        images, _ = part(*size)
        network = self.network(variant)
        outputs = network(images)
        assert (outputs.view.height, outputs.view.width) == size
        assert outputs.feature.shape == (3, *self.feature_shape_of(outputs))
        assert outputs.feature.isfinite().all()
        for prediction in network.predict(outputs):
            self.check(network, prediction, *size)

    def feature_shape_of(self, outputs: Outputs) -> tuple[int, ...]:
        return type(self).feature_shape(outputs.view.input_height, outputs.view.input_width)

    def check(self, network: TaskNetwork, prediction: Prediction, height: int, width: int) -> None:
        """What a prediction holds is in range, and it holds what its task says."""
        if network.task == "segmentation":
            assert prediction.segmentation.shape == (height, width)
            assert prediction.segmentation.dtype == torch.int64
            assert 0 <= prediction.segmentation.min() <= prediction.segmentation.max() < len(network.classes)
        elif network.task == "saliency":
            assert prediction.saliency.shape == (height, width)
            assert 0 <= prediction.saliency.min() <= prediction.saliency.max() <= 1
        else:
            boxes, classes, scores = prediction.boxes, prediction.classes, prediction.scores
            assert boxes.shape == (len(scores), 4)
            assert classes.shape == scores.shape
            assert (scores.diff() <= 0).all()
            assert ((scores >= 0) & (scores <= 1)).all()
            assert ((boxes >= 0) & (boxes <= torch.tensor([width, height] * 2))).all()
            assert (boxes[:, 2:] >= boxes[:, :2]).all()
            assert ((classes >= 0) & (classes < len(network.classes))).all()

    def test_the_feature_is_part_of_the_graph(self, variant):
        images, _ = part(64, 64)
        images.requires_grad_()
        self.network(variant)(images).feature.square().sum().backward()
        assert images.grad.flatten(1).any(dim=1).all()

    @torch.no_grad()
    def test_the_same_images_give_the_same_bits_and_stay_as_they_were(self, variant):
        images, _ = part(64, 96)
        before = images.clone()
        network = self.network(variant)
        first, second = network(images), network(images)
        assert torch.equal(first.feature, second.feature)
        assert all(map(lambda a, b: same(a, b, 0), network.predict(first), network.predict(second)))
        assert torch.equal(images, before)

    @torch.no_grad()
    def test_saved_and_loaded_it_says_the_same(self, variant, tmp_path: Path):
        images, targets = part(64, 96)
        network = self.network(variant)
        save_model(network, str(tmp_path / "weights.safetensors"))
        torch.manual_seed(99)
        other = type(self).make(**variant).eval()
        assert not torch.equal(other(images).feature, network(images).feature)
        load_model(other, str(tmp_path / "weights.safetensors"))
        assert torch.equal(other(images).feature, network(images).feature)
        assert torch.equal(other.loss(other(images), targets), network.loss(network(images), targets))

    def test_bf16_agrees_roughly(self):
        images, targets = part(64, 96)
        network = self.network()
        with torch.autocast("cpu", torch.bfloat16):
            loss = network.loss(network(images), targets)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, network.loss(network(images), targets), rtol=0.1, atol=0.01)

    def test_it_makes_no_tensor_on_a_device_of_its_own_choice(self):
        """The meta device holds shapes alone and refuses to mix with any other."""
        outputs = self.network().to("meta")(torch.rand(2, 3, 45, 64, device="meta"))
        assert outputs.feature.shape == (2, *self.feature_shape_of(outputs))

    def test_it_learns_a_handful_of_scenes_by_heart(self):
        images, targets = scenes()
        torch.manual_seed(0)
        network = type(self).make(**self.variants[0])
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # so few steps are to be enough for the statistics too
        steps, rate = self.overfit_steps, self.overfit_rate
        optimiser = torch.optim.Adam(network.parameters(), rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
        losses = []
        for _ in range(steps):
            optimiser.zero_grad()
            loss = network.loss(network(images), targets)
            loss.backward()
            losses.append(float(loss.detach()))
            optimiser.step()
            schedule.step()
        if self.overfit_loss is not None:
            assert losses[-1] <= self.overfit_loss * losses[0]
            return
        network.eval()
        with torch.no_grad():
            found = network.predict(network(images))
        kept = [network.keep(str(index), *pair) for index, pair in enumerate(zip(found, targets, strict=True))]
        assert network.score(kept).values[QUALITY[network.task]] >= self.overfit_quality
