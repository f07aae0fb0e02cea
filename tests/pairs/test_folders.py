"""Pairing files by their names."""

import pytest

from fuseloop.errors import PairError
from fuseloop.pairs.folders import PairPaths, pair_folders


@pytest.fixture
def folders(tmp_path):
    """Makes the folders `ir` and `vi` with empty files of the given names."""

    def make(infrared, visible):
        for folder, names in (("ir", infrared), ("vi", visible)):
            (tmp_path / folder).mkdir()
            for name in names.split():
                (tmp_path / folder / name).touch()
        return tmp_path / "ir", tmp_path / "vi"

    return make


def names(paths):
    return [path.name for path in paths]


def test_files_pair_by_stem_whatever_their_extensions(folders):
    ir, vi = folders("a.png b.tif c.BMP", "a.jpg b.PNG c.webp")
    pairing = pair_folders(ir, vi)
    assert pairing.pairs == [
        PairPaths("a", ir / "a.png", vi / "a.jpg"),
        PairPaths("b", ir / "b.tif", vi / "b.PNG"),
        PairPaths("c", ir / "c.BMP", vi / "c.webp"),
    ]
    assert pairing.unpaired == []


def test_pairs_come_in_natural_order(folders):
    ir, vi = folders("f10.png f9.png f1.png", "f1.png f10.png f9.png")
    assert [pair.name for pair in pair_folders(ir, vi).pairs] == ["f1", "f9", "f10"]


def test_what_has_no_partner_is_listed_in_natural_order(folders):
    ir, vi = folders("a.png x10.png x2.png", "a.png y.png")
    pairing = pair_folders(ir, vi)
    assert names(pairing.unpaired) == ["x2.png", "x10.png", "y.png"]
    assert [pair.name for pair in pairing.pairs] == ["a"]


def test_suffixes_are_no_part_of_the_name(folders):
    ir, vi = folders("x_ir.png y_ir.png stray.png", "x_vis.png y.png")
    pairing = pair_folders(ir, vi, infrared_suffix="_ir", visible_suffix="_vis")
    assert pairing.pairs == [PairPaths("x", ir / "x_ir.png", vi / "x_vis.png")]
    assert names(pairing.unpaired) == ["stray.png", "y_ir.png", "y.png"]


def test_one_folder_can_hold_both(folders):
    both, _ = folders("x_ir.png x_vis.png y_ir.png y_vis.png z_ir.png", "")
    pairing = pair_folders(both, both, infrared_suffix="_ir", visible_suffix="_vis")
    assert [(pair.infrared.name, pair.visible.name) for pair in pairing.pairs] == [
        ("x_ir.png", "x_vis.png"),
        ("y_ir.png", "y_vis.png"),
    ]
    assert names(pairing.unpaired) == ["z_ir.png"]


def test_one_folder_where_only_one_side_has_a_suffix(folders):
    both, _ = folders("x.png x_ir.png y.png", "")
    pairing = pair_folders(both, both, infrared_suffix="_ir")
    assert [(pair.infrared.name, pair.visible.name) for pair in pairing.pairs] == [("x_ir.png", "x.png")]
    assert names(pairing.unpaired) == ["y.png"]


def test_no_file_is_paired_with_itself(folders):
    both, _ = folders("x.png y.png", "")
    with pytest.raises(PairError, match="suffix"):
        pair_folders(both, both)


def test_other_files_hidden_files_and_folders_are_passed_over(folders):
    ir, vi = folders("a.png Thumbs.db notes.txt .b.png .0123.part", "a.jpg b.png.txt")
    (ir / "c.png").mkdir()
    pairing = pair_folders(ir, vi)
    assert [pair.name for pair in pairing.pairs] == ["a"]
    assert pairing.unpaired == []


def test_dots_in_names_are_kept(folders):
    ir, vi = folders("a.b.png a.c.png", "a.b.jpg a.c.jpg")
    assert [pair.name for pair in pair_folders(ir, vi).pairs] == ["a.b", "a.c"]


def test_two_files_of_one_name_are_an_error_that_names_both(folders):
    ir, vi = folders("a.png", "a.jpg a.png b.png")
    with pytest.raises(PairError, match=r"vi/a\.jpg and .*vi/a\.png have the same name; keep one"):
        pair_folders(ir, vi)


def test_nothing_in_common_is_an_error_that_shows_both_sides(folders):
    ir, vi = folders("a_ir.png b_ir.png", " ".join(f"v{i}.png" for i in range(9)))
    with pytest.raises(PairError, match=r"a_ir, b_ir against v0, v1, v2, v3, v4 and 4 more; .*suffix"):
        pair_folders(ir, vi)


def test_an_empty_folder(folders):
    ir, vi = folders("a.png", "notes.txt")
    with pytest.raises(PairError, match=r"vi: holds no images"):
        pair_folders(ir, vi)


def test_a_missing_folder_and_a_file_in_its_place(folders):
    ir, vi = folders("a.png", "a.png")
    with pytest.raises(PairError, match=r"missing: cannot be read as a folder \(No such file or directory\); check"):
        pair_folders(ir, vi / "missing")
    with pytest.raises(PairError, match=r"a\.png: cannot be read as a folder \(Not a directory\)"):
        pair_folders(ir / "a.png", vi)


def test_folders_may_be_given_as_text(folders):
    ir, vi = folders("a.png", "a.png")
    assert len(pair_folders(str(ir), str(vi)).pairs) == 1
