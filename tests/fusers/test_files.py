"""Fusing files: what is planned, and a loop that loses nothing when something goes wrong."""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from fuseloop.errors import ConfigurationError, ImageError, PairError
from fuseloop.fusers import files
from fuseloop.fusers.files import Job, Outcome, fuse_files, make_folder, plan_file, plan_folder, to_depth
from fuseloop.pairs.images import Picture, default_suffix, read_image, write_image


def picture(value: int = 100, dtype: type = np.uint8) -> Picture:
    return Picture(np.full((9, 12), value, dtype))


def keep_visible(infrared: Picture, visible: Picture) -> Picture:
    """The simplest fuser there is."""
    return visible


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Five pairs whose visible images are of the values 0 to 4, and no outputs."""
    for folder in ("ir", "vis", "out"):
        (tmp_path / folder).mkdir()
    for index in range(5):
        write_image(tmp_path / "ir" / f"{index}.png", picture())
        write_image(tmp_path / "vis" / f"{index}.png", picture(index))
    return plan_folder(tmp_path / "ir", tmp_path / "vis", tmp_path / "out")[0]


def statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.job.stem.name: outcome.status for outcome in outcomes}


class TestPlanFile:
    def test_the_output_is_the_path_that_was_given(self, tmp_path):
        job = plan_file(Path("ir.png"), Path("vis.png"), tmp_path / "a.b.jpg")
        assert job.output(".png") == tmp_path / "a.b.jpg"

    def test_a_folder_gets_the_stem_of_the_visible_image(self, tmp_path):
        job = plan_file(Path("x_ir.png"), Path("x.1.bmp"), tmp_path)
        assert job.output(".tiff") == tmp_path / "x.1.tiff"

    def test_an_ending_can_be_asked_for_apart(self, tmp_path):
        assert plan_file(Path("i.png"), Path("v.png"), tmp_path / "fused", ".webp").output(".png").name == "fused.webp"

    def test_a_path_without_ending_is_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match="has no ending such as"):
            plan_file(Path("ir.png"), Path("vis.png"), tmp_path / "fused")

    @pytest.mark.parametrize(("name", "ending"), [("f.jpeg", ".jpg"), ("f.TIF", ".tiff"), ("f.PNG", ".png")])
    def test_another_spelling_of_the_ending_is_no_contradiction(self, tmp_path, name, ending):
        assert plan_file(Path("i.png"), Path("v.png"), tmp_path / name, ending).output(".png").name == name

    def test_two_endings_are_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"ends with \.png, and the format asked for is jpg"):
            plan_file(Path("ir.png"), Path("vis.png"), tmp_path / "fused.png", ".jpg")

    def test_an_input_is_no_output_even_through_a_link(self, tmp_path):
        write_image(tmp_path / "vis.png", picture())
        (tmp_path / "link.png").symlink_to("vis.png")
        with pytest.raises(ConfigurationError, match="one of the two inputs"):
            plan_file(Path("ir.png"), tmp_path / "vis.png", tmp_path / "link.png", overwrite=True)

    def test_an_output_that_exists_needs_overwrite(self, tmp_path):
        write_image(tmp_path / "fused.png", picture())
        with pytest.raises(ImageError, match="--overwrite"):
            plan_file(Path("ir.png"), Path("vis.png"), tmp_path / "fused.png")
        plan_file(Path("ir.png"), Path("vis.png"), tmp_path / "fused.png", overwrite=True)


class TestPlanFolder:
    def test_outputs_keep_the_visible_stems_in_natural_order(self, tmp_path):
        for folder, end in (("ir", "_ir.png"), ("vis", "_vis.jpg")):
            (tmp_path / folder).mkdir()
            for name in ("x10", "x2", "alone" + folder):
                write_image(tmp_path / folder / (name + end), picture())
        jobs, unpaired = plan_folder(tmp_path / "ir", tmp_path / "vis", tmp_path / "out", suffixes=("_ir", "_vis"))
        assert [job.output(".png").name for job in jobs] == ["x2_vis.png", "x10_vis.png"]
        assert {path.name for path in unpaired} == {"aloneir_ir.png", "alonevis_vis.jpg"}

    def test_an_input_folder_is_no_output_folder(self, jobs, tmp_path):
        with pytest.raises(ConfigurationError, match="one of the two input folders"):
            plan_folder(tmp_path / "ir", tmp_path / "vis", tmp_path / "out" / ".." / "ir")

    def test_folders_without_a_common_stem_are_an_error(self, tmp_path, jobs):
        (tmp_path / "other").mkdir()
        write_image(tmp_path / "other" / "z.png", picture())
        with pytest.raises(PairError, match="z"):
            plan_folder(tmp_path / "ir", tmp_path / "other", tmp_path / "out")


class TestMakeFolder:
    def test_makes_what_is_missing_and_takes_what_is_there(self, tmp_path):
        make_folder(tmp_path / "a" / "b")
        make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()

    @pytest.mark.parametrize("below", ["file", "file/folder"])
    def test_a_file_in_the_way_is_an_error(self, tmp_path, below):
        (tmp_path / "file").touch()
        with pytest.raises(ImageError, match="cannot make the folder"):
            make_folder(tmp_path / below)


class TestToDepth:
    def test_eight_bits_go_to_sixteen_and_back_unharmed(self):
        every_value = Picture(np.arange(256, dtype=np.uint8).reshape(16, 16), np.full((16, 16), 7, np.uint8))
        deep = to_depth(every_value, "16")
        assert deep.pixels.dtype == np.uint16
        assert np.array_equal(deep.pixels, every_value.pixels.astype(np.uint16) * 257)
        assert deep.alpha is not None
        assert (deep.alpha == 7 * 257).all()
        assert np.array_equal(to_depth(deep, "8").pixels, every_value.pixels)

    def test_float_is_in_0_to_1(self):
        assert to_depth(picture(51), "float").pixels.dtype == np.float32
        assert to_depth(picture(51), "float").pixels[0, 0] == pytest.approx(0.2)

    def test_levels_choose_black_and_white(self):
        raw = Picture(np.array([[1000, 1500, 2000, 9000]], np.uint16))
        assert to_depth(raw, "8", "range:1000,2000").pixels.tolist() == [[0, 128, 255, 255]]

    def test_a_tall_image_is_converted_to_its_last_row(self):
        tall = Picture(np.arange(600, dtype=np.uint16)[:, None].repeat(2, axis=1))
        assert np.array_equal(to_depth(tall, "16").pixels, tall.pixels)


class TestFuseFiles:
    def test_every_pair_is_fused_to_its_own_output(self, jobs):
        outcomes: list[Outcome] = []
        fuse_files(jobs, keep_visible, outcomes.append)
        assert set(statuses(outcomes).values()) == {"fused"}
        assert [read_image(job.output(".png")).pixels[0, 0] for job in jobs] == [0, 1, 2, 3, 4]

    def test_no_jobs_are_no_work(self):
        outcomes: list[Outcome] = []
        fuse_files([], keep_visible, outcomes.append)
        assert outcomes == []

    def test_float_results_become_tiff(self, jobs):
        outcomes: list[Outcome] = []
        fuse_files(jobs[:1], lambda infrared, visible: to_depth(visible, "float"), outcomes.append)
        assert outcomes[0].output == jobs[0].stem.with_suffix(".tiff")
        assert read_image(outcomes[0].output).pixels.dtype == np.float32

    def test_a_second_run_does_only_what_is_missing(self, jobs):
        fuse_files(jobs, keep_visible, lambda outcome: None)
        jobs[2].output(".png").unlink()
        fused = []

        def remember(infrared: Picture, visible: Picture) -> Picture:
            fused.append(int(visible.pixels[0, 0]))
            return visible

        outcomes: list[Outcome] = []
        fuse_files(jobs, remember, outcomes.append)
        assert fused == [2]
        assert statuses(outcomes) == {"0": "kept", "1": "kept", "2": "fused", "3": "kept", "4": "kept"}

    def test_a_file_of_another_ending_is_not_the_output(self, jobs):
        jobs[0].stem.with_suffix(".tiff").write_text("left by something else")
        outcomes: list[Outcome] = []
        fuse_files(jobs, keep_visible, outcomes.append)
        assert set(statuses(outcomes).values()) == {"fused"}
        assert read_image(jobs[0].output(".png")).pixels[0, 0] == 0
        assert jobs[0].stem.with_suffix(".tiff").read_text() == "left by something else"

    def test_floats_are_written_beside_what_was_fused_in_8_bits(self, jobs):
        fuse_files(jobs, keep_visible, lambda outcome: None)

        def deepen(infrared: Picture, visible: Picture) -> Picture:
            return to_depth(visible, "float")

        for status in ("fused", "kept"):
            outcomes: list[Outcome] = []
            fuse_files(jobs, deepen, outcomes.append, ending=lambda visible: default_suffix(to_depth(visible, "float")))
            assert set(statuses(outcomes).values()) == {status}
            assert {outcome.output.suffix for outcome in outcomes} == {".tiff"}

    def test_a_second_run_on_floats_does_only_what_is_missing(self, jobs, tmp_path):
        for job in jobs:
            job.visible.unlink()
            write_image(job.visible.with_suffix(".tiff"), picture(1, np.float32))
        jobs = plan_folder(tmp_path / "ir", tmp_path / "vis", tmp_path / "out")[0]
        fuse_files(jobs, keep_visible, lambda outcome: None)
        jobs[2].output(".tiff").rename(jobs[2].output(".png"))
        outcomes: list[Outcome] = []
        fuse_files(jobs, keep_visible, outcomes.append)
        assert statuses(outcomes) == {"0": "kept", "1": "kept", "2": "fused", "3": "kept", "4": "kept"}

    def test_a_broken_image_whose_output_is_in_doubt_fails_alone(self, jobs):
        jobs[0].visible.write_text("no image")
        jobs[0].output(".tiff").write_text("left by something else")
        outcomes: list[Outcome] = []
        fuse_files(jobs, keep_visible, outcomes.append)
        assert statuses(outcomes) == {"0": "failed", "1": "fused", "2": "fused", "3": "fused", "4": "fused"}

    def test_overwrite_does_all_again(self, jobs):
        fuse_files(jobs, keep_visible, lambda outcome: None)
        fuse_files(jobs, lambda infrared, visible: infrared, lambda outcome: None, overwrite=True)
        assert [read_image(job.output(".png")).pixels[0, 0] for job in jobs] == [100] * 5

    def test_pairs_that_cannot_be_read_fused_or_written_do_not_stop_the_others(self, jobs):
        jobs[0].infrared.write_text("no image")
        jobs[3] = jobs[3]._replace(ending=".jpg")  # which cannot hold 16 bits

        def refuse_one(infrared: Picture, visible: Picture) -> Picture:
            if visible.pixels[0, 0] == 2:
                raise PairError("not this one")
            return to_depth(visible, "16")

        outcomes: list[Outcome] = []
        fuse_files(jobs, refuse_one, outcomes.append)
        assert statuses(outcomes) == {"0": "failed", "1": "fused", "2": "failed", "3": "failed", "4": "fused"}
        assert {path.name for path in jobs[0].stem.parent.iterdir()} == {"1.png", "4.png"}

    def test_a_defect_is_not_taken_for_a_bad_pair(self, jobs):
        with pytest.raises(ZeroDivisionError):
            fuse_files(jobs, lambda infrared, visible: 1 // 0, lambda outcome: None)

    def test_an_interrupt_finishes_and_reports_the_image_that_is_being_written(self, jobs):
        def interrupt_the_third(infrared: Picture, visible: Picture) -> Picture:
            if visible.pixels[0, 0] == 2:
                raise KeyboardInterrupt
            return visible

        outcomes: list[Outcome] = []
        with pytest.raises(KeyboardInterrupt):
            fuse_files(jobs, interrupt_the_third, outcomes.append)
        assert statuses(outcomes) == {"0": "fused", "1": "fused"}
        assert {path.name for path in jobs[0].stem.parent.iterdir()} == {"0.png", "1.png"}

    def test_a_full_disk_ends_the_loop(self, jobs, monkeypatch):
        def write(path: Path, picture: Picture, overwrite: bool = False) -> None:
            if path.stem == "1":
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise ImageError(f"{path}: cannot be written") from full
            write_image(path, picture)

        monkeypatch.setattr(files, "write_image", write)
        outcomes: list[Outcome] = []
        fuse_files(jobs, keep_visible, outcomes.append)
        assert statuses(outcomes) == {"0": "fused", "1": "failed"}

    def test_memory_does_not_grow_with_the_number_of_pairs(self, jobs):
        alive: weakref.WeakSet[Picture] = weakref.WeakSet()
        most = []

        def read(path: Path) -> Picture:
            read = read_image(path)
            alive.add(read)
            return read

        def count(infrared: Picture, visible: Picture) -> Picture:
            most.append(len(alive))
            return picture()

        fuse_files(jobs, count, lambda outcome: None, read=read)
        assert max(most) <= 6  # this pair, the next one, and the one before while it is let go
