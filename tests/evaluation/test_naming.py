"""Names for what a user lists."""

from __future__ import annotations

import pytest

from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.naming import named


def test_a_path_is_called_as_its_folder_or_its_file_without_the_ending(tmp_path):
    assert named(["vfn", "a/b.safetensors", "out/", "x=a/b"], "--fuser") == {
        "vfn": "vfn",
        "b": "a/b.safetensors",
        "out": "out/",
        "x": "a/b",
    }


def test_a_path_that_holds_an_equals_sign_is_a_path_where_it_exists(tmp_path):
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert named([str(folder)], "--fuser") == {"lr=0.1": str(folder)}


@pytest.mark.parametrize("text", ["", "=vfn", "mine="])
def test_names_and_values_are_not_empty(text):
    with pytest.raises(ConfigurationError, match="not of the form VALUE or NAME=VALUE"):
        named([text], "--fuser")


def test_two_of_one_name_are_refused_with_a_way_out():
    with pytest.raises(ConfigurationError, match="both called 'fused'; tell them apart: --fuser NAME=b/fused"):
        named(["a/fused", "b/fused"], "--fuser")


def test_there_must_be_one():
    with pytest.raises(ConfigurationError, match="nothing to look at"):
        named([], "--fuser")
