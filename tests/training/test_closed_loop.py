"""Training of the semantic compensation around frozen networks."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

import fuseloop.fusers.weights
from fuseloop.cli import main
from fuseloop.datasets.synthetic import write_scenes
from fuseloop.errors import ConfigurationError, FuseloopError, LabelError
from fuseloop.fusers.loop_weights import read_loop
from fuseloop.networks.semantic_compensation import ABLATIONS
from fuseloop.networks.vfn import VFN
from fuseloop.tasks.weights import build, write_weights
from fuseloop.training import TrainingError
from fuseloop.training.closed_loop import ClosedLoopRecipe, FirstLook, LoopLearner, train
from fuseloop.training.config import ClosedLoopConfig, dump_config, load_config
from fuseloop.training.frozen_tasks import check_processes, parts_of
from fuseloop.training.gradient_rules import RULES
from fuseloop.training.trainer import SkipStep, Trainer, launch

CPU = torch.device("cpu")
NARROW = {"yolov5n": {}, "ctdnet-18": {"width": 0.125}}


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """Weight files of a small detector and a small saliency network, with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    for name, options in NARROW.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            write_weights(folder / f"{name}.safetensors", build(name, **options), name, options=options)
    return folder


@pytest.fixture
def tiny(networks, tmp_path):
    """Makes configurations: six steps on samples of 64×64 pixels of three synthetic scenes, for the tasks named."""

    def task(network: str, **changes):
        place = {"task_network": str(networks / f"{network}.safetensors")}
        return {**place, "data": [{"spec": "synthetic:3:1"}], "validation": ["synthetic:2:3"]} | changes

    def make(names=("yolov5n", "ctdnet-18"), **changes) -> ClosedLoopConfig:
        settings = {
            "folder": tmp_path / "run",
            "device": "cpu",
            "tasks": [task(name) for name in names],
            "scale_over": 3,
            "validate_every": 4,
            "checkpoint_every": 1,
            "log_every": 1,
            "stages": [{"steps": 6, "batch": 2, "height": 64, "width": 64, "lr": 0.01}],
        }
        return ClosedLoopConfig.model_validate(settings | changes)

    make.task = task
    return make


