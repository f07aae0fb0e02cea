"""Predictions drawn over their images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES, generate
from fuseloop.reports.overlays import class_colours
from fuseloop.reports.predictions import draw_beside_labels, draw_prediction, saliency_levels
from fuseloop.tasks.protocol import Prediction, Target

GREY = np.full((60, 80, 3), 90, np.uint8)
CLASSES = ("background", "car", "person", "bike")


def boxes(*corners: tuple[int, int, int, int], scores: tuple[float, ...]) -> Prediction:
    return Prediction(
        torch.tensor(corners).float().reshape(-1, 4), torch.arange(len(corners)) % 3, torch.tensor(scores)
    )


def changed(image: np.ndarray) -> tuple[int, int, int, int]:
    """The box of what differs from grey."""
    rows, columns = np.nonzero((image != 90).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


class TestBoxes:
    def test_the_outline_has_the_colour_of_the_class_and_the_inside_stays(self):
        drawn = draw_prediction(GREY, boxes((10, 30, 50, 55), scores=(0.9,)), BOX_NAMES)
        assert (drawn[40, 10] == class_colours(BOX_NAMES)["person"]).all()
        assert (drawn[35:50, 15:45] == 90).all()

    def test_weak_boxes_are_left_out(self):
        weak, alone = (
            boxes((10, 30, 50, 55), (5, 20, 60, 40), scores=(0.5, 0.2)),
            boxes((10, 30, 50, 55), scores=(0.5,)),
        )
        drawn = draw_prediction(GREY, weak, BOX_NAMES)
        assert np.array_equal(drawn, draw_prediction(GREY, alone, BOX_NAMES))
        assert not np.array_equal(drawn, draw_prediction(GREY, weak, BOX_NAMES, threshold=0.1))

    @pytest.mark.parametrize("corners", [(70, 30, 80, 55), (0, 0, 80, 60), (0, 0, 20, 10), (60, 50, 80, 60)])
    def test_names_stay_in_the_image(self, corners):
        drawn = draw_prediction(GREY, boxes(corners, scores=(0.87,)), ["dog"] * 3)
        ground = (drawn == class_colours(["dog"])["dog"]).all(axis=2)
        assert drawn.shape == GREY.shape
        assert ground.sum(axis=1).max() > 20  # a row of the ground on which the name stands
        left = changed(drawn)[0]
        assert left <= min(corners[0], 80 - 45)

    def test_nothing_found_is_the_image(self):
        assert np.array_equal(draw_prediction(GREY, boxes(scores=()), BOX_NAMES), GREY)


class TestMasks:
    def test_classes_are_coloured_and_named_below(self):
        ids = torch.zeros(60, 80, dtype=torch.long)
        ids[10:20, 10:20] = 2
        drawn = draw_prediction(GREY, Prediction(segmentation=ids), CLASSES)
        assert changed(drawn[:60]) == (10, 10, 20, 20)
        assert drawn.shape[0] > 60
        assert (drawn[60:] == class_colours(CLASSES[1:])["person"]).all(axis=2).any()
        assert not (drawn[60:] == class_colours(CLASSES[1:])["car"]).all(axis=2).any()

    def test_nothing_found_is_the_image(self):
        none = Prediction(segmentation=torch.zeros(60, 80, dtype=torch.long))
        assert np.array_equal(draw_prediction(GREY, none, CLASSES), GREY)


class TestSaliency:
    def test_what_is_not_salient_turns_dark(self):
        saliency = torch.zeros(60, 80)
        saliency[20:40, 20:60] = 1
        drawn = draw_prediction(GREY, Prediction(saliency=saliency), ())
        assert (drawn[25:35, 25:55] == 90).all()
        assert drawn[5, 5].max() < 45

    def test_levels_are_rounded_and_stay_in_range(self):
        assert saliency_levels(torch.tensor([[-0.1, 0.5, 1.1]])).tolist() == [[0, 128, 255]]


class TestBesideLabels:
    pair = LabelledPair.of(generate(5, 96, 128))

    @pytest.mark.parametrize("kind", ["boxes", "segmentation", "saliency"])
    def test_a_right_prediction_looks_like_its_label(self, kind):
        target = Target.of(self.pair)
        prediction = (
            Prediction(boxes=target.boxes, classes=target.classes, scores=torch.ones(len(target.boxes)))
            if kind == "boxes"
            else Prediction(**{kind: getattr(target, kind)})
        )
        classes = BOX_NAMES if kind == "boxes" else SEGMENTATION_NAMES
        drawn = draw_beside_labels(self.pair.visible, prediction, target, classes)
        top = 16
        labelled, predicted = drawn[top : top + 96, :128], drawn[top : top + 96, 132:260]
        assert not np.array_equal(labelled, self.pair.visible)
        if kind == "boxes":  # the names of predicted ones have scores
            assert np.array_equal(draw_prediction(self.pair.visible, prediction, classes), predicted)
        else:
            assert np.array_equal(labelled, predicted)

    def test_the_legend_has_what_is_labelled_and_what_is_predicted(self):
        labelled, predicted = torch.zeros(60, 80, dtype=torch.long), torch.zeros(60, 80, dtype=torch.long)
        labelled[5:9, 5:9], predicted[20:30, 20:30] = 1, 3
        drawn = draw_beside_labels(GREY, Prediction(segmentation=predicted), Target(segmentation=labelled), CLASSES)
        below = drawn[80:]
        colours = class_colours(CLASSES[1:])
        there = {name for name, colour in colours.items() if (below == colour).all(axis=2).any()}
        assert there == {"car", "bike"}
