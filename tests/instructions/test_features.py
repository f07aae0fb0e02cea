"""What the encoder sees of a text is the same everywhere, and little changes with a typing error."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.instructions.features import features, normal_form, units

BUCKETS = 1 << 14
CRC_OF_WDETECT = 3_320_657_899  # printf wdetect | gzip -c | tail -c8 | od -An -tu4 -N4


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("Detect PEOPLE", "detect people"),
        ("  detect\t\n people ", "detect people"),
        ("ｄｅｔｅｃｔ ｐｅｏｐｌｅ", "detect people"),
        ("de\u200btect people", "detect people"),
        ("detect\x00people\x1b", "detect people"),
        ("STRASSE straße", "strasse strasse"),
        ("\ud800", ""),
    ],
)
def test_what_is_the_same_to_a_reader_has_one_form(written, form):
    assert normal_form(written) == form


def test_words_are_compared_without_accents_and_digits():
    assert [unit.text for unit in units("yolov8 détecte l'été")] == ["yolov0", "detecte", "l'ete"]


def test_words_know_where_they_were():
    text = "检测行人 at night"
    assert [text[unit.start : unit.end] for unit in units(text)] == ["检测", "测行", "行人", "at", "night"]


def test_numbers_are_those_of_crc32_and_do_not_change_between_processes():
    program = f"from fuseloop.instructions.features import features; print(features(['detect', '行人'], {BUCKETS}))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{features(['detect', '行人'], BUCKETS)}\n"}
    assert features(["detect"], 1 << 32)[0] == CRC_OF_WDETECT


def test_a_typing_error_leaves_a_third_of_the_features():
    right, wrong = (set(features([text], 1 << 32)) for text in ("pedestrians", "pedestrains"))
    assert len(right & wrong) > len(right) / 3
    assert not right & set(features(["chocolate"], 1 << 32))


@given(st.text())
def test_any_text_has_features_in_the_buckets(text):
    form = normal_form(text)
    assert all(0 <= number < BUCKETS for number in features([unit.text for unit in units(form)], BUCKETS))
    assert not any(unicodedata.category(one) in ("Cc", "Cs") for one in form)
    assert normal_form(form).split() == form.split() or not form.isascii()
