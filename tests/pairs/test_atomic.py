"""Files appear whole or not at all, and what exists is kept."""

import errno
import os
import stat

import numpy as np
import pytest

from fuseloop.errors import ImageError
from fuseloop.pairs.atomic import check_target, written_aside
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
