"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fuseloop import cli
from fuseloop.fusers.loop_weights import write_loop
from fuseloop.fusers.weights import write_weights
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.images import Picture, write_image
from tests.evaluation.fakes import Painted, painted_networks


class Ran(NamedTuple):
    code: int
    output: str
    errors: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[[str], Ran]:
    """Runs the command in this process, in an empty folder, where painted networks go by their names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fuseloop.engines.allocator.tune_allocator", lambda: None)  # this process is pytest's
    from fuseloop.tasks import weights

    load = weights.load
    monkeypatch.setattr(weights, "load", lambda name, **options: painted_networks().get(name) or load(name, **options))

    def run(command: str) -> Ran:
        code = cli.main(command.split())
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A fusion network that is not trained, so that these tests do not depend on what is shipped."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    write_weights(path, VFN(1))
    return path


@pytest.fixture(scope="session")
def loop(tmp_path_factory) -> Path:
    """A closed loop that is not trained but does something."""
    path = tmp_path_factory.mktemp("loops") / "loop.safetensors"
    torch.manual_seed(0)
    compensation = SemanticCompensation(width=64, vectors=8)
    for blocks in (compensation.rsc_ir, compensation.rsc_vi):
        torch.nn.init.normal_(blocks["a2si0"].zc.weight, std=5)
    write_loop(path, VFN(), compensation, ["detection"])
    return path


def save(path: str, pixels: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Picture(pixels))


@pytest.fixture
def data(run) -> Painted:
    """Painted pairs as they lie on disk, in the layout of the MSRS kit."""
    pairs = Painted(4)
    for index in range(len(pairs)):
        pair = pairs[index]
        save(f"data/test/ir/{pair.name}.png", pair.infrared)
        save(f"data/test/vi/{pair.name}.png", pair.visible)
        save(f"data/test/Segmentation_labels/{pair.name}.png", pair.segmentation)
        save(f"data/test/saliency/{pair.name}.png", pair.saliency)
        lines = []
        for kind, (x1, y1, x2, y2) in zip(pair.classes, pair.boxes / np.array([64, 48] * 2), strict=True):
            lines.append(f"{kind} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n")
        Path("data/test/labels").mkdir(exist_ok=True)
        Path(f"data/test/labels/{pair.name}.txt").write_text("".join(lines))
    return pairs
