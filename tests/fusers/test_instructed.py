"""The fuser that is told what the image is for, with networks that are not trained but do something."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fuseloop.datasets.synthetic import generate
from fuseloop.engines import ENGINES
from fuseloop.errors import ConfigurationError, ImageError, PairError, WeightsError
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.instructed import InstructedFuser
from fuseloop.fusers.instruction_weights import Instructed, shipped_instructed, write_instructed
from fuseloop.instructions import (
    HashedEncoder,
    InstructionMatch,
    NotUnderstood,
    embed,
    read_encoder,
    write_encoder,
)
from fuseloop.instructions.plugins import wrap_encoder
from fuseloop.networks.instruction_conditioner import InstructedVFN, InstructionConditioner
from fuseloop.networks.vfn import VFN

HEIGHT, WIDTH = 48, 64
PEOPLE, ROADS, BOTH = "find people", "label every pixel", "find people but keep it natural"
WORDS = {"find": "detection", "label": "segmentation", "natural": "view"}


class Words(HashedEncoder):
    """Understands three words alike in every sentence, as far as its vectors go as the shipped encoder."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(buckets=8, width=8, hidden=8)
        self.id = "words"
        self.asked: list[str] = []

    def understand(self, texts: Sequence[str]) -> list[InstructionMatch]:
        self.asked += texts
        matches = super().understand(texts)
        return [match if match.reason else self.read(text) for text, match in zip(texts, matches, strict=True)]

    @staticmethod
    def read(text: str) -> InstructionMatch:
        found = [intent for word, intent in WORDS.items() if word in text]
        if not found:
            return InstructionMatch(reason="none of its words are known")
        night = {"night": 1.0} if "night" in text else {}
        return InstructionMatch({intent: 1 / len(found) for intent in found}, 0.9, attributes=night)


def instructed_of(depth: int = 2, *, asleep: bool = False, **options: Any) -> Instructed:
    """Networks whose conditioner changes the image visibly, unless it is asleep as one is before training."""
    torch.manual_seed(depth)
    network, conditioner = VFN(depth), InstructionConditioner(depth)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one pass settles the statistics
    with torch.no_grad():
        network(*torch.rand(2, 2, 1, 40, 40))
    for place in () if asleep else conditioner.changes.values():
        for parameter in (*place.film.parameters(), *place.zc.parameters()):
            nn.init.normal_(parameter, std=0.2)
    return Instructed(network.eval(), conditioner.eval(), **{"encoder": "words", **options})


def pair(seed: int = 3, height: int = HEIGHT, width: int = WIDTH) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = generate(seed, height, width)
    return scene.infrared, scene.visible


def floats(seed: int = 3, height: int = HEIGHT, width: int = WIDTH) -> list[NDArray[np.float32]]:
    return [part.astype(np.float32) / 255 for part in pair(seed, height, width)]


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).max())


@pytest.fixture(scope="module")
def networks() -> Instructed:
    return instructed_of()


@pytest.fixture
def fuser(networks: Instructed) -> InstructedFuser:
    return InstructedFuser(networks, encoder=Words())


# ---------------------------------------------------------------------------------------------------------- the image


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_image_is_that_of_the_networks_and_the_embedding(depth: int):
    networks, encoder = instructed_of(depth), Words()
    infrared, visible = floats()
    luma = visible[..., 1]
    embedding = encoder.vectors(encoder.understand([PEOPLE]))
    inputs = (torch.from_numpy(image)[None, None] for image in (infrared, luma))
    with torch.no_grad():
        expected = InstructedVFN(networks.network, networks.conditioner)(*inputs, embedding, 0.8)[0, 0].numpy()
    found = InstructedFuser(networks, encoder=encoder)(infrared, luma, PEOPLE, strength=0.8)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert difference(found, Fuser(networks.network)(infrared, luma)) > 0.02


