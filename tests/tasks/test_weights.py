"""Task networks by name, and their weight files."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from fuseloop import tasks
from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.tasks.protocol import TaskNetwork
from fuseloop.tasks.weights import NETWORKS, SHIPPED, build, read_weights, write_weights
from fuseloop.weights.files import FOLDER, read_card

SMALL = ["yolov5n", "rtdetr", "detr", "segformer-b0", "ctdnet-18"]


@pytest.mark.parametrize("name", SMALL)
def test_a_written_network_comes_back_in_single_precision_and_half_as_exact(name, tmp_path):
    torch.manual_seed(0)
    network = build(name).eval()
    write_weights(tmp_path / "w.safetensors", network, name)
    again = tasks.load(tmp_path / "w.safetensors")
    assert again.classes == network.classes
    assert not again.training
    parameters = dict(network.named_parameters())
    for key, value in again.state_dict().items():
        expected = network.state_dict()[key]
        assert value.dtype == expected.dtype, key
        rounded = expected.half().to(expected.dtype) if key in parameters else expected
        assert torch.equal(value, rounded), key
    kinds = {key: value.dtype for key, value in load_file(tmp_path / "w.safetensors").items()}
    assert {kinds[key] for key in parameters if key in kinds} == {torch.float16}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_builds_a_network_of_its_task(name):
    with torch.device("meta"):
        network = build(name)
    assert isinstance(network, TaskNetwork)
    assert network.task == NETWORKS[name].task


def test_options_and_classes_are_kept(tmp_path):
    network = build("yolov5n", ["cat", "dog"], letterbox=320, channels=1)
    path = tmp_path / "w.safetensors"
    write_weights(path, network, "yolov5n", options={"letterbox": 320, "channels": 1})
    again = tasks.load(path)
    assert again.classes == ("cat", "dog")
    assert (again.letterbox, again.channels) == (320, 1)


def test_an_untrained_network_says_so():
    with pytest.warns(UserWarning, match="yolov5x is untrained: no weights of it are shipped"):
        assert tasks.load("yolov5x", classes=["cat"]).classes == ("cat",)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_load_without_a_word_and_have_a_card(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = tasks.load(name)
    assert network.predict(network(torch.rand(1, 3, 96, 128)))
    card = read_card(FOLDER / f"{name}.safetensors")
    assert all(word in card for word in ("data", "seed", "steps", "command", "Apache-2.0"))
    with pytest.warns(UserWarning, match="its shipped weights know other classes"):
        tasks.load(name, classes=["cat", "dog"])


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"unknown task network 'yolov5t'; did you mean .*ctdnet-18"):
        tasks.load("yolov5t")


def test_a_file_has_classes_of_its_own(tmp_path):
    with pytest.raises(ConfigurationError, match="has classes of its own"):
        tasks.load(tmp_path / "w.safetensors", classes=["cat"])


def test_files_that_are_no_task_network_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match="cannot read"):
        read_weights(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"holds no task network.* but it names none"):
        read_weights(path)
    with pytest.raises(WeightsError, match="says 'VFN'"):
        read_weights(FOLDER / "vfn.safetensors")
    save_file({"x": torch.zeros(1)}, path, {"architecture": "yolov5n", "classes": "nonsense"})
    with pytest.raises(WeightsError, match="do not describe a yolov5n"):
        read_weights(path)
    save_file({"x": torch.zeros(1)}, path, {"architecture": "yolov5n", "classes": json.dumps(["cat"])})
    with pytest.raises(WeightsError, match=r"does not hold a yolov5n: .* are missing"):
        read_weights(path)


def test_weights_beyond_half_precision_are_refused(tmp_path):
    network = build("yolov5n")
    next(network.parameters()).data.fill_(1e6)
    with pytest.raises(WeightsError, match="NaN or infinite"):
        write_weights(tmp_path / "w.safetensors", network, "yolov5n")
    assert not list(tmp_path.iterdir())
