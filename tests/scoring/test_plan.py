"""Files are matched by their names, and what does not match is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fuseloop.errors import ConfigurationError, PairError
from fuseloop.scoring.plan import name_methods, plan_file, plan_folders


class TestNames:
    def test_a_method_is_called_as_its_folder_or_the_stem_of_its_file(self, folders: Path, monkeypatch):
        monkeypatch.chdir(folders / "one")
        assert name_methods([f"{folders}/two/", f"{folders}/vis/b.png", "."]) == {
            "two": folders / "two",
            "b": folders / "vis/b.png",
            "one": Path(),
        }

    def test_a_link_is_called_as_it_was_typed(self, folders: Path):
        (folders / "latest").symlink_to(folders / "one")
        assert list(name_methods([f"{folders}/latest"])) == ["latest"]

    def test_a_name_can_be_given(self, folders: Path):
        assert name_methods([f"ours={folders}/one", "theirs=a=b"]) == {"ours": folders / "one", "theirs": Path("a=b")}

    def test_a_path_that_exists_is_no_name(self, tmp_path: Path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("lr=0.1").mkdir()
        assert name_methods(["lr=0.1"]) == {"lr=0.1": Path("lr=0.1")}

    def test_two_methods_of_one_name_are_an_error_that_says_what_to_do(self):
        with pytest.raises(ConfigurationError, match=r"a/fused and b/fused are both called 'fused'.*NAME=b/fused"):
            name_methods(["a/fused", "b/fused"])

    @pytest.mark.parametrize("texts", [["=a"], ["a="], [""], []])
    def test_nothing_is_no_method(self, texts: list[str]):
        with pytest.raises(ConfigurationError, match="NAME=PATH"):
            name_methods(texts)


class TestFolders:
    def test_frames_are_matched_by_stem_in_natural_order(self, folders: Path):
        for folder in ("ir", "vis", "one", "two"):
            (folders / folder / "a.png").rename(folders / folder / "x10.png")
            (folders / folder / "b.png").rename(folders / folder / "x9.png")
        (folders / "two" / "c.png").rename(folders / "two" / "c.bmp")
        plan = plan_folders(folders / "ir", folders / "vis", {"1": folders / "one", "2": folders / "two"})
        assert plan.methods == ("1", "2")
        assert [job.name for job in plan.jobs] == ["c", "x9", "x10"]
        assert plan.jobs[0].fused == {"1": folders / "one/c.png", "2": folders / "two/c.bmp"}
        assert plan.unmatched == []

    def test_one_folder_as_both_sources_is_named(self, folders: Path):
        with pytest.raises(PairError, match="the infrared and the visible folder are the same"):
            plan_folders(folders / "vis", folders / "vis", {"1": folders / "one"})

    def test_the_visible_images_themselves_can_be_a_method(self, folders: Path):
        plan = plan_folders(folders / "ir", folders / "vis", {"visible": folders / "vis"})
        assert plan.jobs[1].fused == {"visible": folders / "vis/b.png"}
        assert plan.unmatched == []

    def test_what_has_no_partner_is_listed(self, folders: Path):
        (folders / "ir/a.png").unlink()
        (folders / "two/b.png").unlink()
        (folders / "one/c.png").rename(folders / "one/d.png")
        plan = plan_folders(folders / "ir", folders / "vis", {"1": folders / "one", "2": folders / "two"})
        assert [(job.name, list(job.fused)) for job in plan.jobs] == [("b", ["1"]), ("c", ["2"])]
        assert plan.unmatched == [
            *(str(folders / name) for name in ("vis/a.png", "one/a.png", "one/d.png", "two/a.png")),
            "b: there is no fused image of 2",
            "c: there is no fused image of 1",
        ]

    def test_a_frame_without_any_fused_image_is_listed_and_left_out(self, folders: Path):
        (folders / "one/a.png").unlink()
        plan = plan_folders(folders / "ir", folders / "vis", {"1": folders / "one"})
        assert [job.name for job in plan.jobs] == ["b", "c"]
        assert plan.unmatched == ["a: there is no fused image"]

    def test_a_method_with_an_empty_folder_does_not_stop_the_others(self, folders: Path):
        (folders / "none").mkdir()
        plan = plan_folders(folders / "ir", folders / "vis", {"none": folders / "none", "1": folders / "one"})
        assert [list(job.fused) for job in plan.jobs] == [["1"]] * 3
        assert plan.methods == ("none", "1")
        assert plan.unmatched == [f"{folders}/none: holds no images; check the path"]

    def test_suffixes_do_not_count_and_fused_images_may_be_called_as_fuse_writes_them(self, folders: Path):
        for name in "abc":
            (folders / f"ir/{name}.png").rename(folders / f"ir/{name}_ir.png")
            (folders / f"vis/{name}.png").rename(folders / f"vis/{name}_vis.png")
            (folders / f"two/{name}.png").rename(folders / f"two/{name}_vis.png")
        methods = {"by name": folders / "one", "as fuse": folders / "two"}
        plan = plan_folders(folders / "ir", folders / "vis", methods, suffixes=("_ir", "_vis"))
        assert [job.name for job in plan.jobs] == ["a", "b", "c"]
        assert plan.jobs[0].fused == {"by name": folders / "one/a.png", "as fuse": folders / "two/a_vis.png"}
        assert plan.unmatched == []

    def test_all_images_may_be_in_one_folder(self, folders: Path):
        (folders / "all").mkdir()
        for folder in ("ir", "vis", "one"):
            for name in "abc":
                shutil.copy(folders / folder / f"{name}.png", folders / "all" / f"{name}_{folder}.png")
        everything = folders / "all"
        plan = plan_folders(everything, everything, {"one": everything}, suffixes=("_ir", "_vis"), fused_suffix="_one")
        assert [job.fused["one"].name for job in plan.jobs] == ["a_one.png", "b_one.png", "c_one.png"]
        assert plan.unmatched == []

    def test_folders_that_have_nothing_in_common_are_an_error_that_lists_names(self, folders: Path):
        for name in "abc":
            (folders / f"one/{name}.png").rename(folders / f"one/{name}{name}.png")
        with pytest.raises(PairError, match=r"one has the same name as a pair.*: aa, bb, cc against a, b, c; rename"):
            plan_folders(folders / "ir", folders / "vis", {"one": folders / "one"})

    def test_two_fused_images_of_one_name_are_an_error(self, folders: Path):
        shutil.copy(folders / "one/a.png", folders / "one/a.bmp")
        with pytest.raises(PairError, match=r"a\.bmp and .*a\.png have the same name"):
            plan_folders(folders / "ir", folders / "vis", {"one": folders / "one"})


def test_files_belong_together_whatever_their_names():
    plan = plan_file(Path("x.png"), Path("y.jpg"), {"mine": Path("z.png")})
    assert plan.jobs[0] == ("y", Path("x.png"), Path("y.jpg"), {"mine": Path("z.png")})
