"""Specifications name data sets, splits and frames in one line."""

from __future__ import annotations

import pytest

from fuseloop.datasets.spec import Spec, parse_spec, scene_numbers
from fuseloop.datasets.table import DATA_SETS
from fuseloop.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("fmb:data/FMB", Spec("fmb", "data/FMB")),
        ("fmb:data/FMB:train", Spec("fmb", "data/FMB", "train")),
        ("m3fd:data:train+val", Spec("m3fd", "data", "train+val")),
        ("llvip:data:train[::10]", Spec("llvip", "data", "train", slice(None, None, 10))),
        ("tno:data:[2:-1]", Spec("tno", "data", "", slice(2, -1))),
        ("csv:pairs.csv:val", Spec("csv", "pairs.csv", "val")),
        ("msrs:C:\\data\\MSRS:test", Spec("msrs", "C:\\data\\MSRS", "test")),
        ("synthetic:12:3", Spec("synthetic", "12:3")),
        ("llvip-test:data", Spec("llvip", "data", "test")),
        ("nowhere", Spec("folder", "nowhere")),
    ],
)
def test_a_specification_is_taken_apart(text, spec) -> None:
    assert parse_spec(text) == spec


def test_what_exists_is_a_path_whatever_its_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fmb:mine").mkdir()
    (tmp_path / "a:b").mkdir()
    assert parse_spec("fmb:mine") == Spec("folder", "fmb:mine")
    assert parse_spec("msrs:a:b") == Spec("msrs", "a:b")
    assert parse_spec("msrs:a:b:test") == Spec("msrs", "a:b", "test")
    assert parse_spec("a:b:test") == Spec("folder", "a:b", "test")


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'msrs'\?; known are folder, m3fd, .*csv, synthetic"):
        parse_spec("mrs:somewhere")
    with pytest.raises(ConfigurationError, match="'qqq' is no known data set; known are"):
        parse_spec("qqq:somewhere")


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_can_be_named(name) -> None:
    assert parse_spec(f"{name}:data:train").row is DATA_SETS[name]


@pytest.mark.parametrize(
    ("text", "title"),
    [("fmb:data:train", "fmb train in data"), ("msrs:data", "msrs in data"), ("nowhere", "nowhere")],
)
def test_a_specification_has_a_title(text, title) -> None:
    assert parse_spec(text).title == title


class TestSlices:
    @pytest.mark.parametrize(
        ("text", "chosen"),
        [("[::10]", [0, 10, 20]), ("[:2]", [0, 1]), ("[-2:]", [23, 24]), ("[20::3]", [20, 23]), ("", [*range(25)])],
    )
    def test_they_choose_frames_as_python_does(self, text, chosen) -> None:
        assert parse_spec(f"fmb:data:train{text}").choose(range(25)) == chosen

    def test_the_tenths_of_llvip_have_the_sizes_that_a_paper_names(self) -> None:
        spec = parse_spec("llvip:data:train[::10]")
        assert (len(spec.choose(range(12025))), len(spec.choose(range(3463)))) == (1203, 347)

    def test_no_step_makes_no_sense(self) -> None:
        with pytest.raises(ConfigurationError, match="slice of fmb train in data makes no sense"):
            parse_spec("fmb:data:train[::0]").choose(range(5))

    def test_an_empty_choice_is_told(self) -> None:
        with pytest.raises(ConfigurationError, match="leaves none of its 5 frames"):
            parse_spec("fmb:data:train[7:]").choose(range(5))


@pytest.mark.parametrize(("text", "numbers"), [("synthetic:12", (12, 0)), ("synthetic:3:4", (3, 4))])
def test_numbers_of_scenes(text, numbers) -> None:
    assert scene_numbers(parse_spec(text)) == numbers


@pytest.mark.parametrize("text", ["synthetic:", "synthetic:0", "synthetic:many", "synthetic:3:4:5", "synthetic:-2"])
def test_numbers_of_scenes_that_make_no_sense(text) -> None:
    with pytest.raises(ConfigurationError, match="synthetic:COUNT"):
        scene_numbers(parse_spec(text))