@pytest.mark.parametrize("engine", ENGINES)
def test_without_an_instruction_and_at_strength_0_it_is_the_plain_fuser_bit_for_bit(networks: Instructed, engine: str):
    fuser, plain = InstructedFuser(networks, encoder=Words(), engine=engine), Fuser(networks.network, engine=engine)
    neutral = plain(*floats())
    for instruction, strength in ((None, 1.0), ("", 1.0), (" \n", 1.0), (PEOPLE, 0.0), ({"view": 1}, 0.0)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(fuser(*floats(), instruction, strength=strength), neutral), instruction
    assert difference(fuser(*floats(), PEOPLE), neutral) > 0.02


def test_before_training_every_instruction_gives_the_plain_image_bit_for_bit():
    networks = instructed_of(asleep=True)
    fuser = InstructedFuser(networks, encoder=Words())
    assert np.array_equal(fuser(*floats(), PEOPLE), Fuser(networks.network)(*floats()))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_makes_the_same_image(networks: Instructed, fuser: InstructedFuser, engine: str):
    other = InstructedFuser(networks, encoder=Words(), engine=engine)
    np.testing.assert_allclose(other(*floats(), PEOPLE), fuser(*floats(), PEOPLE), rtol=0, atol=1e-4)


def test_strength_is_continuous(fuser: InstructedFuser):
    neutral = fuser(*floats())
    changes = [float(np.abs(fuser(*floats(), PEOPLE, strength=s) - neutral).mean()) for s in (1e-3, 0.1, 0.5, 1.0)]
    assert 0 < changes[0] < 1e-3
    assert changes == sorted(changes)


def test_sentences_of_the_same_meaning_make_the_same_image_and_others_do_not(fuser: InstructedFuser):
    people = fuser(*pair(), PEOPLE)
    assert np.array_equal(fuser(*pair(), "please find everybody"), people)
    for other in (ROADS, BOTH, f"{PEOPLE}, it is night"):
        assert difference(fuser(*pair(), other), people) > 2, other


def test_a_mixture_is_given_by_its_shares(fuser: InstructedFuser):
    mixed = fuser(*pair(), {"detection": 0.5, "view": 0.5})
    assert fuser.understood == InstructionMatch({"detection": 0.5, "view": 0.5}, 1.0)
    assert np.array_equal(fuser(*pair(), {"view": 3, "detection": 3}), mixed)
    assert np.array_equal(fuser(*pair(), BOTH), mixed)
    assert difference(fuser(*pair(), {"detection": 1}), mixed) > 2


def test_a_batch_of_different_instructions_is_as_if_each_image_were_alone(fuser: InstructedFuser):
    instructions = [PEOPLE, None, ROADS, {"view": 1}]
    pairs = [pair(seed) for seed in range(4)]
    batch = fuser(*(np.stack(part) for part in zip(*pairs, strict=True)), instructions)
    assert [match.intent for match in fuser.understood] == ["detection", "", "segmentation", "view"]
    for image, one, instruction in zip(batch, pairs, instructions, strict=True):
        assert np.array_equal(image, fuser(*one, instruction))


def test_the_same_instruction_is_the_same_image_in_another_process_and_whatever_was_between(tmp_path: Path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = HashedEncoder(["people"], buckets=64, width=8, hidden=8)
    encoder.purpose.bias.data[-1] = -10
    write_encoder(tmp_path / "encoder.safetensors", encoder)
    encoder = read_encoder(tmp_path / "encoder.safetensors")
    networks = instructed_of()
    weights = tmp_path / "weights.safetensors"
    write_instructed(weights, networks.network, networks.conditioner, encoder=encoder.id)
    np.save(tmp_path / "ir.npy", floats()[0])
    np.save(tmp_path / "vis.npy", floats()[1])
    program = (
        "import numpy as np; from fuseloop import InstructedFuser; from fuseloop.instructions import read_encoder\n"
        "fuser = InstructedFuser('weights.safetensors', encoder=read_encoder('encoder.safetensors'))\n"
        f"np.save('out.npy', fuser(np.load('ir.npy'), np.load('vis.npy'), {PEOPLE!r}))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    fuser = InstructedFuser(weights, encoder=encoder)
    fuser(*floats(4), ROADS)
    here = fuser(*floats(), PEOPLE)
    assert fuser.understood.understood
    assert here.tobytes() == np.load(tmp_path / "out.npy").tobytes()


def test_a_sentence_is_read_once(fuser: InstructedFuser):
    infrared, visible = (np.stack([part] * 3) for part in pair())
    fuser(infrared, visible, PEOPLE)
    fuser(infrared, visible, [PEOPLE, ROADS, PEOPLE])
    assert fuser.encoder.asked == [PEOPLE, ROADS]


# ---------------------------------------------------------------------------------------------------- any kind and size


@pytest.mark.parametrize("size", [(8, 8), (9, 31)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_shape_type_and_alpha_are_those_of_the_visible_image(
    fuser: InstructedFuser, channels: int, dtype: type, size: tuple[int, int]
):
    infrared, colour = (part[: size[0], : size[1]] for part in pair())
    visible = np.dstack([colour, infrared])[..., :channels] if channels > 2 else np.dstack([infrared] * channels)
    visible = (visible * {np.uint8: 1.0, np.uint16: 257.0, np.float32: 1 / 255}[dtype]).astype(dtype)
    fused = fuser(infrared, visible, PEOPLE)
    assert (fused.shape, fused.dtype) == (visible.shape, dtype)
    if channels in (2, 4):
        assert np.array_equal(fused[..., -1], visible[..., -1])


def test_the_result_is_of_the_kind_of_the_visible_image(fuser: InstructedFuser):
    infrared, visible = pair()
    expected = fuser(infrared, visible, PEOPLE)
    pil = fuser(Image.fromarray(infrared), Image.fromarray(visible), PEOPLE)
    assert isinstance(pil, Image.Image)
    assert np.array_equal(np.asarray(pil), expected)
    tensor = fuser(torch.from_numpy(infrared), torch.from_numpy(visible).movedim(-1, 0), PEOPLE)
    assert np.array_equal(tensor.movedim(0, -1).numpy(), expected)


@pytest.mark.parametrize(("height", "width"), [(60, 250), (130, 121)])
def test_large_frames_are_changed_in_tiles_to_the_same_image(networks: Instructed, height: int, width: int):
    frame = floats(5, height, width)
    whole = InstructedFuser(networks, encoder=Words())
    tiled = InstructedFuser(networks, encoder=Words(), tile_pixels=4900)
    assert height * width > 3 * 4900
    np.testing.assert_allclose(tiled(*frame, PEOPLE), whole(*frame, PEOPLE), rtol=0, atol=1e-5)
    assert difference(whole(*frame, PEOPLE), whole(*frame)) > 0.02


# ------------------------------------------------------------------------------------------------------ what it is told


@pytest.mark.parametrize(
    "nonsense",
    ["bake a chocolate cake", "x" * 10_000, "find people " * 1000, "Ωμέγα \u202eабв", "\x00\x1b[31m\x07!", "?!", "😀"],
    ids=["cake", "letters", "long", "scripts", "control", "marks", "emoji"],
)
def test_what_is_not_understood_gives_the_neutral_image_and_a_warning(fuser: InstructedFuser, nonsense: str):
    with pytest.warns(NotUnderstood, match="is not understood, so the image is neutral: ") as caught:
        fused = fuser(*pair(), nonsense)
    assert np.array_equal(fused, fuser.neutral(*pair()))
    assert not fuser.understood.understood
    assert fuser.understood.reason in str(caught[0].message)
    assert str(caught[0].message).isprintable()
    assert len(str(caught[0].message)) < 400


def test_what_was_understood_is_told(fuser: InstructedFuser):
    assert fuser.understood is None
    fuser(*pair(), f"{PEOPLE}, it is night")
    assert fuser.understood == InstructionMatch({"detection": 1.0}, 0.9, attributes={"night": 1.0})
    fuser(*pair())
    assert fuser.understood.reason == "it is empty"


@pytest.mark.parametrize("instruction", [ROADS, {"segmentation": 0.5, "detection": 0.5}], ids=str)
def test_what_the_weights_were_not_trained_for_is_not_done(instruction: Any):
    fuser = InstructedFuser(instructed_of(tasks=("detection", "view")), encoder=Words())
    with pytest.warns(NotUnderstood, match="asks for segmentation, and these weights were trained for detection, view"):
        assert np.array_equal(fuser(*pair(), instruction), fuser.neutral(*pair()))
    assert difference(fuser(*pair(), PEOPLE), fuser.neutral(*pair())) > 2


@pytest.mark.parametrize(
    ("instruction", "error", "message"),
    [
        ({"detecton": 1}, ConfigurationError, r"unknown intent 'detecton' in a mixture; did you mean 'detection'\?"),
        ({"view": -1}, ConfigurationError, "a number from 0 up, got -1"),
        ({}, ConfigurationError, "at least one weight above 0"),
        (5, ConfigurationError, "an instruction is a text, got 5"),
        ([PEOPLE, 5], ConfigurationError, "an instruction is a text, got 5"),
        ([[PEOPLE]], ConfigurationError, "an instruction is a text, got"),
        (b"find people", ConfigurationError, "an instruction is a text, got 102"),
        ([], PairError, "got 0 instructions for 1 pairs; give one for each, or a single one for all"),
        ([PEOPLE, ROADS], PairError, "got 2 instructions for 1 pairs"),
    ],
    ids=str,
)
def test_what_is_no_instruction_is_explained(fuser: InstructedFuser, instruction: Any, error: type, message: str):
    with pytest.raises(error, match=message):
        fuser(*pair(), instruction)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(fuser: InstructedFuser, strength: float):
    with pytest.raises(ConfigurationError, match="from 0 to 1, not"):
        fuser(*pair(), PEOPLE, strength=strength)


def test_pairs_are_checked_as_the_plain_fuser_does(fuser: InstructedFuser):
    infrared, visible = pair()
    for narrow, error in ((infrared[:, :1], PairError), (infrared[:20], PairError)):
        with pytest.raises((error, ImageError)):
            fuser(narrow, visible, PEOPLE)
    with pytest.raises(ImageError, match="1x48 pixels; the network needs at least 8x8"):
        fuser(infrared[:, :1], visible[:, :1], PEOPLE)


# --------------------------------------------------------------------------------------------------------- the weights


def test_a_weight_file_is_loaded(networks: Instructed, fuser: InstructedFuser, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    write_instructed(path, networks.network, networks.conditioner, encoder="words", tasks=("detection",))
    loaded = InstructedFuser(path, encoder=Words())
    assert loaded.tasks == ("detection",)
    assert "for detection" in repr(loaded)
    assert np.array_equal(loaded(*pair(), PEOPLE), fuser(*pair(), PEOPLE))


@pytest.mark.skipif("toar" in shipped_instructed(), reason="they are shipped")
def test_weights_that_are_not_shipped_yet_say_so():
    with pytest.raises(WeightsError, match=r"no weights of 'toar' are shipped yet; give the \.safetensors file"):
        InstructedFuser("toar")


def test_weights_of_another_encoder_are_refused(networks: Instructed, monkeypatch: pytest.MonkeyPatch):
    other = Words()
    other.id = "other"
    with pytest.raises(ConfigurationError, match="with the text encoder 'words', and this one is 'other'"):
        InstructedFuser(networks, encoder=other)
    monkeypatch.setattr("fuseloop.fusers.instructed.shipped_encoder", lambda: other)
    with pytest.raises(ConfigurationError, match="or weights with vectors of their tasks"):
        InstructedFuser(networks)


def test_weights_with_vectors_of_their_tasks_need_no_encoder_of_their_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fuseloop.fusers.instructed.shipped_encoder", Words)
    monkeypatch.setattr("fuseloop.instructions.understanding.shipped_encoder", Words)
    tasks = ("view", "detection")
    vectors = Words().vectors([InstructionMatch({task: 1.0}) for task in tasks])
    stored = InstructedFuser(instructed_of(encoder="task-id", tasks=tasks, vectors=vectors))
    named = InstructedFuser(instructed_of(encoder="words", tasks=tasks))
    for instruction in (PEOPLE, BOTH, {"detection": 0.7, "view": 0.3}):
        assert difference(stored(*pair(), instruction), named(*pair(), instruction)) <= 1
    assert difference(stored(*pair(), PEOPLE), stored.neutral(*pair())) > 2


def test_encoders_of_others_are_asked_for_what_the_shipped_one_understands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fuseloop.instructions.understanding.shipped_encoder", Words)

    def letters(texts: list[str]) -> Tensor:
        return torch.tensor([[float(text.count(letter)) for letter in "aeiou"] for text in texts])

    plugged = wrap_encoder(letters, id="letters")
    networks = instructed_of(encoder=plugged.id)
    fuser = InstructedFuser(networks, encoder=plugged)
    fused = fuser(*pair(), PEOPLE)
    assert difference(fused, fuser.neutral(*pair())) > 2
    assert difference(fuser(*pair(), "find a bus"), fused) > 0, "its vectors are those of the sentence"
    stored = instructed_of(encoder="none", tasks=("detection",), vectors=embed(plugged, [PEOPLE]).detach())
    monkeypatch.setattr("fuseloop.fusers.instructed.shipped_encoder", Words)
    assert np.array_equal(InstructedFuser(stored)(*pair(), PEOPLE), fused)
    with pytest.warns(NotUnderstood):
        assert np.array_equal(fuser(*pair(), "eat an ice"), fuser.neutral(*pair()))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"engine": "abacus"}, "unknown engine"), ({"tile_pixels": 3000}, "two halos of 29; give at least 3481")],
)
def test_options_that_cannot_be_are_refused(networks: Instructed, options: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        InstructedFuser(networks, encoder=Words(), **options)
