"""Bad input: for each kind, what the command says, its exit code, and that nothing is lost or half-written."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuseloop.pairs.images import read_image
from tools import bad_input
from tools.bad_input import CASES, FILE, FOLDER, Ran


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


def test_a_file_that_may_not_be_read():
    bad_input.make_good_pairs()
    Path("vis.png").chmod(0)
    if os.access("vis.png", os.R_OK):
        pytest.skip("needs a user whom permissions stop")
    code, _, errors = bad_input.run_here(FILE)
    assert code == 2
    assert "vis.png: may not be read" in errors


def test_a_folder_that_may_not_be_written():
    bad_input.make_good_pairs()
    Path("fused").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    if os.access("fused", os.W_OK):
        pytest.skip("needs a user whom permissions stop")
    code, _, errors = bad_input.run_here(FOLDER)
    assert code == 2
    assert "cannot be written" in errors


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
    for case in CASES:
        assert re.search(rf"^\| {re.escape(case.title)} \| .+ \| {case.code} \| .+ \|$", page, re.MULTILINE), case.title


def test_times_are_left_out_of_the_page():
    ran = Ran(1, "fused 2 of 3 pairs into a|b in 1.6 s (1.2 a second); 1 failed\n", "failed: b\n", [], ["a.png"])
    expected = "| x | failed: b<br>fused 2 of 3 pairs into a\\|b in … s (… a second); 1 failed | 1 | a.png |\n"
    assert bad_input.row("x", ran) == expected
