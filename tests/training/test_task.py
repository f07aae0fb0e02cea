"""Training of task networks on mixtures of what fusers make."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import fuseloop
from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.synthetic import generate, write_scenes
from fuseloop.errors import ConfigurationError, LabelError, WeightsError
from fuseloop.evaluation.classes import match_classes
from fuseloop.fusers.rules import RULES
from fuseloop.tasks import load
from fuseloop.tasks.protocol import Target
from fuseloop.tasks.weights import build
from fuseloop.training.config import TaskAugmentation, TaskConfig
from fuseloop.training.task import Fusing, Kept, TaskBatch, TaskRecipe, augment, draw_class, train

CPU = torch.device("cpu")
NARROW = {
    "detection": {"network": "yolov5n"},
    "segmentation": {"network": "segformer-b0"},  # has dropout
    "saliency": {"network": "ctdnet-18", "options": {"width": 0.125}},
}


@pytest.fixture
def tiny(tmp_path):
    """Makes configurations: two stages of different batches on six synthetic scenes, for the task of `NARROW`."""

    def make(task: str = "saliency", **changes) -> TaskConfig:
        stage = {"height": 64, "width": 64, "lr": 0.002, "augmentation": {"mosaic": 0.5}}
        settings = {
            "folder": tmp_path / "run",
            "device": "cpu",
            "data": [{"spec": "synthetic:4:1"}, {"spec": "synthetic:2:2"}],
            "validation": ["synthetic:2:3"],
            "ema": 0.9,
            "validate_every": 4,
            "checkpoint_every": 1,
            "log_every": 1,
            "stages": [{"steps": 3, "batch": 3, **stage}, {"steps": 3, "batch": 2, **stage}],
        }
        return TaskConfig.model_validate(settings | NARROW[task] | changes)

    return make


def quiet() -> Console:
    return Console(file=io.StringIO())


def losses(folder: Path) -> list[float]:
    entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("task", NARROW)
def test_every_kind_of_network_trains_and_its_weights_can_be_loaded(tiny, task):
    result = train(tiny(task), console=quiet())
    assert result.finished
    network = load(result.weights)
    assert network.task == task
    assert not network.training
    assert len(network.predict(network(torch.rand(2, 3, 64, 96)))) == 2


def test_training_makes_the_loss_fall(tiny):
    stage = {"height": 96, "width": 96, "batch": 4, "lr": 0.005}
    config = tiny(stages=[{"steps": 30, **stage}], ema=None, validate_every=30, data=[{"spec": "synthetic:3:1"}])
    train(config, console=quiet())
    found = losses(config.folder)
    assert np.mean(found[-5:]) < 0.75 * np.mean(found[:5])


@pytest.mark.parametrize("task", ["segmentation", "saliency"])
def test_a_training_that_was_stopped_reaches_the_same_weights(tiny, tmp_path, task):
    whole = train(tiny(task, folder=tmp_path / "whole"), console=quiet())
    hasty = tiny(task, folder=tmp_path / "parts", budget_minutes=1e-9)
    steps = [train(hasty, console=quiet()).step for _ in range(6)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert same_weights(whole.folder / "last.safetensors", tmp_path / "parts" / "last.safetensors")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_workers_prepare_what_would_be_prepared_without_them(tiny):
    alone, helped = (TaskRecipe(tiny("detection", workers=workers), CPU) for workers in (0, 2))
    for step in range(6):
        slots = range(alone.pairs_in(step))
        (one,), (other,) = alone.batches(step, slots), helped.batches(step, slots)
        assert torch.equal(one.visible, other.visible)
        assert torch.equal(one.infrared, other.infrared)
        assert one.fusers == other.fusers
        assert len(one.boxes) == len(other.boxes)
        assert all(map(torch.equal, one.boxes, other.boxes))


def test_processes_share_a_batch_between_them(tiny):
    recipe = TaskRecipe(tiny(), CPU)
    (whole,), (odd,) = recipe.batches(0, range(3)), recipe.batches(0, [1])
    assert torch.equal(whole.visible[1:2], odd.visible)
    assert whole.fusers[1] == odd.fusers[0]


def test_all_fusers_are_drawn_by_their_shares(tiny):
    recipe = TaskRecipe(tiny(fusers={"visible": 3, "vfn": 1}, stages=[{"steps": 1, "batch": 200, "height": 32}]), CPU)
    (batch,) = recipe.batches(0, range(200))
    assert set(batch.fusers) == {"visible", "vfn"}
    assert 0.65 < batch.fusers.count("visible") / 200 < 0.85


def test_stages_can_weigh_the_data_sets_anew(tiny):
    stages = [{"steps": 1, "batch": 12, "height": 240, "width": 320, "weights": [0, 1]}]
    plain = {"flip": False, "scales": [1, 1], "brighten": 0}
    recipe = TaskRecipe(tiny(stages=[{**stages[0], "augmentation": plain}]), CPU)
    (batch,) = recipe.batches(0, range(12))
    known = {pair.infrared.tobytes() for pair in open_all("synthetic:2:2")}
    assert {one.numpy().tobytes() for one in batch.infrared[:, 0]} == known


def open_all(spec: str) -> list[LabelledPair]:
    pairs = open_labelled(spec)
    return [pairs[index] for index in range(len(pairs))]


@pytest.mark.parametrize("task", NARROW)
def test_a_batch_keeps_the_labels_through_a_pickle(task):
    network, pairs = build(name=NARROW[task]["network"]), open_labelled("synthetic:3:5")
    match = match_classes(network, pairs)
    batch = TaskBatch.of(open_all("synthetic:3:5"), [match] * 3, ["visible"] * 3)
    for one in (batch, batch.to(CPU), pickle.loads(pickle.dumps(batch))):
        for index, target in enumerate(one.targets):
            expected = match.target(pairs[index])
            for name, part in vars(expected).items():
                found = getattr(target, name)
                assert (found is None) == (part is None), name
                if part is not None:
                    torch.testing.assert_close(found, part, rtol=0, atol=1e-6, msg=name)


def test_fusers_of_a_batch_make_what_fuser_makes():
    pair = LabelledPair.of(generate(3, 64, 96))
    names = ["infrared", "visible", "mean", "max", "vfn", "vfn"]
    infrared = torch.from_numpy(pair.infrared)[None, None].repeat(6, 1, 1, 1)
    visible = torch.from_numpy(pair.visible).movedim(-1, 0)[None].repeat(6, 1, 1, 1)
    images = Fusing(dict.fromkeys(names), CPU)(TaskBatch(infrared, visible, {}, (), names))
    assert torch.equal(images[0], (infrared[0] / 255).repeat(3, 1, 1))
    assert torch.equal(images[1], visible[1] / 255)
    for index, name in ((2, "mean"), (3, "max")):
        expected = RULES[name](infrared[:1] / 255, visible[:1] / 255)[0].clamp(0, 1)
        torch.testing.assert_close(images[index], expected)
    saved = torch.from_numpy(fuseloop.load("vfn")(pair.infrared, pair.visible)).movedim(-1, 0)
    assert (images[4] * 255 - saved).abs().max() < 0.51
    assert torch.equal(images[4], images[5])


def test_samples_keep_images_and_labels_together():
    """Where a scene is salient, it has an id; after any change that still holds but for the pixels at borders."""
    pairs = open_all("synthetic:4:7")
    rng = np.random.default_rng(0)
    for _ in range(8):
        pair = augment(pairs, 96, 128, TaskAugmentation(mosaic=0.5), rng)
        assert pair.visible.shape == (96, 128, 3)
        assert pair.saliency is not None
        assert pair.segmentation is not None
        assert pair.boxes is not None
        assert (pair.segmentation[pair.saliency > 128] != 0).mean() > 0.95
        assert ((pair.boxes >= 0) & (pair.boxes <= [128, 96, 128, 96])).all()


def test_focus_shows_each_class_equally_often_however_rare():
    pairs = Kept(open_all("synthetic:12:7"))
    rng = np.random.default_rng(0)
    drawn = [draw_class(pairs, rng) for _ in range(600)]
    shown = [int(pair.segmentation[place]) for pair, place in drawn]
    classes, counts = np.unique(shown, return_counts=True)
    assert set(classes) == set(pairs.showing)
    assert len(classes) > 3
    expected = 600 / len(classes)
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi squared

    rare = min(pairs.showing, key=lambda one: len(pairs.showing[one]))
    share = {
        focus: np.mean([(augment(pairs, 64, 64, still(focus), rng).segmentation == rare).any() for _ in range(150)])
        for focus in (0.0, 1.0)
    }
    assert share[1.0] > 0.9 / len(classes) > share[0.0]


def still(focus: float) -> TaskAugmentation:
    return TaskAugmentation(focus=focus, scales=(1.0, 1.0), brighten=0.0)


# What is refused


@pytest.fixture
def broken(tmp_path) -> Path:
    """Three labelled frames, of which the second has a class that there is not."""
    write_scenes(tmp_path / "data", 3, 0, height=64, width=64)
    sorted((tmp_path / "data" / "labels").iterdir())[1].write_text("7 .5 .5 .1 .1\n")
    return tmp_path / "data"


def test_broken_labels_are_refused_or_left_out_as_the_configuration_says(tiny, broken):
    data = [{"spec": f"msrs:{broken}"}]
    with pytest.raises(LabelError, match=r"1 frames are broken, the first: .*class 7"):
        TaskRecipe(tiny("detection", data=data), CPU)
    recipe = TaskRecipe(tiny("detection", data=data, on_error="skip"), CPU)
    assert any("2 pairs" in line and "1 broken ones left out" in line for line in recipe.describe())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "yolo"}, "unknown 'yolo'; known are yolov5n"),
        ({"options": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"classes": ["cat"]}, "no class of one name"),
    ],
    ids=["network", "option", "classes"],
)
def test_what_does_not_fit_the_network_is_refused(tiny, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        TaskRecipe(tiny("detection", **changes), CPU)


def test_weights_to_begin_with_must_be_of_the_same_network(tiny, tmp_path):
    first = train(tiny("detection"), console=quiet())
    again = TaskRecipe(tiny("detection", start=str(first.weights), folder=tmp_path / "again"), CPU)
    begun, loaded = again.task_network.state_dict(), load(first.weights).state_dict()
    assert all(torch.equal(begun[key], loaded[key]) for key in loaded)
    with pytest.raises(ConfigurationError, match="is a YOLOv5 of person, bicycle, car"):
        TaskRecipe(tiny("segmentation", start=str(first.weights)), CPU)
    with pytest.raises(ConfigurationError, match="of another size than yolov5s"):
        TaskRecipe(tiny("detection", network="yolov5s", start=str(first.weights)), CPU)


def test_an_unknown_fuser_is_refused(tiny):
    with pytest.raises(WeightsError, match="unknown weights 'vnf'"):
        TaskRecipe(tiny(fusers={"vnf": 1}), CPU)


def test_anchors_are_made_for_boxes_that_the_published_ones_do_not_fit():
    network, large = build("yolov5n"), build("yolov5n")
    pairs = Kept(open_labelled("synthetic:3:1"))
    sizes = torch.from_numpy(np.concatenate(list(pairs.sizes()))) * torch.tensor([320, 240])
    assert "anchors kept" in network.fit_anchors(sizes.clamp(min=8))
    assert torch.equal(network.anchors, large.anchors)
    assert "anchors made" in large.fit_anchors(torch.rand(50, 2) * 2 + 1)
    assert large.anchors.max() < 4


def test_a_target_moves_with_all_its_parts():
    target = Target(boxes=torch.zeros(2, 4), classes=torch.zeros(2).long())
    moved = target.to("meta")
    assert moved.boxes.device.type == moved.classes.device.type == "meta"
    assert moved.saliency is None
