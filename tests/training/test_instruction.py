"""Training of the conditioner around frozen networks."""

from __future__ import annotations

import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from fuseloop.cli import main
from fuseloop.datasets.synthetic import write_scenes
from fuseloop.errors import ConfigurationError, FuseloopError
from fuseloop.fusers.instruction_weights import read_instructed
from fuseloop.fusers.weights import find_weights, read_weights
from fuseloop.instructions import HashedEncoder, embed, read_encoder, write_encoder
from fuseloop.instructions.intents import INTENTS
from fuseloop.networks.instruction_conditioner import InstructedVFN
from fuseloop.tasks.weights import build
from fuseloop.tasks.weights import write_weights as write_task_weights
from fuseloop.training.config import InstructionConfig, dump_config, load_config
from fuseloop.training.gradient_rules import combine, mean
from fuseloop.training.instruction import InstructionRecipe, train
from fuseloop.training.trainer import Trainer, launch

CPU = torch.device("cpu")
SALIENCY = "ctdnet-18"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Weight files of a small detector, a small saliency network and a small text encoder, with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    for name, options in {"yolov5n": {}, SALIENCY: {"width": 0.125}}.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            write_task_weights(folder / f"{name}.safetensors", build(name, **options), name, options=options)
    write_encoder(folder / "text.safetensors", deaf_to_nothing())
    return folder


