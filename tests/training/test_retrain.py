"""A task network trained anew for each fuser."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.results import weights_hash
from fuseloop.tasks.protocol import TaskNetwork
from fuseloop.training.retrain import retrain

CONFIG = """
network: yolov5n
device: cpu
data: [{spec: "synthetic:3:1"}]
validation: ["synthetic:1:2"]
anchors: published
validate_every: 1
stages: [{steps: 1, batch: 2, height: 64, width: 64, lr: 0.001}]
"""
FUSERS = {"first": "visible", "second": "infrared"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("retrain")
    (path / "tiny.yaml").write_text(CONFIG)
    return path


def run(folder: Path) -> dict[str, TaskNetwork]:
    return retrain(str(folder / "tiny.yaml"), FUSERS, folder / "runs", ["seed=3"], console=Console(file=io.StringIO()))


def test_each_fuser_has_a_run_and_a_network_of_its_own_and_the_same_again_trains_nothing(folder):
    networks = run(folder)
    assert {path.name for path in (folder / "runs").iterdir()} == set(networks) == set(FUSERS)
    hashes = {name: weights_hash(network) for name, network in networks.items()}
    assert len(set(hashes.values())) == 2
    assert not any(network.training for network in networks.values())
    assert {name: weights_hash(network) for name, network in run(folder).items()} == hashes


def test_a_folder_of_images_is_refused(folder, tmp_path):
    with pytest.raises(ConfigurationError, match="is a folder of images, and retraining needs those of the training"):
        retrain(str(folder / "tiny.yaml"), {"theirs": str(tmp_path)}, tmp_path)
