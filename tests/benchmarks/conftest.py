"""Painted pairs as data sets, networks that read the paint, and closed loops that are not trained but do something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.results.study import Rival, Study
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES
from fuseloop.fusers.loop_weights import write_loop
from fuseloop.fusers.weights import find_weights, read_weights, write_weights
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.tasks.protocol import TaskNetwork
from tests.datasets.trees import yolo
from tests.evaluation.conftest import save
from tests.evaluation.fakes import Painted, PaintedDetector, PaintedSaliency, PaintedSegmenter


class SecondDetector(PaintedDetector):
    """The same detector, which feeds something else back."""

    def run(self, prepared: Tensor) -> tuple[Any, Tensor]:
        raw, feature = super().run(prepared)
        return raw, feature.flip(2)


class OtherSegmenter(PaintedSegmenter):
    """A segmenter that does not feed back what the detector does."""

    def run(self, prepared: Tensor) -> tuple[Any, Tensor]:
        raw, feature = super().run(prepared)
        return raw, feature.square().flip(1, 3)


NETWORKS: dict[str, TaskNetwork] = {
    "yolov5s": PaintedDetector(BOX_NAMES),
    "segformer-b0": OtherSegmenter(SEGMENTATION_NAMES),
    "ctdnet-18": PaintedSaliency(),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny images gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Four painted pairs as MSRS/test and train, three as TNO_salient; nothing is salient in the first."""
    root, pairs = tmp_path_factory.mktemp("data"), Painted(4)
    for index in range(len(pairs)):
        pair = pairs[index]
        there = pair.classes >= (index > 0)  # a person in the first pair alone
        labels = yolo(replace(pair, boxes=pair.boxes[there], classes=pair.classes[there]))
        for folder in (root / "MSRS" / "test", root / "MSRS" / "train", root / "TNO_salient"):
            if folder.name == "TNO_salient" and index == 3:
                continue
            save(str(folder / "ir" / f"{pair.name}.png"), pair.infrared)
            save(str(folder / "vi" / f"{pair.name}.png"), pair.visible)
            masks = "mask" if folder.name == "TNO_salient" else "saliency"
            save(str(folder / masks / f"{pair.name}.png"), pair.saliency)
            if masks == "saliency":
                save(str(folder / "Segmentation_labels" / f"{pair.name}.png"), pair.segmentation)
                (folder / "labels").mkdir(exist_ok=True)
                (folder / "labels" / f"{pair.name}.txt").write_text(labels)
    return root


def write_run(folder: Path, seed: int) -> None:
    """A loop around the shipped fusion network, as a training leaves it."""
    torch.manual_seed(seed)
    compensation = SemanticCompensation(width=64, vectors=8)
    for blocks in (compensation.rsc_ir, compensation.rsc_vi):
        torch.nn.init.normal_(blocks["a2si0"].zc.weight, std=0.5)
    folder.mkdir(parents=True)
    fusion = read_weights(find_weights("vfn"))
    write_loop(folder / "best.safetensors", fusion, compensation, ["detection"])


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """Two seeds of a loop, two variants of it, and another fusion network."""
    root = tmp_path_factory.mktemp("runs")
    with torch.random.fork_rng():
        for seed, run in enumerate(("seeds/seed0", "seeds/seed1", "ablations/main", "ablations/no-bank")):
            write_run(root / run, seed)
        torch.manual_seed(0)
        write_weights(root / "other.safetensors", VFN())
    return root


def seeds(runs: Path, names: Sequence[str] = ("seed0", "seed1")) -> dict[str, str]:
    """Weight files of the loop by their seeds."""
    return {name: str(runs / "seeds" / name / "best.safetensors") for name in names}


@pytest.fixture(scope="session")
def study(data, runs) -> Study:
    """All there is to compare, on three frames, nothing of it looked at."""
    rivals = [
        Rival("retrained", "yolov5s", "yolov5s, retrained", "vfn"),
        Rival("joint", "yolov5s", "yolov5s, joint", str(runs / "other.safetensors")),
    ]
    extra = {"rtdetr": SecondDetector(BOX_NAMES)} | {rival.name: PaintedDetector(BOX_NAMES) for rival in rivals}
    return Study(
        NETWORKS | extra,
        unseen=("rtdetr",),
        loops=seeds(runs),
        ablations={name: str(runs / "ablations" / name / "best.safetensors") for name in ("main", "no-bank")},
        rivals=rivals,
        data=data,
        limit=3,
    )
