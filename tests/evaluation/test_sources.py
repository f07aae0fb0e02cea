"""What gives the images that task networks look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fuseloop
from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.synthetic import generate
from fuseloop.errors import ConfigurationError, PairError, WeightsError
from fuseloop.evaluation.sources import FolderSource, FuserSource, LoopSource, RuleSource, open_source
from fuseloop.fusers.loop_weights import shipped_loops
from fuseloop.fusers.rules import RULES
from fuseloop.fusers.weights import write_weights
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.images import Picture, write_image
from tests.evaluation.fakes import PaintedSaliency


@pytest.fixture(scope="module")
def pair() -> LabelledPair:
    return LabelledPair.of(generate(3, 48, 64), "a")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    torch.manual_seed(0)
    write_weights(path, VFN(1))
    return path


def save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Picture(pixels))


class TestRules:
    def test_the_images_alone_are_what_they_were(self, pair):
        assert np.array_equal(RuleSource("visible").image(pair), pair.visible)
        assert np.array_equal(RuleSource("infrared").image(pair), np.dstack([pair.infrared] * 3))

    @pytest.mark.parametrize("name", RULES)
    def test_an_image_is_what_the_rule_gives_in_8_bits(self, pair, name):
        infrared, visible = (torch.from_numpy(part) / 255 for part in (pair.infrared, pair.visible))
        exact = RULES[name](infrared[None, None], visible.movedim(-1, 0)[None])[0].movedim(0, -1)
        image = open_source(name).image(pair)
        assert image.dtype == np.uint8
        assert np.abs(image - exact.clamp(0, 1).numpy() * 255).max() <= 0.5 + 1e-4


class TestFusers:
    def test_an_image_is_that_of_the_fuser(self, pair, weights):
        source = open_source(str(weights))
        assert np.array_equal(source.image(pair), fuseloop.load(weights)(pair.infrared, pair.visible))

    def test_it_says_which_weights_and_which_engine(self, weights):
        said = open_source(str(weights), engine="onnxruntime").describe()
        assert said["engine"] == "onnxruntime"
        assert len(said["weights_sha256"]) == 64

    def test_shipped_weights_go_by_name(self):
        source = open_source("vfn")
        assert isinstance(source, FuserSource)
        assert source.weights.name == "vfn.safetensors"

    @pytest.mark.parametrize(("name", "kind"), [("mean", RuleSource), ("vfn", FuserSource)])
    def test_names_come_before_folders_that_are_called_so(self, name, kind, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        save(tmp_path / name / "a.png", np.zeros((8, 8, 3), np.uint8))
        assert isinstance(open_source(name), kind)
        assert isinstance(open_source(f"./{name}"), FolderSource)

    def test_unknown_names_are_refused_with_those_that_are_known(self):
        with pytest.raises(ConfigurationError, match=r"did you mean 'visible'\? .* infrared, visible, mean, max, vfn"):
            open_source("visibel")

    def test_a_file_that_holds_no_weights_is_refused(self, tmp_path):
        path = tmp_path / "x.safetensors"
        path.write_text("no weights")
        with pytest.raises(WeightsError):
            open_source(str(path))


class TestClosedLoops:
    def test_an_image_is_that_of_the_loop_for_the_network(self, pair, loop):
        network = PaintedSaliency()
        source = open_source(str(loop), strength=0.5)
        assert isinstance(source, LoopSource)
        expected = fuseloop.ClosedLoopFuser(loop, network, strength=0.5)(pair.infrared, pair.visible)
        assert np.array_equal(source.bound(network).image(pair), expected)

    def test_it_says_what_the_images_depend_on(self, loop):
        source = open_source(str(loop), engine="onnxruntime", strength=0.5, first_look=0.25)
        said = source.describe()
        assert said == source.bound(PaintedSaliency()).describe()
        assert (said["kind"], said["engine"], said["tasks"]) == ("closed loop", "onnxruntime", ["detection"])
        assert (said["strength"], said["feedback"], said["first_look"]) == (0.5, "frame", 0.25)
        assert len(said["weights_sha256"]) == 64

    @pytest.mark.skipif("cldyn" in shipped_loops(), reason="it is shipped")
    def test_the_published_loop_says_that_it_is_not_shipped_yet(self):
        with pytest.raises(WeightsError, match="no weights of the closed loop 'cldyn' are shipped yet"):
            open_source("cldyn")


class TestFolders:
    def test_an_image_is_found_by_the_stem_whatever_its_ending(self, pair, tmp_path):
        save(tmp_path / "a.bmp", pair.visible)
        assert np.array_equal(open_source(str(tmp_path)).image(pair), pair.visible)

    def test_grey_images_become_three_equal_channels(self, pair, tmp_path):
        save(tmp_path / "a.png", pair.infrared)
        assert np.array_equal(FolderSource(tmp_path).image(pair), np.dstack([pair.infrared] * 3))

    def named(self, pair, name):
        return LabelledPair(pair.infrared, pair.visible, name=name)

    def test_joined_splits_may_have_a_folder_each(self, pair, tmp_path):
        save(tmp_path / "train" / "a.png", pair.visible)
        save(tmp_path / "val" / "a.png", 255 - pair.visible)
        source = open_source(str(tmp_path))
        assert np.array_equal(source.image(self.named(pair, "train/a")), pair.visible)
        assert np.array_equal(source.image(self.named(pair, "val/a")), 255 - pair.visible)

    def test_one_image_for_frames_of_two_splits_is_refused(self, pair, tmp_path):
        save(tmp_path / "a.png", pair.visible)
        source = FolderSource(tmp_path)
        source.image(self.named(pair, "train/a"))
        source.image(self.named(pair, "train/a"))
        with pytest.raises(PairError, match="of which frame, train/a or val/a"):
            source.image(self.named(pair, "val/a"))

    def test_a_missing_image_is_named(self, pair, tmp_path):
        save(tmp_path / "b.png", pair.visible)
        with pytest.raises(PairError, match="holds no image of the frame a"):
            FolderSource(tmp_path).image(pair)

    def test_two_images_of_one_name_are_named(self, pair, tmp_path):
        for ending in ("png", "bmp"):
            save(tmp_path / f"a.{ending}", pair.visible)
        with pytest.raises(PairError, match=r"holds a\.bmp, a\.png for the frame a"):
            FolderSource(tmp_path).image(pair)

    def test_another_size_is_refused(self, pair, tmp_path):
        save(tmp_path / "a.png", pair.visible[:, :32].copy())
        with pytest.raises(PairError, match=r"a\.png: is 32x48, its pair 64x48"):
            FolderSource(tmp_path).image(pair)

    def test_a_folder_without_images_is_refused_at_once(self, tmp_path):
        with pytest.raises(PairError, match="holds no images"):
            open_source(str(tmp_path))
