"""Scores of task networks on what fusers make of a data set."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from torch import nn

from fuseloop.datasets.findings import Finding
from fuseloop.datasets.synthetic import SEGMENTATION_NAMES
from fuseloop.errors import ConfigurationError, ImageError, LabelError, PairError
from fuseloop.evaluation.evaluate import Look, evaluate, uncertainty
from fuseloop.evaluation.sources import RuleSource, open_source
from fuseloop.fusers.closed_loop import ClosedLoopFuser
from fuseloop.metrics.task_scores import differences
from tests.evaluation.fakes import Painted, PaintedDetector, PaintedSaliency, PaintedSegmenter, painted_networks


class Kept(np.ndarray):
    """An array that can be watched."""

    __hash__ = object.__hash__


RULES = {name: RuleSource(name) for name in ("infrared", "visible", "max")}


class TestScores:
    def test_what_sees_everything_is_perfect_and_what_sees_nothing_is_not(self):
        found = evaluate(painted_networks(), RULES, Painted())
        assert found.frames == tuple(f"frame{index}" for index in range(6))
        assert not found.failures
        perfect = {name: of_fuser["visible"].values for name, of_fuser in found.scores.items()}
        assert perfect["detector"]["mAP50:95"] == 1
        assert perfect["segmenter"]["mIoU"] == perfect["segmenter"]["mAcc"] == 1
        assert perfect["saliency"]["MAE"] == 0
        assert perfect["saliency"]["S"] == pytest.approx(1)
        blind = {name: of_fuser["infrared"].values for name, of_fuser in found.scores.items()}
        assert blind["detector"]["mAP50"] == 0
        assert blind["segmenter"]["mIoU"] == 0
        assert blind["saliency"]["F/adaptive"] < 0.5

    def test_classes_that_never_occur_and_the_background_are_in_no_mean(self):
        scores = evaluate(painted_networks(), RULES, Painted()).scores["segmenter"]["visible"]
        assert scores.absent == ("bump",)
        assert scores.settings["background"] == "exclude"
        assert "IoU/bump" in scores.undefined

    def test_frames_without_anything_salient_are_counted_apart(self):
        scores = evaluate({"s": PaintedSaliency()}, RULES, Painted()).scores["s"]["visible"]
        assert scores.empty == ("frame0",)
        assert scores.values["MAE/empty"] == 0

    @pytest.mark.parametrize("batch", [2, 4, 100])
    def test_the_size_of_a_batch_changes_nothing(self, batch):
        pairs = Painted(7, sizes=[(48, 64), (48, 64), (52, 70)])
        network = PaintedSegmenter(pairs.segmentation_names)
        one, other = (evaluate({"s": network}, RULES, pairs, batch=size) for size in (1, batch))
        assert max(network.batches) == 2  # images of one size that follow each other
        assert one.scores["s"]["max"].values == pytest.approx(other.scores["s"]["max"].values, nan_ok=True)
        assert one.images == other.images

    def test_every_pair_is_read_once(self):
        pairs = Painted()
        evaluate(painted_networks(), RULES, pairs)
        assert pairs.reads == len(pairs)

    def test_images_do_not_gather_in_memory(self):
        images, alive = weakref.WeakSet(), []

        class Watched(RuleSource):
            def image(self, pair):
                alive.append(len(images))
                image = super().image(pair).view(Kept)
                images.add(image)
                return image

        evaluate(painted_networks(), {"mean": Watched("mean")}, Painted(20))
        assert len(alive) == 20
        assert max(alive) <= 2

    def test_networks_keep_the_mode_of_each_part(self):
        network = PaintedSaliency()
        network.add_module("frozen", nn.BatchNorm2d(3).eval())
        network.train().frozen.eval()
        evaluate({"s": network}, RULES, Painted(1))
        assert network.training
        assert not network.frozen.training

    def test_a_network_may_be_one_of_each_fuser(self):
        own = {name: PaintedSegmenter(SEGMENTATION_NAMES) for name in RULES}
        evaluate({"retrained": own}, RULES, Painted(3))
        assert [len(network.batches) for network in own.values()] == [3, 3, 3]

    def test_every_look_can_be_seen(self):
        seen: list[Look] = []
        evaluate({"d": PaintedDetector(("person", "bicycle", "car"))}, RULES, Painted(2), look=seen.append)
        assert {(look.frame, look.fuser) for look in seen} == {
            (frame, fuser) for fuser in RULES for frame in ("frame0", "frame1")
        }
        assert len(seen) == 6
        assert all(look.image.dtype == np.uint8 and look.target.boxes is not None for look in seen)


class Picky:
    """A source that fails on some frames."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def image(self, pair):
        if pair.name in self.names:
            raise PairError(f"there is no image of {pair.name}")
        return pair.visible

    def describe(self):
        return {"kind": "picky"}


