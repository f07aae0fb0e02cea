"""Bad input: for each kind, what the command says, its exit code, and that nothing is lost or half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuseloop.fusers.weights import find_weights
from fuseloop.pairs.images import read_image
from tools import bad_input
from tools.bad_input import CASES, DATA_CASES, FILE, FOLDER, SCORE_CASES, TASK_CASES, Ran


@pytest.fixture(autouse=True)
def empty_working_directory(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr("fuseloop.engines.allocator.tune_allocator", lambda: None)  # this process is pytest's
    with bad_input.empty_working_directory():
        yield


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title.replace(" ", "-"))
def test_bad_input(case):
    ran = bad_input.run(case)
    assert case.says in ran.errors + ran.output
    assert ran.code == case.code
    assert ran.lost == []
    assert tuple(ran.new) == case.new
    assert "Traceback" not in ran.errors
    for path in ran.new:
        assert read_image(path).pixels.shape == (bad_input.HEIGHT, bad_input.WIDTH, 3)


@pytest.mark.parametrize("case", SCORE_CASES, ids=lambda case: case.title.replace(" ", "-"))
def test_bad_input_to_score(case):
    ran = bad_input.run(case)
    assert case.says in ran.errors + ran.output
    assert ran.code == case.code
    assert ran.lost == []
    assert tuple(ran.new) == case.new
    assert "Traceback" not in ran.errors
    for path in ran.new:
        methods = json.loads(Path(path).read_text("utf-8"))["methods"]
        assert any(method["frames"] for method in methods.values()), "what could be scored is written"


@pytest.mark.parametrize("case", DATA_CASES, ids=lambda case: case.title.replace(" ", "-"))
def test_bad_input_to_data_check(case):
    ran = bad_input.run(case)
    assert case.says in ran.errors + ran.output
    assert ran.code == case.code
    assert (ran.lost, ran.new) == ([], [])
    assert "Traceback" not in ran.errors


@pytest.mark.parametrize("case", TASK_CASES, ids=lambda case: case.title.replace(" ", "-"))
def test_bad_input_to_task_networks(case):
    ran = bad_input.run(case)
    assert case.says in ran.errors + ran.output
    assert ran.code == case.code
    assert ran.lost == []
    assert tuple(ran.new) == case.new
    assert "Traceback" not in ran.errors


def test_ctrl_c_keeps_the_scores_of_finished_frames():
    ran = bad_input.run_score_interrupted()
    assert (ran.code, ran.lost, ran.new) == (130, [], ["s.json"])
    assert "Traceback" not in ran.errors
    said = re.search(r"interrupted: (\d+) of 200 frames were scored", ran.errors)
    assert said
    document = json.loads(Path("s.json").read_text("utf-8"))
    frames = document["methods"]["mine"]["frames"]
    assert len(frames) == int(said[1]) >= 3
    reasons = {failure["frame"]: failure["reason"] for failure in document["failed"]}
    assert len(reasons) == 200 - len(frames)
    assert "broken or truncated" in reasons.pop("5")
    assert set(reasons.values()) == {"not scored, because of an interruption"}


@contextmanager
def as_somebody() -> Iterator[None]:
    """Runs as a user whom permissions stop, which root is not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def run_as_somebody(command: str) -> tuple[int, str, str]:
    """Runs a command that needs nothing outside the working directory, once all modules are loaded."""
    Path().chmod(0o777)
    shutil.copy(find_weights("vfn"), "my.safetensors")
    assert bad_input.run_here(f"{FILE} --fuser my.safetensors")[0] == 0
    Path("fused.png").unlink()
    with as_somebody():
        return bad_input.run_here(f"{command} --fuser my.safetensors")


def test_a_file_that_may_not_be_read():
    bad_input.make_good_pairs()
    Path("copy.png").write_bytes(Path("vis.png").read_bytes())
    Path("copy.png").chmod(0)
    code, _, errors = run_as_somebody(FILE.replace("vis.png", "copy.png"))
    assert code == 2
    assert "copy.png: cannot be read (Permission denied)" in errors
    assert not Path("fused.png").exists()


def test_a_folder_that_may_not_be_written():
    bad_input.make_good_pairs()
    Path("fused").mkdir()
    Path("fused").chmod(0o555)
    code, _, errors = run_as_somebody(FOLDER)
    assert code == 2
    assert "fused/a.png: cannot be written (Permission denied)" in errors
    assert list(Path("fused").iterdir()) == []


def test_an_output_folder_that_may_not_be_made():
    bad_input.make_good_pairs()
    Path("locked").mkdir()
    Path("locked").chmod(0o555)
    code, _, errors = run_as_somebody(FOLDER.replace("fused", "locked/fused"))
    assert code == 2
    assert "cannot make the folder locked/fused: Permission denied" in errors


def test_a_full_disk():
    try:
        ran = bad_input.run_on_full_disk()
    except (PermissionError, bad_input.subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a tmpfs")
    assert ran.code == 1
    assert "No space left on device" in ran.errors
    assert ran.lost == []
    counts = re.match(r"fused (\d) of 8 pairs into disk/fused in .*; 1 failed; (\d) not tried", ran.output)
    assert counts
    fused, not_tried = map(int, counts.groups())
    assert fused >= 1
    assert fused + 1 + not_tried == 8
    assert ran.new == [f"disk/fused/{name}.png" for name in "abcdefgh"[:fused]]


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_continues():
    ran = bad_input.run_interrupted()
    assert ran.code == 130
    assert ran.lost == []
    finished = re.search(r"interrupted: (\d+) finished images stay in fused; the same command continues", ran.errors)
    assert finished
    assert int(finished[1]) == len(ran.new) >= 3
    assert "Traceback" not in ran.errors
    for path in ran.new:
        assert read_image(path).pixels.shape == (bad_input.HEIGHT, bad_input.WIDTH, 3)
    code, output, _ = bad_input.run_here(FOLDER)
    assert code == 0
    assert f"kept {len(ran.new)} that were there" in output


def test_the_page_in_the_docs_has_every_case():
    page = bad_input.PAGE.read_text(encoding="utf-8")
    for case in [*CASES, *SCORE_CASES, *DATA_CASES, *TASK_CASES]:
        assert re.search(rf"^\| {re.escape(case.title)} \| .+ \| {case.code} \| .+ \|$", page, re.MULTILINE), case.title


def test_times_are_left_out_of_the_page():
    ran = Ran(1, "fused 2 of 3 pairs into a|b in 1.6 s (1.2 a second); 1 failed\n", "failed: b\n", [], ["a.png"])
    expected = "| x | failed: b<br>fused 2 of 3 pairs into a\\|b in … s (… a second); 1 failed | 1 | a.png |\n"
    assert bad_input.row("x", ran) == expected
