from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fuseloop.errors import FuseloopError, WeightsError
from fuseloop.fusers.weights import find_weights, known_weights, load, read_weights, write_weights
from fuseloop.networks.vfn import VFN
from fuseloop.weights.files import read_card


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    write_weights(path, VFN(2), description="for tests")
    return path


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_every_tensor_survives_writing_and_reading(depth: int, tmp_path: Path) -> None:
    network = VFN(depth)
    network(*torch.rand(2, 2, 1, 16, 16))  # moves the running statistics and their counters
    write_weights(tmp_path / "w.safetensors", network)
    read = read_weights(tmp_path / "w.safetensors")
    assert read.depth == depth
    assert not read.training
    expected, found = network.state_dict(), read.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_file_says_what_it_holds(file: Path) -> None:
    with safe_open(file, "pt") as archive:
        metadata = archive.metadata()
    assert metadata["architecture"] == "VFN"
    assert metadata["depth"] == "2"
    assert metadata["description"] == "for tests"
    assert metadata["version"]


def test_existing_file_is_kept_unless_overwriting_is_allowed(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(WeightsError, match="exists"):
        write_weights(file, VFN(1))
    assert file.read_bytes() == before
    write_weights(file, VFN(1), overwrite=True)
    assert read_weights(file).depth == 1


def test_nothing_half_written_stays_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, content: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(content[:100])
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(WeightsError, match="No space left"):
        write_weights(file, VFN(2), overwrite=True)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_weights_are_written_as_safetensors_only(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        write_weights(tmp_path / "w.pth", VFN(1))


def test_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="absent"):
        write_weights(tmp_path / "absent" / "w.safetensors", VFN(1))


def test_zero_bytes_are_called_empty(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(WeightsError, match=r"w\.safetensors is empty"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.999])
def test_truncated_file_is_called_corrupt(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(WeightsError, match="corrupt"):
        read_weights(file)


@pytest.mark.parametrize("content", [b"this is a text, not weights", b"\xff" * 64], ids=["text", "bytes"])
def test_file_of_another_format_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="no safetensors file"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_is_never_loaded_and_the_message_names_the_converter(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(VFN(1).state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"fuseloop convert .*checkpoint\.pth .*checkpoint\.safetensors"):
        read_weights(path)


def test_foreign_safetensors_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"architecture='VFN' and a depth, but names neither"):
        read_weights(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "metadata", [{"architecture": "ResNet", "depth": "2"}, {"architecture": "VFN", "depth": "-1"}], ids=json.dumps
)
def test_metadata_of_something_else_is_quoted(metadata: dict[str, str], tmp_path: Path) -> None:
    save_file(VFN(2).state_dict(), tmp_path / "other.safetensors", metadata)
    with pytest.raises(WeightsError, match=f"says architecture='{metadata['architecture']}'"):
        read_weights(tmp_path / "other.safetensors")


def test_tensors_of_another_depth_are_named(tmp_path: Path) -> None:
    save_file(VFN(1).state_dict(), tmp_path / "w.safetensors", {"architecture": "VFN", "depth": "2"})
    with pytest.raises(WeightsError, match=r"VFN of depth 2: 48 of its 156 tensors are missing \(.*e1\."):
        read_weights(tmp_path / "w.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = VFN(1)
    torch.nn.init.constant_(network.frb2.res[3].bias, torch.nan)
    write_weights(tmp_path / "w.safetensors", network)
    with pytest.raises(WeightsError, match="NaN"):
        read_weights(tmp_path / "w.safetensors")


def test_every_known_name_is_shipped_or_will_be_found_where_it_is_shipped() -> None:
    assert "vfn" in known_weights()
    assert [find_weights(name).name for name in known_weights()] == [f"{name}.safetensors" for name in known_weights()]


@pytest.mark.parametrize("name", ["vnf", "VFN", "vfn2"])
def test_unknown_name_lists_the_known_ones_and_guesses(name: str) -> None:
    with pytest.raises(WeightsError, match=r"Did you mean 'vfn'\?.*shipped names: .*vfn"):
        load(name)


def test_name_like_no_other_is_not_guessed_at() -> None:
    with pytest.raises(WeightsError, match=r"shipped names: .*vfn") as caught:
        load("resnet50")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("path", ["missing/w.safetensors", "w.safetensors", Path("somewhere") / "w"])
def test_missing_file_is_named(path: str | Path) -> None:
    with pytest.raises(WeightsError, match="there is no weight file"):
        load(path)


def test_errors_are_ones_that_a_user_can_mend() -> None:
    assert issubclass(WeightsError, FuseloopError)


def test_weights_load_by_path_with_their_card(file: Path) -> None:
    file.with_suffix(".md").write_text("# Card\n", encoding="utf-8")
    fuser = load(file)
    assert fuser.network.depth == 2
    assert fuser.card == "# Card\n"


def test_card_is_empty_when_there_is_none(file: Path) -> None:
    assert read_card(file) == ""


@pytest.mark.parametrize("length", range(32))
def test_no_length_of_the_header_makes_a_file_look_pickled(length: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, VFN(1), description="x" * 8 * length)
    assert read_weights(path).depth == 1


def test_a_name_that_no_system_can_hold_is_unknown_like_any_other() -> None:
    with pytest.raises(WeightsError, match="unknown weights"):
        load("a" * 300)


def test_a_folder_that_was_made_to_be_shared_is_loaded_with_its_card(tmp_path: Path):
    load("vfn").save_pretrained(tmp_path / "shared")
    fuser = load(tmp_path / "shared", tile_pixels=50_000)
    assert fuser.tile_pixels == 50_000
    assert "MSRS" in fuser.card
