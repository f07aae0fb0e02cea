"""YOLOv5 is the network that its publication describes, and its loss and predictions mean what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fuseloop.datasets.synthetic import BOX_NAMES
from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.tasks.detection.anchors import cluster_sizes
from fuseloop.tasks.detection.boxes import complete_iou, to_corners
from fuseloop.tasks.detection.yolov5 import (
    COCO_ANCHORS,
    STRIDES,
    Bottleneck,
    CrossStage,
    LossWeights,
    PyramidPooling,
    Selection,
    Size,
    YOLOv5,
    decode,
    select,
)
from fuseloop.tasks.protocol import Outputs, Target, View, hooked
from tests.tasks.tester import TaskNetworkTester, part, scenes

NARROW = Size(depth=1 / 3, width=1 / 8)
COCO = tuple(map(str, range(80)))


def anchors_of_the_scenes() -> torch.Tensor:
    boxes = torch.cat([target.boxes for target in scenes()[1]])
    return cluster_sizes(boxes[:, 2:] - boxes[:, :2], 9).view(3, 3, 2)


def make(**keywords: object) -> YOLOv5:
    return YOLOv5(BOX_NAMES, NARROW, anchors=anchors_of_the_scenes(), **keywords)


class TestYOLOv5(TaskNetworkTester):
    make = staticmethod(make)
    variants = ({}, {"channels": 1}, {"letterbox": 96})
    feature_shape = staticmethod(lambda height, width: (128, height // 32, width // 32))


class TestPublishedFigures:
    @pytest.mark.parametrize(
        ("size", "parameters", "billions"),
        [
            ("n", 1_872_157, 4.5),
            ("s", 7_235_389, 16.5),
            ("m", 21_190_557, 49.0),
            ("l", 46_563_709, 109.1),
            ("x", 86_749_405, 205.7),
        ],
    )
    def test_parameters_and_operations_with_80_classes(self, size, parameters, billions):
        with torch.device("meta"):
            network, image = YOLOv5(COCO, size).eval(), torch.rand(1, 3, 640, 640)
        assert parameter_count(network) == parameters
        assert 2e-9 * multiply_accumulates(network, image) == pytest.approx(billions, rel=0.01)

    def test_parameters_with_6_classes(self):
        assert parameter_count(YOLOv5(COCO[:6], "s")) == 7_035_811

    def test_one_channel_saves_two_thirds_of_the_stem_alone(self):
        assert parameter_count(YOLOv5(COCO)) - parameter_count(YOLOv5(COCO, channels=1)) == 2 * 32 * 6 * 6

    @torch.no_grad()
    @pytest.mark.parametrize(("size", "channels"), [("n", 256), ("s", 512)])
    def test_the_feature_is_what_the_last_block_gives(self, size, channels):
        network = YOLOv5(BOX_NAMES, size).eval()
        with hooked(network, "neck.refine_coarse.unite") as caught:
            outputs = network(torch.rand(1, 3, 64, 96))
        assert outputs.feature.shape == (1, channels, 2, 3)
        assert torch.equal(outputs.feature, caught.output)
        assert outputs.feature.amin() > -0.28, "SiLU, the least value of which is -0.278"


class TestBlocks:
    """What the number of parameters does not tell."""

    x = torch.rand(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def test_a_bottleneck_adds_its_input_where_it_is_residual(self):
        for residual in (True, False):
            block = Bottleneck(8, residual=residual).eval()
            block.layers[1].norm.weight.zero_()
            assert torch.equal(block(self.x), self.x if residual else torch.zeros_like(self.x))

    @torch.no_grad()
    def test_half_of_the_channels_go_past_the_bottlenecks(self):
        block = CrossStage(8, 8, 2, residual=False).eval()
        for bottleneck in block.blocks:
            bottleneck.layers[1].norm.weight.zero_()
        past = block.divide(self.x)[:, 4:]
        assert torch.equal(block(self.x), block.unite(torch.cat([torch.zeros_like(past), past], dim=1)))

    def test_residual_in_the_backbone_alone(self):
        network = make()
        assert all(block.residual for block in network.backbone.modules() if isinstance(block, Bottleneck))
        assert not any(block.residual for block in network.neck.modules() if isinstance(block, Bottleneck))

    @torch.no_grad()
    def test_pooling_takes_maxima_over_5_9_and_13_pixels(self):
        pooling = PyramidPooling(8).eval()
        reduced = pooling.reduce(self.x)
        maxima = [F.max_pool2d(reduced, side, stride=1, padding=side // 2) for side in (1, 5, 9, 13)]
        assert torch.equal(pooling(self.x), pooling.unite(torch.cat(maxima, dim=1)))


class TestConfiguration:
    def test_an_unknown_size_is_answered_by_those_that_there_are(self):
        with pytest.raises(ConfigurationError, match="no size 'xl'; choose one of n, s, m, l, x"):
            YOLOv5(BOX_NAMES, "xl")

    def test_two_channels_are_refused(self):
        with pytest.raises(ConfigurationError, match="not 2"):
            YOLOv5(BOX_NAMES, channels=2)

    def test_anchors_of_another_shape_are_refused(self):
        with pytest.raises(ConfigurationError, match="3×3×2"):
            YOLOv5(BOX_NAMES, NARROW, anchors=torch.ones(9, 2))

    def test_anchors_are_saved_with_the_weights(self):
        network = YOLOv5(BOX_NAMES, NARROW)
        assert network.anchors.tolist() == torch.tensor(COCO_ANCHORS).tolist()
        network.load_state_dict(make().state_dict())
        assert torch.equal(network.anchors, anchors_of_the_scenes())

    def test_what_is_selected_by_default(self):
        """Recorded, since scores depend on it."""
        assert Selection() == Selection(score_threshold=0.001, nms_iou=0.6, limit=300)

    @torch.no_grad()
    def test_one_channel_sees_the_luma(self):
        network = make(channels=1).eval()
        images = torch.rand(2, 3, 64, 64)
        luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
        torch.testing.assert_close(network(images).feature, network(luma.expand(-1, 3, -1, -1)).feature)

    @torch.no_grad()
    def test_nothing_is_normalised(self):
        network, images = make(), torch.rand(1, 3, 64, 64)
        assert torch.equal(network.prepare(images, network.view(64, 64)), images)

    @torch.no_grad()
    def test_training_begins_with_the_belief_in_a_few_objects(self):
        network = make().train()
        raw = network(torch.rand(2, 3, 640, 640)).raw
        beliefs = sum(level[..., 4].sigmoid().sum() for level in raw) / 2
        assert 8 < beliefs < 200


def plain_loss(raw: list[torch.Tensor], anchors: torch.Tensor, target: Target, height: int, width: int) -> float:
    """The loss of one image by its definition, box by box and cell by cell, for three classes and the weights 1."""
    total = 0.0
    for level, stride, sizes in zip(raw, STRIDES, anchors.tolist(), strict=True):
        box_terms, class_terms = [], []
        wanted = torch.zeros(level.shape[:3])
        rows, columns = level.shape[1:3]
        for box, name in zip(target.boxes, target.classes, strict=True):
            x1, y1, x2, y2 = box.tolist()
            x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
            row, column = int(y // stride), int(x // stride)
            cells = [
                (row, column),
                (row, column + (1 if x / stride - column >= 0.5 else -1)),
                (row + (1 if y / stride - row >= 0.5 else -1), column),
            ]
            for index, (aw, ah) in enumerate(sizes):
                if max(w / aw, aw / w, h / ah, ah / h) >= 4:
                    continue
                for r, c in cells:
                    if not (0 <= r < rows and 0 <= c < columns):
                        continue
                    said = level[index, r, c]
                    shares = [2 * s for s in said[:4].sigmoid().tolist()]
                    middle = (shares[0] - 0.5 + c) * stride, (shares[1] - 0.5 + r) * stride
                    size = shares[2] ** 2 * aw, shares[3] ** 2 * ah
                    overlap = float(complete_iou(to_corners(torch.tensor([*middle, *size])), box))
                    box_terms.append(1 - overlap)
                    truth = F.one_hot(name, 3).float()
                    class_terms.append(float(F.binary_cross_entropy_with_logits(said[5:], truth)))
                    wanted[index, r, c] = max(float(wanted[index, r, c]), overlap, 0)
        if box_terms:
            total += sum(box_terms) / len(box_terms) + 3 / 80 * sum(class_terms) / len(class_terms)
        objectness = F.binary_cross_entropy_with_logits(level[..., 4], wanted)
        total += height * width / 640**2 * float(objectness)
    return total


class TestLoss:
    @torch.no_grad()
    def test_it_is_that_of_its_definition(self):
        network = make(loss_weights=LossWeights(1, 1, 1, (1, 1, 1)))
        images, targets = part(96, 128)
        raw = network(images).raw
        generator = torch.Generator().manual_seed(0)
        raw = [torch.randn(level.shape, generator=generator) for level in raw]
        outputs = Outputs(raw, torch.zeros(3, 1), network.view(96, 128))
        expected = [
            plain_loss([level[i] for level in raw], network.anchors, target, 96, 128)
            for i, target in enumerate(targets)
        ]
        assert len(targets[0].boxes) > 1
        torch.testing.assert_close(network.loss(outputs, targets, "none"), torch.tensor(expected))

    @torch.no_grad()
    def test_it_does_not_grow_with_the_batch(self):
        images, targets = part(96, 128)
        network = make().eval()
        once = network.loss(network(images), targets)
        twice = network.loss(network(images.repeat(2, 1, 1, 1)), targets * 2)
        torch.testing.assert_close(once, twice)

    @torch.no_grad()
    def test_the_terms_have_their_weights(self):
        images, targets = part(96, 128)
        networks = {
            name: make(loss_weights=LossWeights(**{"box": 0, "objectness": 0, "classification": 0} | {name: 1}))
            for name in ("box", "objectness", "classification")
        }
        whole = make()
        terms = {}
        for name, network in networks.items():
            network.load_state_dict(whole.state_dict())
            terms[name] = network.eval().loss(network(images), targets, "none")
        weights = LossWeights()
        total = sum(getattr(weights, name) * term for name, term in terms.items())
        torch.testing.assert_close(whole.eval().loss(whole(images), targets, "none"), total)
        assert not terms["box"][2], "the third image has no objects"
        assert not terms["classification"][2]
        assert terms["objectness"][2] > 0

    def test_objectness_does_not_move_boxes(self):
        images, targets = part(96, 128)
        network = make(loss_weights=LossWeights(box=0, classification=0))
        outputs = network(images)
        gradients = torch.autograd.grad(network.loss(outputs, targets), outputs.raw)
        assert all(gradient[..., 4].any() for gradient in gradients)
        assert not any(gradient[..., :4].any() for gradient in gradients)

    def test_a_batch_without_objects_teaches_that_there_are_none(self):
        images, targets = part(96, 128)
        network = make()
        network.loss(network(images[2:].repeat(2, 1, 1, 1)), [targets[2]] * 2).backward()
        bias = network.head[0].bias.grad.view(3, 8)
        assert (bias[:, 4] > 0).all()
        assert not bias[:, [0, 1, 2, 3, 5, 6, 7]].any()

    @torch.no_grad()
    def test_boxes_are_compared_in_pixels_of_the_input(self):
        """A letterboxed image has the loss of an image that is what its letterbox shows."""
        images, targets = part(70, 100)
        network = make(letterbox=64).eval()
        outputs = network(images)
        assert (outputs.view.shown_height, outputs.view.top) == (45, 9)
        shown = [Target(boxes=outputs.view.boxes_to_input(target.boxes), classes=target.classes) for target in targets]
        itself = replace(outputs, view=View.to_multiple(64, 64, 32))
        torch.testing.assert_close(network.loss(outputs, targets), network.loss(itself, shown))
        assert not torch.allclose(network.loss(outputs, targets), network.loss(itself, targets), rtol=1e-4)

    def test_class_ids_that_do_not_exist_are_refused(self):
        images, targets = part(96, 128)
        network = make()
        wrong = [Target(boxes=target.boxes, classes=target.classes + 2) for target in targets]
        with pytest.raises(LabelError, match=r"3 classes.*got \[.*4"):
            network.loss(network(images), wrong)


class TestPrediction:
    def test_a_box_is_decoded_as_published(self):
        raw, cell = torch.tensor([0.0, 0, 0, 0]), torch.tensor([3, 5])
        assert decode(raw, torch.tensor([10.0, 20.0]), cell, 8).tolist() == [28, 44, 10, 20]
        far = decode(torch.tensor([50.0, -50.0, 50.0, -50.0]), torch.tensor([10.0, 20.0]), cell, 8)
        assert far.tolist() == pytest.approx([(3 + 1.5) * 8, (5 - 0.5) * 8, 40, 0])

    @pytest.mark.parametrize("letterbox", [None, 96])
    def test_boxes_come_in_pixels_of_the_image(self, letterbox):
        """What the head says of a target's own cell and anchor is found at the target."""
        network = make(letterbox=letterbox).eval()
        view = network.view(70, 100)
        box = torch.tensor([[20.0, 30.0, 44.0, 62.0]])
        x1, y1, x2, y2 = view.boxes_to_input(box)[0].tolist()
        shapes = [(1, 3, view.input_height // stride, view.input_width // stride, 8) for stride in STRIDES]
        raw = [torch.full(shape, -20.0) for shape in shapes]
        row, column = int((y1 + y2) / 2 // 16), int((x1 + x2) / 2 // 16)
        size = torch.tensor([x2 - x1, y2 - y1]) / network.anchors[1, 2]
        place = torch.tensor([(x1 + x2) / 32 - column, (y1 + y2) / 32 - row])
        said = raw[1][0, 2, row, column]
        said[:4] = torch.logit(torch.cat([place + 0.5, size.sqrt()]) / 2)
        said[4], said[6] = 4.0, 3.0
        (found,) = network.predict(Outputs(raw, torch.zeros(1), view))
        torch.testing.assert_close(found.boxes, box, atol=1e-3, rtol=0)
        assert found.classes.tolist() == [1]
        torch.testing.assert_close(found.scores, torch.tensor([4.0]).sigmoid() * torch.tensor([3.0]).sigmoid())

    def test_a_box_may_be_of_several_classes_and_faint_ones_are_dropped(self):
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
        scores = torch.tensor([[0.9, 0.5], [0.8, 0.1], [0.01, 0.2]])
        found = select(boxes, scores, Selection(score_threshold=0.05))
        assert found.boxes.tolist() == boxes[[0, 0, 2]].tolist()
        assert found.classes.tolist() == [0, 1, 1]
        torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.5, 0.2]))

    def test_the_best_are_kept(self):
        boxes = torch.arange(20.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
        scores = torch.linspace(0.1, 0.9, 20)[:, None]
        for selection in (Selection(limit=4), Selection(candidates=4)):
            found = select(boxes, scores, selection)
            assert torch.equal(found.boxes, boxes[[19, 18, 17, 16]])

    def test_without_any_box_above_the_threshold_nothing_is_found(self):
        found = select(torch.rand(5, 4), torch.zeros(5, 2), Selection())
        assert found.boxes.shape == (0, 4)
        assert len(found.scores) == len(found.classes) == 0
