from __future__ import annotations

import json
import math
import signal

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from fuseloop.errors import ConfigurationError
from fuseloop.fusers.weights import read_weights
from fuseloop.training import TrainingError
from fuseloop.training.config import Stage
from fuseloop.training.visual import VisualRecipe, learning_rate, new_network, train

CPU = torch.device("cpu")


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def same_weights(a, b):
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# What is trained


def test_training_makes_the_loss_fall(tiny):
    stages = [{"steps": 40, "crop": 48, "batch": 4, "lr": 3e-3}]
    result = train(tiny(stages=stages, ema=None, log_every=5, validate_every=40))
    losses = [entry["loss"] for entry in history(result.folder) if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]


def test_a_run_folder_holds_all_that_is_needed_later(tiny):
    result = train(tiny())
    assert result.finished
    assert result.step == 13
    assert read_weights(result.weights).depth == 2
    names = {path.name for path in result.folder.iterdir()}
    assert names >= {"config.yaml", "environment.json", "history.jsonl", "best.safetensors", "last.safetensors"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert "torch" in json.loads((result.folder / "environment.json").read_text())


def test_frozen_stages_keep_the_statistics_that_calibration_gave(tiny):
    recipe = VisualRecipe(tiny(), CPU)
    optimiser = torch.optim.Adam(recipe.network.parameters())
    mean = recipe.network.ir_feb.bfe[1].running_mean
    (batch,) = recipe.batches(0, range(3))
    fresh = mean.clone()
    recipe.prepare(0, optimiser)
    recipe.terms(recipe.network, batch)
    assert not torch.equal(mean, fresh), "batch statistics are tracked"
    recipe.prepare(7, optimiser)
    calibrated = mean.clone()
    assert not torch.equal(calibrated, fresh)
    for step in range(7, 10):
        recipe.prepare(step, optimiser)
        recipe.terms(recipe.network, batch)
    assert torch.equal(mean, calibrated)


def test_calibration_draws_pairs_of_its_own(tiny):
    recipe = VisualRecipe(tiny(stages=[{"steps": 3, "crop": 48, "batch": 2, "calibrate": 6}]), CPU)
    recipe.prepare(0, torch.optim.Adam(recipe.network.parameters()))
    assert recipe.network.ir_feb.bfe[1].num_batches_tracked == 3


def test_learning_rates_warm_up_and_fall_by_a_cosine():
    stage = Stage(steps=110, lr=1.0, warmup=10, schedule="cosine", lr_end=0.2)
    assert [learning_rate(stage, step) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert learning_rate(stage, 60) == pytest.approx(0.6)
    assert 0.2 < learning_rate(stage, 109) < 0.21
    assert learning_rate(Stage(steps=110, lr=1.0), 100) == 1.0


def test_the_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator():
    state = torch.random.get_rng_state()
    first, again, other = (new_network(2, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_training_can_begin_with_given_weights(tiny, tmp_path):
    first = train(tiny(folder=tmp_path / "first", ema=None))
    recipe = VisualRecipe(tiny(start=str(first.weights)), CPU)
    begun, given = recipe.network.state_dict(), load_file(first.weights)
    assert all(torch.equal(begun[key], value) for key, value in given.items())
    with pytest.raises(ConfigurationError, match="has depth 2; set depth=2"):
        VisualRecipe(tiny(start=str(first.weights), depth=4), CPU)


def test_bfloat16_activations_leave_weights_in_float32_and_the_loss_about_the_same(tiny, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        result = train(tiny(folder=tmp_path / precision, precision=precision))
        assert {value.dtype for value in load_file(result.weights).values()} == {torch.float32, torch.int64}
        losses.append(history(result.folder)[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def test_rounding_can_be_trained_away_beside_other_terms(tiny):
    stages = [{"steps": 3, "crop": 48, "batch": 2, "norm": "frozen", "calibrate": 4}]
    result = train(tiny(stages=stages, loss={"intensity": 1.0, "rounding": 1.0}, log_every=1, validate_every=3))
    *entries, last = history(result.folder)
    assert all(entry["rounding"] > 0 for entry in entries)
    assert last["validation"]["loss"] == pytest.approx(last["validation"]["intensity"] + last["validation"]["rounding"])


# What is chosen


def test_the_best_weights_are_those_of_the_lowest_validation(tiny, tmp_path, monkeypatch):
    scores = iter([0.5, 0.3, math.nan, 0.4])
    seen = []

    def validate(recipe, network):
        seen.append({key: value.clone() for key, value in network.state_dict().items()})
        return {"selected": next(scores)}

    monkeypatch.setattr(VisualRecipe, "validate", validate)
    result = train(tiny(validate_every=4))
    assert (result.best, result.best_step) == (0.3, 8)
    kept = load_file(result.weights)
    assert all(torch.equal(kept[key], value) for key, value in seen[1].items())
    last = load_file(result.folder / "last.safetensors")
    assert all(torch.equal(last[key], value) for key, value in seen[3].items())


def test_any_loss_term_can_select(tiny):
    recipe = VisualRecipe(tiny(select="vif"), CPU)
    scores = recipe.validate(recipe.network.eval())
    assert scores["selected"] == scores["vif"]
    assert scores["loss"] == pytest.approx(0.2 * scores["intensity"] + scores["gradient"] + 0.1 * scores["scd"])


# How it stops and goes on


def test_a_time_budget_stops_in_good_order_and_the_same_command_goes_on_to_the_same_weights(tiny, tmp_path):
    whole = train(tiny(folder=tmp_path / "whole"))
    for step in range(1, 14):
        result = train(tiny(folder=tmp_path / "parts", budget_minutes=1e-9))
        assert result.step == step, "a call does at least one step"
    assert result.finished
    assert same_weights(whole.weights, result.weights)
    assert same_weights(whole.folder / "checkpoints/last.safetensors", result.folder / "checkpoints/last.safetensors")
    assert history(whole.folder) == history(result.folder)


def test_a_finished_run_is_left_as_it_is(tiny):
    first = train(tiny())
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    assert train(tiny()) == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*") if path.suffix != ".jsonl"} == {
        path: stamp for path, stamp in stamps.items() if path.suffix != ".jsonl"
    }


def test_other_settings_in_the_same_folder_are_an_error_that_names_them(tiny):
    train(tiny(budget_minutes=1e-9))
    with pytest.raises(ConfigurationError, match=r"other settings: loss\.vif, seed; choose another folder"):
        train(tiny(seed=1, loss={"intensity": 0.2, "gradient": 1.0, "scd": 0.1, "vif": 1.0}))
    with pytest.raises(ConfigurationError, match=r"other settings: loss\.scd"):
        train(tiny(loss={"intensity": 0.2, "gradient": 1.0}))
    train(tiny(budget_minutes=5, checkpoint_every=1))


def test_ctrl_c_saves_the_step_and_says_how_to_go_on(tiny, monkeypatch):
    batches = VisualRecipe.batches

    def interrupted(recipe, step, slots):
        if step == 4:
            # As the signal would; a real one now and then ends a worker of pytest-xdist, which then waits for ever.
            signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
        return batches(recipe, step, slots)

    monkeypatch.setattr(VisualRecipe, "batches", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    console = Console(record=True, width=200)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(checkpoint_every=100), console=console)
    assert signal.getsignal(signal.SIGINT) is handler
    assert "interrupted at step 5/13: run the same command again to continue" in console.export_text()
    monkeypatch.undo()
    console = Console(record=True, width=200)
    assert train(tiny(checkpoint_every=100), console=console).finished
    assert "at step 5" in console.export_text()


def test_a_diverged_training_says_where_and_keeps_its_last_checkpoint(tiny):
    stages = [{"steps": 4, "crop": 48, "batch": 3}, {"steps": 20, "crop": 48, "batch": 3, "lr": 1e30}]
    config = tiny(stages=stages, validate_every=100, checkpoint_every=4, clip=None)
    with pytest.raises(TrainingError, match=r"diverged at step \d+ \(batch \d+, 3 pairs\): .*gradient nan") as error:
        train(config)
    assert "The checkpoint of step 4 is kept" in str(error.value)
    kept = load_file(config.folder / "checkpoints/last.safetensors")
    assert all(value.isfinite().all() for value in kept.values())


def test_a_folder_that_cannot_be_made_is_an_error(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot write"):
        train(tiny(folder=tmp_path / "file" / "run"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_what_the_processor_learns(tiny, tmp_path, precision):
    terms = {"intensity": 0.2, "gradient": 1.0, "scd": 0.1, "qabf": 0.1, "vif": 0.1, "qcv": 0.1}
    here = train(tiny(loss=terms))
    there = train(tiny(loss=terms, folder=tmp_path / "gpu", device="cuda", precision=precision))
    assert there.step == here.step
    assert there.best == pytest.approx(here.best, rel=0.05)  # rounding grows within a few steps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rounding_can_be_trained_away_on_a_gpu(tiny):
    stages = [{"steps": 3, "crop": 48, "batch": 2, "norm": "frozen", "calibrate": 4}]
    result = train(tiny(stages=stages, loss={"intensity": 1.0, "rounding": 1.0}, log_every=1, device="cuda"))
    assert all(entry["rounding"] > 0 for entry in history(result.folder)[:-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_goes_on_where_it_stopped(tiny):
    settings = {"device": "cuda", "stages": [{"steps": 6, "crop": 48, "batch": 3}], "checkpoint_every": 1}
    stopped = train(tiny(**settings, budget_minutes=1e-6))
    assert stopped.step < 6
    assert train(tiny(**settings)).step == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_an_error(tiny):
    with pytest.raises(ConfigurationError, match="device 'cuda' cannot be used here"):
        train(tiny(device="cuda"))


def test_another_number_of_threads_is_reported(tiny, monkeypatch):
    train(tiny(budget_minutes=1e-9))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    console = Console(record=True, width=80)
    train(tiny(), console=console)
    assert "warning: begun with 1 CPU threads, now 7" in console.export_text()


def test_progress_shows_losses_rates_and_the_time_left(tiny):
    console = Console(record=True, width=200)
    train(tiny(), console=console)
    text = console.export_text()
    assert "training on 5 pairs of" in text
    assert "stage 2: 6 steps of 3 whole frames, frozen norm" in text
    assert "steps/s" in text
    assert "pairs/s" in text
    assert "0 s left" in text
    assert "validation at step 13: selected" in text
