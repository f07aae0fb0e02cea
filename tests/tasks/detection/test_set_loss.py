"""Matches are the cheapest that there are, and the loss of an image is its own."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fuseloop.errors import LabelError
from fuseloop.tasks.detection.boxes import generalised_iou, iou, to_corners
from fuseloop.tasks.detection.set_loss import (
    Truth,
    Weights,
    cell_loss,
    focal_set_loss,
    match,
    pair_costs,
    softmax_set_loss,
)
from fuseloop.tasks.protocol import Target, View

CPU = torch.device("cpu")
CLASSES = 3


def truth_of(*counts: int, seed: int = 0) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    room = max([1, *counts])
    middle = 0.2 + 0.6 * torch.rand(len(counts), room, 2, generator=generator)
    size = 0.1 + 0.2 * torch.rand(len(counts), room, 2, generator=generator)
    classes = torch.randint(CLASSES, (len(counts), room), generator=generator)
    return Truth(torch.cat([middle, size], dim=-1), classes, counts)


def said(images: int, *, layers: int = 2, queries: int = 6, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(layers, images, queries, classes, generator=generator)
    middle = 0.2 + 0.6 * torch.rand(layers, images, queries, 2, generator=generator)
    size = 0.1 + 0.2 * torch.rand(layers, images, queries, 2, generator=generator)
    return logits, torch.cat([middle, size], dim=-1)


def softmax_loss(logits: Tensor, boxes: Tensor, truth: Truth) -> Tensor:
    return softmax_set_loss(logits, boxes, truth, costs=Weights(), weights=Weights(), no_object=0.1)


def focal_loss(logits: Tensor, boxes: Tensor, truth: Truth) -> Tensor:
    return focal_set_loss(logits, boxes, truth, costs=Weights(2.0), weights=Weights())


def grid(side: int = 8) -> Tensor:
    steps = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)


def of_cells(logits: Tensor, boxes: Tensor, truth: Truth, **keywords: int) -> Tensor:
    return cell_loss(logits, boxes, grid(), torch.tensor([1 / 8, 1 / 8]), truth, weights=Weights(), **keywords)


class TestMatch:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 4))
    def test_it_is_the_cheapest_of_all_permutations(self, seed, queries, count):
        costs = torch.rand(2, 1, queries, 5, generator=torch.Generator().manual_seed(seed))
        for of_layer, found in zip(costs[:, 0].double(), match(costs, [count])[:, 0], strict=True):
            chosen = (found >= 0).nonzero()[:, 0]
            assert len(chosen) == len({*found[chosen].tolist()}) == min(queries, count)
            assert (found < count).all()
            if queries >= count:
                every = [sum(of_layer[q, o] for o, q in enumerate(p)) for p in permutations(range(queries), count)]
            else:
                every = [sum(of_layer[q, o] for q, o in enumerate(p)) for p in permutations(range(count), queries)]
            cheapest = min(map(float, every)) if count else 0.0
            assert float(of_layer[chosen, found[chosen]].sum()) == pytest.approx(cheapest)

    def test_costs_that_are_no_numbers_do_not_stop_it(self):
        """Weights that diverged are told by the loss."""
        costs = torch.full((1, 1, 4, 2), torch.nan)
        costs[0, 0, 2, 1] = 1.0
        assert match(costs, [2])[0, 0, 2] == 1

    def test_the_costs_are_those_of_the_definition(self):
        truth, (logits, boxes) = truth_of(2, 3), said(2)
        costs = pair_costs(boxes, truth, logits, Weights(1.5, 4.0, 3.0))
        layer, image, query, index = 1, 1, 4, 2
        box, wanted = boxes[layer, image, query], truth.boxes[image, index]
        expected = 1.5 * logits[layer, image, query, truth.classes[image, index]] + 4 * (box - wanted).abs().sum()
        expected = expected - 3 * generalised_iou(to_corners(box), to_corners(wanted))
        torch.testing.assert_close(costs[layer, image, query, index], expected)


class TestTruth:
    def test_boxes_are_shares_of_the_input_and_images_have_room_for_the_most(self):
        view = View.to_multiple(70, 100, 32)
        one = Target(boxes=torch.tensor([[0.0, 0, 50, 35]]), classes=torch.tensor([2]))
        none = Target(boxes=torch.zeros(0, 4), classes=torch.zeros(0).long())
        truth = Truth.of([one, none], view, CLASSES, CPU)
        torch.testing.assert_close(truth.boxes[0], torch.tensor([[0.25, 0.25, 0.5, 0.5]]))
        assert truth.classes[0].tolist() == [2]
        assert truth.counts == (1, 0)
        assert truth.real.tolist() == [[True], [False]]
        assert truth.share.tolist() == [1, 1]

    def test_labels_that_are_missing_or_wrong_are_named(self):
        view = View.to_multiple(64, 64, 32)
        with pytest.raises(LabelError, match=r"image 0 .* no boxes"):
            Truth.of([Target()], view, CLASSES, CPU)
        with pytest.raises(LabelError, match=r"3 classes.*image 0.*\[7\]"):
            Truth.of([Target(boxes=torch.ones(1, 4), classes=torch.tensor([7]))], view, CLASSES, CPU)


losses = pytest.mark.parametrize(("loss", "classes"), [(softmax_loss, CLASSES + 1), (focal_loss, CLASSES)])


class TestSetLosses:
    @losses
    def test_the_loss_of_an_image_is_its_own(self, loss, classes):
        truth, (logits, boxes) = truth_of(2, 0, 4), said(3, classes=classes)
        together = loss(logits, boxes, truth)
        assert together.shape == (3,)
        for image, count in enumerate(truth.counts):
            room = slice(0, max(1, count))
            alone = Truth(truth.boxes[image : image + 1, room], truth.classes[image : image + 1, room], (count,))
            of_image = loss(logits[:, image : image + 1], boxes[:, image : image + 1], alone)
            torch.testing.assert_close(of_image[0], together[image])

    @losses
    def test_it_is_the_sum_over_the_layers(self, loss, classes):
        truth, (logits, boxes) = truth_of(2, 3), said(2, classes=classes)
        separate = sum(loss(logits[i : i + 1], boxes[i : i + 1], truth) for i in range(2))
        torch.testing.assert_close(loss(logits, boxes, truth), separate)

    @losses
    def test_an_image_without_objects_moves_no_box(self, loss, classes):
        logits, boxes = (value.requires_grad_() for value in said(1, classes=classes))
        of_logits, of_boxes = torch.autograd.grad(loss(logits, boxes, truth_of(0)).sum(), (logits, boxes))
        assert of_logits.any()
        assert not of_boxes.any()

    @losses
    def test_more_objects_than_queries_are_no_problem(self, loss, classes):
        logits, boxes = said(1, queries=2, classes=classes)
        assert loss(logits, boxes, truth_of(5)).isfinite().all()

    @losses
    def test_the_order_of_the_objects_does_not_matter(self, loss, classes):
        truth, (logits, boxes) = truth_of(3, 3), said(2, classes=classes)
        turned = Truth(truth.boxes.flip(1), truth.classes.flip(1), truth.counts)
        torch.testing.assert_close(loss(logits, boxes, truth), loss(logits, boxes, turned))

    def test_softmax_loss_is_that_of_its_definition(self):
        truth, (logits, boxes) = truth_of(2), said(1, layers=1, queries=4, classes=4)
        said_boxes, said_logits = boxes[0, 0], logits[0, 0]

        def box_cost(query: int, index: int) -> Tensor:
            box, wanted = said_boxes[query], truth.boxes[0, index]
            return 5 * (box - wanted).abs().sum() + 2 * (1 - generalised_iou(to_corners(box), to_corners(wanted)))

        def cost(pair: tuple[int, ...]) -> float:
            probability = said_logits.softmax(-1)
            classes = [-probability[query, truth.classes[0, index]] for index, query in enumerate(pair)]
            return float(sum(classes) + sum(box_cost(query, index) for index, query in enumerate(pair)))

        best = min(permutations(range(4), 2), key=cost)
        names = torch.full((4,), 3)
        names[list(best)] = truth.classes[0]
        expected = F.cross_entropy(said_logits, names, torch.tensor([1, 1, 1, 0.1]))
        expected = expected + sum(box_cost(query, index) for index, query in enumerate(best)) / 2
        torch.testing.assert_close(softmax_loss(logits, boxes, truth)[0], expected)

    def test_a_matched_query_is_to_say_the_iou_of_its_box(self):
        """The gradient of the score vanishes there."""
        truth, (_, boxes) = truth_of(1), said(1, layers=1, queries=1)
        boxes[0, 0, 0] = truth.boxes[0, 0] + torch.tensor([0.02, 0, 0, 0])
        overlap = iou(to_corners(boxes[0, 0, 0]), to_corners(truth.boxes[0, 0]))
        logits = torch.full((1, 1, 1, CLASSES), -20.0)
        name = truth.classes[0, 0]
        logits[0, 0, 0, name] = torch.logit(overlap)
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(focal_loss(logits, boxes, truth).sum(), logits)
        assert gradient.abs().max() < 1e-6
        shifted = (logits.detach() + 1).requires_grad_()
        (gradient,) = torch.autograd.grad(focal_loss(shifted, boxes, truth).sum(), shifted)
        assert gradient[0, 0, 0, name] > 0.01


class TestCellLoss:
    boxes = torch.cat([grid(), torch.full((64, 2), 0.2)], dim=1)[None]
    logits = torch.full((1, 64, CLASSES), -2.0)

    def test_the_cells_that_overlap_most_are_taught_and_only_they(self):
        truth = Truth(torch.tensor([[[0.4375, 0.4375, 0.25, 0.25]]]), torch.tensor([[1]]), (1,))
        boxes = self.boxes.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(of_cells(self.logits, boxes, truth, cells_each=1).sum(), boxes)
        assert gradient[0].any(dim=1).nonzero().tolist() == [[3 * 8 + 3]]
        (gradient,) = torch.autograd.grad(of_cells(self.logits, boxes, truth, cells_each=5).sum(), boxes)
        assert gradient[0].any(dim=1).sum() == 1, "the other cells are on the edge of the box and not in it"
        truth = Truth(torch.tensor([[[0.4375, 0.4375, 0.3, 0.3]]]), torch.tensor([[1]]), (1,))
        (gradient,) = torch.autograd.grad(of_cells(self.logits, boxes, truth, cells_each=5).sum(), boxes)
        assert sorted(gradient[0].any(dim=1).nonzero()[:, 0].tolist()) == [19, 26, 27, 28, 35]

    def test_objects_smaller_than_a_cell_are_taught_too(self):
        truth = Truth(torch.tensor([[[0.5, 0.5, 0.01, 0.01]]]), torch.tensor([[1]]), (1,))
        boxes = self.boxes.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(of_cells(self.logits, boxes, truth).sum(), boxes)
        assert gradient[0].any(dim=1).nonzero()[:, 0].tolist() == [27, 28, 35, 36]

    def test_a_cell_answers_for_the_object_that_it_overlaps_most(self):
        """Two objects at one place: the cell in the middle is taught the one of about its size, and no other class."""
        both = torch.tensor([[[0.4375, 0.4375, 0.5, 0.5], [0.4375, 0.4375, 0.21, 0.21]]])
        truth = Truth(both, torch.tensor([[0, 2]]), (2,))
        boxes, logits = self.boxes.clone().requires_grad_(), self.logits.clone().requires_grad_()
        of_boxes, of_logits = torch.autograd.grad(of_cells(logits, boxes, truth).sum(), (boxes, logits))
        assert of_boxes[0, 27, 2:].max() < 0, "it is to grow, from 0.2 to 0.21"
        assert of_logits[0, 27, 2] < 0 < of_logits[0, 27, 0]

    def test_the_loss_of_an_image_is_its_own(self):
        truth = truth_of(2, 0, 4)
        boxes, logits = self.boxes.expand(3, -1, -1), torch.randn(3, 64, CLASSES)
        together = of_cells(logits, boxes, truth)
        for image, count in enumerate(truth.counts):
            room = slice(0, max(1, count))
            alone = Truth(truth.boxes[image : image + 1, room], truth.classes[image : image + 1, room], (count,))
            of_image = of_cells(logits[image : image + 1], boxes[image : image + 1], alone)
            torch.testing.assert_close(of_image[0], together[image])

    def test_without_objects_it_teaches_that_there_are_none(self):
        logits, boxes = self.logits.clone().requires_grad_(), self.boxes.clone().requires_grad_()
        of_logits, of_boxes = torch.autograd.grad(of_cells(logits, boxes, truth_of(0)).sum(), (logits, boxes))
        assert (of_logits > 0).all()
        assert not of_boxes.any()
