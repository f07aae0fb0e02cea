"""Shipped configurations: each is of its recipe, and those of published experiments fit the data as it lies on disk."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.table import FMB_NAMES, M3FD_NAMES
from fuseloop.errors import ConfigurationError
from fuseloop.tasks.weights import NETWORKS, read_weights
from fuseloop.training.config import TaskConfig, TrainingConfig, VisualConfig, load_config, presets
from fuseloop.training.task import train
from tests.datasets.trees import FORMS, Form, grow

MSRS_NAMES = ("unlabelled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump")


class Experiment(NamedTuple):
    """A published experiment.

    Attributes:
        form: The name of the form in which its owners publish the data, as it is in `FORMS`.
        count: How many training frames the tree has; the official order decides which are held out. 0 leaves them.
        used: How many of these train and validate.
        classes: What the network learns.
        narrow: Changes that make the network small.
    """

    form: str
    count: int
    used: tuple[int, int]
    classes: tuple[str, ...]
    narrow: tuple[str, ...] = ()


NARROW_YOLO = ("network=yolov5n", "options.letterbox=64")
EXPERIMENTS = {
    "m3fd-yolov5s": Experiment("m3fd official", 0, (1, 3), M3FD_NAMES, NARROW_YOLO),
    "m3fd-yolov5n": Experiment("m3fd official", 0, (1, 3), M3FD_NAMES, NARROW_YOLO),
    "m3fd-detr": Experiment("m3fd official", 0, (1, 3), M3FD_NAMES),
    "fmb-segformer-b2": Experiment("fmb", 125, (3, 122), FMB_NAMES, ("network=segformer-b0",)),
    "fmb-segformer-b0": Experiment("fmb", 125, (3, 122), FMB_NAMES),
    "msrs-segformer-b0": Experiment("msrs official", 111, (3, 108), MSRS_NAMES),
    "llvip-yolov5s": Experiment("llvip", 620, (2, 60), ("person",), NARROW_YOLO),
    "llvip-yolov5n": Experiment("llvip", 620, (2, 60), ("person",), NARROW_YOLO),
    "vt5000-ctdnet-18": Experiment("vt5000", 253, (3, 250), (), ("options.width=0.125", "options.side=64")),
}
SHIPPED = {
    "yolov5s": ("person", "bicycle", "car"),
    "detr": ("person", "bicycle", "car"),
    "rtdetr": ("person", "bicycle", "car"),
    "segformer-b0": MSRS_NAMES,
    "segformer-b1": MSRS_NAMES,
    "ctdnet-18": (),
}
"""Presets of the networks that are shipped, or were to be, and what these learn."""


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    """The data of what is shipped: MSRS of the kit, and a folder as `fuseloop synthetic` writes it."""
    root = tmp_path_factory.mktemp("kit")
    whole = FORMS["msrs of the kit"]
    parts = {part: whole.files[part] for part in ("infrared", "visible", "boxes")}
    flat = {part: place.removeprefix("{split}/") for part, place in whole.files.items()}
    grow(replace(whole, frames={"train": ("1", "2"), "val": ("3",)}), root / "MSRS")
    grow(replace(whole, files=parts, frames={"train_boxes_only": ("4",)}), root / "MSRS")
    grow(replace(whole, files=flat, frames={"": ("5", "6")}), root / "synthetic")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Grows the data of an experiment, once for each form."""
    grown: dict[str, Path] = {}

    def grow_for(experiment: Experiment) -> Path:
        if experiment.form not in grown:
            root = grown[experiment.form] = tmp_path_factory.mktemp("tree")
            grow(longer(FORMS[experiment.form], experiment.count), root)
        return grown[experiment.form]

    return grow_for


def longer(form: Form, count: int) -> Form:
    """The form with that many training frames."""
    names = tuple(f"{number:05d}" for number in range(count))
    return replace(form, frames={"train": names, "test": form.frames["test"]}) if count else form


