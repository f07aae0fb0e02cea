"""Everything is looked at once, as fuseloop evaluate looks at it, and never again while nothing has changed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.results import looks as module
from benchmarks.results.images import Image, Makers, dimmed
from benchmarks.results.looks import Look, Looks, Store
from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.synthetic import BOX_NAMES
from fuseloop.evaluation.evaluate import evaluate
from fuseloop.evaluation.sources import open_source
from fuseloop.fusers.closed_loop import ClosedLoopFuser
from fuseloop.metrics import score_frame
from fuseloop.pairs.images import Picture
from tests.benchmarks.conftest import NETWORKS, seeds
from tests.evaluation.fakes import PaintedDetector


@pytest.fixture
def pairs(data):
    return open_labelled(f"msrs:{data / 'MSRS'}:test[:3]")


def makers(data) -> Makers:
    return Makers(NETWORKS, lambda: open_labelled(f"msrs:{data / 'MSRS'}:train[::2]"))


def test_scores_of_rules_networks_and_loops_are_those_of_an_evaluation(data, runs, pairs):
    sources = {"mean": "mean", "vfn": "vfn", **seeds(runs)}
    wanted = {
        (name, network): Look(Image(source, network if name.startswith("seed") else ""), network)
        for name, source in sources.items()
        for network in NETWORKS
    }
    looks = Looks(pairs, NETWORKS, makers(data))
    looks.gather(wanted.values())
    found = evaluate(NETWORKS, {name: open_source(source) for name, source in sources.items()}, pairs)
    assert tuple(looks.frames) == found.frames
    for (name, network), look in wanted.items():
        expected = found.scores[network][name].values
        assert looks.scores(look).values == pytest.approx(expected, nan_ok=True), (name, network)


@pytest.mark.parametrize(
    "options", [{}, {"strength": 0.5}, {"first_look": 0.5}, {"feedback": "previous"}], ids=lambda one: str(one)
)
def test_images_that_share_passes_and_looks_are_those_of_a_loop_of_its_own(data, runs, pairs, options):
    """All seeds and networks are made of one frame after the other, so that one could spoil what another takes."""
    shared = makers(data)
    alone = {
        (seed, name): ClosedLoopFuser(seed, network, **options)
        for seed in seeds(runs).values()
        for name, network in NETWORKS.items()
    }
    for index in range(2):
        pair = pairs[index]
        for (seed, name), fuser in alone.items():
            expected = fuser.fuse_picture(Picture(pair.infrared), Picture(pair.visible)).pixels
            for _ in range(1 if "feedback" in options else 2):
                found = shared.image(Image(seed, name, **options), pair)
            np.testing.assert_array_equal(found, expected)
        shared.forget()
    assert (
        len(
            {
                fuser.fuse_picture(Picture(pair.infrared), Picture(pair.visible)).pixels.tobytes()
                for fuser in alone.values()
            }
        )
        > 2
    )


def test_first_looks_are_shared_by_loops_around_one_fusion_network(data, runs, pairs):
    made, detector = makers(data), NETWORKS["yolov5s"]
    before = len(detector.batches)
    for seed in seeds(runs).values():
        for strength in (0.5, 1.0):
            made.image(Image(seed, "yolov5s", strength), pairs[0])
    assert len(detector.batches) == before + 1
    made.image(Image(seed, "yolov5s", light=0.5), pairs[0])
    assert len(detector.batches) == before + 2, "the neutral image of a dark frame is another"


def test_a_profile_is_of_other_pairs_and_looks_at_nothing_of_the_frame(data, runs, pairs):
    made, detector = makers(data), NETWORKS["yolov5s"]
    image = Image(seeds(runs)["seed0"], "yolov5s", feedback="profile")
    made.image(image, pairs[0])
    before = len(detector.batches)
    made.image(image, pairs[1])
    assert len(detector.batches) == before


def test_less_light_is_rounded_to_8_bits(pairs):
    pair = pairs[0]
    dark = dimmed(pair, 0.4)
    assert dark.visible.dtype == np.uint8
    exact = 0.4 * pair.visible.astype(np.float64)
    assert np.abs(dark.visible - exact).max() <= 0.5 + 1e-9
    assert dark.infrared is pair.infrared
    assert dimmed(pair, 1.0) is pair


def test_fusion_quality_is_that_of_the_metrics(data, pairs):
    looks = Looks(pairs, NETWORKS, makers(data))
    looks.gather([Image("mean"), Image("max")])
    pair, found = pairs[1], looks.quality(Image("max"))
    fused = makers(data).image(Image("max"), pair)
    expected = score_frame(pair.infrared, pair.visible, fused, metrics=module.QUALITY)
    assert {key: found.values[key][1] for key in module.QUALITY} == pytest.approx(
        {key: score.value for key, score in expected.items()}, nan_ok=True
    )


class TestStore:
    """What was seen is kept on disk."""

    @pytest.fixture
    def count(self, monkeypatch):
        """Counts the images that are made."""
        made = []
        image = Makers.image
        monkeypatch.setattr(Makers, "image", lambda *arguments: made.append(arguments[1]) or image(*arguments))
        return made

    @pytest.fixture
    def wanted(self, runs):
        loop = seeds(runs)["seed0"]
        return [
            *(Look(Image("max"), name) for name in NETWORKS),
            Look(Image(loop, "yolov5s"), "yolov5s"),
            Image("mean"),
        ]

    def gathered(self, data, pairs, wanted, store, networks=NETWORKS):
        looks = Looks(pairs, networks, Makers(networks, lambda: pairs), store)
        looks.gather(wanted)
        return {look: looks.scores(look).values for look in wanted if isinstance(look, Look)}

    def test_nothing_is_looked_at_twice_and_the_scores_are_the_same(self, data, pairs, wanted, count, tmp_path):
        first = self.gathered(data, pairs, wanted, Store(tmp_path))
        assert len(count) == 3 * 3, "three images of three frames, for five looks and scores"
        count.clear()
        again = self.gathered(data, pairs, wanted, Store(tmp_path))
        assert not count
        for look, values in first.items():
            assert again[look] == pytest.approx(values, nan_ok=True, abs=0)

    def test_a_run_that_was_stopped_is_continued(self, data, pairs, wanted, count, tmp_path):
        few = open_labelled(f"msrs:{data / 'MSRS'}:test[:2]")
        self.gathered(data, few, wanted, Store(tmp_path))
        count.clear()
        self.gathered(data, pairs, wanted, Store(tmp_path))
        assert len(count) == 3, "of the third frame alone"

    def test_other_weights_or_other_code_are_looked_at_anew(self, data, pairs, wanted, count, tmp_path, monkeypatch):
        self.gathered(data, pairs, wanted, Store(tmp_path))
        count.clear()
        others = NETWORKS | {"yolov5s": PaintedDetector((*BOX_NAMES, "one more"))}
        self.gathered(data, pairs, wanted, Store(tmp_path), others)
        assert {image.maker for image in count} == {"max", wanted[3].image.maker}
        count.clear()
        monkeypatch.setattr(module, "code_hash", lambda: "other")
        self.gathered(data, pairs, wanted, Store(tmp_path))
        assert len(count) == 3 * 3

    def test_what_depends_on_the_frames_before_is_made_anew_of_all(self, data, runs, pairs, count, tmp_path):
        previous = [Look(Image(seeds(runs)["seed0"], "yolov5s", feedback="previous"), "yolov5s")]
        first = self.gathered(data, pairs, previous, Store(tmp_path))
        count.clear()
        again = self.gathered(data, pairs, previous, Store(tmp_path))
        assert again[previous[0]] == pytest.approx(first[previous[0]], nan_ok=True, abs=0)
        assert len(count) == 3


def test_it_says_how_long_it_will_take(data, pairs):
    said = []
    Looks(pairs, NETWORKS, makers(data)).gather([Look(Image("max"), "yolov5s")], said.append)
    assert said[0].startswith("1 looks and scores a frame: frame 1 of 3, ")
    assert said[0].endswith(" minutes left")
    assert said[-1].endswith(", 0.0 minutes left")
