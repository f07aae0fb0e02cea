"""Labelled data sets are read from every layout that people have on disk, and broken frames are dealt with as asked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.folders import open_pairs
from fuseloop.datasets.pixels import rgb_to_luma
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES, generate, scene_seed
from fuseloop.datasets.table import DATA_SETS
from fuseloop.errors import ConfigurationError, ImageError, LabelError, PairError
from tests.datasets.trees import FORMS, draw, grow

OPENED = [(name, split) for name, form in FORMS.items() for split in form.opened]


def opened(spec: str, split: str) -> str:
    return f"{spec}:{split}" if split else spec


def assert_pair(pair, expected, lossy) -> None:
    assert pair.infrared.shape == expected.infrared.shape
    assert pair.visible.shape == expected.visible.shape
    if not lossy:
        assert np.array_equal(pair.infrared, expected.infrared)
        assert np.array_equal(pair.visible, expected.visible)
    for part in ("boxes", "classes", "segmentation", "saliency", "edges"):
        found, truth = getattr(pair, part), getattr(expected, part)
        assert (found is None) == (truth is None), part
        if truth is not None:
            assert found.dtype == truth.dtype
            np.testing.assert_allclose(found, truth, atol=1e-3 if part == "boxes" else 0)


class TestEveryLayout:
    @pytest.mark.parametrize(("name", "split"), OPENED)
    def test_pairs_and_labels_are_what_was_written(self, tmp_path, name, split) -> None:
        form = FORMS[name]
        pairs = open_labelled(opened(grow(form, tmp_path), split))
        assert len(pairs) == len(form.opened[split])
        for pair, place in zip(pairs, form.opened[split], strict=True):
            folder, stem = place.split("/")
            assert pair.name == (place if "+" in split and folder else stem)
            assert_pair(pair, draw(form, folder, stem), lossy=".jpg" in str(form.files))

    @pytest.mark.parametrize(("name", "split"), OPENED)
    def test_the_same_specification_opens_pairs_without_labels(self, tmp_path, name, split) -> None:
        form = FORMS[name]
        spec = opened(grow(form, tmp_path), split)
        plain, labelled = open_pairs(spec), open_labelled(spec)
        assert len(plain) == len(labelled)
        for luma, pair in zip(plain, labelled, strict=True):
            assert np.array_equal(luma.infrared, pair.infrared)
            assert np.array_equal(luma.luma, rgb_to_luma(pair.visible))

    @pytest.mark.parametrize("name", [name for name in FORMS if FORMS[name].files["visible"][0] == "{"])
    def test_the_folder_of_a_split_opens_by_itself(self, tmp_path, name) -> None:
        form = FORMS[name]
        grow(form, tmp_path)
        folder = next(path for path in tmp_path.iterdir() if path.name.lower() == "test")
        assert len(open_labelled(form.spec.format(root=folder))) == 2

    def test_every_data_set_of_the_table_has_a_tree(self) -> None:
        assert {form.spec.split(":")[0] for form in FORMS.values()} - {"{root}", "csv"} == {*DATA_SETS}

    @pytest.mark.parametrize("name", FORMS)
    def test_classes_are_named(self, tmp_path, name) -> None:
        form = FORMS[name]
        pairs = open_labelled(opened(grow(form, tmp_path), next(iter(form.opened))))
        if "boxes" in form.files:
            assert pairs.box_names == form.boxes
        if "segmentation" in form.files:
            assert len(pairs.segmentation_names) == form.ids
        labels = [part for part in ("boxes", "segmentation", "saliency", "edges") if part in form.files]
        assert pairs.describe().endswith(f"with {', '.join(labels) or 'no labels'}")

    def test_folders_are_found_in_any_case(self, tmp_path) -> None:
        grow(FORMS["fmb"], tmp_path)
        for path in [*tmp_path.glob("*/*"), *tmp_path.glob("*")]:
            path.rename(path.with_name(path.name.upper()))
        assert len(open_labelled(f"fmb:{tmp_path}:train")) == 3
        assert len(open_labelled(f"fmb:{tmp_path}:TRAIN")) == 3

    def test_of_two_forms_in_one_folder_the_first_of_the_table_is_read(self, tmp_path) -> None:
        spec = grow(FORMS["m3fd official"], tmp_path)
        (tmp_path / "labels").mkdir()
        for path in (tmp_path / "Annotation").iterdir():
            (tmp_path / "labels" / f"{path.stem}.txt").write_text("")
        assert all(len(pair.boxes) for pair in open_labelled(spec))

    def test_a_subset_of_a_listed_split_is_what_is_there(self, tmp_path) -> None:
        spec = grow(FORMS["m3fd official"], tmp_path)
        for path in [*tmp_path.rglob("00100.*"), *tmp_path.rglob("00150.*")]:
            path.unlink()
        assert [pair.name for pair in open_labelled(f"{spec}:val")] == ["00149", "04199"]
        with pytest.raises(PairError, match="none of its 3 pairs is in the split 'test'"):
            open_labelled(f"{spec}:test")


class TestSynthetic:
    def test_scenes_have_all_labels(self) -> None:
        pairs = open_labelled("synthetic:3:5")
        scene = generate(scene_seed(5, 2), 240, 320)
        assert (len(pairs), pairs.box_names, pairs.segmentation_names) == (3, BOX_NAMES, SEGMENTATION_NAMES)
        assert np.array_equal(pairs[2].infrared, scene.infrared)
        assert np.array_equal(pairs[-1].boxes, scene.boxes)
        assert pairs.describe() == "3 synthetic scenes of 320x240, seed 5"

    def test_iteration_ends(self) -> None:
        assert [pair.name for pair in open_labelled("synthetic:2")] == ["00000", "00001"]


class TestClassNumbers:
    """The numbers of YOLO files have no names with them."""

    def test_a_classes_file_says_what_the_numbers_of_a_copy_stand_for(self, tmp_path) -> None:
        spec = grow(FORMS["m3fd yolo"], tmp_path)
        before = [pair.classes for pair in open_labelled(f"{spec}:train")]
        (tmp_path / "classes.yaml").write_text("boxes: [People, Car, Bus, Lamp, Motorcycle, Truck]")
        after = [pair.classes for pair in open_labelled(f"{spec}:train")]
        assert [[[0, 1, 2, 4, 3, 5][number] for number in numbers] for numbers in before] == [
            numbers.tolist() for numbers in after
        ]

    def test_it_may_name_no_other_classes(self, tmp_path) -> None:
        spec = grow(FORMS["m3fd yolo"], tmp_path)
        (tmp_path / "classes.yaml").write_text("boxes: [person, car]")
        with pytest.raises(ConfigurationError, match=r"classes\.yaml: person are no classes of M3FD.*folder:"):
            open_labelled(f"{spec}:train")

    @pytest.mark.parametrize(("kind", "part"), [("boxes", "boxes"), ("segmentation", "segmentation")])
    def test_a_folder_of_ones_own_needs_names_for_its_labels(self, tmp_path, kind, part) -> None:
        form = FORMS["a folder"]
        spec = grow(form, tmp_path)
        other = "segmentation: [background, person, dog]" if kind == "boxes" else "boxes: [person, dog]"
        (tmp_path / "classes.yaml").write_text(other)
        with pytest.raises(ConfigurationError, match=rf"{part} whose classes are not named; write .*classes\.yaml"):
            open_labelled(spec)

    def test_names_may_lie_above_the_folder_of_a_split(self, tmp_path) -> None:
        grow(FORMS["a folder with splits"], tmp_path)
        assert open_labelled(str(tmp_path / "train")).box_names == ("person", "dog")

    @pytest.mark.parametrize(
        "text", ["- person", "boxes: person", "boxes: {1: person}", "boxes: [a, A]", "names: [a]", "boxes: [", "\x00"]
    )
    def test_a_malformed_classes_file_is_refused_by_name(self, tmp_path, text) -> None:
        spec = grow(FORMS["a folder"], tmp_path)
        (tmp_path / "classes.yaml").write_text(text)
        with pytest.raises(ConfigurationError, match=r"classes\.yaml: "):
            open_labelled(spec)


class TestBrokenFrames:
    @pytest.fixture
    def spec(self, tmp_path) -> str:
        """A data set of three frames, of which one has a broken label."""
        grow(FORMS["msrs of the kit"], tmp_path)
        (tmp_path / "train/labels/00002.txt").write_text("1 .5 .5 .2 .2\n9 .5 .5 .1 .1\n")
        return f"msrs:{tmp_path}:train"

    def test_they_are_refused_unless_one_says_otherwise(self, spec) -> None:
        with pytest.raises(LabelError, match=r"1 frames are broken.*00002\.txt:2: class 9 is unknown.*on_error"):
            open_labelled(spec)

    def test_they_are_left_out_when_one_says_so_and_this_is_told(self, spec) -> None:
        pairs = open_labelled(spec, on_error="skip")
        assert [pair.name for pair in pairs] == ["00001", "00010"]
        assert pairs.describe().endswith("1 broken ones left out")
        assert [(finding.frame, finding.line) for finding in pairs.left_out] == [("00002", 2)]

    def test_nothing_left_is_an_error(self, tmp_path, spec) -> None:
        for path in (tmp_path / "train/saliency").iterdir():
            path.write_text("no picture")
        with pytest.raises(LabelError, match="no frame can be used"):
            open_labelled(spec, on_error="skip")

    def test_other_settings_are_refused(self, spec) -> None:
        with pytest.raises(ConfigurationError, match="raise, skip"):
            open_labelled(spec, on_error="ignore")

    @pytest.mark.parametrize(
        ("break_", "left"),
        [
            (lambda root: (root / "train/vi/00001.jpg").unlink(), 1),
            (lambda root: (root / "train/ir/00001.png").write_bytes(b""), 1),
            (lambda root: (root / "train/labels/00001.txt").unlink(), 1),
            (lambda root: shutil.copy(root / "train/labels/00001.txt", root / "train/labels/99.txt"), 2),
            (lambda root: shutil.copy(root / "train/labels/00001.txt", root / "train/labels/00001.xml"), 1),
        ],
    )
    def test_files_that_are_missing_or_too_many_count_as_broken(self, tmp_path, spec, break_, left) -> None:
        break_(tmp_path)
        with pytest.raises(LabelError):
            open_labelled(spec)
        assert len(open_labelled(spec, on_error="skip")) == left

    def test_damaged_pixels_raise_when_they_are_read(self, tmp_path) -> None:
        spec = grow(FORMS["tno"], tmp_path)
        path = tmp_path / "ir" / "2.png"
        path.write_bytes(path.read_bytes()[:500])
        pairs = open_labelled(spec)
        assert pairs[0].name == "1"
        with pytest.raises(ImageError, match=r"ir/2\.png: is broken or truncated"):
            pairs[1]

    def test_what_breaks_later_raises_with_its_place(self, tmp_path) -> None:
        pairs = open_labelled(f"{grow(FORMS['msrs of the kit'], tmp_path)}:train")
        (tmp_path / "train/labels/00001.txt").write_text("0 .5 .5 .2\n")
        with pytest.raises(LabelError, match=r"00001\.txt:1: 4 values"):
            pairs[0]


@pytest.mark.data
class TestRealData:
    @pytest.fixture
    def root(self) -> Path:
        if "FUSELOOP_DATA" not in os.environ:
            pytest.skip("set FUSELOOP_DATA to the folder with the real pairs")
        return Path(os.environ["FUSELOOP_DATA"])

    @pytest.mark.parametrize(
        ("spec", "count", "labels"),
        [
            ("msrs:{}/MSRS:val", 44, "boxes, segmentation, saliency"),
            ("msrs:{}/MSRS:test", 76, "boxes, segmentation, saliency"),
            ("msrs:{}/MSRS:train_boxes_only", 30, "boxes"),
            ("roadscene:{}/RoadScene", 221, "no labels"),
            ("tno:{}/TNO", 21, "no labels"),
            ("tno_salient:{}/TNO_salient", 10, "saliency"),
            ("m3fd:{}/M3FD", 18, "no labels"),
            ("m3fd:{}/M3FD:train+val", 14, "no labels"),
        ],
    )
    def test_the_folders_of_the_kit_are_whole(self, root, spec, count, labels) -> None:
        pairs = open_labelled(spec.format(root))
        assert len(pairs) == count
        assert pairs.describe().endswith(f"with {labels}")
        assert pairs[0].infrared.shape == pairs[0].visible.shape[:2]

    def test_boxes_agree_with_the_count_of_the_kit(self, root) -> None:
        pairs = open_labelled(f"msrs:{root}/MSRS:val")
        assert np.bincount(np.concatenate([pair.classes for pair in pairs])).tolist() == [116, 16, 37]
