"""Each kind of task network scores its predictions by the task scores of fuseloop."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fuseloop.datasets.labelled import IGNORED, LabelledPair, edges_of
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES, generate
from fuseloop.errors import LabelError
from fuseloop.tasks.kinds import Detector, SaliencyNetwork, Segmenter
from fuseloop.tasks.protocol import Prediction, Target

DOCUMENT = Path(__file__).parents[2] / "docs" / "task-networks.md"
ABSTRACT = {"view", "prepare", "run", "sample_losses", "predict"}


def scorer(kind: type, **attributes: Any) -> Any:
    """A network that can score, and nothing else."""
    return type("Scorer", (kind,), dict.fromkeys(ABSTRACT) | attributes)()


@pytest.fixture(scope="module")
def target() -> Target:
    return Target.of(LabelledPair.of(generate(3, 96, 128)))


def test_the_labels_of_a_pair_are_the_target():
    pair = LabelledPair.of(generate(3, 96, 128))
    target = Target.of(pair)
    assert target.boxes.dtype == torch.float32
    assert target.boxes.tolist() == pair.boxes.tolist()
    assert target.classes.tolist() == pair.classes.tolist()
    assert target.segmentation.dtype == torch.int64
    assert target.segmentation.tolist() == pair.segmentation.tolist()
    assert target.saliency.unique().tolist() == [0, 1]
    assert (255 * target.edges).tolist() == edges_of(pair).tolist()
    bare = Target.of(LabelledPair(pair.infrared, pair.visible))
    assert bare == Target()


def test_detections(target: Target):
    network = scorer(Detector, classes=BOX_NAMES, score_threshold=0.001, nms_iou=0.6)
    perfect = Prediction(boxes=target.boxes, classes=target.classes, scores=torch.ones(len(target.boxes)))
    blind = Prediction(boxes=torch.zeros(0, 4), classes=torch.zeros(0).long(), scores=torch.zeros(0))
    assert len(target.boxes) > 1
    assert network.score([network.keep("a", perfect, target)]).values["mAP50:95"] == pytest.approx(1)
    assert network.score([network.keep("a", blind, target)]).values["mAP50:95"] == 0
    settings = network.score([network.keep("a", perfect, target)]).settings
    assert (settings["score_threshold"], settings["nms_iou"]) == (0.001, 0.6)


def test_segmentations(target: Target):
    network = scorer(Segmenter, classes=SEGMENTATION_NAMES)
    ignoring = Target(segmentation=target.segmentation.clone())
    ignoring.segmentation[:10] = IGNORED
    wrong = target.segmentation.clone()
    wrong[:10] = 8
    assert network.score([network.keep("a", Prediction(segmentation=wrong), ignoring)]).values["mIoU"] == 1
    assert network.score([network.keep("a", Prediction(segmentation=wrong), target)]).values["mIoU/include"] < 1


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pysodmetrics has no wheels")
def test_saliency(target: Target):
    network = scorer(SaliencyNetwork)
    assert network.score([network.keep("a", Prediction(saliency=target.saliency), target)]).values["MAE"] == 0
    assert network.score([network.keep("a", Prediction(saliency=1 - target.saliency), target)]).values["MAE"] == 1


@pytest.mark.parametrize(("kind", "part"), [(Detector, "boxes"), (Segmenter, "segmentation")])
def test_a_target_without_the_labels_of_the_task_is_named(kind: type, part: str):
    network = scorer(kind, classes=BOX_NAMES, score_threshold=0.001, nms_iou=0.6)
    with pytest.raises(LabelError, match=f"has no {part}"):
        network.keep("a", Prediction(), Target())


def test_the_example_of_the_document_runs(capsys: pytest.CaptureFixture[str]):
    example, *_ = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(DOCUMENT), "exec"), names)
    assert 0 <= float(capsys.readouterr().out) <= 1
    assert names["outputs"].feature.shape == (2, 256, 4, 5)
