"""Frames are found by their files; what is missing, alone or in two places is told, and nothing is guessed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fuseloop.datasets.finder import find_frames, find_pairs
from fuseloop.datasets.places import read_split, splits_of
from fuseloop.datasets.spec import parse_spec
from fuseloop.datasets.table import DATA_SETS
from fuseloop.errors import PairError
from tests.datasets.trees import FORMS, grow
from tools import m3fd_split


def findings(spec: str) -> list[tuple[str, str, str | None]]:
    """Kind, last part of the place, and frame."""
    return [(one.kind, one.file.name, one.frame) for one in find_frames(parse_spec(spec)).findings]


class TestSplits:
    @pytest.mark.parametrize(
        ("name", "splits"),
        [
            ("fmb", ["train", "test"]),
            ("vt5000", ["Train", "Test"]),
            ("llvip", ["train", "test"]),
            ("m3fd yolo", ["train", "test"]),
            ("m3fd official", []),
            ("msrs of the kit", ["train", "test", "odd_ones"]),
            ("a folder with splits", ["test", "train"]),
            ("a folder with splits inside", ["test", "train"]),
            ("tno", []),
        ],
    )
    def test_those_that_are_folders_are_listed(self, tmp_path, name, splits) -> None:
        spec = parse_spec(grow(FORMS[name], tmp_path))
        assert splits_of(spec.row, tmp_path) == splits

    def test_one_must_be_named_so_that_nothing_is_trained_on_by_mistake(self, tmp_path) -> None:
        spec = grow(FORMS["fmb"], tmp_path)
        with pytest.raises(PairError, match=rf"holds the splits train, test; say which, as in {tmp_path}:train or"):
            find_frames(parse_spec(spec))

    def test_one_that_is_missing_is_told_with_those_that_are_there(self, tmp_path) -> None:
        spec = grow(FORMS["fmb"], tmp_path)
        with pytest.raises(PairError, match=r"no split 'val' of FMB found.* its splits are train, test; .*val/Inf"):
            find_frames(parse_spec(f"{spec}:val"))

    def test_joined_splits_tell_their_frames_apart(self, tmp_path) -> None:
        spec = grow(FORMS["fmb"], tmp_path)
        for path in tmp_path.glob("test/*/00003.png"):
            path.rename(path.with_name("00001.png"))
        names = [pair.name for pair in find_pairs(parse_spec(f"{spec}:train+test")).pairs]
        assert len(names) == len({*names}) == 5
        assert {"train/00001", "test/00001"} <= {*names}


class TestSplitOfM3fd:
    def test_the_shipped_file_is_what_the_command_makes(self) -> None:
        assert m3fd_split.PLACE.read_text("utf-8") == m3fd_split.text()

    def test_every_frame_is_in_one_split(self) -> None:
        splits = read_split("m3fd")
        assert sorted(name for names in splits.values() for name in names) == [f"{i:05d}" for i in range(4200)]
        assert tuple(splits) == DATA_SETS["m3fd"].splits
        assert {name: len(names) for name, names in splits.items()} == {"train": 2800, "val": 350, "test": 1050}

    def test_neighbours_stay_together(self) -> None:
        for names in read_split("m3fd").values():
            groups = {int(name) // 50 for name in names}
            assert len(names) == 50 * len(groups)

    def test_every_split_has_frames_from_all_over(self) -> None:
        for names in read_split("m3fd").values():
            assert all(any(start <= int(name) < start + 1400 for name in names) for start in (0, 1400, 2800))


class TestFindings:
    def test_a_whole_data_set_has_none(self, tmp_path) -> None:
        assert findings(f"{grow(FORMS['msrs of the kit'], tmp_path)}:train") == []

    def test_an_image_without_a_partner(self, tmp_path) -> None:
        spec = grow(FORMS["msrs of the kit"], tmp_path)
        (tmp_path / "train/ir/00002.png").unlink()
        assert findings(f"{spec}:train") == [("no partner", "00002.jpg", "00002")]
        assert find_pairs(parse_spec(f"{spec}:train")).unpaired == [tmp_path / "train/vi/00002.jpg"]

    @pytest.mark.parametrize("place", ["labels/00002.txt", "Segmentation_labels/00002.png", "saliency/00002.png"])
    def test_a_pair_without_a_label(self, tmp_path, place) -> None:
        spec = grow(FORMS["msrs of the kit"], tmp_path)
        (tmp_path / "train" / place).unlink()
        assert findings(f"{spec}:train") == [("no label", Path(place).parent.name, "00002")]

    @pytest.mark.parametrize("place", ["labels/00002.txt", "Segmentation_labels/00002.png"])
    def test_a_label_without_images(self, tmp_path, place) -> None:
        spec = grow(FORMS["msrs of the kit"], tmp_path)
        path = tmp_path / "train" / place
        shutil.copy(path, path.with_stem("99"))
        assert findings(f"{spec}:train+test") == [("no images", f"99{path.suffix}", "train/99")]

    def test_two_labels_of_one_frame(self, tmp_path) -> None:
        spec = grow(FORMS["msrs of the kit"], tmp_path)
        (tmp_path / "train/labels/00002.xml").write_text("<annotation/>")
        assert findings(f"{spec}:train") == [("unreadable label", "00002.xml", "00002")]

    def test_files_that_are_no_labels_have_no_say(self, tmp_path) -> None:
        spec = grow(FORMS["msrs of the kit"], tmp_path)
        for name in ("classes.txt", ".hidden.txt", "notes.md", "99.json"):
            (tmp_path / "train/labels" / name).write_text("hello")
        assert findings(f"{spec}:train") == []

    def test_labels_of_the_other_split_in_a_folder_for_both_are_no_fault(self, tmp_path) -> None:
        spec = grow(FORMS["llvip"], tmp_path)
        assert findings(f"{spec}:train") == []
        shutil.rmtree(tmp_path / "visible/test")
        assert findings(f"{spec}:train") == [("unused", "Annotations", None)]

    def test_labels_outside_a_listed_split_are_no_fault_and_inside_they_are(self, tmp_path) -> None:
        spec = grow(FORMS["m3fd official"], tmp_path)
        for part in ("Ir", "Vis"):
            (tmp_path / part / "00100.png").unlink()
        assert "no images" not in {kind for kind, _, _ in findings(f"{spec}:train")}
        assert ("no images", "00100.xml", "00100") in findings(f"{spec}:val")

    def test_frames_of_a_list_that_are_not_there_are_noted(self, tmp_path) -> None:
        found = find_frames(parse_spec(f"{grow(FORMS['m3fd official'], tmp_path)}:val"))
        assert [one.kind for one in found.findings] == ["other split"]
        assert "347 frames of the split 'val' are not there: 00101" in found.findings[0].reason

    def test_an_empty_folder_for_labels_is_noted(self, tmp_path) -> None:
        spec = grow(FORMS["tno with masks"], tmp_path)
        for path in (tmp_path / "mask").iterdir():
            path.unlink()
        assert findings(spec) == [("not labelled", "mask", None)]

    def test_classes_without_labels_are_noted(self, tmp_path) -> None:
        found = find_frames(parse_spec(f"{grow(FORMS['msrs official'], tmp_path)}:train"))
        assert [str(one) for one in found.findings] == [f"{tmp_path}: has classes of boxes, but no folder train/labels"]


class TestNotFound:
    @pytest.mark.parametrize("key", [key for key in DATA_SETS if key != "folder"])
    def test_the_message_says_what_was_expected_where_and_whence_to_get_it(self, tmp_path, key) -> None:
        (tmp_path / "photos").mkdir()
        with pytest.raises(PairError) as caught:
            find_frames(parse_spec(f"{key}:{tmp_path}"))
        row = DATA_SETS[key]
        assert f"no {row.title} found in {tmp_path}, which holds photos; expected" in str(caught.value)
        assert row.layouts[0].visible.replace("{split}", "SPLIT").replace("|", " or ") in str(caught.value)
        assert str(caught.value).endswith(f"get it from {row.homepage}")

    def test_a_missing_folder_is_told(self, tmp_path) -> None:
        with pytest.raises(PairError, match=f"{tmp_path}/nowhere is not a folder; expected"):
            find_frames(parse_spec(f"fmb:{tmp_path}/nowhere"))

    def test_two_folders_that_may_be_meant_are_not_chosen_between(self, tmp_path) -> None:
        spec = grow(FORMS["tno"], tmp_path)
        shutil.copytree(tmp_path / "vi", tmp_path / "VIS")
        with pytest.raises(PairError, match="holds vi and VIS, of which one folder is expected"):
            find_frames(parse_spec(spec))

    def test_folders_with_no_name_in_common_are_told(self, tmp_path) -> None:
        spec = grow(FORMS["tno"], tmp_path)
        for path in (tmp_path / "ir").iterdir():
            path.rename(path.with_stem(f"IR_{path.stem}"))
        with pytest.raises(PairError, match="IR_1, IR_2, IR_10 against 1, 2, 10"):
            find_frames(parse_spec(spec))
