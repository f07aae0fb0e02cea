"""The text encoder: what heads and known words mean together, its vectors, its file, and any input."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmarks.bench_instructions import NONE, figures, read_cases, score
from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.instructions import (
    INTENTS,
    HashedEncoder,
    InstructionEncoder,
    NotUnderstood,
    embed,
    read_encoder,
    shipped_encoder,
    understand,
    write_encoder,
)
from fuseloop.instructions.features import LONGEST
from fuseloop.instructions.grammar import mistype
from fuseloop.weights.files import FOLDER, read_card

SENTENCES = Path(__file__).with_name("sentences.yaml")

STRANGE = {
    "empty": "",
    "blank": " \t\n ",
    "control characters": "\x00\x01\x1b[31m",
    "a lone surrogate": "\ud800",
    "punctuation": "?!... --- ,,,",
    "emoji": "🙂🔥🚗",
    "arabic": "مرحبا كيف حالك",
    "cyrillic": "съешь ещё этих мягких булок",
    "hebrew": "שלום",
    "thai": "สวัสดีครับ",
    "ten thousand characters": "banana " * 1429,
    "one long word": "x" * 10_000,
    "numbers": "12345 67890",
    "combining marks": "a" + "\u0301" * 500,
}


class TestConfidence:
    def test_what_the_heads_accept_counts_less_where_no_word_is_known(self, small):
        known, unknown = small.understand(["detect the", "zebra"])
        assert known.understood
        assert known.confidence > 0.9
        assert known.matched_terms == ("detect",)
        assert unknown.confidence == pytest.approx(0.55, abs=0.01)

    def test_what_the_heads_reject_is_rejected(self, small):
        small.purpose.bias.data[-1] = 10
        (match,) = small.understand(["detect the"])
        assert not match.understood
        assert (match.mixture, match.attributes, match.intent) == ({}, {}, "")
        assert match.reason == "it asks for nothing that is known"

    def test_a_known_word_with_a_typing_error_is_read_as_meant_and_shown_as_written(self, small):
        right, wrong, other = small.understand(["detect the 行人", "detcet the 行人", "detective the 行人"])
        assert wrong.confidence == right.confidence
        assert wrong.matched_terms == ("detcet", "行人")
        assert other.matched_terms == ("行人",)

    def test_attributes_are_told_by_words_unless_the_head_knows_better(self):
        encoder = HashedEncoder(["detect"], attribute_words={"night": ["dark"]}, buckets=64, width=8, hidden=8, dim=16)
        encoder.purpose.bias.data[-1] = -10
        found = []
        for bias in (0, -10):
            encoder.attributes.bias.data[0] = bias
            found.append([dict(match.attributes) for match in encoder.understand(["detect dark", "detect light"])])
        assert found == [[{"night": 1.0}, {}], [{}, {}]]

    def test_neighbours_in_chinese_are_shown_as_one_word(self, small):
        encoder = HashedEncoder(["检测", "测行", "行人"], buckets=64, width=8, hidden=8, dim=16).eval()
        assert encoder.understand(["请检测行人吧"])[0].matched_terms == ("检测行人",)

    def test_small_shares_of_a_mixture_are_left_out(self, small):
        with torch.no_grad():
            small.purpose.weight.zero_()
            small.purpose.bias.copy_(torch.tensor([0.5, 0.35, 0.1, 0.05, 1e-9]).log())
        (match,) = small.understand(["detect"])
        assert match.mixture == pytest.approx({"detection": 0.5 / 0.85, "segmentation": 0.35 / 0.85}, abs=1e-3)

    def test_no_text_is_an_error(self, small):
        with pytest.raises(ConfigurationError, match="an instruction is a text, got 7"):
            small.understand([7])

    def test_a_longer_text_than_is_read_is_refused_with_the_limit(self, small):
        assert small.understand(["detect " * 200])[0].reason == f"it is longer than {LONGEST} characters"


class TestVectors:
    def test_what_is_not_understood_is_zero_and_warned_of(self, small):
        small.purpose.bias.data[-1] = 10
        with pytest.warns(NotUnderstood, match="'detect' is not understood, so nothing is asked"):
            assert torch.equal(small.encode(["detect"]), torch.zeros(1, 16))

    def test_an_empty_text_is_zero_without_a_warning(self, small):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(small.encode(["", "  "]), torch.zeros(2, 16))

    def test_no_texts_are_no_vectors(self, small):
        assert small.encode([]).shape == (0, 16)

    def test_a_batch_equals_one_by_one(self, small):
        texts = ["detect", "the 行人", "", "detect detect the 行人 " * 10]
        alone = torch.cat([small.encode([text]) for text in texts])
        torch.testing.assert_close(small.encode(texts), alone)

    def test_it_is_an_encoder(self, small):
        assert isinstance(small, InstructionEncoder)


class TestFiles:
    def test_a_written_encoder_comes_back_and_says_the_same(self, small, tmp_path):
        small.half().float()  # the file is in half precision
        write_encoder(tmp_path / "e.safetensors", small)
        again = read_encoder(tmp_path / "e.safetensors")
        for name in ("options", "terms", "function_words", "other_words", "attribute_words"):
            assert getattr(again, name) == getattr(small, name)
        assert again.understand(["detect the 行人"]) == small.understand(["detect the 行人"])
        assert not again.training

    def test_other_weights_have_another_id(self, small, tmp_path):
        ids = set()
        for number in range(2):
            small.purpose.bias.data[0] += number
            write_encoder(tmp_path / f"{number}.safetensors", small)
            ids.add(read_encoder(tmp_path / f"{number}.safetensors").id)
        assert len(ids) == 2

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"architecture": "VFN"}, "holds no text encoder: its metadata name VFN"),
            ({"options": "[]"}, "do not describe a text encoder"),
            ({"options": '{"buckets": -3}'}, "do not describe a text encoder"),
            ({"options": '{"colour": 3}'}, "do not describe a text encoder"),
            ({"terms": "{"}, "do not describe a text encoder"),
            ({"intents": '["cooking"]'}, "was trained for other intents"),
            ({"options": '{"buckets": 32}'}, "does not hold this text encoder: .*bag.weight"),
        ],
    )
    def test_a_file_of_something_else_is_refused(self, small, tmp_path, change, complaint):
        write_encoder(tmp_path / "e.safetensors", small)
        metadata = {
            "architecture": "HashedEncoder",
            "options": json.dumps(small.options),
            "intents": json.dumps(list(INTENTS)),
            "attributes": '["night", "weather", "small", "people", "vehicles"]',
            "languages": '["english", "german", "spanish", "chinese"]',
            "terms": "[]",
            "function_words": "[]",
            "other_words": "[]",
            "attribute_words": "{}",
        }
        save_file(load_file(tmp_path / "e.safetensors"), tmp_path / "x.safetensors", metadata | change)
        with pytest.raises(WeightsError, match=complaint):
            read_encoder(tmp_path / "x.safetensors")

    def test_a_missing_file_and_weights_that_are_no_numbers_are_refused(self, small, tmp_path):
        with pytest.raises(WeightsError, match="cannot read"):
            read_encoder(tmp_path / "none.safetensors")
        small.purpose.bias.data[0] = torch.nan
        with pytest.raises(WeightsError, match="NaN"):
            write_encoder(tmp_path / "e.safetensors", small)


class TestShipped:
    def test_is_small_and_has_a_card(self):
        path = FOLDER / "instructions.safetensors"
        assert path.stat().st_size < 2.5e6
        assert "fuseloop train encoder" in read_card(path)

    @pytest.mark.parametrize("intent", INTENTS)
    def test_the_name_of_an_intent_asks_for_that_alone(self, intent):
        assert understand(intent).mixture == {intent: 1.0}

    @pytest.mark.parametrize(
        ("published", "intent"),
        [
            ("object detection task", "detection"),
            ("semantic segmentation task", "segmentation"),
            ("salient object detection task", "saliency"),
        ],
    )
    def test_the_published_instructions_are_understood(self, published, intent):
        assert understand(published).mixture == {intent: 1.0}

    def test_vectors_of_mixtures_lie_between_those_of_their_intents(self):
        encoder = shipped_encoder()
        one, other, mixed = embed(encoder, ["detection", "view", {"detection": 0.7, "view": 0.3}])
        torch.testing.assert_close(mixed, 0.7 * one + 0.3 * other)

    def test_sentences_that_mean_the_same_have_nearly_the_same_vector(self):
        same = embed(shipped_encoder(), ["object detection", "run YOLOv5 on it", "Objekterkennung", "目标检测"])
        assert torch.nn.functional.cosine_similarity(same[:1], same).min() > 0.9
        others = embed(shipped_encoder(), ["segmentation", "saliency", "view"])
        assert torch.nn.functional.cosine_similarity(same[:1], others).max() < 0.5

    def test_mixtures_are_read_from_text(self):
        assert set(understand("detect people but keep it natural").mixture) == {"detection", "view"}
        assert set(understand("detect people and segment the road").mixture) == {"detection", "segmentation"}

    @pytest.mark.parametrize(
        ("text", "attributes", "language"),
        [
            ("make the pedestrians easy to detect, it is night", {"night", "people"}, "english"),
            ("find tiny boats in fog", {"small", "vehicles", "weather"}, "english"),
            ("Finde kleine Autos bei Nacht", {"night", "small", "vehicles"}, "german"),
            ("quiero detectar coches con niebla", {"vehicles", "weather"}, "spanish"),
            ("夜间检测远处的行人", {"night", "people", "small"}, "chinese"),
            ("detect pedestrains at nihgt", {"night", "people"}, "english"),
            ("for people to watch", set(), "english"),
            ("semantic segmentation of the scene", set(), "english"),
        ],
    )
    def test_attributes_and_the_language_are_read_from_text(self, text, attributes, language):
        match = understand(text)
        assert set(match.attributes) == attributes
        assert match.language == language

    def test_development_sentences_are_understood_and_nonsense_is_not(self):
        found = figures(score(read_cases(SENTENCES), shipped_encoder()))
        assert found["instructions.clean"] >= 0.95
        assert found["instructions.rejected"] >= 0.95

    def test_development_sentences_with_typing_errors_are_understood(self):
        random = Random(0)
        cases = [case for case in read_cases(SENTENCES) if case.intent != NONE]
        wrong = [case._replace(text=mistype(case.text, random), kind="typo") for case in cases]
        assert figures(score(wrong, shipped_encoder()))["instructions.typo"] >= 0.9

    @pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
    def test_strange_input_is_neutral_and_says_why(self, text):
        match = understand(text)
        assert not match.understood
        assert match.reason
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotUnderstood)
            assert not shipped_encoder().encode([text]).any()

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=300))
    def test_any_text_gives_a_mixture_or_a_reason(self, text):
        match = understand(text)
        assert match.understood != bool(match.reason)
        assert 0 <= match.confidence <= 1
        assert sum(match.mixture.values()) == pytest.approx(1 if match.understood else 0)
        assert all(0 < strength <= 1 for strength in match.attributes.values())

    def test_two_processes_say_the_same_to_the_bit(self):
        program = (
            "import torch; torch.set_num_threads(1)\nfrom fuseloop.instructions import shipped_encoder\n"
            "print(shipped_encoder().encode(['find people in fog', '让行人更醒目']).numpy().tobytes().hex())"
        )
        runs = [
            subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
            for _ in range(2)
        ]
        assert len(runs[0]) > 100
        assert runs[0] == runs[1]


def test_a_mapping_and_nothing_are_instructions_too():
    assert understand({"view": 2, "detection": 6}).mixture == {"detection": 0.75, "view": 0.25}
    assert not understand(None).understood
    with pytest.raises(ConfigurationError, match="unknown intent 'art'"):
        understand({"art": 1})
