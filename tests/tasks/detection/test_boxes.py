"""Overlaps and suppression, held to plain slow versions of themselves."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fuseloop.tasks.detection.boxes import (
    area,
    complete_iou,
    generalised_iou,
    iou,
    suppress,
    to_centres,
    to_corners,
)

quickly = settings(deadline=None, max_examples=100)


def boxes_of(seed: int, count: int, side: float = 100) -> Tensor:
    """Boxes of all sizes up to the frame, some alike: float64, so that comparisons are sharp."""
    generator = torch.Generator().manual_seed(seed)
    corners = side * torch.rand(count, 2, 2, generator=generator, dtype=torch.float64)
    corners[1::3] = corners[:-1:3][: len(corners[1::3])] + torch.rand(1, generator=generator)
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


def plain_iou(a: list[float], b: list[float]) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def plain_suppress(boxes: Tensor, scores: Tensor, classes: Tensor | None, threshold: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        rivals = [other for other in kept if classes is None or classes[other] == classes[index]]
        if all(plain_iou(boxes[other].tolist(), boxes[index].tolist()) <= threshold for other in rivals):
            kept.append(index)
    return kept


seeds = st.integers(0, 10_000)


class TestConversions:
    @quickly
    @given(seeds)
    def test_centres_and_corners_are_two_ways_to_say_a_box(self, seed):
        boxes = boxes_of(seed, 7)
        torch.testing.assert_close(to_corners(to_centres(boxes)), boxes)
        torch.testing.assert_close(to_centres(boxes)[:, 2:].prod(dim=1), area(boxes))

    def test_of_one_box(self):
        box = torch.tensor([10.0, 20, 30, 60])
        assert to_centres(box).tolist() == [20, 40, 20, 40]
        assert area(box) == 800
        assert area(box[[2, 1, 0, 3]]) == 0


class TestOverlaps:
    def test_of_two_boxes_by_hand(self):
        a, b = torch.tensor([0.0, 0, 4, 2]), torch.tensor([2.0, 0, 6, 4])
        assert iou(a, b) == pytest.approx(4 / 20)
        assert generalised_iou(a, b) == pytest.approx(4 / 20 - (24 - 20) / 24)
        proportions = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
        distance = (2**2 + 1**2) / (6**2 + 4**2)
        expected = 0.2 - distance - proportions**2 / (0.8 + proportions)
        assert complete_iou(a, b) == pytest.approx(expected, abs=1e-6)

    @quickly
    @given(seeds)
    def test_all_pairs_at_once_equal_the_plain_one(self, seed):
        a, b = boxes_of(seed, 6), boxes_of(seed + 1, 5)
        expected = torch.tensor([[plain_iou(x, y) for y in b.tolist()] for x in a.tolist()], dtype=torch.float64)
        torch.testing.assert_close(iou(a[:, None], b), expected)
        torch.testing.assert_close(iou(a[:5], b), expected[:5].diagonal())

    @quickly
    @given(seeds, st.floats(0.1, 10), st.floats(-50, 50))
    def test_neither_size_nor_place_nor_order_matters(self, seed, scale, shift):
        a, b = boxes_of(seed, 6), boxes_of(seed + 1, 6)
        for overlap in (iou, generalised_iou, complete_iou):
            torch.testing.assert_close(overlap(b, a), overlap(a, b))
            torch.testing.assert_close(overlap(scale * a + shift, scale * b + shift), overlap(a, b), atol=1e-5, rtol=0)

    @quickly
    @given(seeds)
    def test_they_are_ordered_and_bounded(self, seed):
        a, b = boxes_of(seed, 6), boxes_of(seed + 1, 6)
        plain, generalised, complete = (overlap(a, b) for overlap in (iou, generalised_iou, complete_iou))
        assert ((plain >= 0) & (plain <= 1)).all()
        assert ((generalised >= -1) & (generalised <= plain + 1e-12)).all()
        assert (complete <= plain + 1e-12).all()
        for overlap in (iou, generalised_iou, complete_iou):
            torch.testing.assert_close(overlap(a, a), torch.ones_like(plain), atol=1e-6, rtol=0)

    def test_empty_boxes_make_no_nan(self):
        point = torch.tensor([5.0, 5, 5, 5], requires_grad=True)
        other = torch.tensor([5.0, 5, 9, 9])
        for overlap in (iou, generalised_iou, complete_iou):
            for value in (overlap(point, other), overlap(point, point)):
                (gradient,) = torch.autograd.grad(value, point)
                assert value.isfinite()
                assert gradient.isfinite().all()

    def test_the_weight_of_the_proportions_is_a_constant_in_the_gradient(self):
        a, b = boxes_of(3, 4).requires_grad_(), boxes_of(4, 4)
        sizes = [box[:, 2:] - box[:, :2] for box in (a, b)]
        ratio_a, ratio_b = (torch.atan(size[:, 0] / size[:, 1]) for size in sizes)
        proportions = 4 / math.pi**2 * (ratio_a - ratio_b).square()
        weight = (proportions / (1 - iou(a, b) + proportions)).detach()
        distance = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).square().sum(dim=1) / 4
        diagonal = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).square().sum(dim=1)
        (expected,) = torch.autograd.grad((iou(a, b) - distance / diagonal - weight * proportions).sum(), a)
        (found,) = torch.autograd.grad(complete_iou(a, b).sum(), a)
        torch.testing.assert_close(found, expected)

    def test_complete_iou_draws_boxes_together_that_do_not_touch(self):
        box, target = torch.tensor([0.0, 0, 2, 2], requires_grad=True), torch.tensor([10.0, 0, 14, 2])
        assert not iou(box, target)
        (gradient,) = torch.autograd.grad(complete_iou(box, target), box)
        assert gradient[0] + gradient[2] > 0.01
        assert gradient[1] + gradient[3] == pytest.approx(0)


class TestSuppression:
    @quickly
    @given(seeds, st.integers(0, 40), st.sampled_from([0.0, 0.3, 0.6, 1.0]), st.booleans())
    def test_it_is_the_plain_greedy_one(self, seed, count, threshold, by_class):
        boxes = boxes_of(seed, count)
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randint(10, (count,), generator=generator) / 10  # with ties
        classes = torch.randint(3, (count,), generator=generator) if by_class else None
        expected = plain_suppress(boxes, scores, classes, threshold)
        assert suppress(boxes, scores, classes, threshold=threshold).tolist() == expected

    @pytest.mark.parametrize("threshold", [0.2, 0.6])
    def test_across_blocks_too(self, threshold, monkeypatch):
        monkeypatch.setattr("fuseloop.tasks.detection.boxes.BLOCK", 16)
        boxes = boxes_of(0, 150)
        scores = torch.rand(150, generator=torch.Generator().manual_seed(0))
        classes = torch.arange(150) % 2
        kept = suppress(boxes, scores, classes, threshold=threshold)
        assert len(kept) > 2 * 16
        assert kept.tolist() == plain_suppress(boxes, scores, classes, threshold)
        assert suppress(boxes, scores, classes, threshold=threshold, limit=20).tolist() == kept[:20].tolist()

    def test_a_chain_falls_every_other_link(self):
        """Each box overlaps its neighbours alone, so what falls must not make others fall."""
        left = torch.arange(100.0)
        boxes = torch.stack([left, torch.zeros(100), left + 2, torch.ones(100)], dim=1)
        assert suppress(boxes, -left, threshold=0.2).tolist() == list(range(0, 100, 2))

    def test_boxes_of_other_classes_stay(self):
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]])
        scores, classes = torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 1, 0])
        assert suppress(boxes, scores, classes, threshold=0.6).tolist() == [1, 2]
        assert suppress(boxes, scores, threshold=0.6).tolist() == [1]

    def test_of_no_boxes(self):
        assert suppress(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), threshold=0.5).tolist() == []