class TestFailures:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_a_frame_that_one_cannot_do_is_left_out_for_all(self, batch):
        reported = []
        found = evaluate(
            painted_networks(),
            {"visible": RULES["visible"], "picky": Picky("frame1", "frame4")},
            Painted(broken=[2]),
            batch=batch,
            report=reported.append,
        )
        assert found.frames == ("frame0", "frame3", "frame5")
        assert [failure.frame for failure in found.failures] == ["frame1", "", "frame4"]
        assert found.failures[0].reason == "picky: there is no image of frame1"
        assert found.failures[1].reason == "2.png: is broken"
        assert len(reported) == 6
        assert [failure for failure in reported if failure] == list(found.failures)
        for of_fuser in found.scores.values():
            assert all(scores.frames == found.frames for scores in of_fuser.values())

    def test_what_was_left_out_before_is_a_failure_of_each_frame(self):
        pairs = Painted(2)
        pairs.left_out = tuple(
            Finding("class", "labels.txt", reason, frame=frame)
            for frame, reason in (("a", "first"), ("a", "second"), ("b", "third"))
        )
        failures = evaluate({"s": PaintedSaliency()}, RULES, pairs).failures
        assert [failure.reason for failure in failures] == ["labels.txt: first", "labels.txt: third"]

    def test_a_prediction_that_cannot_be_scored_is_a_failure_of_its_frame_alone(self):
        class Broken(PaintedDetector):
            def found(self, blue):
                prediction = super().found(blue)
                if (blue == 60).nonzero()[0].tolist() == self.first:
                    prediction.scores.fill_(float("nan"))
                return prediction

        network, pairs = Broken(("person", "bicycle", "car")), Painted(3)
        network.first = np.argwhere(pairs[1].visible[..., 2] == 60)[0].tolist()
        found = evaluate({"d": network}, {"visible": RULES["visible"]}, pairs, batch=3)
        assert found.frames == ("frame0", "frame2")
        assert "d: visible: frame frame1: a score is NaN" in found.failures[0].reason

    def test_nothing_to_score_says_why(self):
        with pytest.raises(LabelError, match=r"no frame of 2 painted pairs .* 0\.png: is broken"):
            evaluate(painted_networks(), RULES, Painted(2, broken=[0, 1]))

    def test_a_frame_without_the_labels_is_named(self):
        class Partly(Painted):
            def __getitem__(self, index):
                self.labels = ("saliency",) if index == 0 else ("boxes",)
                return super().__getitem__(index)

        network = {"s": PaintedSaliency()}
        pairs = Partly(2)
        found = evaluate(network, RULES, pairs)
        assert found.frames == ("frame0",)
        assert found.failures[0].reason == "the frame frame1 has no saliency, which saliency is scored with"

    def test_only_what_a_user_can_mend_is_a_failure(self):
        class Defective(PaintedSaliency):
            def predict(self, outputs):
                raise RuntimeError("a defect")

        with pytest.raises(RuntimeError, match="a defect"):
            evaluate({"s": Defective()}, RULES, Painted())

    def test_images_that_fail_do_not_reach_the_networks(self):
        network = PaintedSaliency()
        with pytest.raises(LabelError):
            evaluate({"s": network}, {"picky": Picky("frame0")}, Painted(1))
        assert network.batches == []

    def test_an_error_of_a_source_keeps_its_words(self):
        class Unreadable(Picky):
            def image(self, pair):
                raise ImageError("fused.png: is broken")

        with pytest.raises(LabelError, match=r"x: fused\.png: is broken"):
            evaluate({"s": PaintedSaliency()}, {"x": Unreadable()}, Painted(1))

    @pytest.mark.parametrize(("networks", "fusers"), [({}, RULES), ({"s": PaintedSaliency()}, {})])
    def test_something_must_be_looked_at_by_something(self, networks, fusers):
        with pytest.raises(ConfigurationError, match="a task network and a fuser"):
            evaluate(networks, fusers, Painted())


class TestClosedLoops:
    def test_each_task_network_gets_an_image_of_its_own(self, loop):
        class Contrary(PaintedSaliency):
            def run(self, prepared):
                raw, feature = super().run(prepared)
                return raw, feature.flip(1, 3) - 2

        networks = {**painted_networks(), "contrary": Contrary()}
        looks: list[Look] = []
        pairs = Painted(2)
        found = evaluate(networks, {"loop": open_source(str(loop)), **RULES}, pairs, look=looks.append)
        assert set(found.scores) == set(networks)
        seen = {(look.network, look.frame): look.image for look in looks if look.fuser == "loop"}
        assert len(seen) == 2 * len(networks)
        for (name, frame), image in seen.items():
            pair = next(pair for pair in (pairs[0], pairs[1]) if pair.name == frame)
            expected = ClosedLoopFuser(loop, networks[name].eval())(pair.infrared, pair.visible)
            assert np.array_equal(image, expected), name
        assert not np.array_equal(seen["saliency", "frame1"], seen["contrary", "frame1"])

    def test_all_images_of_a_loop_count_in_its_hash(self, loop):
        source, pairs = {"loop": open_source(str(loop))}, Painted(2)
        networks = painted_networks()
        alone = evaluate({"detector": networks["detector"]}, source, pairs).images["loop"]
        assert evaluate(networks, source, pairs).images["loop"] != alone
        assert evaluate({"detector": networks["detector"]}, source, pairs).images["loop"] == alone


class TestUncertainty:
    def test_intervals_hold_the_scores_and_differences_are_paired(self):
        found = evaluate(painted_networks(), RULES, Painted())
        drawn = uncertainty(found, baseline="max", resamples=50)
        assert drawn.baseline == "max"
        for name, of_fuser in found.scores.items():
            assert set(drawn.differences[name]) == {"infrared", "visible"}
            for fuser, scores in of_fuser.items():
                assert {key: interval.value for key, interval in drawn.intervals[name][fuser].items()} == pytest.approx(
                    scores.values, nan_ok=True
                )
            expected = differences(of_fuser["visible"], of_fuser["max"], resamples=50)
            assert repr(drawn.differences[name]["visible"]) == repr(expected)  # NaN equals nothing

    def test_the_baseline_is_the_first_unless_another_is_named(self):
        found = evaluate({"s": PaintedSaliency()}, RULES, Painted(3))
        assert uncertainty(found, resamples=5).baseline == "infrared"
        with pytest.raises(ConfigurationError, match="no fuser 'vfn'"):
            uncertainty(found, baseline="vfn", resamples=5)
