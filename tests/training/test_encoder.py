"""Training of the text encoder."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from fuseloop import cli
from fuseloop.instructions import read_encoder
from fuseloop.instructions.grammar import Sentence
from fuseloop.training.config import EncoderConfig, load_config, presets
from fuseloop.training.encoder import EncoderRecipe, drop, frequent_terms, train

CPU = torch.device("cpu")
SMALL = {"buckets": 2048, "width": 16, "hidden": 32, "dim": 16}


@pytest.fixture
def tiny(tmp_path):
    """Makes configurations of a few steps."""

    def make(**changes):
        settings = {
            "folder": tmp_path / "run",
            "encoder": SMALL,
            "counted": 2000,
            "validation": 200,
            "validate_every": 50,
            "checkpoint_every": 50,
            "log_every": 10,
            "stages": [{"steps": 100, "batch": 64, "lr": 1e-2}],
        }
        return EncoderConfig.model_validate(settings | changes)

    return make


def quiet() -> Console:
    return Console(file=io.StringIO())


def asks(text: str, **mixture: float) -> Sentence:
    return Sentence(text, mixture, frozenset({"night"} if "night" in text else ()), "english")


def test_training_learns_what_sentences_ask_for(tiny):
    result = train(tiny(), console=quiet())
    entries = [json.loads(line) for line in (result.folder / "history.jsonl").read_text().splitlines()]
    losses = [entry["purpose"] for entry in entries if "purpose" in entry]
    assert losses[-1] < 0.8 * losses[0]
    assert result.best < 0.55, "share of mistaken sentences; guessing mistakes 0.64"
    encoder = read_encoder(result.weights)
    assert encoder.options == SMALL
    assert "detect" in encoder.terms


def test_an_interrupted_training_ends_with_the_same_bits(tiny, tmp_path):
    stages = [{"steps": 3, "batch": 16}]
    whole = train(tiny(folder=tmp_path / "whole", stages=stages), console=quiet())
    parts = tiny(folder=tmp_path / "parts", stages=stages, budget_minutes=1e-9)
    results = [train(parts, console=quiet()) for _ in range(3)]
    assert [(result.step, result.finished) for result in results] == [(1, False), (2, False), (3, True)]
    result = results[-1]
    one, other = load_file(whole.folder / "last.safetensors"), load_file(result.folder / "last.safetensors")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_batches_depend_on_nothing_but_seed_step_and_slot(tiny):
    recipe, again, other = EncoderRecipe(tiny(), CPU), EncoderRecipe(tiny(), CPU), EncoderRecipe(tiny(seed=1), CPU)
    (one,), (same,), (different,) = (each.batches(3, range(8)) for each in (recipe, again, other))
    assert torch.equal(one.numbers, same.numbers)
    assert torch.equal(one.purpose, same.purpose)
    assert one.numbers.tolist() != different.numbers.tolist()
    assert recipe.batches(4, range(8))[0].numbers.tolist() != one.numbers.tolist()


def test_validation_sentences_are_none_of_the_training(tiny):
    recipe = EncoderRecipe(tiny(), CPU)
    assert recipe._draw(0, 5, 0) != recipe._draw(1, 5, 0)


def test_labels_are_shares_with_a_fifth_one_for_none_of_these(tiny):
    recipe = EncoderRecipe(tiny(), CPU)
    batch = recipe.batch(
        [asks("find it at night", detection=0.7, view=0.3), asks("cake"), Sentence("??", {}, frozenset(), "")]
    )
    assert batch.purpose.tolist() == [pytest.approx([0.7, 0, 0, 0.3, 0]), [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert batch.attributes[:, 0].tolist() == [1, 0, 0]
    assert batch.language.tolist() == [0, 0, -1]


def test_features_are_left_out_but_never_all(tiny):
    recipe = EncoderRecipe(tiny(), CPU)
    batch = recipe.batch([asks("find the people"), asks("??"), asks("a")])
    fewer = drop(batch, 0.9, torch.Generator().manual_seed(0))
    counts, before = fewer.offsets.diff(), batch.offsets.diff()
    assert (counts <= before).all()
    assert counts[0] < before[0] / 2
    assert ((counts > 0) == (before > 0)).all()
    kept = drop(batch, 0.0, torch.Generator())
    assert torch.equal(kept.numbers, batch.numbers)
    assert torch.equal(kept.offsets, batch.offsets)


def test_terms_are_words_that_instructions_have_and_other_sentences_have_not():
    asked = [asks("detect the blue car", detection=1.0)] * 20
    other = [asks("the blue whale")] * 20
    assert frequent_terms(asked + other, ["the"]) == ["car", "detect"]
    assert frequent_terms(asked[:3] + other, ["the"]) == []


def test_the_preset_is_small_enough_for_what_is_shipped_and_trains(tmp_path):
    assert presets(EncoderConfig).keys() == {"instructions"}
    small = ["stages.0.steps=2", "stages.0.batch=8", "stages.0.warmup=0", "counted=100", "validation=20"]
    code = cli.main(["train", "encoder", "--preset", "instructions", "--out", str(tmp_path / "run"), *small])
    assert code == 0
    assert (tmp_path / "run" / "best.safetensors").stat().st_size < 2.5e6
    assert load_config(EncoderConfig, "instructions").device == "cpu"
