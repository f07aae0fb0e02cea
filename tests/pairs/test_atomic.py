"""Files appear whole or not at all, and what exists is kept."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from fuseloop.errors import ImageError
from fuseloop.pairs.atomic import check_target, check_target_folder, folder_written_aside, written_aside
from fuseloop.pairs.images import Picture, read_image, write_image

SMALL = Picture(np.full((16, 16, 3), 7, np.uint8))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_only_at_the_end(tmp_path):
    with written_aside(tmp_path / "x.png", overwrite=False) as aside:
        aside.write_bytes(b"new")
        assert aside.parent == tmp_path
        assert aside.name.startswith(".")
        assert not (tmp_path / "x.png").exists()
    assert (tmp_path / "x.png").read_bytes() == b"new"
    assert names(tmp_path) == ["x.png"]


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "x.png").write_bytes(b"old")
    with pytest.raises(ImageError, match=r"x\.png: exists already and was kept; use --overwrite"):
        write_image(tmp_path / "x.png", SMALL)
    assert (tmp_path / "x.png").read_bytes() == b"old"
    assert names(tmp_path) == ["x.png"]


def test_an_existing_file_is_replaced_when_asked(tmp_path):
    (tmp_path / "x.png").write_bytes(b"old")
    write_image(tmp_path / "x.png", SMALL, overwrite=True)
    assert read_image(tmp_path / "x.png").pixels.shape == (16, 16, 3)


def write_aside(path, happening):
    """Begins to write over `path`, when something happens."""
    with written_aside(path, overwrite=path.exists()) as aside:
        aside.write_bytes(b"half")
        happening()


def test_a_file_that_came_into_being_meanwhile_is_kept(tmp_path):
    with pytest.raises(ImageError, match="exists already"):
        write_aside(tmp_path / "x", lambda: (tmp_path / "x").write_bytes(b"of another program"))
    assert (tmp_path / "x").read_bytes() == b"of another program"
    assert names(tmp_path) == ["x"]


def raising(problem):
    def happening():
        raise problem

    return happening


@pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_whatever_stops_the_writing_leaves_nothing_behind(tmp_path, problem):
    (tmp_path / "x.png").write_bytes(b"old")
    with pytest.raises(problem):
        write_aside(tmp_path / "x.png", raising(problem))
    assert (tmp_path / "x.png").read_bytes() == b"old"
    assert names(tmp_path) == ["x.png"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_as_such(tmp_path, code):
    (tmp_path / "x.png").write_bytes(b"old")
    with pytest.raises(ImageError, match=r"x\.png: cannot be written \(.*\); free some space"):
        write_aside(tmp_path / "x.png", raising(OSError(code, os.strerror(code))))
    assert (tmp_path / "x.png").read_bytes() == b"old"
    assert names(tmp_path) == ["x.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_a_disk_that_is_really_full(tiny_disk, suffix):
    noise = Picture(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    with pytest.raises(ImageError, match=r"No space left on device.*free some space"):
        write_image(tiny_disk / f"x{suffix}", noise)
    assert not names(tiny_disk)


def test_a_missing_folder_and_a_file_in_its_place(tmp_path):
    with pytest.raises(ImageError, match=r"x\.png: .*missing is not a folder; make it first"):
        write_image(tmp_path / "missing" / "x.png", SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"x\.png: .*file is not a folder"):
        write_image(tmp_path / "file" / "x.png", SMALL)


def test_folders_and_devices_are_never_replaced(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ImageError, match=r"x\.png: is not a file"):
        check_target(tmp_path / "x.png", overwrite=True)
    with pytest.raises(ImageError, match=r"null: is not a file"):
        check_target(os.devnull, overwrite=True)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "x.png").symlink_to(tmp_path / "real.png")
    write_image(tmp_path / "x.png", SMALL, overwrite=True)
    assert (tmp_path / "x.png").is_symlink()
    assert read_image(tmp_path / "real.png").pixels.shape == (16, 16, 3)


def test_files_have_the_permissions_that_the_user_set(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_image(tmp_path / "x.png", SMALL)
    assert stat.S_IMODE((tmp_path / "x.png").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_long_name_can_be_written(tmp_path):
    write_image(tmp_path / ("n" * 251 + ".png"), SMALL)
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / ("n" * 252 + ".png"), SMALL)
    assert len(names(tmp_path)) == 1


def test_what_could_not_be_read_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "out.bin", overwrite=False):
        (tmp_path / "missing.bin").read_bytes()


def marked(folder):
    return (folder / "mark").exists()


def write_folder(path, text, *, overwrite=True, happening=lambda: None):
    with folder_written_aside(path, ours=marked, overwrite=overwrite) as aside:
        (aside / "mark").write_text(text)
        happening()
        (aside / "more").mkdir()


class TestFolder:
    def test_it_appears_only_at_the_end_with_those_above_it(self, tmp_path):
        target = tmp_path / "a" / "b"
        write_folder(target, "new", happening=lambda: assert_that(not target.exists()))
        assert names(target) == ["mark", "more"]
        assert names(target.parent) == ["b"]

    def test_an_empty_one_is_filled(self, tmp_path):
        (tmp_path / "b").mkdir()
        write_folder(tmp_path / "b", "new", overwrite=False)
        assert names(tmp_path / "b") == ["mark", "more"]

    def test_an_earlier_one_is_replaced_when_asked_and_leaves_nothing(self, tmp_path):
        write_folder(tmp_path / "b", "old")
        (tmp_path / "b" / "only in the old").touch()
        write_folder(tmp_path / "b", "new")
        assert names(tmp_path / "b") == ["mark", "more"]
        assert (tmp_path / "b" / "mark").read_text() == "new"
        assert names(tmp_path) == ["b"]

    def test_an_earlier_one_is_kept_otherwise(self, tmp_path):
        write_folder(tmp_path / "b", "old")
        with pytest.raises(ImageError, match="exists already and was kept; use --overwrite"):
            write_folder(tmp_path / "b", "new", overwrite=False)
        assert (tmp_path / "b" / "mark").read_text() == "old"

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_what_others_made_is_kept(self, tmp_path, overwrite):
        (tmp_path / "thesis.txt").touch()
        with pytest.raises(ImageError, match="holds other files, which were kept; choose a new or empty folder"):
            write_folder(tmp_path, "new", overwrite=overwrite)
        assert names(tmp_path) == ["thesis.txt"]

    def test_a_file_in_its_place_is_kept(self, tmp_path):
        (tmp_path / "b").write_text("a file")
        with pytest.raises(ImageError, match="a file is in the place of the folder"):
            check_target_folder(tmp_path / "b", ours=marked, overwrite=True)

    def test_what_others_put_there_meanwhile_is_kept(self, tmp_path):
        def happening():
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "thesis.txt").touch()

        with pytest.raises(ImageError, match="holds other files"):
            write_folder(tmp_path / "b", "new", happening=happening)
        assert names(tmp_path / "b") == ["thesis.txt"]
        assert names(tmp_path) == ["b"]

    @pytest.mark.parametrize(
        ("problem", "raised", "message"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), ImageError, "No space left on device.*free some space"),
            (PermissionError(errno.EACCES, "Permission denied"), ImageError, "check the folder and its permissions"),
            (KeyboardInterrupt(), KeyboardInterrupt, None),
        ],
    )
    def test_a_failure_leaves_the_earlier_one_and_nothing_else(self, tmp_path, problem, raised, message):
        write_folder(tmp_path / "b", "old")
        with pytest.raises(raised, match=message):
            write_folder(tmp_path / "b", "new", happening=raising(problem))
        assert (tmp_path / "b" / "mark").read_text() == "old"
        assert names(tmp_path) == ["b"]

    def test_a_failure_of_the_last_step_puts_the_earlier_one_back(self, tmp_path, monkeypatch):
        write_folder(tmp_path / "b", "old")
        rename = Path.rename

        def refuse(self, target):
            if self.name.endswith(".part"):
                raise OSError(errno.EIO, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(ImageError, match="Input/output error"):
            write_folder(tmp_path / "b", "new")
        assert (tmp_path / "b" / "mark").read_text() == "old"
        assert names(tmp_path) == ["b"]

    def test_what_could_not_be_read_is_not_blamed_on_it(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            write_folder(tmp_path / "b", "new", happening=(tmp_path / "missing.bin").read_bytes)
        with pytest.raises(ImageError, match="cannot be written"):
            write_folder(tmp_path / "b", "new", happening=lambda: next(tmp_path.glob(".*.part/mark")).mkdir())

    def test_a_link_stays_a_link(self, tmp_path):
        write_folder(tmp_path / "real", "old")
        (tmp_path / "link").symlink_to("real")
        write_folder(tmp_path / "link", "new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "mark").read_text() == "new"


def assert_that(true):
    assert true
