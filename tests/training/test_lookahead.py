"""The meta-gradient is exact however it is computed, and looking ahead moves nothing but the generator."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fuseloop.errors import ConfigurationError, PairError
from fuseloop.networks.loss_generator import LossGenerator
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.colour import ycbcr_to_rgb
from fuseloop.tasks.protocol import Target
from fuseloop.tasks.wrapping import wrap
from fuseloop.training import TrainingError
from fuseloop.training.learned_loss import LearnedFusionLoss
from fuseloop.training.lookahead import (
    AdamStep,
    LabelledTask,
    Labels,
    Lookahead,
    MaxNormSGD,
    MetaGradient,
    Samples,
    Task,
    sgd,
)
from fuseloop.training.sampling import random_crop, to_unit


class Small(nn.Module):
    """A smooth network of a pair: one output in (0, 1), or two weights."""

    def __init__(self, outputs: int, hidden: int = 6, side: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, hidden, side, padding=side // 2)
        self.last = nn.Conv2d(hidden, outputs, side, padding=side // 2)

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        scores: Tensor = self.last(torch.tanh(self.first(torch.cat([infrared, luma], dim=1))))
        return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(dim=1)


def segmenter(dropout: float = 0.0) -> Task:
    """A task with batch norm: three classes of pixels."""
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Dropout(dropout), nn.Conv2d(6, 3, 1)]
    return Task(nn.Sequential(*layers), nn.functional.cross_entropy)


def samples(seed: int, batch: int = 2, side: int = 12) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    infrared, luma = torch.rand(2, batch, 1, side, side, generator=generator, dtype=torch.float64)
    return Samples(infrared, luma, torch.randint(3, (batch, side, side), generator=generator))


def networks(fusion: Callable[[], nn.Module] = lambda: Small(1)) -> tuple[nn.Module, nn.Module, Task]:
    torch.manual_seed(0)
    return fusion().double(), Small(2).double(), segmenter().double()


def look(parts: tuple[nn.Module, nn.Module, Task], power: int = 1, **options: Any) -> Lookahead:
    fusion, generator, task = parts
    return Lookahead(fusion, generator, LearnedFusionLoss(weight_power=power), task, **{"lr": 1e-2, **options})


def warm(module: nn.Module, kind: type[torch.optim.Optimizer] = torch.optim.Adam) -> torch.optim.Optimizer:
    """An optimiser with moments, as after some steps."""
    optimizer = kind(module.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def relative_error(found: MetaGradient, expected: MetaGradient) -> float:
    error, size = (
        torch.stack([value.square().sum() for value in values]).sum().sqrt()
        for values in (
            [found.gradients[name] - expected.gradients[name] for name in expected.gradients],
            expected.gradients.values(),
        )
    )
    return float(error / size)


FUSIONS = {
    "small": lambda: Small(1),
    "VFN in evaluation": lambda: VFN(1).eval(),
    "VFN in training": lambda: VFN(1).train(),
}


class TestExactness:
    @pytest.mark.parametrize("power", [1, 2])
    @pytest.mark.parametrize("fusion", FUSIONS.values(), ids=FUSIONS)
    def test_forward_mode_equals_differentiating_twice(self, fusion, power):
        parts = networks(fusion)
        found, expected = (
            look(parts, power, mode=mode).meta_gradient(samples(1), samples(2)) for mode in ("jvp", "double")
        )
        assert relative_error(found, expected) < 1e-12
        assert found.fusion_loss == pytest.approx(expected.fusion_loss, rel=1e-12)
        assert found.task_loss == pytest.approx(expected.task_loss, rel=1e-12)
        torch.testing.assert_close(found.fused, expected.fused, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("power", [1, 2])
    def test_so_it_does_with_the_networks_of_the_publication(self, power):
        torch.manual_seed(0)
        parts = RestormerFusion().double(), LossGenerator().double(), segmenter().double()
        support, query = samples(1, batch=1), samples(2, batch=1)
        found, expected = (look(parts, power, mode=mode).meta_gradient(support, query) for mode in ("jvp", "double"))
        assert relative_error(found, expected) < 1e-12

    @pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
    @pytest.mark.parametrize("fusion", FUSIONS.values(), ids=FUSIONS)
    def test_so_it_does_with_the_inner_step_of_adam(self, fusion, kind):
        parts = networks(fusion)
        inner = AdamStep(warm(parts[0], kind), parts[0])
        found, expected = (
            look(parts, mode=mode, inner=inner).meta_gradient(samples(1), samples(2)) for mode in ("jvp", "double")
        )
        assert relative_error(found, expected) < 1e-12

    @pytest.mark.parametrize(
        "options",
        [
            {"symmetrize": True},
            {"task_lookahead": False},
            {"task_mode": "frozen"},
            {"task_eval": True},
            {"per_step": False},
            {"lr": 10.0},
        ],
        ids=str,
    )
    def test_so_it_does_with_every_option(self, options):
        parts = networks()
        found, expected = (
            look(parts, mode=mode, **options).meta_gradient(samples(1), samples(2)) for mode in ("jvp", "double")
        )
        assert relative_error(found, expected) < 1e-12

    @pytest.mark.parametrize("mode", ["jvp", "fd"])
    @pytest.mark.parametrize("at_once", [1, 2, 5])
    def test_pair_by_pair_it_is_the_same(self, mode, at_once):
        parts = networks()
        pairs = samples(1, batch=5), samples(2, batch=5)
        found, expected = (look(parts, mode=mode, at_once=size).meta_gradient(*pairs) for size in (at_once, None))
        assert relative_error(found, expected) < (1e-12 if mode == "jvp" else 1e-3)
        assert found.task_loss == pytest.approx(expected.task_loss, rel=1e-12)

    @pytest.mark.parametrize("fusion", FUSIONS.values(), ids=FUSIONS)
    def test_finite_differences_of_two_images_come_near(self, fusion):
        parts = networks(fusion)
        found, expected = (look(parts, mode=mode).meta_gradient(samples(1), samples(2)) for mode in ("fd", "double"))
        assert relative_error(found, expected) < 1e-3

    @pytest.mark.parametrize("power", [1, 2])
    @pytest.mark.parametrize("fusion", ["small", "VFN in training"])
    def test_it_is_the_slope_of_the_task_loss_after_a_step(self, fusion, power):
        """The scalar objective by itself, written down plainly, at two generators along a random direction."""
        fusion_network, generator, task = parts = networks(FUSIONS[fusion])
        support, query, lr = samples(1), samples(2), 1e-2
        gradients = look(parts, power, per_step=False, task_lookahead=False).meta_gradient(support, query).gradients

        def objective(parameters: dict[str, Tensor]) -> float:
            fusion, looking = deepcopy(fusion_network), deepcopy(task)
            weights = functional_call(generator, parameters, support[:2])
            loss = LearnedFusionLoss(weight_power=power)(fusion(*support[:2]), *support[:2], weights)
            names, values = zip(*fusion.named_parameters(), strict=True)
            slopes = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
            with torch.no_grad():
                for name, value, slope in zip(names, values, slopes, strict=True):
                    value -= lr * slope
                    assert value.isfinite().all(), name
                return float(looking(fusion(*query[:2]), query.target))

        torch.manual_seed(4)
        here = {name: parameter.detach() for name, parameter in generator.named_parameters()}
        for _ in range(3):
            along = {name: torch.randn_like(value) for name, value in here.items()}
            step = 1e-4
            ahead, behind = (
                objective({name: here[name] + sign * step * along[name] for name in here}) for sign in (1, -1)
            )
            slope = sum(float((gradients[name] * along[name]).sum()) for name in here)
            assert slope == pytest.approx((ahead - behind) / (2 * step), rel=0.01)

    def test_several_steps_ahead_are_the_slope_too(self):
        fusion, generator, task = parts = networks()
        support, query = samples(1), samples(2)
        options = {"steps": 3, "mode": "double", "lr": 1.0, "per_step": False, "task_lookahead": False}
        gradients = look(parts, **options).meta_gradient(support, query).gradients

        def after_three(parameters: dict[str, Tensor]) -> float:
            moved, looking = deepcopy(fusion), deepcopy(task)
            weights = functional_call(generator, parameters, support[:2]).detach()
            optimizer = torch.optim.SGD(moved.parameters(), 1.0)
            for _ in range(3):
                optimizer.zero_grad()
                LearnedFusionLoss()(moved(*support[:2]), *support[:2], weights).backward()
                optimizer.step()
            return float(looking(moved(*query[:2]), query.target).detach())

        here = {name: parameter.detach() for name, parameter in generator.named_parameters()}
        along = {name: torch.randn_like(value) for name, value in here.items()}
        ahead, behind = (
            after_three({name: here[name] + sign * 1e-4 * along[name] for name in here}) for sign in (1, -1)
        )
        slope = sum(float((gradients[name] * along[name]).sum()) for name in here)
        assert slope == pytest.approx((ahead - behind) / 2e-4, rel=0.01)

    @pytest.mark.parametrize("mode", ["jvp", "double", "fd"])
    def test_without_an_inner_step_it_is_exactly_zero(self, mode):
        found = look(networks(), mode=mode, lr=0.0, per_step=False).meta_gradient(samples(1), samples(2))
        assert found.norm == 0

    @pytest.mark.parametrize("mode", ["jvp", "double"])
    def test_equal_images_teach_nothing_with_the_power_of_the_paper_alone(self, mode):
        support = samples(1)
        support = support._replace(luma=support.infrared)
        norms = [look(networks(), power, mode=mode).meta_gradient(support, samples(2)).norm for power in (1, 2)]
        assert norms[0] < 1e-12 * norms[1]
        assert norms[1] > 0

    def test_divided_by_the_inner_step_it_does_not_vanish_with_it(self):
        parts = networks()
        norms = [look(parts, lr=lr, task_lr=0.0).meta_gradient(samples(1), samples(2)).norm for lr in (1e-4, 1e-9)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-2)
        exact = look(parts, lr=1e-9, task_lr=0.0, per_step=False).meta_gradient(samples(1), samples(2)).norm
        assert exact == pytest.approx(1e-9 * norms[1])

    @pytest.mark.parametrize("mode", ["jvp", "double"])
    def test_single_precision_agrees(self, mode):
        parts = networks()
        exact = look(parts, lr=1e-4).meta_gradient(samples(1), samples(2))
        single = tuple(part.float() for part in parts)
        pairs = [Samples(x.infrared.float(), x.luma.float(), x.target) for x in (samples(1), samples(2))]
        with torch.autocast("cpu", torch.bfloat16):
            found = look(single, lr=1e-4, mode=mode).meta_gradient(*pairs)
        doubled = MetaGradient(0, 0, {name: x.double() for name, x in found.gradients.items()}, found.fused)
        assert relative_error(doubled, exact) < 1e-4


class TestSymmetry:
    @pytest.mark.parametrize("mode", ["jvp", "double"])
    def test_exchanging_the_images_changes_nothing_when_symmetrized(self, mode):
        parts = networks()
        pairs = [samples(1), samples(2)]
        exchanged = [Samples(pair.luma, pair.infrared, pair.target) for pair in pairs]
        options = {"mode": mode, "symmetrize": True}
        found, other = (look(parts, **options).meta_gradient(*both) for both in (pairs, exchanged))
        assert relative_error(found, other) < 1e-12
        assert found.task_loss == pytest.approx(other.task_loss, rel=1e-12)
        plain = [look(parts, mode=mode).meta_gradient(*both).task_loss for both in (pairs, exchanged)]
        assert plain[0] != pytest.approx(plain[1], rel=1e-6)


def snapshot(*things: nn.Module | torch.optim.Optimizer) -> list[Any]:
    return deepcopy([thing.state_dict() for thing in things])


def same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(same, before, after))
    return bool(before == after)


class TestNothingElseMoves:
    def build(self, **options: Any) -> Lookahead:
        torch.manual_seed(0)
        fusion, generator, task = VFN(1).double().train(), Small(2).double(), segmenter(dropout=0.3).double().train()
        optimizers = warm(fusion), torch.optim.Adam(generator.parameters(), 1e-3), warm(task)
        keywords = ("fusion_optimizer", "generator_optimizer", "task_optimizer")
        return look((fusion, generator, task), **dict(zip(keywords, optimizers, strict=True)), **options)

    @pytest.mark.parametrize(
        "options",
        [{"mode": "jvp"}, {"mode": "double", "steps": 2}, {"mode": "fd"}, {"task_eval": True}, {"task_mode": "frozen"}],
        ids=str,
    )
    def test_a_meta_step_moves_the_generator_alone(self, options):
        learn = self.build(**options)
        others = (learn.fusion, learn.task, learn.fusion_optimizer, learn.task_optimizer)
        before, generator = snapshot(*others), snapshot(learn.generator)
        result = learn.meta_step(samples(1), samples(2))
        assert same(before, snapshot(*others))
        assert not same(generator, snapshot(learn.generator))
        assert result.keys() == {"fusion_loss", "task_loss", "meta_grad_norm"}
        assert all(np.isfinite(value) for value in result.values())
        modules = [module for part in (learn.fusion, learn.task) for module in part.modules()]
        assert all(module.training for module in modules)
        for part in (learn.fusion, learn.generator, learn.task):
            assert all(parameter.grad is None for parameter in part.parameters())
            assert all(parameter.requires_grad for parameter in part.parameters())

    def test_a_fusion_step_leaves_the_generator_alone(self):
        learn = self.build()
        before, moving = snapshot(learn.generator, learn.generator_optimizer), snapshot(learn.fusion, learn.task)
        learn.fusion_step(samples(1))
        assert same(before, snapshot(learn.generator, learn.generator_optimizer))
        assert not any(map(same, moving, snapshot(learn.fusion, learn.task)))

    def test_parameters_that_need_no_gradient_stay(self):
        learn = self.build()
        for parameter in (*learn.fusion.ir_feb.parameters(), *learn.generator.first.parameters()):
            parameter.requires_grad_(False)
        before = snapshot(learn.fusion.ir_feb.bfe[0], learn.generator.first)
        learn.meta_step(samples(1), samples(2))
        learn.fusion_step(samples(1))
        assert same(before, snapshot(learn.fusion.ir_feb.bfe[0], learn.generator.first))


class TestTaskModes:
    @pytest.mark.parametrize(
        ("mode", "turns"),
        [
            ("train", [("fusion_loss", "task_loss")] * 3),
            ("frozen", [("fusion_loss",)] * 3),
            ("alternate", [("fusion_loss",), ("task_loss",), ("fusion_loss",)]),
        ],
    )
    def test_each_network_moves_when_it_should(self, mode, turns):
        fusion, generator, task = networks()
        optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in (fusion, task)]
        learn = look(
            (fusion, generator, task), task_mode=mode, fusion_optimizer=optimizers[0], task_optimizer=optimizers[1]
        )
        for turn in turns:
            before = snapshot(fusion, task)
            assert tuple(learn.fusion_step(samples(1))) == turn
            moved = [not same(old, new) for old, new in zip(before, snapshot(fusion, task), strict=True)]
            assert moved == ["fusion_loss" in turn, "task_loss" in turn]

    def test_the_task_network_sees_the_image_of_the_moved_fusion_network(self):
        fusion, generator, task = networks()
        optimizers = [torch.optim.SGD(part.parameters(), 1.0) for part in (fusion, task)]
        learn = look((fusion, generator, task), fusion_optimizer=optimizers[0], task_optimizer=optimizers[1])
        looking, pair = deepcopy(task), samples(1)
        found = learn.fusion_step(pair)["task_loss"]
        with torch.no_grad():
            assert found == pytest.approx(float(looking(fusion(*pair[:2]), pair.target)))

    def test_looking_ahead_with_the_task_is_one_step_of_it(self):
        fusion, _, task = parts = networks()
        support, query = samples(1), samples(2)
        found = look(parts, lr=1e-12, task_lr=0.5).meta_gradient(support, query).task_loss
        with torch.no_grad():
            fused, judged = fusion(*support[:2]), fusion(*query[:2])
        moved = deepcopy(task)
        moved(fused, support.target).backward()
        torch.optim.SGD(moved.parameters(), 0.5).step()
        assert found == pytest.approx(float(moved(judged, query.target).detach()), rel=1e-9)
        assert found != pytest.approx(float(task(judged, query.target).detach()), rel=1e-6)

    def test_the_task_network_may_see_other_frames_than_the_crops(self):
        parts = networks()
        crops = [
            pair._replace(frames=samples(9, side=20)[:2], target=samples(9, side=20).target)
            for pair in (samples(1), samples(2))
        ]
        found, expected = (look(parts, mode=mode).meta_gradient(*crops) for mode in ("jvp", "double"))
        assert found.fused.shape == (2, 1, 20, 20)
        assert relative_error(found, expected) < 1e-12

    def test_our_task_networks_learn_from_colour_images(self):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        network = wrap(module, task="segmentation", classes=("background", "car"), feature="1").double()
        fused, chroma = torch.rand(2, 1, 16, 16).double(), torch.rand(2, 2, 16, 16).double()
        targets = [Target(segmentation=torch.randint(2, (16, 16))) for _ in range(2)]
        task = LabelledTask(network)
        grey = network.loss(network(fused.expand(-1, 3, -1, -1)), targets, "mean")
        assert torch.equal(task(fused, Labels(targets)), grey)
        images = ycbcr_to_rgb(torch.cat([fused, chroma], dim=1)).clamp(0, 1)
        assert torch.equal(task(fused, Labels(targets, chroma)), network.loss(network(images), targets, "mean"))


class TestInnerRules:
    def test_the_step_of_adam_is_the_one_that_the_optimiser_takes_next(self):
        fusion = Small(1).double()
        optimizer = warm(fusion)
        gradients = {name: torch.randn_like(parameter) for name, parameter in fusion.named_parameters()}
        state = snapshot(optimizer)
        directions = AdamStep(optimizer, fusion)(gradients)
        assert same(state, snapshot(optimizer))
        before = snapshot(fusion)[0]
        for name, parameter in fusion.named_parameters():
            parameter.grad = gradients[name]
        optimizer.step()
        for name, parameter in fusion.named_parameters():
            torch.testing.assert_close(before[name] - 1e-3 * directions[name], parameter.detach(), rtol=1e-12, atol=0)

    def test_a_fresh_adam_can_be_looked_ahead_with(self):
        parts = networks()
        inner = AdamStep(torch.optim.Adam(parts[0].parameters(), 1e-3), parts[0])
        assert look(parts, inner=inner).meta_gradient(samples(1), samples(2)).norm > 0

    def test_another_optimiser_is_refused(self):
        fusion = Small(1)
        with pytest.raises(ConfigurationError, match="Adam or AdamW, got SGD"):
            AdamStep(torch.optim.SGD(fusion.parameters(), 0.1), fusion)

    def test_an_optimiser_of_another_network_is_refused(self):
        parts = networks()
        inner = AdamStep(torch.optim.Adam(Small(1).parameters(), 0.1), parts[0])
        with pytest.raises(ConfigurationError, match=r"does not have first\.weight"):
            look(parts, inner=inner).meta_gradient(samples(1), samples(2))

    def test_the_published_update_moves_the_largest_gradient_by_the_learning_rate(self):
        parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
        optimizer = MaxNormSGD(parameters, lr=0.1)
        parameters[0].grad, parameters[1].grad = torch.tensor([1e-9, -4e-9]), torch.tensor([2e-9])
        optimizer.step()
        torch.testing.assert_close(torch.cat([p.detach() for p in parameters]), torch.tensor([-0.025, 0.1, -0.05]))
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        before = [parameter.detach().clone() for parameter in parameters]
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def scene(seed: int) -> tuple[Samples, Tensor]:
    """Pairs in which one image of the two is right at each pixel, and the other dark or dazzled; which one it is."""
    generator = torch.Generator().manual_seed(seed)
    chance, detail, noise = torch.rand(3, 4, 1, 8, 8, generator=generator)
    detail, infrared_right = 0.2 + 0.6 * detail, chance < 0.5
    infrared = torch.where(infrared_right, detail, 0.1 * noise)
    luma = torch.where(infrared_right, 0.9 + 0.1 * noise, detail)
    return Samples(infrared, luma, detail), infrared_right


class TestLearning:
    """Where it is known which image is right, the generator finds it from the task loss alone."""

    def train(self, learn: bool) -> tuple[float, Tensor, Tensor]:
        torch.manual_seed(1)
        fusion, generator = Small(1, 16, side=1), Small(2, 16, side=1)
        if not learn:
            nn.init.zeros_(generator.last.weight)  # one half everywhere
            nn.init.zeros_(generator.last.bias)
        task = Task(nn.Identity(), nn.functional.mse_loss)
        steps = Lookahead(
            fusion,
            generator,
            LearnedFusionLoss(gradient_weight=0.0),
            task,
            lr=0.1,
            task_mode="frozen",
            fusion_optimizer=torch.optim.Adam(fusion.parameters(), 0.1),
            generator_optimizer=torch.optim.Adam(generator.parameters(), 0.03),
        )
        for step in range(300):
            if learn:
                steps.meta_step(scene(3 * step)[0], scene(3 * step + 1)[0])
            steps.fusion_step(scene(3 * step + 2)[0])
        held_out, infrared_right = scene(10**6)
        with torch.no_grad():
            loss = float(task(fusion(*held_out[:2]), held_out.target))
            return loss, generator(*held_out[:2])[:, :1], infrared_right

    def test_it_finds_the_right_image_and_beats_equal_weights(self):
        learned, weights, infrared_right = self.train(learn=True)
        equal, halves, _ = self.train(learn=False)
        assert weights[infrared_right].mean() > 0.9
        assert weights[~infrared_right].mean() < 0.1
        assert torch.equal(halves, torch.full_like(halves, 0.5))
        assert learned < 0.2 * equal

    def test_the_same_seed_gives_the_same_training(self):
        results = []
        for _ in range(2):
            fusion, generator, task = networks()
            optimizers = [torch.optim.Adam(part.parameters(), 1e-3) for part in (fusion, generator, task)]
            keywords = ("fusion_optimizer", "generator_optimizer", "task_optimizer")
            learn = look((fusion, generator, task), **dict(zip(keywords, optimizers, strict=True)))
            for step in range(3):
                learn.meta_step(samples(2 * step), samples(2 * step + 1))
                learn.fusion_step(samples(2 * step))
            results.append(snapshot(fusion, generator, task))
        assert same(*results)


class TestBadInput:
    def test_a_task_that_does_not_look_at_the_image_is_told(self):
        fusion, generator, _ = networks()
        blind = Task(nn.Conv2d(1, 1, 1).double(), lambda outputs, target: outputs.detach().mean())
        for mode in ("jvp", "double"):
            with pytest.raises(ConfigurationError, match="does not depend on the fused image"):
                look((fusion, generator, blind), mode=mode).meta_gradient(samples(1), samples(2))

    def test_a_loss_that_leaves_the_weights_out_is_told(self):
        fusion, generator, task = networks()
        for mode in ("jvp", "double", "fd"):
            plain = Lookahead(
                fusion, generator, lambda fused, a, b, weights: (fused - b).square().mean(), task, mode=mode
            )
            with pytest.raises(ConfigurationError, match="does not depend on the weights of the generator"):
                plain.meta_gradient(samples(1), samples(2))

    @pytest.mark.parametrize("mode", ["jvp", "double", "fd"])
    def test_a_meta_gradient_that_is_not_finite_moves_nothing(self, mode):
        fusion, generator, task = networks()
        learn = look((fusion, generator, task), mode=mode, generator_optimizer=warm(generator))
        broken = samples(1)
        broken.infrared[0, 0, 3, 3] = torch.nan
        before = snapshot(generator, learn.generator_optimizer)
        with pytest.raises(TrainingError, match="meta-gradient is not finite"):
            learn.meta_step(broken, samples(2))
        assert same(before, snapshot(generator, learn.generator_optimizer))

    def test_a_fusion_loss_that_is_not_finite_moves_nothing(self):
        fusion, generator, task = networks()
        learn = look((fusion, generator, task), fusion_optimizer=warm(fusion), task_optimizer=warm(task))
        broken = samples(1)
        broken.luma[0, 0, 3, 3] = torch.inf
        before = snapshot(fusion, learn.fusion_optimizer)
        with pytest.raises(TrainingError, match="fusion loss"):
            learn.fusion_step(broken)
        assert same(before, snapshot(fusion, learn.fusion_optimizer))

    def test_a_task_that_gives_no_scalar_is_told(self):
        fusion, generator, _ = networks()
        each = Task(nn.Identity(), lambda outputs, target: outputs.flatten(1).mean(dim=1))
        with pytest.raises(ConfigurationError, match=r"one scalar.*shape \(2,\)"):
            look((fusion, generator, each)).meta_gradient(samples(1), samples(2))

    def test_images_of_different_sizes_are_told(self):
        support = samples(1)
        with pytest.raises(PairError, match="give both as the same B×1×H×W"):
            look(networks()).meta_gradient(support._replace(luma=support.luma[..., :-1]), samples(2))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"mode": "exact"}, "unknown mode 'exact'; choose one of jvp, double, fd"),
            ({"task_mode": "off"}, "unknown task_mode"),
            ({"steps": 2}, "2 inner steps with mode 'jvp'"),
            ({"steps": 0, "mode": "double"}, "0 inner steps"),
            ({"lr": 0.0}, "lr above 0"),
            ({"lr": float("inf")}, "finite lr"),
            ({"at_once": 0}, "at_once=0"),
            ({"at_once": 1, "mode": "double"}, "needs all pairs at once"),
        ],
    )
    def test_options_that_do_not_go_together_are_told(self, options, message):
        with pytest.raises(ConfigurationError, match=message):
            look(networks(), **options)

    def test_batch_norm_in_training_mode_is_refused_pair_by_pair(self):
        learn = look(networks(lambda: VFN(1).train()), at_once=1)
        with pytest.raises(ConfigurationError, match="BatchNorm2d is in training mode"):
            learn.meta_gradient(samples(1), samples(2))
        learn.fusion.eval()
        assert learn.meta_gradient(samples(1), samples(2)).norm > 0

    @pytest.mark.parametrize("step", ["meta_step", "fusion_step"])
    def test_a_step_without_its_optimiser_is_told(self, step):
        learn = look(networks())
        arguments = (samples(1), samples(2))[: 2 if step == "meta_step" else 1]
        with pytest.raises(ConfigurationError, match="give the Lookahead a"):
            getattr(learn, step)(*arguments)

    def test_networks_without_anything_to_learn_are_told(self):
        fusion, generator, task = networks()
        with pytest.raises(ConfigurationError, match="need parameters that require a gradient"):
            look((fusion.requires_grad_(False), generator, task))

    def test_frames_below_the_crop_are_continued_by_reflection(self):
        rng = np.random.default_rng(0)
        pairs = []
        for height, width in ((9, 30), (20, 7)):
            frame = rng.integers(0, 256, (2, height, width), np.uint8)
            crop = [torch.from_numpy(to_unit(image.copy())) for image in random_crop([*frame], 12, rng)]
            pairs.append(Samples(*(image[None, None].double() for image in crop), torch.zeros(1, 12, 12).long()))
        assert look(networks()).meta_gradient(*pairs).norm > 0


def test_plain_descent_follows_the_gradient():
    gradients = {"a": torch.ones(2)}
    assert sgd(gradients) is gradients
