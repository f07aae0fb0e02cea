"""Training pairs from folders, from public layouts, and from synthetic scenes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fuseloop.datasets.folders import FolderPairs, SyntheticPairs, open_pairs
from fuseloop.datasets.pixels import rgb_to_luma
from fuseloop.datasets.synthetic import generate, scene_seed, write_scenes
from fuseloop.errors import ConfigurationError, ImageError, PairError
from fuseloop.pairs.images import Picture, write_image

RNG = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Picture(pixels))
    return pixels


def grey(height: int = 12, width: int = 16) -> np.ndarray:
    return RNG.integers(0, 256, (height, width), np.uint8)


def rgb(height: int = 12, width: int = 16) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


class TestFolderPairs:
    @pytest.mark.parametrize(
        ("infrared", "visible"), [("ir", "vi"), ("Infrared", "Visible"), ("thermal", "RGB"), ("Ir", "Vis")]
    )
    def test_the_modalities_are_found_by_their_usual_names(self, tmp_path, infrared, visible) -> None:
        cold, colour = save(tmp_path / infrared / "a.png", grey()), save(tmp_path / visible / "a.bmp", rgb())
        save(tmp_path / "labels" / "a.png", grey())
        pairs = FolderPairs(tmp_path)
        assert len(pairs) == 1
        assert np.array_equal(pairs[0].infrared, cold)
        assert np.array_equal(pairs[0].luma, rgb_to_luma(colour))

    def test_luma_is_the_weighted_sum_of_the_colours(self) -> None:
        colour = rgb(40, 50)
        exact = colour @ np.array([0.299, 0.587, 0.114])
        assert np.abs(rgb_to_luma(colour) - exact).max() <= 0.51

    def test_grey_visible_images_are_their_own_luma(self, tmp_path) -> None:
        save(tmp_path / "ir" / "a.png", grey())
        light = save(tmp_path / "vi" / "a.png", grey())
        assert np.array_equal(FolderPairs(tmp_path)[0].luma, light)

    def test_pairs_come_in_natural_order_and_may_differ_in_size(self, tmp_path) -> None:
        for name, width in (("f10", 20), ("f2", 30)):
            save(tmp_path / "ir" / f"{name}.png", grey(12, width))
            save(tmp_path / "vi" / f"{name}.png", rgb(12, width))
        assert [pair.luma.shape for pair in FolderPairs(tmp_path)] == [(12, 30), (12, 20)]

    def test_each_file_is_read_once(self, tmp_path) -> None:
        save(tmp_path / "ir" / "a.png", grey())
        save(tmp_path / "vi" / "a.png", rgb())
        pairs = FolderPairs(tmp_path)
        first = pairs[0]
        (tmp_path / "ir" / "a.png").unlink()
        assert pairs[0] is first

    def test_deep_thermal_images_are_stretched_to_8_bits(self, tmp_path) -> None:
        raw = np.linspace(7000, 9000, 12 * 16).reshape(12, 16).astype(np.uint16)
        save(tmp_path / "ir" / "a.png", raw)
        save(tmp_path / "vi" / "a.png", rgb())
        infrared = FolderPairs(tmp_path)[0].infrared
        assert infrared.dtype == np.uint8
        assert (infrared.min(), infrared.max()) == (0, 255)
        assert np.all(np.diff(infrared.ravel().astype(int)) >= 0)

    def test_float_images_outside_the_unit_range_are_named(self, tmp_path) -> None:
        save(tmp_path / "ir" / "a.png", grey())
        save(tmp_path / "vi" / "a.tiff", np.full((12, 16), 300, np.float32))
        with pytest.raises(ImageError, match=r"a\.tiff"):
            FolderPairs(tmp_path)[0]

    def test_files_without_a_partner_are_told(self, tmp_path) -> None:
        save(tmp_path / "ir" / "a.png", grey())
        save(tmp_path / "vi" / "a.png", rgb())
        save(tmp_path / "vi" / "b.png", rgb())
        assert "1 pairs" in FolderPairs(tmp_path).describe()
        assert "1 files without a partner" in FolderPairs(tmp_path).describe()

    def test_two_sizes_in_one_pair_name_both_files(self, tmp_path) -> None:
        save(tmp_path / "ir" / "a.png", grey(12, 16))
        save(tmp_path / "vi" / "a.bmp", rgb(24, 32))
        with pytest.raises(PairError, match=r"a\.png and .*a\.bmp.*16x12.*32x24"):
            FolderPairs(tmp_path)[0]

    def test_without_the_two_folders_the_error_says_what_is_expected_and_what_is_there(self, tmp_path) -> None:
        (tmp_path / "photos").mkdir()
        with pytest.raises(PairError, match=r"holds photos; .*ir, infrared, .*vi, vis, "):
            FolderPairs(tmp_path)

    def test_two_candidates_for_one_modality_are_not_guessed_between(self, tmp_path) -> None:
        for name in ("ir", "thermal", "vi"):
            save(tmp_path / name / "a.png", grey())
        with pytest.raises(PairError, match="holds ir and thermal, of which one folder is expected"):
            FolderPairs(tmp_path)

    def test_a_missing_root_is_named(self, tmp_path) -> None:
        with pytest.raises(PairError, match="nowhere"):
            FolderPairs(tmp_path / "nowhere")


class TestSyntheticPairs:
    def test_pairs_are_the_scenes_of_the_generator(self) -> None:
        pairs = SyntheticPairs(3, seed=4, height=48, width=64)
        scene = generate(scene_seed(4, 2), 48, 64)
        assert np.array_equal(pairs[2].infrared, scene.infrared)
        assert np.array_equal(pairs[-1].luma, rgb_to_luma(scene.visible))

    def test_a_pair_does_not_depend_on_the_count_or_the_order(self) -> None:
        few, many = SyntheticPairs(2, height=48, width=64), SyntheticPairs(9, height=48, width=64)
        assert many[7] is not None
        assert np.array_equal(few[1].luma, many[1].luma)

    def test_iteration_ends(self) -> None:
        assert len(list(SyntheticPairs(3, height=32, width=32))) == 3


class TestOpenPairs:
    def test_synthetic_scenes_by_count_and_seed(self) -> None:
        assert open_pairs("synthetic:12").describe() == "12 synthetic scenes of 320x240, seed 0"
        assert open_pairs("synthetic:12:5").describe() == "12 synthetic scenes of 320x240, seed 5"

    def test_a_folder_by_its_path(self, tmp_path) -> None:
        write_scenes(tmp_path / "kit", 2, height=48, width=64)
        assert len(open_pairs(str(tmp_path / "kit"))) == 2
        assert len(open_pairs(f"msrs:{tmp_path / 'kit'}")) == 2

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_llvip_is_known_by_its_former_names(self, tmp_path, split) -> None:
        save(tmp_path / "infrared" / split / "a.png", grey())
        save(tmp_path / "visible" / split / "a.jpg", rgb())
        assert len(open_pairs(f"llvip-{split}:{tmp_path}")) == 1

    def test_labels_are_not_looked_at(self, tmp_path) -> None:
        write_scenes(tmp_path, 2, height=48, width=64)
        for path in (tmp_path / "labels").iterdir():
            path.write_text("nonsense")
        assert len(open_pairs(f"msrs:{tmp_path}")) == 2

    def test_a_layout_names_the_folders_that_it_misses(self, tmp_path) -> None:
        with pytest.raises(PairError, match="infrared/train"):
            open_pairs(f"llvip-train:{tmp_path}")

    @pytest.mark.parametrize("spec", ["synthetic:", "synthetic:0", "synthetic:many", "synthetic:3:4:5", "synthetic:-2"])
    def test_numbers_that_make_no_sense_are_refused(self, spec) -> None:
        with pytest.raises(ConfigurationError, match="synthetic:COUNT"):
            open_pairs(spec)

    def test_unknown_names_list_the_known_ones(self) -> None:
        with pytest.raises(ConfigurationError, match="msrs"):
            open_pairs("mrs:somewhere")

    def test_a_folder_with_a_colon_in_its_name_is_still_a_folder(self, tmp_path) -> None:
        write_scenes(tmp_path / "a:b", 1, height=32, width=32)
        assert len(open_pairs(str(tmp_path / "a:b"))) == 1


@pytest.mark.data
def test_real_pairs_are_read() -> None:
    if "FUSELOOP_DATA" not in os.environ:
        pytest.skip("set FUSELOOP_DATA to the folder with the real pairs")
    root = Path(os.environ["FUSELOOP_DATA"])
    for spec, count in ((f"msrs:{root}/MSRS/train", 296), (f"{root}/RoadScene", 221), (f"{root}/TNO", 21)):
        pairs = open_pairs(spec)
        assert len(pairs) == count
        assert pairs[0].infrared.shape == pairs[0].luma.shape
