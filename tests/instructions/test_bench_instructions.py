"""The benchmark of the text encoder, on three sentences and an encoder that says what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_instruct, bench_instructions
from benchmarks.bench_instructions import (
    Case,
    Scored,
    confusion,
    figures,
    mixtures_found,
    page,
    read_cases,
    table_of_kinds,
    wilson,
)
from fuseloop.errors import ConfigurationError
from fuseloop.instructions import InstructionMatch

THREE = """
- {text: find the people, intent: detection, language: english, kind: clean}
- text: find teh people and keep it nice
  intent: detection
  language: english
  kind: typo
  mixture: {detection: 0.7, view: 0.3}
- {text: ein Kuchen, intent: none, language: german, kind: clean}
"""


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    path = tmp_path / "three.yaml"
    path.write_text(THREE, encoding="utf-8")
    return read_cases(path)


@pytest.fixture
def scored(cases) -> list[Scored]:
    """The second sentence is mistaken."""
    matches = [
        InstructionMatch({"detection": 1.0}, 0.9),
        InstructionMatch({"view": 0.6, "detection": 0.4}, 0.8),
        InstructionMatch(reason="it asks for nothing that is known"),
    ]
    return [Scored(*pair) for pair in zip(cases, matches, strict=True)]


def test_wilsons_interval_is_that_of_the_published_example():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 15 of 148.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1


def test_what_is_right_is_counted_by_language_and_kind(scored):
    head, english, german, everything = table_of_kinds(scored)
    assert head == ["language", "clean", "typo", "brand", "all instructions", "nonsense rejected"]
    assert [cell.split(" ")[0] for cell in english] == ["english", "1/1", "0/1", "", "1/2", ""]
    assert [cell.split(" ")[0] for cell in german] == ["german", "", "", "", "", "1/1"]
    assert [cell.split(" ")[0] for cell in everything] == ["all", "1/1", "0/1", "", "1/2", "1/1"]


def test_confusion_counts_what_was_taken_for_what(scored):
    rows = {row[0]: row[1:] for row in confusion(scored)}
    assert rows["detection"] == ["1", "0", "0", "1", "0"]
    assert rows["none"] == ["0", "0", "0", "0", "1"]


def test_figures_are_shares_with_the_lower_ends_of_their_intervals(scored):
    found = figures(scored)
    assert set(found) <= set(bench_instructions.KEYS)
    assert (found["instructions.clean"], found["instructions.typo"], found["instructions.rejected"]) == (1, 0, 1)
    assert found["instructions.clean_low"] == pytest.approx(wilson(1, 1)[0])
    assert "instructions.brand" not in found


def test_a_mixture_is_found_when_exactly_its_intents_are(scored):
    assert mixtures_found(scored) == (1, 1)


def test_the_page_shows_what_was_mistaken(scored, small):
    text = page(scored, small, "python -m benchmarks instructions")
    assert "| find teh people and keep it nice | detection | view | 0.80 |" in text
    assert "exactly these were found: 1/1" in text
    assert "`python -m benchmarks instructions`" in text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is no YAML"),
        ("text", "no list of sentences"),
        ("[]", "no list of sentences"),
        ("- {text: a}", "entry 1 lacks"),
        ("- a", "entry 1 lacks"),
        ("- {text: a, intent: cooking, language: english, kind: clean}", "entry 1 has intent 'cooking'"),
        ("- {text: a, intent: none, language: english, kind: dirty}", "kind 'dirty'"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_entry(tmp_path, content, complaint):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=complaint):
        read_cases(tmp_path / "x.yaml")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_cases(tmp_path / "none.yaml")


def test_one_instruction_is_encoded_in_less_than_five_milliseconds(monkeypatch):
    monkeypatch.setattr(bench_instruct, "ROUNDS", 3)
    found = bench_instruct.run()
    assert set(found) == set(bench_instruct.KEYS)
    assert found["instruct.encode_ms"] < 5
