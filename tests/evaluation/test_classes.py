"""Classes are matched by their names."""

from __future__ import annotations

import numpy as np
import pytest

from fuseloop.datasets.labelled import IGNORED
from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.evaluation.classes import check_same, match_classes
from fuseloop.evaluation.evaluate import evaluate
from fuseloop.evaluation.sources import RuleSource
from tests.evaluation.fakes import Painted, PaintedDetector, PaintedSaliency, PaintedSegmenter

VISIBLE = {"visible": RuleSource("visible")}


class TestBoxes:
    def test_numbers_become_those_of_the_network(self):
        match = match_classes(PaintedDetector(("car", "lamp", "person")), Painted(box_names=("Person", "dog", "CAR")))
        assert match.numbers == (2, -1, 0)
        assert match.unknown == ("dog",)
        assert match.unlabelled == ("lamp",)

    def test_boxes_of_unknown_classes_are_dropped(self):
        pairs = Painted(box_names=("person", "dog", "car"))
        target = match_classes(PaintedDetector(("car", "person")), pairs).target(pairs[0])
        assert target.classes.tolist() == [1, 0]
        assert np.array_equal(target.boxes.numpy(), pairs[0].boxes[[0, 2]])

    def test_a_class_that_the_network_alone_knows_is_absent(self):
        network = PaintedDetector(("person", "bicycle", "car", "lamp"))
        scores = evaluate({"d": network}, VISIBLE, Painted()).scores["d"]["visible"]
        assert scores.absent == ("lamp",)
        assert scores.values["mAP50"] == 1

    def test_another_order_of_the_same_classes_scores_the_same(self):
        class Reordered(PaintedDetector):
            def found(self, blue):
                prediction = super().found(blue)
                prediction.classes.copy_(2 - prediction.classes)
                return prediction

        straight = evaluate({"d": PaintedDetector(("person", "bicycle", "car"))}, VISIBLE, Painted())
        reordered = evaluate({"d": Reordered(("car", "bicycle", "person"))}, VISIBLE, Painted())
        assert straight.scores["d"]["visible"].values == pytest.approx(
            reordered.scores["d"]["visible"].values, nan_ok=True
        )


class TestMasks:
    def test_ids_become_those_of_the_network_and_unknown_ones_count_nowhere(self):
        pairs = Painted(segmentation_names=("unlabelled", "tree", "car stop", "bus", "never"))
        network = PaintedSegmenter(("background", "Car_Stop", "bus"))
        match = match_classes(network, pairs)
        assert match.unknown == ("tree", "never")
        own, target = pairs[0].segmentation, match.target(pairs[0]).segmentation.numpy()
        for before, after in {0: 0, 1: IGNORED, 2: 1, 3: 2}.items():
            assert (target[own == before] == after).all()

    def test_what_is_ignored_stays_ignored(self):
        pairs = Painted()
        pair = pairs[0]
        pair.segmentation[:5] = IGNORED
        target = match_classes(PaintedSegmenter(pairs.segmentation_names), pairs).target(pair)
        assert (target.segmentation[:5] == IGNORED).all()

    def test_the_background_matches_whatever_it_is_called_and_nothing_else_does(self):
        pairs = Painted(segmentation_names=("nothing", "car", "x"))
        assert match_classes(PaintedSegmenter(("unlabelled", "car")), pairs).numbers == (0, 1, -1)
        with pytest.raises(ConfigurationError):
            match_classes(PaintedSegmenter(("car", "unlabelled")), pairs)


class TestMistakes:
    def test_classes_without_a_common_name_are_refused(self):
        with pytest.raises(ConfigurationError, match=r"net knows cat, cow, and 6 painted .* --same person=cat"):
            match_classes(PaintedDetector(("cat", "cow")), Painted(), name="net")

    def test_missing_labels_are_refused(self):
        with pytest.raises(LabelError, match="net is scored with boxes, but there are saliency alone"):
            match_classes(PaintedDetector(("person",)), Painted(labels=["saliency"]), name="net")

    def test_saliency_has_no_classes_to_match(self):
        pairs = Painted()
        target = match_classes(PaintedSaliency(), pairs).target(pairs[1])
        assert target.boxes is None
        assert np.array_equal(target.saliency.numpy() * 255, pairs[1].saliency)


class TestSameClasses:
    def test_a_class_may_have_another_name(self):
        pairs = Painted(box_names=("people", "bicycle", "vehicle"))
        network = PaintedDetector(("person", "bicycle", "car"))
        match = match_classes(network, pairs, same={"People": "person", "vehicle": "CAR"})
        assert match.numbers == (0, 1, 2)

    @pytest.mark.parametrize("same", [{"cat": "person"}, {"person": "cat"}])
    def test_names_that_are_not_there_are_refused(self, same):
        with pytest.raises(ConfigurationError, match="'cat', only person, bicycle, car"):
            check_same(same, {"d": PaintedDetector(("person", "bicycle", "car"))}, Painted())
