"""Vectors of instructions: neutral is zero, mixtures are convex, every text is encoded once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.errors import ConfigurationError
from fuseloop.instructions import INTENTS, CachedEncoder, InstructionEncoder, TaskIdEncoder, check_mixture, embed

WEIGHTS = st.dictionaries(st.sampled_from(list(INTENTS)), st.floats(0, 1e6), min_size=1)


class Counting:
    """An encoder that counts its calls: the vector of a text is its length."""

    id, dim = "counting", 3

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts):
        self.seen += texts
        return torch.tensor([[float(len(text))] * self.dim for text in texts])


class TestMixtures:
    @given(WEIGHTS)
    def test_shares_add_up_to_one_or_the_mixture_is_refused(self, weights):
        if sum(weights.values()) > 0:
            shares = check_mixture(weights)
            assert math.isclose(sum(shares.values()), 1)
            assert list(shares.values()) == sorted(shares.values(), reverse=True)
        else:
            with pytest.raises(ConfigurationError, match="at least one weight above 0"):
                check_mixture(weights)

    @pytest.mark.parametrize(
        ("mixture", "complaint"),
        [
            (
                {"detectoin": 1},
                r"'detectoin'.* did you mean 'detection'\? Known are detection, segmentation, saliency, view",
            ),
            ({"view": -1}, "weight of view.* -1"),
            ({"view": math.nan}, "weight of view.* nan"),
            ({"view": math.inf}, "weight of view.* inf"),
            ({"view": "much"}, "weight of view.* 'much'"),
            ({"view": True}, "weight of view.* True"),
            ({}, "at least one weight above 0"),
            ({1: 1}, "unknown intent 1"),
        ],
    )
    def test_what_is_no_mixture_is_explained(self, mixture, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            check_mixture(mixture)


class TestEmbed:
    def test_nothing_to_ask_is_exactly_zero(self):
        vectors = embed(TaskIdEncoder(8), [None, "", "  \n", "view"])
        assert torch.equal(vectors[:3], torch.zeros(3, 8))
        assert vectors[3].abs().sum() > 0
        assert embed(TaskIdEncoder(8), [None]).shape == (1, 8)
        assert embed(TaskIdEncoder(8), []).shape == (0, 8)

    @given(WEIGHTS.filter(lambda weights: sum(weights.values()) > 1e-3))
    def test_a_mixture_is_the_mean_of_its_intents_weighted_by_their_shares(self, weights):
        encoder = TaskIdEncoder(8)
        expected = sum(weight * encoder.encode([name])[0] for name, weight in weights.items()) / sum(weights.values())
        torch.testing.assert_close(embed(encoder, [weights])[0], expected)

    def test_a_batch_may_hold_all_kinds_and_equals_one_by_one(self):
        encoder = TaskIdEncoder(8)
        batch = ["detection", None, {"detection": 1, "view": 3}, "", "saliency", "detection"]
        alone = torch.cat([embed(encoder, [one]) for one in batch])
        torch.testing.assert_close(embed(encoder, batch), alone)

    @pytest.mark.parametrize("wrong", [1, ["view"], b"view", 0.5])
    def test_what_is_no_instruction_is_refused(self, wrong):
        with pytest.raises(ConfigurationError, match="an instruction is a text, a mixture"):
            embed(TaskIdEncoder(8), [wrong])

    @pytest.mark.parametrize("single", ["view", {"view": 1}])
    def test_a_single_instruction_is_not_taken_for_many(self, single):
        with pytest.raises(ConfigurationError, match="come as a list"):
            embed(TaskIdEncoder(8), single)

    def test_the_gradient_reaches_a_learned_encoder(self):
        encoder = TaskIdEncoder(8)
        embed(encoder, [{"detection": 1, "view": 1}]).sum().backward()
        assert encoder.vectors.grad is not None
        assert encoder.vectors.grad[:, 0].tolist() == [0.5, 0, 0, 0.5]


class TestTaskIds:
    def test_every_task_has_a_vector_of_its_own_that_depends_on_the_seed(self):
        vectors = TaskIdEncoder(16).encode(list(INTENTS))
        assert len({tuple(row) for row in vectors.tolist()}) == len(INTENTS)
        assert torch.equal(vectors, TaskIdEncoder(16).encode(list(INTENTS)))
        assert not torch.equal(vectors, TaskIdEncoder(16, seed=1).encode(list(INTENTS)))

    def test_free_text_is_refused_with_the_names_it_knows(self):
        with pytest.raises(ConfigurationError, match=r"tasks detection, .* view alone, got 'detect people'"):
            TaskIdEncoder().encode(["detect people"])

    def test_it_is_an_encoder(self):
        assert isinstance(TaskIdEncoder(), InstructionEncoder)
        assert TaskIdEncoder(dim=32).dim == 32


class TestCache:
    def test_a_text_is_encoded_once(self):
        inner = Counting()
        encoder = CachedEncoder(inner)
        assert isinstance(encoder, InstructionEncoder)
        first = encoder.encode(["a", "bb", "a"])
        assert first[:, 0].tolist() == [1, 2, 1]
        assert torch.equal(encoder.encode(["bb", "ccc"])[:, 0], torch.tensor([2.0, 3.0]))
        assert inner.seen == ["a", "bb", "ccc"]
        assert encoder.encode([]).shape == (0, 3)

    def test_encoders_that_share_a_cache_do_not_take_each_others_vectors(self):
        one, other = Counting(), Counting()
        other.id = "other"
        shared = CachedEncoder(one)
        shared.encode(["a"])
        CachedEncoder(other, vectors=shared.vectors).encode(["a"])
        assert other.seen == ["a"]
        assert set(shared.vectors) == {("counting", "a"), ("other", "a")}

    def test_what_was_used_longest_ago_goes_first(self):
        inner = Counting()
        encoder = CachedEncoder(inner, size=2)
        for text in ("a", "b", "a", "c", "a", "b"):
            encoder.encode([text])
        assert inner.seen == ["a", "b", "c", "b"]

    def test_more_texts_than_it_keeps_are_encoded_nevertheless(self):
        assert CachedEncoder(Counting(), size=1).encode(["a", "bb", "ccc"])[:, 0].tolist() == [1, 2, 3]
