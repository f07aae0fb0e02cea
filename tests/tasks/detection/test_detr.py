"""DETR and RT-DETR learn from scratch, see images of any size, and say boxes in pixels of the image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fuseloop.datasets.synthetic import BOX_NAMES
from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.networks.cost import parameter_count
from fuseloop.tasks.detection.detr import (
    DETR,
    RTDETR,
    Choice,
    Layers,
    Said,
    Size,
    centres_of_cells,
    choose,
)
from fuseloop.tasks.detection.set_loss import Truth
from fuseloop.tasks.protocol import Outputs, Target, View
from tests.tasks.tester import TaskNetworkTester, part

NARROW = Size(16, (16, 32, 48, 64), (1, 1, 1, 1), 64, 4, 128, 1, 2, 20)


def make_detr(**keywords: object) -> DETR:
    return DETR(BOX_NAMES, NARROW, **{"dropout": 0.0} | keywords)


def make_rtdetr(**keywords: object) -> RTDETR:
    return RTDETR(BOX_NAMES, NARROW, **keywords)


class TestDETR(TaskNetworkTester):
    make = staticmethod(make_detr)
    feature_shape = staticmethod(lambda height, width: (64, height // 32, width // 32))
    overfit_steps = 400
    overfit_rate = 0.002
    overfit_loss = 0.1


class TestRTDETR(TaskNetworkTester):
    make = staticmethod(make_rtdetr)
    feature_shape = staticmethod(lambda height, width: (64, height // 32, width // 32))
    overfit_steps = 120
    overfit_rate = 0.003
    overfit_loss = 0.1


both = pytest.mark.parametrize("make", [make_detr, make_rtdetr])
shipped = pytest.mark.parametrize(("network", "most"), [(DETR, 15e6), (RTDETR, 10e6)])


class TestConfiguration:
    @shipped
    def test_by_default_it_is_small_enough_to_be_shipped(self, network, most):
        assert parameter_count(network(BOX_NAMES)) < most

    @both
    def test_everything_learns_batch_norms_too(self, make):
        network = make().train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        norms = [module for module in network.modules() if "BatchNorm" in type(module).__name__]
        assert len(norms) > 8
        assert all(type(norm) is nn.BatchNorm2d for norm in norms)
        assert all(parameter.requires_grad for parameter in network.parameters())
        network(torch.rand(2, 3, 64, 64))
        moved = [name for name in before if name.endswith("running_mean")]
        assert not any(torch.equal(before[name], network.state_dict()[name]) for name in moved)

    @both
    def test_batch_norms_begin_without_a_gain(self, make):
        """In `transformers` those of RT-DETR begin near 0, which stops what is trained from scratch."""
        assert all((m.weight == 1).all() for m in make().modules() if isinstance(m, nn.BatchNorm2d))

    @both
    def test_hidden_channels_are_shared_by_the_heads(self, make):
        with pytest.raises(ConfigurationError, match="60 for 7 heads"):
            type(make())(BOX_NAMES, NARROW._replace(hidden=60, heads=7))

    def test_what_is_chosen_by_default(self):
        """Recorded, since scores depend on it."""
        assert Choice() == Choice(score_threshold=0.001, limit=300)
        assert make_rtdetr().score_threshold == 0.001
        assert make_rtdetr().nms_iou is None

    def test_small_images_are_magnified_until_they_have_as_many_cells_as_there_are_queries(self):
        network = RTDETR(BOX_NAMES, NARROW._replace(queries=100)).eval()
        assert network.view(32, 32)[:4] == (32, 32, 96, 96)
        assert network.view(64, 96)[:4] == (64, 96, 64, 96)
        assert len(network.predict(network(torch.rand(1, 3, 20, 30)))) == 1

    def test_detr_sees_the_published_mean_and_deviation_and_rt_detr_none(self):
        images = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
        assert make_detr().prepare(images, View.to_multiple(32, 32, 32)).abs().max() < 1e-6
        assert torch.equal(make_rtdetr().prepare(images, View.to_multiple(32, 32, 32)), images)

    def test_training_of_rt_detr_begins_with_the_belief_in_few_objects(self):
        said = make_rtdetr()(torch.rand(1, 3, 128, 128)).raw
        assert said.layers.logits.sigmoid().mean() < 0.1
        assert said.logits.sigmoid().mean() < 0.1


class TestSaying:
    @torch.no_grad()
    @pytest.mark.parametrize("size", [(64, 96), (128, 64)], ids=str)
    def test_boxes_of_cells_begin_around_the_centres_of_the_cells(self, size):
        """So the anchors of `transformers` are those of the size, and cells have the order that the loss thinks."""
        said = make_rtdetr().eval()(torch.rand(1, 3, *size)).raw
        cells = centres_of_cells(*size, said.boxes)
        assert cells.shape == (said.boxes.shape[1], 2)
        torch.testing.assert_close(said.boxes[0, :, :2], cells)

    def test_centres_of_cells(self):
        cells = centres_of_cells(32, 64, torch.zeros(1))
        assert len(cells) == 32 + 8 + 2
        assert cells[0].tolist() == [4 / 64, 4 / 32]
        assert cells[9].tolist() == [12 / 64, 12 / 32]
        assert cells[-1].tolist() == [48 / 64, 16 / 32]

    @torch.no_grad()
    @both
    def test_boxes_are_in_float32_under_autocast(self, make):
        network, images = make().eval(), part(96, 128)[0]
        with torch.autocast("cpu", torch.bfloat16):
            raw = network(images).raw
        layers = raw if isinstance(raw, Layers) else raw.layers
        assert layers.boxes.dtype == layers.logits.dtype == torch.float32
        assert (layers.boxes != layers.boxes.bfloat16().float()).any()

    def test_boxes_come_in_pixels_of_the_image(self):
        view = View.to_multiple(70, 100, 32)
        boxes = torch.tensor([[0.25, 0.5, 0.1, 0.2], [0.99, 0.5, 0.1, 0.2]]).view(1, 1, 2, 4)
        logits = torch.tensor([[3.0, -20, -20], [-20, 1, -20]]).view(1, 1, 2, 3)
        raw = Said(Layers(logits, boxes), torch.zeros(0), torch.zeros(0))
        (found,) = make_rtdetr().predict(Outputs(raw, torch.zeros(1), view))
        torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 28, 30, 42], [94, 28, 100, 42]]))
        assert found.classes.tolist() == [0, 1]
        assert found.scores.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])

    def test_a_query_of_detr_says_one_class_and_no_object_is_none(self):
        logits = torch.tensor([[2.0, 1, 0, 0], [0, 0, 0, 20]]).view(1, 1, 2, 4)
        raw = Layers(logits, torch.full((1, 1, 2, 4), 0.5))
        (found,) = make_detr().predict(Outputs(raw, torch.zeros(1), View.to_multiple(64, 64, 32)))
        assert found.classes.tolist() == [0]
        assert found.scores.tolist() == pytest.approx([float(logits[0, 0, 0].softmax(0)[0])])

    def test_the_best_are_chosen(self):
        boxes = torch.arange(20.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
        scores = torch.linspace(0.1, 0.9, 20)[:, None]
        assert torch.equal(choose(boxes, scores, Choice(limit=3)).boxes, boxes[[19, 18, 17]])
        assert len(choose(boxes, scores, Choice(score_threshold=0.5)).boxes) == 10
        assert choose(boxes, torch.zeros(20, 2), Choice()).boxes.shape == (0, 4)


class TestLoss:
    @torch.no_grad()
    @both
    def test_what_is_true_has_hardly_any_loss(self, make):
        """Queries that say the objects as they are, surely, and nothing else."""
        network, (_, targets) = make(), part(96, 128)
        view = network.view(96, 128)
        truth = Truth.of(targets, view, 3, torch.device("cpu"))
        classes = 4 if make is make_detr else 3
        logits = torch.full((1, 3, 20, classes), -20.0)
        if make is make_detr:
            logits[..., -1] = 20
        boxes = torch.full((1, 3, 20, 4), 0.5)
        for image, count in enumerate(truth.counts):
            boxes[0, image, 3 : 3 + count] = truth.boxes[image, :count]
            logits[0, image, 3 : 3 + count] = -20.0
            logits[0, image, range(3, 3 + count), truth.classes[image, :count]] = 20
        layers = Layers(logits, boxes)
        nothing = torch.full((3, 252, 3), -20.0), torch.zeros(3, 252, 4)
        raw = layers if make is make_detr else Said(layers, *nothing)
        losses = network.loss(Outputs(raw, torch.zeros(3, 1), view), targets, "none")
        assert truth.counts[0] > 1
        assert truth.counts[2] == 0
        assert losses.max() < 1e-3
        logits[0, 2, 0, 0] = 25
        assert network.loss(Outputs(raw, torch.zeros(3, 1), view), targets, "none")[2] > 0.1

    @both
    def test_class_ids_that_do_not_exist_are_refused(self, make):
        images, targets = part(96, 128)
        network = make()
        wrong = [Target(boxes=target.boxes, classes=target.classes + 2) for target in targets]
        with pytest.raises(LabelError, match=r"3 classes.*image 0.*4"):
            network.loss(network(images), wrong)