def step(name: str, root: Path, folder: Path, *changes: str) -> TaskConfig:
    """The preset, made so short and small that it takes a second; data, splits, classes and fusers stay."""
    config = load_config(TaskConfig, name, [f"root={root}"])
    # One frame is looked at in validation.
    shown = [spec.partition("[")[0] + "[-1:]" for spec in config.validation]
    small = [f"root={root}", f"folder={folder}", f"validation={shown}", *changes]
    tiny = ("steps=1", "batch=2", "height=64", "width=64", "warmup=0")
    small += [f"stages.{number}.{change}" for number in range(len(config.stages)) for change in tiny]
    return load_config(TaskConfig, name, small)


def learnt(config: TaskConfig) -> tuple[str, ...]:
    """Trains, and gives the classes of the network that was saved."""
    result = train(config, console=Console(file=io.StringIO()))
    assert result.finished
    assert result.weights is not None
    return read_weights(result.weights).classes


class TestEveryPreset:
    @pytest.mark.parametrize("kind", [VisualConfig, TaskConfig])
    def test_is_of_its_recipe(self, kind: type[TrainingConfig]):
        names = presets(kind)
        assert names
        for name in names:
            assert load_config(kind, name, ["root=data"])

    def test_of_a_task_network_is_called_as_its_network_and_runs_in_a_folder_of_its_name(self):
        for name in presets(TaskConfig):
            config = load_config(TaskConfig, name, ["root=data"])
            assert config.network in NETWORKS
            assert name.endswith(config.network)
            assert config.folder == Path("runs") / name
            assert set(config.fusers) == {"infrared", "visible", "mean", "max", "vfn"}

    def test_has_a_name_of_its_own(self):
        assert not presets(VisualConfig).keys() & presets(TaskConfig).keys()

    @pytest.mark.parametrize(
        ("kind", "name", "complaint"),
        [
            (TaskConfig, "paper", r"paper is a preset of `fuseloop train visual`; `.* train task` has .*yolov5s$"),
            (VisualConfig, "yolov5s", r"yolov5s is a preset of `fuseloop train task`; `.* train visual` has fine"),
            (TaskConfig, "yolov5", r"unknown preset .*did you mean 'yolov5s'\? Known: (?!.*paper)"),
            (VisualConfig, "papper", r"unknown preset .*did you mean 'paper'\? Known: (?!.*yolov5s)"),
        ],
    )
    def test_of_another_recipe_is_refused_and_only_the_right_ones_are_listed(self, kind, name, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            load_config(kind, name)


class TestPublishedExperiments:
    def test_and_what_is_shipped_are_all_presets(self):
        assert presets(TaskConfig).keys() == {*SHIPPED, *EXPERIMENTS}

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_choose_by_frames_that_are_in_neither_training_nor_test(self, tree, name):
        root, (trained, validated) = tree(EXPERIMENTS[name]), EXPERIMENTS[name].used
        config = load_config(TaskConfig, name, [f"root={root}"])
        (data,), (validation,) = (
            [open_labelled(config.resolve(spec)).frames for spec in specs]
            for specs in ([source.spec for source in config.data], config.validation)
        )
        assert (len(data), len(validation)) == (trained, validated)
        kept = [{frame.infrared for frame in frames} for frames in (data, validation)]
        assert not kept[0] & kept[1]
        test = open_labelled(f"{config.data[0].spec.split(':')[0]}:{root}:test").frames
        assert not {frame.infrared for frame in test} & (kept[0] | kept[1])

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_train_one_step_on_a_tree_of_their_data(self, tree, tmp_path, name):
        experiment = EXPERIMENTS[name]
        assert learnt(step(name, tree(experiment), tmp_path, *experiment.narrow)) == experiment.classes


@pytest.mark.parametrize("name", SHIPPED)
def test_presets_of_what_is_shipped_train_one_step_of_each_stage(kit, tmp_path, name):
    narrow = {"yolov5s": ("network=yolov5n",), "ctdnet-18": ("options.width=0.125",)}
    assert learnt(step(name, kit, tmp_path, *narrow.get(name, ()))) == SHIPPED[name]
