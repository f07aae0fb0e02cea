"""Typing errors are mended where a word is nothing else, and only then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.instructions.features import normal_form, units
from fuseloop.instructions.spelling import NEIGHBOURS, Spelling, one_error_apart

SPELLING = Spelling(["detect", "detection", "people", "night", "行人", "map"], ["the", "knight", "a", "mask"])


def mended(text: str) -> list[str]:
    return [unit.text for unit in SPELLING.mend(units(normal_form(text)))]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("detcet peopel", ["detect", "people"]),
        ("dtect", ["detect"]),
        ("deetect", ["detect"]),
        ("detecy", ["detect"]),
        ("de tect the people", ["detect", "the", "people"]),
        ("detectpeople", ["detect", "people"]),
        ("detect thepeople", ["detect", "the", "people"]),
        ("détect", ["detect"]),
    ],
)
def test_one_error_is_mended(written, read):
    assert mended(written) == read


@pytest.mark.parametrize(
    "text", ["knight", "mask", "detective", "mao", "chocolate", "行", "the", "x", "12345", "detxxt"]
)
def test_words_that_are_something_else_stay(text):
    assert mended(text) == [unit.text for unit in units(text)]


def test_mended_words_keep_their_places():
    text = "the dtect peo ple"
    assert [text[unit.start : unit.end] for unit in SPELLING.mend(units(text))] == ["the", "dtect", "peo ple"]


def test_a_wrong_key_is_one_around_the_right_one():
    assert set(NEIGHBOURS["g"]) == set("fhtyvb")
    assert all(key in NEIGHBOURS[other] for key, around in NEIGHBOURS.items() for other in around)
    assert one_error_apart("nifht", "night")
    assert not one_error_apart("nizht", "night")


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_being_one_error_apart_goes_both_ways(one, other):
    assert one_error_apart(one, other) == one_error_apart(other, one)


@given(st.text(max_size=40))
def test_any_text_can_be_mended_and_nothing_is_lost_of_its_ends(text):
    words = units(normal_form(text))
    found = SPELLING.mend(words)
    assert bool(found) == bool(words)
    assert not words or (found[0].start, found[-1].end) == (words[0].start, words[-1].end)


def test_words_of_the_same_text_do_not_mend_each_other_away():
    assert mended("detect detection") == ["detect", "detection"]