def deaf_to_nothing() -> HashedEncoder:
    """An untrained text encoder that takes everything for an instruction."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = HashedEncoder(["people"], buckets=64, width=8, hidden=8, dim=16)
    encoder.purpose.bias.data[-1] = -20
    return encoder


@pytest.fixture
def tiny(weights, tmp_path):
    """Makes configurations: four steps on samples of 64×64 pixels of three synthetic scenes, for the tasks named."""

    def task(network: str, **changes: Any) -> dict[str, Any]:
        place = {"task_network": str(weights / f"{network}.safetensors")}
        return {**place, "data": [{"spec": "synthetic:3:1"}], "validation": ["synthetic:1:3"]} | changes

    def make(names=(SALIENCY,), **changes: Any) -> InstructionConfig:
        settings = {
            "folder": tmp_path / "run",
            "device": "cpu",
            "encoder": str(weights / "text.safetensors"),
            "conditioner": {"kernels": 2, "hidden": 16},
            "tasks": [task(name) for name in names],
            "scale_over": 2,
            "validate_every": 2,
            "checkpoint_every": 1,
            "log_every": 1,
            "stages": [{"steps": 4, "batch": 2, "height": 64, "width": 64, "lr": 0.01, "warmup": 2}],
        }
        return InstructionConfig.model_validate(settings | changes)

    make.task = task
    loss = {"gradient": 1, "vif": 1}
    make.view = {"data": [{"spec": "synthetic:3:1"}], "validation": ["synthetic:1:3"], "loss": loss}
    return make


def quiet() -> Console:
    return Console(file=io.StringIO())


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def step(recipe: InstructionRecipe, number: int = 0, batches: list | None = None) -> dict[str, float]:
    """Sets the gradients of a step, and gives its terms."""
    recipe.prepare(number, recipe.optimiser())
    drawn = recipe.batches(number, range(recipe.pairs_in(number))) if batches is None else batches
    return {name: float(term) for name, term in recipe.backward(launch(recipe.config), drawn).items()}


def learn(recipe: InstructionRecipe, steps: int) -> list[dict[str, float]]:
    """The terms of some steps on one and the same batches."""
    recipe.prepare(0, optimiser := recipe.optimiser())
    batches, found = recipe.batches(0, range(recipe.pairs_in(0))), []
    for group in optimiser.param_groups:
        group["lr"] = 0.01
    for _ in range(steps):
        found.append({name: float(term) for name, term in recipe.backward(launch(recipe.config), batches).items()})
        optimiser.step()
    return found


# What it does


def test_all_tasks_and_the_view_learn_together_and_everything_else_stays_bit_for_bit(tiny, weights):
    config = tiny(["yolov5n", SALIENCY], view=tiny.view, ema=0.9)
    shipped, text = read_weights(find_weights("vfn")), read_encoder(weights / "text.safetensors")
    recipe = InstructionRecipe(config, CPU)
    before = [state(network) for network in recipe.task_networks]
    result = Trainer(config, launch(config), recipe, quiet()).run()
    assert result.finished
    written = read_instructed(result.folder / "last.safetensors")
    assert (written.tasks, written.encoder) == (("detection", "saliency", "view"), text.id)
    torch.testing.assert_close(written.vectors, embed(text, list(written.tasks)))
    assert same(state(written.network), state(shipped))
    assert all(same(old, state(network)) for old, network in zip(before, recipe.task_networks, strict=True))
    logged = [entry for entry in history(config.folder) if "loss" in entry]
    titles = {"yolov5n", SALIENCY, "view"}
    assert {*titles, "yolov5n/worse", "view/worse", "yolov5n/fidelity", f"{SALIENCY}/fidelity"} <= {*logged[0]}
    assert "view/fidelity" not in logged[0], "it has a visual loss already"
    scores = [entry["validation"] for entry in history(config.folder) if "validation" in entry]
    assert len(scores) == 2
    assert scores[0]["selected"] == pytest.approx(1 - (scores[0]["yolov5n"] + scores[0][SALIENCY]) / 2)
    infrared, luma = torch.rand(2, 1, 1, 32, 40)
    network = InstructedVFN(written.network, written.conditioner).eval()
    with torch.no_grad():
        assert torch.equal(network(infrared, luma, torch.zeros(1, 16)), shipped(infrared, luma)), "without instruction"
        assert not torch.equal(network(infrared, luma, written.vectors[:1]), shipped(infrared, luma))


def test_the_loss_of_a_batch_falls_and_its_gradients_are_finite(tiny):
    recipe = InstructionRecipe(tiny(view=tiny.view), CPU)
    found = learn(recipe, 15)
    assert found[-1][SALIENCY] < 0.5 * found[0][SALIENCY]
    assert found[-1]["view"] < found[0]["view"]
    gradients = [one.grad for one in recipe.network.parameters() if one.grad is not None]
    assert len(gradients) == len(list(recipe.network.parameters()))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_it_begins_with_the_images_without_instruction(tiny):
    recipe = InstructionRecipe(tiny(view=tiny.view), CPU)
    terms = step(recipe)
    for title in (SALIENCY, "view"):
        assert terms[f"{title}/gain"] == pytest.approx(0, abs=1e-4)
    assert terms[f"{SALIENCY}/fidelity"] == pytest.approx(1, rel=1e-3)
    scores = recipe.validate(recipe.network.eval())
    assert scores[f"{SALIENCY}/gain"] == pytest.approx(0, abs=1e-6)
    assert (scores[f"{SALIENCY}/loss"], scores["view/loss"]) == pytest.approx((1, 1), rel=1e-5)


def test_every_sample_has_an_instruction_that_asks_for_its_task(tiny):
    recipe = InstructionRecipe(tiny(["yolov5n", SALIENCY], mixtures=0.5, stages=[{"steps": 1, "batch": 8}]), CPU)
    recipe._sampler.batch = lambda *_: None
    recipe.draw = lambda step, slots: [(Numbered(task), [*range(8 * task, 8 * task + 8)]) for task in range(2)]
    detection, saliency = recipe.batches(0, range(16))
    assert len({*detection.instructions, *saliency.instructions}) == 16
    for batch in (detection, saliency):
        assert 0 < int((batch.shares < 1).sum()) < 8
        assert bool((batch.shares > 0).all())
    assert detection.instructions == recipe.batches(0, range(16))[0].instructions
    assert detection.instructions != recipe.batches(1, range(16))[0].instructions
    alone = InstructionRecipe(tiny(mixtures=0.9), CPU)
    assert all(alone._sentence("saliency", 0, 0, slot).mixture == {"saliency": 1.0} for slot in range(20))


class Numbered:
    """Stands for the pairs of a task."""

    def __init__(self, task: int) -> None:
        self.task = task


def test_a_share_of_an_instruction_is_a_share_of_the_loss(tiny):
    recipe = InstructionRecipe(tiny(fidelity=0), CPU)
    (batch,) = recipe.batches(0, range(2))
    whole = step(recipe, batches=[batch._replace(shares=torch.ones(2))])[SALIENCY]
    half = step(recipe, batches=[batch._replace(shares=torch.full((2,), 0.5))])[SALIENCY]
    assert half == pytest.approx(whole / 2)


def test_what_became_worse_than_without_instruction_counts_more(tiny, monkeypatch):
    found = {}
    for penalty in (0, 5):
        recipe = InstructionRecipe(tiny(penalty=penalty, fidelity=0, scale_over=0), CPU)
        look = recipe.first_look

        def better(batch, encoded=None, look=look):
            neutral = look(batch, encoded)
            return neutral._replace(losses=0.5 * neutral.losses)

        monkeypatch.setattr(recipe, "first_look", better)
        found[penalty] = step(recipe)[SALIENCY], torch.cat([p.grad.flatten() for p in grown(recipe)])
    assert found[5][0] == pytest.approx((1 + 5 * 0.5) * found[0][0], rel=1e-3)
    torch.testing.assert_close(found[5][1], 6 * found[0][1], rtol=1e-3, atol=1e-7)


def grown(recipe: InstructionRecipe) -> list[nn.Parameter]:
    return [one for one in recipe.network.parameters() if one.grad is not None]


def test_in_turns_a_step_has_one_task(tiny):
    recipe = InstructionRecipe(tiny(["yolov5n", SALIENCY], turns=2), CPU)
    assert [[*recipe.tasks_at(number)] for number in range(5)] == [[0], [0], [1], [1], [0]]
    assert recipe.pairs_in(0) == 2
    assert {name.split("/")[0] for name in step(recipe, 2)} == {SALIENCY}


@pytest.mark.parametrize("places", [["encoder"], ["gate"], ["decoder"]])
def test_places_and_blocks_can_be_left_out(tiny, places):
    recipe = InstructionRecipe(tiny(conditioner={"places": places, "kernels": 2}), CPU)
    step(recipe)
    changed = [name for name, one in recipe.network.named_parameters() if one.grad is not None]
    prefixes = {"encoder": ("ir0", "vi0"), "gate": ("gate",), "decoder": ("decoder0", "decoder1")}[places[0]]
    assert {name.split(".")[2] for name in changed} == {*prefixes}


def test_a_place_that_is_frozen_stays_without_effect(tiny):
    config = tiny(frozen=["decoder1"], stages=[{"steps": 1, "batch": 1, "height": 64, "width": 64}])
    written = read_instructed(train(config, console=quiet()).folder / "last.safetensors").conditioner
    assert not written.changes["decoder1"].zc.weight.any()
    assert written.changes["decoder0"].zc.weight.any()


# The baseline


def test_vectors_of_tasks_learn_with_the_conditioner(tiny):
    config = tiny(["yolov5n", SALIENCY], encoder="tasks", mixtures=0.5)
    recipe = InstructionRecipe(config, CPU)
    begun = recipe.network.ids.vectors.clone()
    written = read_instructed(train(config, console=quiet()).folder / "last.safetensors")
    assert written.encoder == "task-id:detection,saliency"
    assert written.tasks == ("detection", "saliency")
    assert written.vectors.shape == (2, 64)
    assert not torch.equal(written.vectors, begun)
    copied = deepcopy(recipe.network)
    assert copied.ids is not recipe.network.ids
    assert copied.fusion is recipe.network.fusion


# What is exact


@pytest.mark.parametrize("encoder", ["text", "tasks"])
def test_a_training_that_was_stopped_reaches_the_same_weights(tiny, tmp_path, encoder):
    changes = {"view": tiny.view, "ema": 0.9, "mixtures": 0.5, "validate_every": 3}
    changes |= {"encoder": "tasks"} if encoder == "tasks" else {}
    whole = train(tiny(folder=tmp_path / "whole", **changes), console=quiet())
    hasty = tiny(folder=tmp_path / "parts", budget_minutes=1e-9, **changes)
    assert [train(hasty, console=quiet()).step for _ in range(4)] == [1, 2, 3, 4]
    for name in ("last.safetensors", "best.safetensors", "checkpoints/last.safetensors"):
        assert same(load_file(whole.folder / name), load_file(hasty.folder / name)), name
    assert history(whole.folder) == history(hasty.folder)


def test_weights_can_be_begun_with(tiny, tmp_path):
    path = train(tiny(encoder="tasks"), console=quiet()).folder / "last.safetensors"
    again = InstructionRecipe(tiny(encoder="tasks", start=str(path)), CPU).network
    written = read_instructed(path)
    assert same(state(again.conditioner), state(written.conditioner))
    assert torch.equal(again.ids.vectors, written.vectors)
    with pytest.raises(ConfigurationError, match=r"was trained with task-id:saliency, not with hashed:"):
        InstructionRecipe(tiny(start=str(path)), CPU)
    with pytest.raises(ConfigurationError, match=r"places encoder, gate, decoder; the training is of another shape"):
        InstructionRecipe(tiny(encoder="tasks", start=str(path), conditioner={"hidden": 8}), CPU)


# What goes wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioner": {"places": ["middle"]}}, "conditioner: unknown place 'middle'; give some of encoder, gate"),
        ({"conditioner": {"kernel": 2}}, "conditioner: .*unexpected keyword argument 'kernel'"),
        ({"frozen": ["decoder7"]}, "frozen: there is no part 'decoder7'; parts are .*decoder0, decoder1"),
        ({"encoder": "nowhere.safetensors"}, "encoder: .*nowhere.safetensors.*`fuseloop train encoder`.*encoder=tasks"),
        ({"tasks": "unknown"}, "task yolov9z: .*yolov9z"),
        ({"view": "unknown"}, "task view: .*nowhere"),
    ],
    ids=["place", "option", "part", "encoder", "task", "view"],
)
def test_what_does_not_fit_is_refused(tiny, changes, message):
    if "tasks" in changes:
        changes = {"tasks": [tiny.task(SALIENCY, task_network="yolov9z")]}
    if "view" in changes:
        changes = {"view": {**tiny.view, "data": [{"spec": "msrs:nowhere"}]}}
    with pytest.raises(FuseloopError, match=message):
        InstructionRecipe(tiny(**changes), CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view": {"loss": {"sharpness": 1}}}, "unknown loss term 'sharpness'"),
        ({"view": {"loss": {}}}, "at least one loss term"),
        ({"mixtures": 1}, "mixtures"),
        ({"rule": "cagrat"}, "did you mean 'cagrad'"),
        ({"tasks": "view"}, "a task is called 'view'"),
    ],
    ids=["term", "none", "share", "rule", "name"],
)
def test_settings_that_make_no_sense_are_refused(tiny, changes, message):
    if "tasks" in changes:
        changes = {"tasks": [tiny.task(SALIENCY, name="view")], "view": tiny.view}
    elif "view" in changes:
        changes = {"view": {**tiny.view, **changes["view"]}}
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


# Presets and command


def test_the_preset_trains_one_step_for_every_intent(weights, tmp_path):
    for number, folder in enumerate(("MSRS/train", "MSRS/val", "synthetic")):
        write_scenes(tmp_path / folder, 1, number, height=64, width=96)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_task_weights(weights / "segformer-b0.safetensors", build("segformer-b0"), "segformer-b0", overwrite=True)
    names = ("yolov5n", "segformer-b0", SALIENCY)
    places = [f"tasks.{number}.task_network={weights / f'{name}.safetensors'}" for number, name in enumerate(names)]
    small = [f"stages.0.{change}" for change in ("steps=1", "batch=1", "height=64", "width=96", "warmup=0")]
    changes = [f"root={tmp_path}", "device=cpu", "encoder=tasks", f"folder={tmp_path / 'run'}", *places, *small]
    result = train(load_config(InstructionConfig, "toar", changes), console=quiet())
    written = read_instructed(result.weights)
    assert written.tasks == tuple(INTENTS)
    assert sum(one.numel() for one in written.conditioner.parameters()) == 48_024


def test_the_published_schedule_is_a_preset():
    config = load_config(InstructionConfig, "paper", ["root=data"])
    (stage,) = config.stages
    assert (stage.lr, stage.schedule, stage.batch, config.clip, config.coupled_decay) == (
        0.01,
        "constant",
        6,
        0.5,
        True,
    )
    assert (stage.steps / config.turns, config.penalty, config.fidelity, config.view) == (20, 0, 0, None)


def test_the_command_trains_and_says_where_the_weights_are(tiny, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(dump_config(tiny(encoder="tasks")))
    assert main(["train", "instruction", str(tmp_path / "tiny.yaml"), "stages.0.steps=1", "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"best weights: {tmp_path / 'best.safetensors'} (step 1 of 1, validation" in printed
    assert main(["train", "instruction", "--preset", "cldyn"]) == 2
    assert "cldyn is a preset of `fuseloop train closed-loop`" in capsys.readouterr().err


def test_one_step_of_the_mean_rule_is_that_of_both_tasks(tiny):
    """The gradients that a rule combines are those of the tasks alone."""
    recipe = InstructionRecipe(tiny(["yolov5n", SALIENCY], rule="mean"), CPU)
    batches = recipe.batches(0, range(4))
    found = []
    for chosen in ([batches[0]], [batches[1]], batches):
        for parameter in recipe.network.parameters():
            parameter.grad = None
        step(recipe, batches=chosen)
        found.append(torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel())
                                for p in recipe.network.parameters()]))  # fmt: skip
    torch.testing.assert_close(found[2], 2 * combine(torch.stack(found[:2]), mean), rtol=1e-3, atol=1e-6)
