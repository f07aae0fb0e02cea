"""Sharing fusers through folders and the hub; nothing here needs a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from fuseloop.errors import WeightsError
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.weights import find_weights
from fuseloop.networks.vfn import VFN
from fuseloop.weights.files import FOLDER, read_card

INFRARED = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)
VISIBLE = np.dstack([INFRARED.T.reshape(20, 24), INFRARED, 255 - INFRARED])


def untrained(depth: int = 2, **options: Any) -> Fuser:
    torch.manual_seed(depth)
    return Fuser(VFN(depth), **options)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_saved_fuser_comes_back_the_same(depth: int, tmp_path: Path) -> None:
    fuser = untrained(depth)
    fuser.save_pretrained(tmp_path)
    again = Fuser.from_pretrained(tmp_path)
    assert again.network.depth == depth
    assert (again(INFRARED, VISIBLE) == fuser(INFRARED, VISIBLE)).all()


def test_saved_folder_holds_safetensors_configuration_and_card(tmp_path: Path) -> None:
    untrained(2).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text()) == {"architecture": "VFN", "depth": 2}


def test_choices_of_this_machine_are_not_saved(tmp_path: Path) -> None:
    untrained(tile_pixels=10_000, max_pixels=None).save_pretrained(tmp_path)
    again = Fuser.from_pretrained(tmp_path, max_pixels=1000)
    assert again.max_pixels == 1000
    assert again.tile_pixels > 10_000


def test_card_names_licence_and_the_terms_of_the_data(tmp_path: Path) -> None:
    untrained().save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "fuseloop"
    assert "terms of their\nown" in card.text
    assert "research" in card.text


def test_card_of_the_weights_goes_with_them(tmp_path: Path) -> None:
    untrained(card="# Trained on moonlight\n").save_pretrained(tmp_path / "first")
    Fuser.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    cards = [(tmp_path / name / "README.md").read_text() for name in ("first", "second")]
    assert cards[0] == cards[1]
    assert "Trained on moonlight" in cards[0]


@pytest.mark.skipif(not (FOLDER / "vfn.md").is_file(), reason="the shipped weights have no card yet")
def test_card_of_the_shipped_weights_names_the_terms_of_the_data() -> None:
    card = read_card(find_weights("vfn")).lower()
    assert "research" in card
    assert "terms" in card


def test_pushing_uploads_what_saving_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        """Takes the place of the hub's client and keeps what is uploaded."""

        def __init__(self, token: str | None = None) -> None:
            pass

        def create_repo(self, repo_id: str, **_: Any) -> SimpleNamespace:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id: str, folder_path: Path, **_: Any) -> str:
            shutil.copytree(folder_path, tmp_path / repo_id)
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    fuser = untrained()
    assert fuser.push_to_hub("someone/fusion") == "https://hub/someone/fusion"
    again = Fuser.from_pretrained(tmp_path / "someone" / "fusion")
    assert (again(INFRARED, VISIBLE) == fuser(INFRARED, VISIBLE)).all()


def test_repository_is_downloaded_and_read_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuser = untrained(card="# From afar\n")
    fuser.save_pretrained(tmp_path)
    asked = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr("fuseloop.fusers.fuser.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **_: str(tmp_path / "config.json"))
    again = Fuser.from_pretrained("someone/fusion", revision="v1", engine="torch")
    assert asked["repo_id"] == "someone/fusion"
    assert asked["revision"] == "v1"
    assert "model.safetensors" in asked["allow_patterns"]
    assert "From afar" in again.card
    assert (again(INFRARED, VISIBLE) == fuser(INFRARED, VISIBLE)).all()


@pytest.mark.parametrize("name", ["someone/nothing", "no/such/folder", "???"])
def test_what_is_neither_folder_nor_repository_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no folder here"):
        Fuser.from_pretrained(name, local_files_only=True, cache_dir=tmp_path)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        Fuser.from_pretrained(tmp_path)


def test_folder_with_foreign_weights_is_refused(tmp_path: Path) -> None:
    untrained().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="corrupt"):
        Fuser.from_pretrained(tmp_path)
