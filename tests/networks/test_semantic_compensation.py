"""The semantic compensation is what its publication describes, and its mended form has none of the defects."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.bench_loop import plain_block
from fuseloop.errors import ConfigurationError
from fuseloop.networks import semantic_compensation
from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.networks.semantic_compensation import (
    A2SI,
    CODES,
    DILATIONS,
    Adaptation,
    PublishedA2SI,
    SemanticCompensation,
    SemanticInjection,
    cosine_codes,
    describe,
    frames,
    ranks,
    responses,
)
from fuseloop.networks.vfn import VFN
from tests.networks.tester import NetworkTester

FORMS = {"mended": A2SI, "published": PublishedA2SI}
FEATURES = {"map 512": (2, 512, 4, 5), "map 64": (2, 64, 12, 16), "tokens": (2, 20, 512), "one cell": (2, 48, 1, 1)}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(network: nn.Module, scale: float = 0.3) -> nn.Module:
    """The network in evaluation, with zero-convs that are no longer zero and batch norms that have seen something."""
    for module in network.modules():
        if isinstance(module, SemanticInjection):
            nn.init.normal_(module.zc.weight, std=scale)
            nn.init.normal_(module.zc.bias, std=scale)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def block_of(form: type[SemanticInjection], **sizes: int) -> SemanticInjection:
    torch.manual_seed(3)
    block = awake(form(**sizes))
    assert isinstance(block, SemanticInjection)
    return block


def bank(vectors: int = 32, width: int = 256) -> Tensor:
    return F.normalize(random(4, vectors, width, seed=9), dim=2)


def compensation_of(**options: int | bool) -> SemanticCompensation:
    torch.manual_seed(3)
    compensation = awake(SemanticCompensation(**options))
    assert isinstance(compensation, SemanticCompensation)
    return compensation


class Loop(nn.Module):
    """A closed loop whose task network sees nothing but coarse means of both images."""

    def __init__(self, depth: int = 2, **sizes: int) -> None:
        super().__init__()
        self.network = VFN(depth)
        self.compensation = SemanticCompensation(depth, **sizes)
        awake(self.compensation, 0.05)

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        requirement = self.compensation.describe(F.avg_pool2d(torch.cat([infrared, luma], dim=1), 4))
        first = self.network.encode_first(infrared, luma)
        return self.network.decode(
            self.network.encode_rest(*first, partial(self.compensation, requirement=requirement))
        )


class TestLoop(NetworkTester):
    make = Loop
    variants = ({}, {"depth": 3}, {"width": 64, "vectors": 8}, {"branches": 8}, {"branches": 2})
    exportable = False  # with any batch; a test below exports it for one image of any size

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_every_parameter_gets_a_gradient(self, variant, training):
        """But for the head of kernels that no branch has chosen; when all are chosen, all learn (`TestLearning`)."""
        loop = self.network(variant).train(training)
        loop(*self.pair()).square().mean().backward()
        for name, parameter in loop.compensation.named_parameters():
            if parameter.grad is None:
                assert "mlp_1x1" in name or "mlp_3x3" in name, name
            else:
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), name


class TestPublishedFigures:
    @pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
    def test_parameters_of_a_block(self, form):
        assert parameter_count(form()) == 214_964
        assert form().orthogonal_convolutional_prototypes.numel() == 64

    @pytest.mark.parametrize("compat", [False, True], ids=FORMS)
    @pytest.mark.parametrize(
        ("options", "count"),
        [
            ({}, 462_696),
            ({"depth": 3}, 892_624),
            ({"depth": 4}, 1_322_552),
            ({"branches": 2}, 458_952),
            ({"branches": 8}, 476_328),
            ({"width": 64}, 60_456),
            ({"width": 128}, 153_576),
            ({"width": 512}, 1_572_456),
        ],
        ids=str,
    )
    def test_parameters_of_both_modalities_with_their_bank(self, options, count, compat):
        assert parameter_count(SemanticCompensation(**options, reference_compat=compat)) == count

    def test_parameters_of_every_part(self):
        block = A2SI()
        parts = {
            "p_task_f": 108,
            "p_img_f": 592,
            "a_task_img": 2_720,
            "bv_f": 136_704,
            "bv_f.p_task_f": 24_768,
            "bv_f.p_img_f": 78_720,
            "bv_f.mlp": 33_216,
            "mlp_1x1": 20_736,
            "mlp_3x3": 54_016,
            "B_LR": 16,
            "zc": 72,
        }
        assert {name: parameter_count(block.get_submodule(name)) for name in parts} == parts

    def test_keys_of_a_published_block(self):
        assert len(PublishedA2SI().state_dict()) == 54

    def test_bank_is_orthonormal_where_it_can_be(self):
        rows = SemanticCompensation().bvb.flatten(0, 1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(128), rtol=0, atol=1e-5)
        narrow = SemanticCompensation(width=64).bvb
        torch.testing.assert_close(narrow.norm(dim=2), torch.ones(4, 32))

    def test_the_mended_form_costs_a_seventh_of_the_fusion_network(self):
        """The published one costs 5.8 to 11 passes."""
        compensation, network = compensation_of(), VFN().eval()
        features, image = random(1, 8, 240, 320), torch.rand(1, 1, 240, 320)
        requirement = compensation.describe(random(1, 512, 8, 10))
        cost = multiply_accumulates(compensation, 0, features, features, requirement)
        assert cost < 0.2 * multiply_accumulates(network, image, image)


class TestOpenAndClosedLoop:
    @pytest.mark.parametrize("compat", [False, True], ids=FORMS)
    @pytest.mark.parametrize("shape", FEATURES.values(), ids=FEATURES)
    @torch.no_grad()
    def test_at_first_they_are_the_same_bit_for_bit(self, shape, compat):
        network, compensation = VFN(3).eval(), SemanticCompensation(3, reference_compat=compat).eval()
        pair = torch.rand(2, 2, 1, 21, 34)
        requirement = compensation.describe(random(*shape))
        features = network.encode_rest(*network.encode_first(*pair), partial(compensation, requirement=requirement))
        assert torch.equal(network.decode(features), network(*pair))

    @pytest.mark.parametrize("compat", [False, True], ids=FORMS)
    @torch.no_grad()
    def test_strength_zero_is_the_open_loop_bit_for_bit_and_more_of_it_changes_more(self, compat):
        compensation = compensation_of(reference_compat=compat)
        features = random(2, 2, 8, 12, 15)
        requirement = compensation.describe(random(2, 64, 3, 4))

        def change(strength: float) -> Tensor:
            return torch.stack(compensation(0, *features, requirement, strength=strength)) - features

        assert not change(0.0).any()
        assert change(1.0).abs().max() > 0.1
        torch.testing.assert_close(change(0.25), 0.25 * change(1.0), rtol=0, atol=1e-5)

    def test_on_the_first_step_the_zero_conv_learns_and_nothing_else(self):
        compensation = SemanticCompensation()
        features = random(2, 2, 8, 12, 15)
        torch.stack(compensation(0, *features, compensation.describe(random(2, 64, 3, 4)))).square().sum().backward()
        moved = {name for name, p in compensation.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {f"rsc_{side}.a2si0.zc.{kind}" for side in ("ir", "vi") for kind in ("weight", "bias")}

    @torch.no_grad()
    def test_the_two_modalities_have_weights_of_their_own(self):
        compensation = compensation_of()
        features = random(2, 8, 12, 15)
        infrared, visible = compensation(0, features, features, compensation.describe(random(2, 64, 3, 4)))
        assert (infrared - visible).abs().max() > 0.1


class TestEvaluation:
    @pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
    @pytest.mark.parametrize("shape", FEATURES.values(), ids=FEATURES)
    @torch.no_grad()
    def test_it_is_the_same_every_time_and_in_every_batch(self, form, shape):
        block, vectors = block_of(form), bank()
        features, feature = random(5, 8, 17, 26), random(5, *shape[1:], seed=1)
        together = block(features, block.describe(feature), vectors)
        assert torch.equal(together, block(features, block.describe(feature), vectors))
        for order in ([0], [3, 1], [4, 2, 0, 3, 1]):
            part = block(features[order], block.describe(feature[order]), vectors)
            torch.testing.assert_close(part, together[order], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("height", [1, 8, 9, 16, 33])
    @pytest.mark.parametrize("width", [8, 31, 50])
    @pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
    @torch.no_grad()
    def test_any_size(self, form, height, width):
        block = block_of(form)
        output = block(random(1, 8, height, width), block.describe(random(1, 64, 2, 3)), bank())
        assert output.shape == (1, 8, height, width)
        assert output.isfinite().all()

    @pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
    @torch.no_grad()
    def test_black_frames_and_silent_features_are_no_trouble(self, form):
        block = block_of(form)
        for features, feature in ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0)):
            requirement = block.describe(feature * random(1, 64, 2, 3))
            assert block(features * random(1, 8, 12, 12), requirement, bank()).isfinite().all()

    @torch.no_grad()
    def test_the_mended_form_needs_no_noise_and_the_published_one_has_it_where_asked(self):
        features, feature, vectors = random(1, 8, 12, 12), random(1, 64, 2, 3), bank()
        for form, varies in ((A2SI, False), (PublishedA2SI, True)):
            block = block_of(form)
            requirement = block.describe(feature)
            plain = block(features, requirement, vectors)
            noisy = [
                block(features, requirement, vectors, generator=torch.Generator().manual_seed(seed))
                for seed in range(5)
            ]
            assert any(not torch.equal(plain, output) for output in noisy) == varies

    @torch.no_grad()
    def test_training_repeats_with_the_same_generator(self):
        block = block_of(A2SI).train()
        features, requirement = random(4, 8, 12, 12), describe(random(4, 64, 2, 3))
        outputs = [
            block(features, requirement, bank(), generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
        ]
        assert torch.equal(outputs[0], outputs[1])
        assert not torch.equal(outputs[0], outputs[2])

    def test_the_scaled_logits_outweigh_the_noise(self):
        """An embedding that is a prototype wins nearly always, not in 47.5 % of all draws as published."""
        logits = F.one_hot(torch.zeros(4000, 1, dtype=torch.int64), 4).float()
        wins = []
        for form in (A2SI, PublishedA2SI):
            choice = block_of(form).train().choose(logits, torch.Generator().manual_seed(0))
            wins.append(choice[..., 0].mean().item())
        assert wins[0] > 0.99
        assert wins[1] == pytest.approx(0.475, abs=0.03)

    def test_nothing_asks_for_labels(self):
        assert not {"target", "targets", "labels"} & set(SemanticCompensation.forward.__annotations__)

    def test_exported_it_takes_one_image_of_any_size(self):
        compensation = compensation_of()
        requirement = compensation.describe(random(1, 64, 3, 4))
        dynamic = {2: torch.export.Dim("height", min=17), 3: torch.export.Dim("width", min=17)}  # two cells and more

        class Level(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.compensation = compensation

            def forward(self, infrared: Tensor, visible: Tensor, requirement: Tensor) -> tuple[Tensor, Tensor]:
                return self.compensation(0, infrared, visible, requirement)

        example = (random(1, 8, 24, 40), random(1, 8, 24, 40, seed=1), requirement)
        with torch.no_grad():
            exported = torch.export.export(Level().eval(), example, dynamic_shapes=(dynamic, dynamic, {})).module()
            for height, width in ((24, 40), (33, 47), (17, 100)):
                pair = random(2, 1, 8, height, width, seed=2)
                for ours, theirs in zip(exported(*pair, requirement), compensation(0, *pair, requirement), strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


class TestLearning:
    def loss(self, compensation: SemanticCompensation, seed: int = 0, batch: int = 4) -> Tensor:
        features = random(2, batch, 8, 40, 36, seed=seed)
        requirement = compensation.describe(random(batch, 64, 5, 6, seed=seed + 1).relu())
        outputs = compensation(0, *features, requirement, generator=torch.Generator().manual_seed(seed))
        return (torch.stack(outputs) * random(2, batch, 8, 40, 36, seed=seed + 2)).sum()

    def test_every_parameter_of_the_mended_form_learns(self):
        compensation = compensation_of().train()
        self.loss(compensation, batch=8).backward()
        for name, parameter in compensation.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_every_vector_of_a_chosen_sub_bank_learns(self):
        compensation = compensation_of().train()
        self.loss(compensation).backward()
        chosen = compensation.usage.sum(dim=1) > 0
        assert compensation.bvb.grad[chosen].any(dim=2).all()

    def test_the_published_query_does_not_learn(self):
        compensation = compensation_of(reference_compat=True).train()
        self.loss(compensation).backward()
        for name, parameter in compensation.named_parameters():
            if ".bv_f." in name:
                assert parameter.grad is None
            elif "mlp_1x1" not in name:
                assert parameter.grad.any(), name
        learning = compensation.bvb.grad.any(dim=2)
        assert torch.equal(learning, compensation.usage > 0)

    def test_of_branches_that_share_a_configuration_all_learn_their_choice_in_the_mended_form_alone(self):
        logits = torch.tensor([[[3.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 3.0], [0, 0, 0, 2.0]]]).requires_grad_()
        for form, learns in ((A2SI, [True] * 4), (PublishedA2SI, [True, False, True, False])):
            block = block_of(form)
            choice = block.choose(logits, None)
            _, weights = block.select(random(1, 4, 32), choice, choice.argmax(dim=2))
            (gradient,) = torch.autograd.grad((weights * random(*weights.shape, seed=4)).sum(), logits)
            assert gradient[0].any(dim=1).tolist() == learns

    def test_prototypes_stay_orthonormal_and_vectors_of_length_one(self):
        compensation = compensation_of().train()
        optimiser = torch.optim.Adam(compensation.parameters(), 1e-2, weight_decay=1e-4)
        for seed in range(5):
            optimiser.zero_grad()
            self.loss(compensation, seed).backward()
            optimiser.step()
        for block in (compensation.rsc_ir["a2si0"], compensation.rsc_vi["a2si0"]):
            prototypes = block.orthogonal_convolutional_prototypes
            torch.testing.assert_close(prototypes @ prototypes.T, torch.eye(4), rtol=0, atol=1e-6)
        torch.testing.assert_close(compensation.bank.norm(dim=2), torch.ones(4, 32))

    def test_no_gradient_reaches_the_task_network(self):
        feature = random(1, 64, 2, 3).requires_grad_()
        for compat in (False, True):
            assert not SemanticCompensation(reference_compat=compat).describe(feature).requires_grad

    def test_dead_vectors_are_those_that_no_image_selects(self):
        compensation = compensation_of(vectors=8, width=64).train()
        assert compensation.dead_vectors().all()
        self.loss(compensation, batch=3)
        assert compensation.usage.sum() == 2 * 3 * 4
        dead = compensation.dead_vectors()
        assert dead.any()
        assert not dead.all()
        assert "usage" not in compensation.state_dict()
        compensation.eval()(0, *random(2, 1, 8, 9, 9), compensation.describe(random(1, 64, 2, 3)))
        assert torch.equal(dead, compensation.dead_vectors())

    def test_norms_of_the_mended_form_keep_no_statistics(self):
        assert not any(isinstance(module, nn.BatchNorm2d) for module in SemanticCompensation().modules())


def adaptation_for(configurations: Tensor) -> Adaptation:
    """Random kernels for given configurations."""
    shape = configurations.shape
    empty = torch.empty(*shape, 0)
    pointwise, spatial = random(*shape, 8, 8, 1, 1, seed=1), random(*shape, 8, 8, 3, 3, seed=2)
    return Adaptation(empty, configurations, empty, configurations, random(*shape, 4), pointwise, spatial)


class TestDynamicConvolution:
    @pytest.mark.parametrize(
        "configurations",
        [[[0, 1, 2, 3]], [[3, 3, 3, 3]], [[0]], [[2, 0, 2, 0], [1, 1, 3, 0], [0, 0, 0, 0]], [[3, 2, 1], [3, 2, 1]]],
        ids=str,
    )
    @pytest.mark.parametrize(("height", "width"), [(20, 28), (7, 9), (2, 5), (1, 1)])
    def test_it_equals_the_loop_over_images_and_branches(self, configurations, height, width):
        adaptation = adaptation_for(torch.tensor(configurations))
        features = random(len(configurations), 8, height, width)
        outputs = responses(features, adaptation)
        for image, chosen in enumerate(configurations):
            for place, branch in enumerate(sorted(range(len(chosen)), key=chosen.__getitem__)):
                dilation = DILATIONS[chosen[branch]]
                kernels, padding = (adaptation.pointwise, 0) if chosen[branch] == 0 else (adaptation.spatial, dilation)
                expected = F.conv2d(
                    features[image : image + 1], kernels[image, branch], padding=padding, dilation=dilation
                )
                torch.testing.assert_close(outputs[image, place], expected[0], rtol=1e-5, atol=1e-4)
                framed = F.conv2d(features[image : image + 1], frames(adaptation)[image, branch], padding=3)
                torch.testing.assert_close(framed, expected, rtol=1e-5, atol=1e-4)

    def test_it_passes_gradients_like_the_loop(self):
        adaptation = adaptation_for(torch.tensor([[0, 2, 2], [1, 3, 1]]))
        leaves = [x.double().requires_grad_() for x in (random(2, 8, 6, 5), adaptation.pointwise, adaptation.spatial)]
        adaptation = adaptation._replace(pointwise=leaves[1], spatial=leaves[2])
        ours = torch.autograd.grad(responses(leaves[0], adaptation).square().sum(), leaves)
        framed = sum(
            F.conv2d(leaves[0][image : image + 1], frames(adaptation)[image].flatten(0, 1), padding=3).square().sum()
            for image in range(2)
        )
        for gradient, expected in zip(ours, torch.autograd.grad(framed, leaves), strict=True):
            torch.testing.assert_close(gradient, expected)

    def test_branches_with_the_same_configuration_take_different_vectors_best_first(self):
        cosines = random(2, 4, 8)
        logits = 10 * F.one_hot(torch.tensor([[1, 1, 2, 1], [0, 3, 3, 0]]), 4).float()
        for form in FORMS.values():
            block = block_of(form)
            choice = block.choose(logits, None)
            vectors, weights = block.select(cosines, choice, choice.argmax(dim=2))
            best = cosines.argsort(dim=2, descending=True)
            expected = [
                [best[0, 1, 0], best[0, 1, 1], best[0, 2, 0], best[0, 1, 2]],
                [best[1, 0, 0], best[1, 3, 0], best[1, 3, 1], best[1, 0, 1]],
            ]
            assert vectors.tolist() == [[int(index) for index in row] for row in expected]
            assert weights.flatten(2).sum(dim=2).eq(1).all()
            assert weights.count_nonzero() == 8

    def test_ranks_count_what_came_before(self):
        rank, first = ranks(torch.tensor([[2, 0, 2, 2], [1, 3, 3, 1]]))
        assert rank.tolist() == [[0, 0, 1, 2], [0, 0, 1, 1]]
        assert first.tolist() == [[0, 1, 0, 0], [0, 1, 1, 0]]

    @pytest.mark.parametrize("vectors", [8, 9])
    @torch.no_grad()
    def test_eight_branches_find_enough_vectors_in_one_sub_bank(self, vectors):
        for form in FORMS.values():
            block = block_of(form, branches=8, width=64)
            choice = F.one_hot(torch.full((1, 8), 2), 4).float()
            chosen, _ = block.select(random(1, 4, vectors), choice, choice.argmax(dim=2))
            assert len(set(chosen.flatten().tolist())) == 8


class TestMendedForm:
    @pytest.mark.parametrize(("height", "width"), [(20, 28), (33, 9), (1, 3)])
    @torch.no_grad()
    def test_what_it_adds_is_what_is_described(self, height, width):
        """zero-conv(mean over branches(LReLU(norm over all branches of the image(responses))))."""
        block, features = block_of(A2SI), random(2, 8, height, width)
        nn.init.normal_(block.B_LR[0].weight)
        nn.init.normal_(block.B_LR[0].bias)
        adaptation = block.adapt(features, describe(random(2, 64, 3, 4)), bank())
        for image in range(2):
            response = F.conv2d(features[image : image + 1], frames(adaptation)[image].flatten(0, 1), padding=3)
            normed = (response - response.mean()) / (response.var(correction=0) + 1e-5).sqrt()
            scaled = normed.view(4, 8, height, width) * block.B_LR[0].weight[:, None, None]
            mean = F.leaky_relu(scaled + block.B_LR[0].bias[:, None, None], 0.2).mean(dim=0)
            weight, bias = block.zc.weight[:, :, 0, 0], block.zc.bias[:, None, None]
            expected = features[image] + torch.einsum("oi,ihw->ohw", weight, mean) + bias
            torch.testing.assert_close(block.inject(features, adaptation)[image], expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 50), (15, 16), (1, 17)])
    def test_it_looks_at_means_of_cells(self, height, width):
        features = random(2, 8, height, width)
        seen = A2SI().look(features)
        assert seen.shape == (2, 8, -(-height // 16), -(-width // 16))
        for row in range(seen.shape[2]):
            for column in range(seen.shape[3]):
                cell = features[:, :, 16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)]
                torch.testing.assert_close(seen[:, :, row, column], cell.mean(dim=(2, 3)), rtol=0, atol=1e-5)


class TestPublishedForm:
    @pytest.mark.parametrize("shape", FEATURES.values(), ids=FEATURES)
    @pytest.mark.parametrize(("height", "width"), [(20, 28), (33, 9), (8, 8), (16, 5), (1, 3)])
    @torch.no_grad()
    def test_it_equals_the_plain_loop(self, shape, height, width, monkeypatch):
        monkeypatch.setattr(semantic_compensation, "_CHUNK", 1000)
        block, vectors = block_of(PublishedA2SI), random(4, 32, 256, seed=9)
        features, feature = random(2, 8, height, width), random(*shape, seed=1)
        ours = block(features, block.describe(feature), vectors)
        torch.testing.assert_close(ours, plain_block(block, features, feature, vectors), rtol=0, atol=1e-5)

    def test_in_training_its_batch_norms_see_the_batch(self):
        block = block_of(PublishedA2SI)
        before = {name: value.clone() for name, value in block.named_buffers() if "running" in name}
        block.train()(random(4, 8, 12, 12), random(4, 64, 2, 3), bank())
        assert all(not torch.equal(value, block.get_buffer(name)) for name, value in before.items())

    def test_the_bank_is_read_as_it_is(self):
        compensation = SemanticCompensation(reference_compat=True)
        with torch.no_grad():
            compensation.bvb.mul_(3)
        assert compensation.bank is compensation.bvb


class TestRequirement:
    @pytest.mark.parametrize("shape", FEATURES.values(), ids=FEATURES)
    def test_it_has_one_layout_and_one_magnitude(self, shape):
        requirement = describe(7 * random(*shape))
        channels = shape[2] if len(shape) == 3 else shape[1]
        assert requirement.shape == (2, channels, 4, 4)
        torch.testing.assert_close(requirement.square().mean(dim=(1, 2, 3)), torch.ones(2))

    def test_describing_it_again_changes_nothing(self):
        requirement = describe(random(2, 64, 12, 16))
        torch.testing.assert_close(describe(requirement), requirement)

    def test_tokens_and_map_of_the_same_feature_agree(self):
        feature = random(2, 48, 8, 4)
        tokens = feature.flatten(2).transpose(1, 2)
        assert describe(tokens).shape == describe(feature).shape
        square = random(2, 48, 4, 4)
        torch.testing.assert_close(describe(square.flatten(2).transpose(1, 2)), describe(square))

    def test_silence_stays_silence(self):
        assert not describe(torch.zeros(1, 8, 3, 3)).any()

    @pytest.mark.parametrize("shape", [(4,), (2, 8), (1, 8, 2, 2, 2), (2, 0, 3, 3)])
    def test_a_feature_of_another_rank_is_refused(self, shape):
        with pytest.raises(ConfigurationError, match=r"shape .*another layer"):
            describe(torch.zeros(shape))

    def test_the_published_form_takes_any_rank_from_three(self):
        assert PublishedA2SI.describe(torch.ones(1, 8, 2, 2, 2)).ndim == 5
        with pytest.raises(ConfigurationError, match="at least three dimensions"):
            PublishedA2SI.describe(torch.ones(1, 8))

    def test_summaries_are_averages_of_the_second_convolution_under_the_codes(self):
        block, requirement = block_of(A2SI), describe(random(2, 24, 5, 5))
        for convolutions in (block.p_task_f, block.bv_f.p_task_f):
            whole = convolutions(requirement.flatten(1)[:, None])
            codes = cosine_codes(24, whole)[torch.arange(whole.shape[1]) % CODES]
            summary = block.summarise(convolutions, requirement)
            torch.testing.assert_close(summary, (whole * codes).sum(dim=2), rtol=1e-4, atol=1e-5)

    def test_the_first_code_is_the_mean_and_all_codes_differ(self):
        codes = cosine_codes(64, torch.zeros(1))
        torch.testing.assert_close(codes[0], torch.full((1024,), 1 / 1024))
        gram = F.normalize(codes, dim=1) @ F.normalize(codes, dim=1).T
        torch.testing.assert_close(gram, torch.eye(CODES), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("shape", [(1, 512, 15, 20), (1, 64, 12, 16)])
    @torch.no_grad()
    def test_it_tells_contents_apart_which_the_published_summary_does_not(self, shape):
        feature, other = random(*shape).relu(), random(*shape, seed=1).relu()
        permuted = feature[:, torch.randperm(shape[1], generator=torch.Generator().manual_seed(0))]
        for form, low, high in ((A2SI, -1.0, 0.95), (PublishedA2SI, 0.999, 1.01)):
            block = block_of(form)

            def summary(x: Tensor, block: SemanticInjection = block) -> Tensor:
                return block.summarise(block.bv_f.p_task_f, block.describe(x))

            for changed in (other, permuted):
                similarity = F.cosine_similarity(summary(feature), summary(changed)).item()
                assert low < similarity < high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1}, "at least 2, got 1"),
        ({"branches": 0}, "at least 1 branch, got 0"),
        ({"branches": 8, "vectors": 4}, "8 branches .* need 8 vectors of their own, got 4"),
        ({"width": 30}, "multiple of 4, got 30"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SemanticCompensation(**options)
