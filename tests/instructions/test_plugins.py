"""Text encoders of others: any callable, and folders as transformers writes them, never the network."""

from __future__ import annotations

import json
import socket

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.instructions import CachedEncoder, InstructionEncoder, embed
from fuseloop.instructions.plugins import load_encoder_folder, wrap_encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "detect", "people", "at", "night"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    vocabulary = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    special = {"bos_token_id": len(letters), "eos_token_id": len(letters) + 1}
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), projection_dim=6, max_position_embeddings=77, **sizes, **special
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


def lengths(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[float(len(text)), 1.0, 2.0] for text in texts])


class TestCallables:
    def test_vectors_are_projected_and_empty_texts_are_zero(self):
        encoder = wrap_encoder(lengths, id="lengths", dim=5)
        assert isinstance(encoder, InstructionEncoder)
        vectors = encoder.encode(["detect", "", "view it"])
        assert vectors.shape == (3, 5)
        assert not vectors[1].any()
        assert not torch.equal(vectors[0], vectors[2])
        assert encoder.encode(["", " "]).tolist() == [[0.0] * 5] * 2

    def test_the_projection_learns_and_what_was_plugged_in_does_not(self):
        inner = torch.nn.Linear(3, 4)
        encoder = wrap_encoder(lambda texts: inner(lengths(texts)), id="inner", dim=5)
        embed(encoder, ["detect people", {"view": 1.0}]).sum().backward()
        assert encoder.projection.weight.grad.any()
        assert inner.weight.grad is None
        assert [name for name, _ in encoder.named_parameters()] == ["projection.weight"]

    def test_the_seed_decides_the_projection_and_the_global_generator_stays(self):
        before = torch.random.get_rng_state()
        one, same, other = (wrap_encoder(lengths, id="x", seed=seed).encode(["detect"]) for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert torch.equal(before, torch.random.get_rng_state())

    @pytest.mark.parametrize(
        ("broken", "complaint"),
        [
            (lambda texts: [1.0], "one row for each of 1 texts, got list"),
            (lambda texts: torch.ones(3), r"one row for each of 1 texts, got \(3,\)"),
            (lambda texts: torch.ones(2, 3), r"got \(2, 3\)"),
            (lambda texts: torch.full((len(texts), 3), torch.nan), "not finite"),
        ],
    )
    def test_what_gives_no_vectors_is_refused(self, broken, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            wrap_encoder(broken, id="broken")

    def test_vectors_of_changing_length_are_refused(self):
        encoder = wrap_encoder(lambda texts: torch.ones(len(texts), len(texts[0])), id="x")
        with pytest.raises(ConfigurationError, match="gave vectors of 4 numbers, before of 9"):
            encoder.encode(["view"])

    def test_it_can_be_cached(self):
        calls = []
        encoder = wrap_encoder(lambda texts: calls.append(len(texts)) or lengths(texts), id="lengths")
        cached = CachedEncoder(encoder)
        for _ in range(3):
            cached.encode(["detect", "view"])
        assert calls == [1, 2], "once to try it, once to use it"


class TestFolders:
    def test_sentence_transformers_pool_by_the_mean_over_the_words(self, sentence_folder):
        encoder = load_encoder_folder(sentence_folder, dim=7)
        model = BertModel.from_pretrained(sentence_folder).eval()
        numbers = torch.tensor([[2, 5, 6, 3]])  # [CLS] detect people [SEP]
        expected = model(numbers).last_hidden_state.mean(dim=1)
        # Padding by a longer neighbour changes nothing.
        (found, _) = encoder.encode(["detect people", "detect people at night"])
        torch.testing.assert_close(found, encoder.projection(encoder.norm(expected))[0], rtol=1e-4, atol=1e-5)

    def test_or_by_the_first_token_where_their_settings_say_so(self, sentence_folder, tmp_path):
        for file in sentence_folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
        encoder = load_encoder_folder(tmp_path, dim=7)
        first = BertModel.from_pretrained(tmp_path).eval()(torch.tensor([[2, 5, 3]])).last_hidden_state[:, 0]
        torch.testing.assert_close(encoder.encode(["detect"]), encoder.projection(encoder.norm(first)))

    def test_clip_gives_its_text_feature(self, clip_folder):
        encoder = load_encoder_folder(clip_folder, dim=7)
        assert encoder.projection.in_features == 6
        assert encoder.id.startswith("clip")
        one, other = encoder.encode(["detect people", "show me"])
        assert not torch.equal(one, other)

    @pytest.mark.parametrize("content", [None, "{", '{"model_type": "nothing"}'])
    def test_a_folder_without_an_encoder_is_refused(self, tmp_path, content):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(WeightsError, match=r"no folder of a text encoder|holds no text encoder"):
            load_encoder_folder(tmp_path)

    def test_a_name_is_no_folder_and_is_not_looked_for_elsewhere(self):
        with pytest.raises(WeightsError, match="never downloaded"):
            load_encoder_folder("openai/clip-vit-base-patch32")
