"""`fuseloop explain`: what it shows, its exit codes, and bad input."""

from __future__ import annotations

import json
import re

import pytest

from fuseloop import cli
from fuseloop.instructions import INTENTS
from fuseloop.instructions.explain import parse_instruction, shown

PEOPLE, CAKE = "make the pedestrians easy to detect, it is night", "bake a chocolate cake"


@pytest.fixture
def explain(capsys):
    """Runs the command: exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["explain", *arguments])
        return code, *capsys.readouterr()

    return run


def test_shows_shares_confidence_attributes_known_words_and_language(explain):
    code, output, errors = explain(PEOPLE)
    assert (code, errors) == (0, "")
    assert output.splitlines()[0] == PEOPLE
    assert re.search(r"^  detection +█{20} 100 %  objects are to be found by a detector$", output, re.MULTILINE)
    assert re.search(r"^  confidence +(1\.00|0\.[5-9]\d)$", output, re.MULTILINE)
    assert re.search(r"^  night +[01]\.\d\d  it is dark$", output, re.MULTILINE)
    assert re.search(r"^  known words +.*pedestrians.*night$", output, re.MULTILINE)
    assert re.search(r"^  language +english$", output, re.MULTILINE)


def test_says_why_nothing_is_understood(explain):
    code, output, _ = explain(CAKE)
    assert code == 2
    assert re.search(r"  not understood: .+; the image stays neutral", output)
    assert "█" not in output


def test_the_exit_code_tells_all_from_some_from_none(explain):
    assert [explain(*texts)[0] for texts in ((PEOPLE, "view"), (PEOPLE, CAKE), (CAKE, ""))] == [0, 1, 2]


def test_mixtures_can_be_given_by_their_shares(explain):
    code, output, _ = explain("detection=0.7,view=0.3")
    assert code == 0
    assert re.search(r"detection +█{14} +70 %", output)
    assert re.search(r"view +█{6} +30 %", output)


def test_json_holds_everything(explain):
    code, output, _ = explain(PEOPLE, CAKE, "--json")
    people, cake = json.loads(output)
    assert code == 1
    assert people["text"] == PEOPLE
    assert people["mixture"] == {"detection": 1.0}
    assert set(people["attributes"]) == {"night", "people"}
    assert people["understood"]
    assert not cake["understood"]
    assert cake["reason"]
    assert set(people) == {
        "text", "mixture", "confidence", "matched_terms", "attributes", "language", "reason", "understood"
    }  # fmt: skip


def test_a_file_has_an_instruction_on_each_line(explain, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text(f"\ufeff{PEOPLE}\n\n  \n目标检测\n", encoding="utf-8")
    code, output, _ = explain("segmentation", "--file", str(file), "--json")
    assert code == 0
    assert [row["text"] for row in json.loads(output)] == ["segmentation", PEOPLE, "目标检测"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give instructions in quotation marks"),
        (["--file", "none.txt"], "cannot read none.txt: No such file"),
        (["--file", "."], "cannot read .: Is a directory"),
        (["--file", "binary"], "no text in UTF-8 (byte 0)"),
        (["--file", "blank"], "blank has no lines"),
        (["detectoin=1"], "unknown intent 'detectoin' in a mixture; did you mean 'detection'?"),
        (["detection=-1"], "the weight of detection in a mixture is a number from 0 up, got -1.0"),
        (["detection=nan"], "got nan"),
        (["detection=0,view=0"], "at least one weight above 0"),
    ],
)
def test_bad_arguments_are_explained(explain, tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "blank").write_text("\n \n")
    code, output, errors = explain(*arguments)
    assert (code, output) == (2, "")
    assert complaint in errors


def test_what_a_terminal_would_obey_is_not_printed(explain):
    _, output, _ = explain("\x1b[31mdetect\x07 people")
    assert "\x1b" not in output
    assert "\x07" not in output


def test_a_long_text_is_shown_in_part(explain):
    code, output, _ = explain("banana " * 1500)
    assert code == 2
    assert max(map(len, output.splitlines())) < 300
    assert "(10,500 characters)" in output
    assert shown("a\nb") == "a b"


@pytest.mark.parametrize("text", ["find x=1", "a = b = c", "=1", "x=", "detect, people", ""])
def test_a_text_that_is_no_mixture_stays_a_text(text):
    assert parse_instruction(text) == text


def test_intents_are_named_as_in_the_help(explain):
    for intent in INTENTS:
        assert explain(f"{intent}=1")[0] == 0
