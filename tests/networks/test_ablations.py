"""The mended compensation without one of its parts: each differs as it says, and what must hold still does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.networks.cost import compensation_cost, multiply_accumulates, parameter_count
from fuseloop.networks.semantic_compensation import (
    A2SI,
    ABLATIONS,
    PublishedA2SI,
    SemanticCompensation,
    SemanticInjection,
    responses,
)
from fuseloop.networks.vfn import VFN
from tests.networks.test_semantic_compensation import Loop, bank, block_of, compensation_of, random
from tests.networks.tester import NetworkTester

NOISY = "determinism"
QUIET = [part for part in ABLATIONS if part != NOISY]
WITHOUT_QUERY = ("bv_f.",)
NOT_USED = {
    "bank": (),
    "choice": ("mlp_1x1.",),  # no branch has a 1×1 kernel
    "requirement": (),
    "query_gradient": WITHOUT_QUERY,
    NOISY: (),
    "image_norm": (),
    "descriptor": (),
}
"""What gets no gradient without a part."""


def outputs(compensation: SemanticCompensation, seed: int = 0, batch: int = 4) -> Tensor:
    """Both modalities, 2×B×8×40×36; the noise is the same for the same seed."""
    features = random(2, batch, 8, 40, 36, seed=seed)
    requirement = compensation.describe(random(batch, 64, 5, 6, seed=seed + 1).relu())
    return torch.stack(compensation(0, *features, requirement, generator=torch.Generator().manual_seed(seed)))


def without(*parts: str) -> SemanticCompensation:
    return compensation_of(without=parts)


class TestLoop(NetworkTester):
    make = Loop
    variants = tuple({"without": [part], "width": 64, "vectors": 8} for part in QUIET)
    exportable = False

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_every_parameter_gets_a_gradient(self, variant, training):
        loop = self.network(variant).train(training)
        loop(*self.pair()).square().mean().backward()
        (part,) = variant["without"]
        for name, parameter in loop.compensation.named_parameters():
            if parameter.grad is None:
                assert any(name_of in name for name_of in ("mlp_1x1", "mlp_3x3", *NOT_USED[part], "bvb")), name
            else:
                assert parameter.grad.isfinite().all(), name


class TestEveryAblation:
    @pytest.mark.parametrize("part", ABLATIONS)
    def test_begins_as_the_open_loop_bit_for_bit(self, part):
        network, compensation = VFN(3).eval(), SemanticCompensation(3, without=[part]).train()
        infrared, visible = features = tuple(network.encode_first(*torch.rand(2, 2, 1, 21, 34)))
        for level in range(2):
            compensated = compensation(level, *features, compensation.describe(random(2, 64, 3, 4)))
            assert torch.equal(compensated[0], infrared)
            assert torch.equal(compensated[1], visible)

    @pytest.mark.parametrize("part", ABLATIONS)
    def test_makes_something_else_of_the_same_weights_where_it_has_them(self, part):
        """But for what differs in learning alone."""
        whole = compensation_of().train(part == "image_norm")
        less = without(part).train(part == "image_norm")
        own = less.state_dict()
        kept = {name: value for name, value in whole.state_dict().items() if name in own and name != "bvb"}
        less.load_state_dict({**own, **kept})
        with torch.no_grad():
            less.bvb[:] = whole.bvb[:, : less.vectors]
        found, expected = outputs(less), outputs(whole)
        if part == "query_gradient":
            assert torch.equal(found, expected)
        else:
            assert (found - expected).abs().max() > 0.01

    @pytest.mark.parametrize("part", ABLATIONS)
    def test_all_that_it_uses_learns(self, part):
        compensation = without(part).train()
        (outputs(compensation, batch=8) * random(2, 8, 8, 40, 36, seed=5)).sum().backward()
        for name, parameter in compensation.named_parameters():
            if not parameter.requires_grad or any(f".{rest}" in name for rest in NOT_USED[part]):
                assert parameter.grad is None, name
            else:
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), name

    @pytest.mark.parametrize("part", QUIET)
    @torch.no_grad()
    def test_evaluation_repeats_and_no_image_depends_on_its_batch(self, part):
        block = block_of(ABLATIONS[part])
        features, feature = random(5, 8, 17, 26), random(5, 64, 3, 4, seed=1)
        together = block(features, block.describe(feature), bank())
        assert torch.equal(together, block(features, block.describe(feature), bank()))
        for order in ([0], [3, 1], [4, 2, 0, 3, 1]):
            part_of_it = block(features[order], block.describe(feature[order]), bank())
            torch.testing.assert_close(part_of_it, together[order], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("part", ABLATIONS)
    @torch.no_grad()
    def test_takes_any_size_and_black_frames(self, part):
        block = block_of(ABLATIONS[part])
        for height, width in ((1, 8), (9, 31)):
            for scale in (0.0, 1.0):
                requirement = block.describe(scale * random(1, 64, 2, 3))
                compensated = block(scale * random(1, 8, height, width), requirement, bank())
                assert compensated.shape == (1, 8, height, width)
                assert compensated.isfinite().all()

    @pytest.mark.parametrize("part", ABLATIONS)
    def test_has_its_costs_counted(self, part):
        compensation = without(part)
        features, feature = random(1, 8, 40, 56), random(1, 64, 3, 4)
        here = multiply_accumulates(compensation, 0, features, features, compensation.describe(feature))
        cost = compensation_cost(compensation, 40, 56, (1, 64, 3, 4))
        assert cost.least <= here <= cost.most
        assert (cost.least == cost.most) == (part in ("choice", "requirement"))

    def test_all_parts_that_were_published_otherwise_can_be_undone_together(self):
        compensation = without("query_gradient", NOISY, "image_norm", "descriptor").train()
        block = compensation.rsc_ir["a2si0"]
        assert all(isinstance(block, ABLATIONS[part]) for part in compensation.without)
        assert parameter_count(compensation) == 462_696
        found = outputs(compensation)
        assert found.isfinite().all()
        assert torch.equal(found, outputs(compensation))


class TestSingleAblations:
    def test_without_the_bank_kernels_are_made_of_the_query(self):
        compensation = without("bank")
        assert (compensation.vectors, compensation.bvb.numel()) == (0, 0)
        assert parameter_count(compensation) == 462_696 - 32_768
        features, requirement = random(2, 8, 12, 12), compensation.describe(random(2, 64, 3, 4))
        block = compensation.rsc_ir["a2si0"]
        adaptation = block.adapt(features, requirement, compensation.bank)
        assert torch.equal(adaptation.basis, adaptation.query[:, None].expand(-1, 4, -1))
        assert not compensation.dead_vectors().numel()

    def test_without_the_choice_every_branch_has_kernels_of_3x3(self):
        block = block_of(ABLATIONS["choice"])
        adaptation = block.adapt(random(3, 8, 12, 12), block.describe(random(3, 64, 3, 4)), bank())
        assert adaptation.configurations.eq(1).all()
        assert all(len(set(vectors)) == 4 for vectors in adaptation.vectors.tolist())
        assert parameter_count(block) == 214_964 - 108 - 592 - 2_720

    @torch.no_grad()
    def test_without_the_requirement_it_is_plain_convolutions(self):
        block = block_of(ABLATIONS["requirement"])
        assert parameter_count(block) == 4 * 8 * 8 * 9 + 16 + 72
        features = random(2, 8, 12, 15)
        compensated = block(features, block.describe(random(2, 64, 3, 4)), bank())
        assert torch.equal(compensated, block(features, block.describe(random(2, 8, 5, 5, seed=1)), bank()))
        seen = F.conv2d(features, block.kernels.flatten(0, 1), padding=1)
        seen = F.leaky_relu(F.group_norm(seen, 1), 0.2).unflatten(1, (4, 8)).mean(dim=1)
        torch.testing.assert_close(compensated, features + block.zc(seen), rtol=0, atol=1e-4)

    def test_without_the_gradient_of_the_query_only_the_selected_vectors_learn(self):
        compensation = without("query_gradient").train()
        outputs(compensation).square().sum().backward()
        assert torch.equal(compensation.bvb.grad.any(dim=2), compensation.usage > 0)

    @torch.no_grad()
    def test_without_determinism_evaluation_is_random_as_published(self):
        block = block_of(ABLATIONS[NOISY])
        logits = F.one_hot(torch.zeros(4000, 1, dtype=torch.int64), 4).float()
        wins = block.choose(logits, torch.Generator().manual_seed(0))[..., 0].mean().item()
        assert wins == pytest.approx(0.475, abs=0.03)
        features, requirement = random(1, 8, 12, 12), block.describe(random(1, 64, 2, 3))
        seen = []
        with torch.random.fork_rng():
            for seed in (0, 0, 1, 2, 3):
                torch.manual_seed(seed)
                seen.append(block(features, requirement, bank()))
        assert torch.equal(seen[0], seen[1]), "the global generator repeats it"
        assert any(not torch.equal(seen[0], other) for other in seen[2:])
        block.logit_scale = 100.0
        assert torch.equal(block.choose(logits, torch.Generator().manual_seed(0))[..., 0].mean(), torch.tensor(wins))

    def test_without_image_norms_an_image_depends_on_its_batch_in_training_alone(self):
        features, requirement = random(2, 8, 20, 20), SemanticCompensation().describe(random(2, 64, 3, 4))
        other = torch.stack([features[0], 5 * features[1] + 1])
        for part, mode, depends in (("image_norm", True, True), ("image_norm", False, False), (None, True, False)):
            block = block_of(ABLATIONS[part] if part else A2SI).train(mode)
            block.logit_scale = 1e6  # what the noise decides is not the question
            first, second = (
                block(x, requirement, bank(), generator=torch.Generator().manual_seed(0))[0] for x in (features, other)
            )
            assert (float((first - second).detach().abs().max()) > 1e-3) == depends

    def test_without_image_norms_every_norm_is_by_the_batch(self):
        modules = list(without("image_norm").modules())
        assert sum(isinstance(module, nn.BatchNorm2d) for module in modules) == 2 * 4
        assert not any(isinstance(module, nn.GroupNorm) for module in modules)

    @torch.no_grad()
    def test_without_the_descriptor_the_summaries_are_the_published_ones(self):
        ours, published = block_of(ABLATIONS["descriptor"]), block_of(PublishedA2SI)
        feature = random(2, 24, 5, 7)
        assert ours.describe(feature) is feature
        for first, second in ((ours.p_task_f, published.p_task_f), (ours.bv_f.p_task_f, published.bv_f.p_task_f)):
            second.load_state_dict(first.state_dict())
            assert torch.equal(ours.summarise(first, feature), published.summarise(second, feature))
        seen = ours.look(random(2, 8, 20, 20))
        torch.testing.assert_close(ours.query(feature, seen), ours.query(7 * feature, seen))
        assert not torch.allclose(ours.structure(feature, seen, None)[0], ours.structure(7 * feature, seen, None)[0])

    def test_only_the_described_requirement_can_be_stored(self):
        assert SemanticCompensation().one_layout
        assert without("bank").one_layout
        assert not without("descriptor").one_layout
        assert not SemanticCompensation(reference_compat=True).one_layout

    @torch.no_grad()
    def test_the_order_of_the_parts_does_not_matter(self):
        first, second = without("choice", "bank"), without("bank", "choice")
        assert first.without == second.without == ("bank", "choice")
        assert torch.equal(outputs(first), outputs(second))
        block = first.rsc_vi["a2si0"]
        assert isinstance(block, SemanticInjection)
        features = random(1, 8, 9, 9)
        branches = responses(features, block.adapt(features, first.describe(random(1, 64, 3, 4)), first.bank))
        assert torch.equal(branches, branches[:, :1].expand_as(branches)), "neither tells the branches apart"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"without": ["banks"]}, "cannot go without 'banks'; did you mean 'bank'.*Known: bank, choice"),
        ({"without": "bank"}, r"list of parts, such as \[bank\]"),
        ({"without": ["requirement", "bank"]}, "give 'requirement' alone"),
        ({"without": ["bank"], "reference_compat": True}, "published form is as it is"),
        ({"without": ["choice"], "vectors": 2}, "4 branches .* got 2"),
    ],
    ids=str,
)
def test_what_cannot_be_left_out_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SemanticCompensation(**options)