def quiet() -> Console:
    return Console(file=io.StringIO())


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def objectives(folder: Path) -> list[float]:
    return [entry["loss"] for entry in history(folder) if "loss" in entry]


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def open_zero_convs(recipe: ClosedLoopRecipe) -> None:
    """Lets the compensation change something; it begins as none."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in recipe.network.named_parameters():
        if ".zc." in name:
            parameter.data.normal_(std=0.3, generator=generator)


def gradients(recipe: ClosedLoopRecipe, step: int = 0) -> Tensor:
    """The combined gradient of a step, flat; zero where there is none."""
    fabric = launch(recipe.config)
    recipe.prepare(step, recipe.optimiser())
    recipe.backward(fabric, recipe.batches(step, range(recipe.pairs_in(step))))
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in recipe.network.parameters()]
    return torch.cat([gradient.flatten() for gradient in found])


# What it does


def test_the_compensation_learns_and_everything_else_stays_bit_for_bit(tiny):
    config = tiny()
    recipe = ClosedLoopRecipe(config, CPU)
    frozen = [recipe.network.fusion, *(recipe.network.task_network(task) for task in range(2))]
    before, begun = [state(network) for network in frozen], state(recipe.network.compensation)
    result = Trainer(config, launch(config), recipe, quiet()).run()
    assert result.finished
    assert all(same(old, state(network)) for old, network in zip(before, frozen, strict=True))
    assert not any(module.training for network in frozen for module in network.modules())
    assert all(parameter.grad is None for network in frozen for parameter in network.parameters())
    learnt = state(recipe.network.compensation)
    assert {name for name in begun if torch.equal(begun[name], learnt[name])} <= {
        name for name in begun if "prototypes" in name
    }
    loop = read_loop(config.folder / "last.safetensors")
    assert loop.tasks == ("detection", "saliency")
    assert same(state(loop.compensation), learnt)
    torch.testing.assert_close(loop.compensation.bvb.norm(dim=2), torch.ones(4, 32))
    shipped = fuseloop.fusers.weights.read_weights(fuseloop.fusers.weights.find_weights("vfn"))
    assert same(state(loop.network), state(shipped))


def test_a_loss_falls_where_compensation_can_help(tiny):
    stage = {"steps": 20, "batch": 3, "height": 64, "width": 64, "lr": 0.01}
    config = tiny(["ctdnet-18"], stages=[stage], validate_every=20)
    train(config, console=quiet())
    found = objectives(config.folder)
    assert np.mean(found[-5:]) < 0.1 * np.mean(found[:2])
    (validation,) = (entry["validation"] for entry in history(config.folder) if "validation" in entry)
    assert validation["ctdnet-18/loss"] < 0.5, "on scenes that it did not learn from"
    assert validation["selected"] == 1 - validation["ctdnet-18"]
    assert 0 < validation["dead"] < 1


@pytest.mark.parametrize("cache", [True, False])
def test_it_begins_with_the_images_of_the_open_loop(tiny, cache):
    recipe = ClosedLoopRecipe(tiny(cache=cache), CPU)
    recipe.prepare(0, recipe.optimiser())
    for batch in recipe.batches(0, range(4)):
        encoded = recipe.network.encode(batch.samples)
        first, outputs = recipe.network.look(batch, encoded)
        again = recipe.network(batch.task, encoded, first.requirement, torch.Generator())
        assert torch.equal(outputs.feature, again.feature)
        torch.testing.assert_close(recipe.first_look(batch), first, rtol=1e-4, atol=1e-5)
    scores = recipe.validate(recipe.network.eval())
    for title in ("yolov5n", "ctdnet-18"):
        assert scores[f"{title}/gain"] == 0
        assert scores[f"{title}/loss"] == 1


@pytest.mark.parametrize(("samples", "parts"), [("frames", 1), ("tiles", 4)])
def test_samples_of_a_frame_are_looked_at_for_the_first_time_once(tiny, monkeypatch, samples, parts):
    """Tiles of 120×160 of a scene of 240×320."""
    stage = {"steps": 20, "batch": 4, "height": 120, "width": 160, "samples": samples}
    tasks = [tiny.task("ctdnet-18", data=[{"spec": "synthetic:1:1"}])]
    recipe = ClosedLoopRecipe(tiny(["ctdnet-18"], tasks=tasks, stages=[stage]), CPU)
    looked, look = [], recipe.network.look
    monkeypatch.setattr(recipe.network, "look", lambda *arguments: looked.append(1) or look(*arguments))
    for step in range(20):
        for batch in recipe.batches(step, range(4)):
            recipe.first_look(batch)
    assert len(looked) == 2 * parts, "each part and its mirror image"


def test_losses_are_relative_to_those_before_compensation(tiny):
    tasks = [tiny.task("ctdnet-18", data=[{"spec": "synthetic:1:1"}])]
    stage = {"steps": 1, "batch": 32, "height": 64, "width": 64}
    recipe = ClosedLoopRecipe(tiny(tasks=tasks, stages=[stage], scale_over=32), CPU)
    (batch,) = recipe.batches(0, range(32))
    terms = recipe.terms(recipe.network, batch)
    assert 0.8 < terms["ctdnet-18"] < 1.25, "but for which draws were mirrored"
    assert ClosedLoopRecipe(tiny(scale_over=0), CPU).scales == [1, 1]


@pytest.mark.parametrize(("per", "factors"), [("sample", (1, 6)), ("batch", (1, 6)), ("none", (1, 1))])
def test_the_gradient_of_what_became_worse_counts_one_plus_the_penalty_times(tiny, monkeypatch, per, factors):
    recipe = ClosedLoopRecipe(tiny(["ctdnet-18"], penalty=5, penalty_per=per), CPU)
    plain = ClosedLoopRecipe(tiny(["ctdnet-18"], penalty=0), CPU)
    for one in (recipe, plain):
        open_zero_convs(one)
    wanted, look = gradients(plain), recipe.first_look
    assert wanted.any()
    for before, factor in zip((1e6, 0.0), factors, strict=True):

        def compared(batch, encoded=None, before=before):
            found = look(batch, encoded)
            return FirstLook(found.requirement, torch.full_like(found.losses, before))

        recipe.scales  # noqa: B018 - measured with the true losses
        monkeypatch.setattr(recipe, "first_look", compared)
        torch.testing.assert_close(gradients(recipe), factor * wanted, rtol=1e-3, atol=1e-6)


def test_the_penalty_of_images_or_of_their_means(tiny, monkeypatch):
    """Of two images one gained more than the other lost: by the means nothing became worse."""
    found = {}
    for per in ("sample", "batch", "none"):
        recipe = ClosedLoopRecipe(tiny(["ctdnet-18"], penalty_per=per), CPU)
        open_zero_convs(recipe)
        recipe.scales  # noqa: B018 - measured with the true losses
        look = recipe.first_look

        def compared(batch, encoded=None, look=look):
            return FirstLook(look(batch, encoded).requirement, torch.tensor([0.0, 1e6]))

        monkeypatch.setattr(recipe, "first_look", compared)
        found[per] = gradients(recipe)
    assert torch.equal(found["batch"], found["none"])
    assert not torch.allclose(found["sample"], found["none"], rtol=0.1)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_makes_one_step_of_the_gradients_of_all_tasks(tiny, rule):
    recipe = ClosedLoopRecipe(tiny(rule=rule), CPU)
    open_zero_convs(recipe)
    found = gradients(recipe)
    assert bool(found.isfinite().all())
    assert found.any()
    assert torch.equal(found, gradients(recipe)), "the same step again"


def test_the_mean_of_the_gradients_is_that_of_each_task_alone(tiny):
    found = {}
    for task in (("yolov5n", "ctdnet-18"), ("yolov5n",), ("ctdnet-18",)):
        recipe = ClosedLoopRecipe(tiny(task, rule="mean", scale_over=0), CPU)
        open_zero_convs(recipe)
        if task == ("ctdnet-18",):  # the same slots of the step as beside the detector
            both = ClosedLoopRecipe(tiny(rule="mean"), CPU)
            batch = both.batches(0, range(4))[1]._replace(task=0)
            recipe.batches = lambda step, slots, batch=batch: [batch]
        found[task] = gradients(recipe)
    mean = (found[("yolov5n",)] + found[("ctdnet-18",)]) / 2
    torch.testing.assert_close(found[("yolov5n", "ctdnet-18")], mean, rtol=1e-3, atol=1e-6)


def test_what_no_image_used_rests_unless_decay_is_coupled(tiny):
    """In the first step all but the zero-convs has a gradient of zero, as these are still zero."""
    moved = {}
    for coupled in (False, True):
        recipe = ClosedLoopRecipe(tiny(coupled_decay=coupled, decay=0.1), CPU)
        optimiser = recipe.optimiser()
        recipe.prepare(0, optimiser)
        before = state(recipe.network.compensation)
        recipe.backward(launch(recipe.config), recipe.batches(0, range(4)))
        optimiser.step()
        after = state(recipe.network.compensation)
        moved[coupled] = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved[False]
    assert all(".zc." in name or name == "bvb" for name in moved[False]), "the bank but to the sphere"
    assert {"bvb", "rsc_ir.a2si0.bv_f.mlp.0.weight"} <= moved[True]


def test_bank_query_norms_and_biases_do_not_decay(tiny):
    recipe = ClosedLoopRecipe(tiny(["ctdnet-18"]), CPU)
    decayed, rest = recipe.optimiser().param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (1e-4, 0)
    names = {id(one): name for name, one in recipe.network.compensation.named_parameters()}
    found = {names[id(one)] for one in decayed["params"]}
    assert not any("bvb" in name or "bv_f" in name or "bias" in name for name in found)
    assert {"rsc_ir.a2si0.zc.weight", "rsc_vi.a2si0.mlp_3x3.0.weight"} <= found
    assert len(found) + len(rest["params"]) == len(names)


def test_parts_that_are_frozen_do_not_learn(tiny):
    recipe = ClosedLoopRecipe(tiny(["ctdnet-18"], frozen=["bv_f"]), CPU)
    open_zero_convs(recipe)
    gradients(recipe)
    for name, parameter in recipe.network.named_parameters():
        assert (parameter.grad is None) == ("bv_f" in name or not parameter.requires_grad), name


def test_options_reach_the_compensation(tiny):
    options = {"branches": 2, "width": 128, "vectors": 8}
    recipe = ClosedLoopRecipe(tiny(["ctdnet-18"], compensation=options, logit_scale=3, temperature=0.5), CPU)
    compensation = recipe.network.compensation
    assert compensation.bvb.shape == (4, 8, 128)
    block = compensation.rsc_ir["a2si0"]
    assert (block.branches, block.logit_scale, block.temperature) == (2, 3, 0.5)
    train(tiny(["ctdnet-18"], compensation={"reference_compat": True}, rule="published"), console=quiet())


@pytest.mark.parametrize(
    ("size", "samples", "parts"),
    [
        ((480, 640), "frames", [(0, 0, 480, 640)]),
        ((480, 640), "tiles", [(0, 0, 240, 320), (0, 320, 240, 320), (240, 0, 240, 320), (240, 320, 240, 320)]),
        ((240, 320), "tiles", [(0, 0, 240, 320)]),
        ((240, 500), "frames", [(0, 90, 240, 320)]),
        ((300, 320), "tiles", [(0, 0, 240, 320), (60, 0, 240, 320)]),
        ((120, 320), "tiles", [(0, 80, 120, 160)]),
    ],
)
def test_samples_show_whole_frames_or_cover_them_by_tiles(size, samples, parts):
    assert parts_of(*size, 240, 320, samples) == parts


def test_random_parts_can_be_shown_where_nothing_is_kept(tiny):
    stage = {"steps": 2, "batch": 2, "height": 64, "width": 96, "samples": {"mosaic": 0.5}}
    config = tiny(["ctdnet-18"], stages=[stage], cache=False)
    assert train(config, console=quiet()).finished
    with pytest.raises(ValueError, match="set cache=false"):
        tiny(stages=[stage])


# What is exact


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"cache": False, "rule": "pcgrad"}], ids=["kept", "anew"])
def test_a_training_that_was_stopped_reaches_the_same_weights(tiny, tmp_path, changes):
    whole = train(tiny(folder=tmp_path / "whole", **changes), console=quiet())
    hasty = tiny(folder=tmp_path / "parts", budget_minutes=1e-9, **changes)
    assert [train(hasty, console=quiet()).step for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    for name in ("last.safetensors", "best.safetensors", "checkpoints/last.safetensors"):
        assert same(load_file(whole.folder / name), load_file(hasty.folder / name)), name
    assert history(whole.folder) == history(hasty.folder)


def test_weights_can_be_begun_with(tiny, tmp_path):
    first = train(tiny(["ctdnet-18"]), console=quiet())
    path = first.folder / "last.safetensors"
    again = ClosedLoopRecipe(tiny(["ctdnet-18"], start=str(path), folder=tmp_path / "again"), CPU)
    assert same(state(again.network.compensation), state(read_loop(path).compensation))
    with pytest.raises(ConfigurationError, match=r"has depth 2, 4 branches .* of another shape"):
        ClosedLoopRecipe(tiny(["ctdnet-18"], start=str(path), compensation={"width": 128}), CPU)


@pytest.mark.parametrize("part", ABLATIONS)
def test_a_compensation_without_a_part_learns_is_saved_and_goes_on(tiny, part):
    without = {"compensation": {"without": [part]}, "validate_every": 1}
    stages = [{"steps": 2, "batch": 2, "height": 64, "width": 64, "lr": 0.01}]
    hasty = tiny(["ctdnet-18"], budget_minutes=1e-9, stages=stages, **without)
    assert [train(hasty, console=quiet()).step for _ in range(2)] == [1, 2]
    loop = read_loop(hasty.folder / "last.safetensors")
    assert loop.compensation.without == (part,)
    begun = ClosedLoopRecipe(hasty, CPU).network.compensation.state_dict()
    learnt = loop.compensation.state_dict()
    assert begun.keys() == learnt.keys()
    assert any(not torch.equal(begun[name], learnt[name]) for name in begun if ".zc." in name)
    validations = [entry["validation"] for entry in history(hasty.folder) if "validation" in entry]
    assert len(validations) == 2
    assert all(("dead" in scores) == (part not in ("bank", "requirement")) for scores in validations)
    assert all(np.isfinite(list(scores.values())).all() for scores in validations)


def test_a_compensation_is_as_deep_as_its_fusion_network(tiny, tmp_path):
    fuseloop.fusers.weights.write_weights(tmp_path / "deep.safetensors", VFN(3))
    result = train(tiny(["ctdnet-18"], fusion=str(tmp_path / "deep.safetensors")), console=quiet())
    loop = read_loop(result.folder / "last.safetensors")
    assert (loop.network.depth, loop.compensation.depth) == (3, 3)
    assert set(loop.compensation.rsc_ir) == {"a2si0", "a2si1"}


# What goes wrong


def test_a_step_that_is_not_finite_is_left_out_and_counted(tiny, monkeypatch):
    config = tiny(["ctdnet-18"], scale_over=0)
    recipe = ClosedLoopRecipe(config, CPU)
    terms, calls = recipe.terms, []

    def sometimes(forward, batch):
        calls.append(state(recipe.network.compensation))
        if len(calls) in (2, 4):
            raise SkipStep("made up")
        return terms(forward, batch)

    monkeypatch.setattr(recipe, "terms", sometimes)
    result = Trainer(config, launch(config), recipe, quiet()).run()
    assert (result.step, result.finished) == (6, True)
    assert same(calls[1], calls[2]), "nothing was learnt of it"
    assert not same(calls[2], calls[3])
    logged = {entry["step"]: entry.get("skipped", 0) for entry in history(config.folder) if "loss" in entry}
    assert logged == {1: 0, 3: 1, 5: 2, 6: 2}
    again = config.model_copy(update={"skip_limit": 50})
    assert Trainer(again, launch(again), ClosedLoopRecipe(again, CPU), quiet()).run().finished, "a limit may be raised"


@pytest.mark.parametrize("broken", ["feature", "loss", "gradient"])
def test_a_training_ends_when_too_many_steps_are_not_finite(tiny, monkeypatch, broken):
    config = tiny(skip_limit=2)
    recipe = ClosedLoopRecipe(config, CPU)
    network = recipe.network.task_network(1)
    run, losses = network.run, network.sample_losses
    if broken == "feature":
        monkeypatch.setattr(network, "run", lambda prepared: (run(prepared)[0], run(prepared)[1] * torch.nan))
    elif broken == "loss":
        monkeypatch.setattr(network, "sample_losses", lambda *given: losses(*given) * torch.inf)
    else:  # the root of zero has a value but no slope
        monkeypatch.setattr(network, "sample_losses", lambda *given: losses(*given) + (losses(*given) * 0).sqrt())
    with pytest.raises(TrainingError, match=rf"step 3 is left out: the {broken} of ctdnet-18 .*0000\d.* the 2 steps"):
        Trainer(config, launch(config), recipe, quiet()).run()


@pytest.mark.parametrize("part", ["data", "validation"])
def test_data_that_is_missing_is_named_with_its_task(tiny, tmp_path, part):
    write_scenes(tmp_path / "boxes", 1, 0, height=64, width=64)
    for mask in (tmp_path / "boxes" / "saliency").iterdir():
        mask.unlink()
    (tmp_path / "boxes" / "saliency").rmdir()

    def tasks(spec: str):
        value = [{"spec": spec}] if part == "data" else [spec]
        return [tiny.task("yolov5n"), tiny.task("ctdnet-18", name="salient", **{part: value})]

    with pytest.raises(FuseloopError, match=r"^task salient: .*nowhere"):
        ClosedLoopRecipe(tiny(tasks=tasks(f"msrs:{tmp_path / 'nowhere'}")), CPU)
    with pytest.raises(LabelError, match=r"^task salient: salient is scored with saliency"):
        ClosedLoopRecipe(tiny(tasks=tasks(f"msrs:{tmp_path / 'boxes'}")), CPU)
    with pytest.raises(ValueError, match=rf"tasks.1.{part}"):
        tiny(tasks=[tiny.task("yolov5n"), tiny.task("ctdnet-18", **{part: []})])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compensation": {"branch": 2}}, "compensation: .*unexpected keyword argument 'branch'"),
        ({"compensation": {"vectors": 2}}, "compensation: 4 branches .* got 2"),
        ({"compensation": {"without": ["bnak"]}}, "compensation: .*without 'bnak'; did you mean 'bank'"),
        ({"frozen": ["query"]}, "no part 'query'; parts are bvb, .*bv_f"),
    ],
    ids=["option", "number", "ablation", "part"],
)
def test_what_does_not_fit_the_compensation_is_refused(tiny, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ClosedLoopRecipe(tiny(["ctdnet-18"], **changes), CPU)


def test_an_untrained_task_network_is_refused(tiny):
    tasks = [tiny.task("yolov5n", task_network="yolov5x")]
    with pytest.raises(ConfigurationError, match="task yolov5x: no weights of yolov5x are shipped"):
        ClosedLoopRecipe(tiny(tasks=tasks), CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "cagrat"}, "unknown rule 'cagrat'; did you mean 'cagrad'"),
        ({"tasks": "twice"}, "two tasks are called 'yolov5n'"),
        ({"stages": [{"steps": 1, "batch": 0}]}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny, changes, message):
    if changes.get("tasks") == "twice":
        changes = {"tasks": [tiny.task("yolov5n"), tiny.task("yolov5n")]}
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_a_task_is_called_as_its_file_or_the_run_that_made_it(tiny):
    for place, title in {
        "a/seg.safetensors": "seg",
        "runs/yolov5s/best.safetensors": "yolov5s",
        "detr": "detr",
    }.items():
        (task,) = tiny(tasks=[tiny.task("yolov5n", task_network=place)]).tasks
        assert task.title == title


def test_networks_that_were_training_are_frozen_and_stay_so(tiny):
    loop = ClosedLoopRecipe(tiny(["ctdnet-18"]), CPU).network
    networks = [loop.fusion, loop.task_network(0)]
    for network in networks:
        network.train().requires_grad_(True)
    again = LoopLearner(loop.compensation, *networks[:1], networks[1:]).train()
    assert again.compensation.training
    assert not any(module.training for network in networks for module in network.modules())
    assert not any(parameter.requires_grad for network in networks for parameter in network.parameters())


def test_a_copy_has_a_compensation_of_its_own_and_shares_what_is_frozen(tiny):
    from copy import deepcopy

    loop = ClosedLoopRecipe(tiny(["ctdnet-18"]), CPU).network
    copied = deepcopy(loop)
    assert isinstance(copied, LoopLearner)
    assert copied.fusion is loop.fusion
    assert copied.compensation.bvb is not loop.compensation.bvb
    assert torch.equal(copied.compensation.bvb, loop.compensation.bvb)


# The preset


@pytest.fixture(scope="module")
def kit(tmp_path_factory, networks) -> list[str]:
    """Changes that make the preset train small networks on a folder as that of what is shipped."""
    root = tmp_path_factory.mktemp("kit")
    for number, folder in enumerate(("MSRS/train", "MSRS/val", "synthetic")):
        write_scenes(root / folder, 1, number, height=64, width=96)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_weights(networks / "segformer-b0.safetensors", build("segformer-b0"), "segformer-b0")
    names = ("yolov5n", "segformer-b0", "ctdnet-18")
    places = [f"tasks.{number}.task_network={networks / f'{name}.safetensors'}" for number, name in enumerate(names)]
    small = ("steps=1", "batch=1", "height=64", "width=96", "warmup=0")
    return [f"root={root}", "device=cpu", *places, *(f"stages.0.{change}" for change in small)]


def test_the_preset_trains_one_step(kit, tmp_path):
    result = train(load_config(ClosedLoopConfig, "cldyn", [*kit, f"folder={tmp_path / 'run'}"]), console=quiet())
    assert result.weights is not None
    loop = read_loop(result.weights)
    assert loop.tasks == ("detection", "segmentation", "saliency")
    assert sum(parameter.numel() for parameter in loop.compensation.parameters()) == 462_696


@pytest.mark.parametrize(
    "changes",
    [
        ["penalty=0"],
        ["penalty_per=batch"],
        ["compensation.branches=8"],
        ["compensation.width=128"],
        ["frozen=[bv_f]"],
        ["logit_scale=1"],
        ["coupled_decay=true"],
        *([f"compensation.without=[{part}]"] for part in ABLATIONS),
        ["compensation.without=[bank, choice]", "coupled_decay=true"],
        ["compensation.reference_compat=true", "rule=published", "scale_over=0"],
    ],
    ids=" ".join,
)
def test_ablations_are_changes_of_the_preset(kit, tmp_path, changes):
    recipe = ClosedLoopRecipe(load_config(ClosedLoopConfig, "cldyn", [*kit, *changes]), CPU)
    open_zero_convs(recipe)
    found = gradients(recipe)
    assert bool(found.isfinite().all())
    assert found.any()


def test_the_command_trains_and_says_how_to_use_the_weights(tiny, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(dump_config(tiny(["ctdnet-18"])))
    assert main(["train", "closed-loop", str(tmp_path / "tiny.yaml"), "stages.0.steps=1", "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"best weights: {tmp_path / 'best.safetensors'} (step 1 of 1, validation" in printed
    assert f"fuseloop fuse --fuser {tmp_path / 'best.safetensors'} --for NETWORK" in printed
    assert main(["train", "closed-loop", "--preset", "paper"]) == 2
    assert "paper is a preset of `fuseloop train visual`" in capsys.readouterr().err


SCRIPT = """
import sys
from fuseloop.training.closed_loop import train
from fuseloop.training.config import ClosedLoopConfig, load_config
train(load_config(ClosedLoopConfig, sys.argv[1]))
"""


def test_two_processes_learn_what_one_does(tiny, tmp_path):
    """The noise of training is each process's own, so the cosines are made to outweigh it.

    Without penalty: at first nothing is compensated, and rounding would decide what became worse.
    """
    stages = [{"steps": 3, "batch": 2, "height": 64, "width": 64, "lr": 1e-3}]
    settings = {"logit_scale": 1e6, "penalty": 0, "stages": stages}
    train(tiny(folder=tmp_path / "one", **settings), console=quiet())
    (tmp_path / "config.yaml").write_text(dump_config(tiny(folder=tmp_path / "two", **settings)))
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "script.py"), str(tmp_path / "config.yaml")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone, together = (objectives(tmp_path / run) for run in ("one", "two"))
    assert together == pytest.approx(alone, rel=1e-3)
    assert len(set(alone)) == 3
    with pytest.raises(ConfigurationError, match="batches of 2 a task for 3 processes"):
        check_processes(tiny().stages, 3)


def test_task_networks_may_look_in_bf16(tiny):
    config = tiny(precision="bf16", stages=[{"steps": 2, "batch": 2, "height": 64, "width": 64}])
    result = train(config, console=quiet())
    weights = read_loop(result.weights).compensation.state_dict()
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert all(np.isfinite(objectives(config.folder)))
