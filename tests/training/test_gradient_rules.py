"""The rules that combine gradients do what their papers say, at any scale, also where gradients are dependent."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from fuseloop.training.gradient_rules import (
    RULES,
    cagrad,
    combine,
    gram,
    mean,
    mgda,
    pcgrad,
    project_to_simplex,
    published,
)

SCALE_FREE = {name: rule for name, rule in RULES.items() if name not in ("published", "pcgrad")} | {
    "pcgrad": lambda products: pcgrad(products, generator=torch.Generator().manual_seed(0)),
    "cagrad rescaled": partial(cagrad, rescale=True),
}


def gradients(seed: int, tasks: int = 3, size: int = 5) -> Tensor:
    """Random rows of unlike lengths; in five dimensions they often conflict."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    return rows * torch.tensor([1.8, 5.2, 1.0, 0.3], dtype=torch.float64)[:tasks, None]


def lowest(objective, tasks: int) -> float:
    """The minimum on the simplex, by SciPy from several starts."""
    starts = [np.full(tasks, 1 / tasks), *(0.9 * row + 0.1 / tasks for row in np.eye(tasks))]
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1}
    results = [
        minimize(objective, start, bounds=[(0, 1)] * tasks, constraints=constraint, options={"ftol": 1e-14})
        for start in starts
    ]
    return min(result.fun for result in results)


class TestEveryRule:
    @pytest.mark.parametrize("rule", SCALE_FREE.values(), ids=SCALE_FREE)
    @pytest.mark.parametrize("scale", [1e-6, 1e-3, 3.0, 1e5])
    def test_the_scale_of_the_losses_does_not_matter(self, rule, scale):
        for seed in range(5):
            rows = gradients(seed)
            torch.testing.assert_close(combine(scale * rows, rule) / scale, combine(rows, rule), rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    def test_one_task_is_left_alone(self, rule):
        rows = gradients(0, tasks=1)
        factor = combine(rows, rule) / rows[0]
        torch.testing.assert_close(factor, torch.full_like(factor, 1.5 if rule is cagrad else 1.0))

    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    def test_two_opposite_gradients_leave_no_step(self, rule):
        row = gradients(0, tasks=1)
        assert combine(torch.cat([row, -row]), rule).abs().max() < 1e-9

    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    @pytest.mark.parametrize("rows", [[[0.0, 0], [0, 0]], [[1.0, 2], [0, 0]], [[1.0, 2], [1, 2]], [[1.0, 2], [-2, -4]]])
    def test_gradients_that_depend_on_each_other_are_no_trouble(self, rule, rows):
        assert combine(torch.tensor(rows), rule).isfinite().all()

    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_the_step_has_the_type_of_the_gradients(self, rule, dtype):
        step = combine(gradients(1).to(dtype), rule)
        assert step.dtype == dtype
        assert step.shape == (5,)

    def test_gradients_that_are_not_finite_are_refused(self):
        with pytest.raises(ValueError, match="not finite"):
            combine(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), mean)

    @pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 2, 2)])
    def test_what_is_no_matrix_is_refused(self, shape):
        with pytest.raises(ValueError, match="T×P"):
            combine(torch.zeros(shape), mean)


class TestMGDA:
    @pytest.mark.parametrize("tasks", [2, 3, 4])
    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_the_shortest_convex_combination(self, tasks, seed):
        products = gram(gradients(seed, tasks))
        weights = mgda(products)
        assert weights.min() >= 0
        assert float(weights.sum()) == pytest.approx(1)
        numbers = products.numpy()
        best = lowest(lambda w: w @ numbers @ w, tasks)
        assert float(weights @ products @ weights) == pytest.approx(best, rel=1e-6, abs=1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_it_harms_no_task(self, seed):
        rows = gradients(seed)
        assert (rows @ combine(rows, mgda)).min() > -1e-9


class TestCAGrad:
    @pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("tasks", [2, 3, 4])
    @pytest.mark.parametrize("seed", range(4))
    def test_it_solves_the_published_problem(self, c, tasks, seed):
        """The step maximises the gain of the worst task in a ball around the mean, which the dual bounds from above."""
        rows = gradients(seed, tasks)
        step, average = combine(rows, partial(cagrad, c=c)), rows.mean(dim=0)
        assert (step - average).norm() <= c * average.norm() * (1 + 1e-9)
        numbers, along = gram(rows).numpy(), (rows @ average).numpy()
        radius = c * float(average.norm())
        bound = lowest(lambda w: along @ w + radius * np.sqrt(max(w @ numbers @ w, 1e-30)), tasks)
        assert float((rows @ step).min()) == pytest.approx(bound, rel=1e-5, abs=1e-6)

    def test_the_tighter_the_closer_to_the_mean(self):
        rows = gradients(2)
        average = combine(rows, mean)
        assert torch.equal(combine(rows, partial(cagrad, c=0)), average)
        distances = [float((combine(rows, partial(cagrad, c=c)) - average).norm()) for c in (1e-6, 1e-3, 0.1, 0.5)]
        assert distances == sorted(distances)
        assert distances[0] < 1e-5

    def test_rescaled_it_is_shorter_by_one_and_c_squared(self):
        rows = gradients(2)
        torch.testing.assert_close(1.25 * combine(rows, partial(cagrad, rescale=True)), combine(rows, cagrad))

    @pytest.mark.parametrize("c", [-0.1, 1.0, 2.0])
    def test_a_radius_out_of_range_is_refused(self, c):
        with pytest.raises(ValueError, match=r"\[0, 1\)"):
            cagrad(gram(gradients(0)), c=c)


class TestPCGrad:
    @pytest.mark.parametrize("seed", range(5))
    def test_it_projects_the_gradients_themselves(self, seed):
        rows = gradients(seed)
        orders = torch.Generator().manual_seed(seed)
        projected = []
        for task in range(3):
            row = rows[task].clone()
            for other in torch.randperm(3, generator=orders).tolist():
                if other != task and row @ rows[other] < 0:
                    row -= (row @ rows[other]) / rows[other].square().sum() * rows[other]
            projected.append(row)
        step = combine(rows, partial(pcgrad, generator=torch.Generator().manual_seed(seed)))
        torch.testing.assert_close(step, torch.stack(projected).mean(dim=0))

    def test_without_a_conflict_it_is_the_mean(self):
        rows = gradients(0).abs()
        torch.testing.assert_close(combine(rows, pcgrad), combine(rows, mean))


class TestPublished:
    """tools/parity.py compares it with golden values; here is what is wrong with it."""

    def test_it_depends_on_the_scale(self):
        rows = gradients(0)
        small, large = (published(gram(scale * rows)) for scale in (1e-4, 10.0))
        torch.testing.assert_close(small, torch.full((3,), 1 / 3, dtype=torch.float64), rtol=0, atol=1e-3)
        assert large.max() > 0.99

    def test_its_weights_stay_on_the_simplex(self):
        for seed in range(5):
            weights = published(gram(gradients(seed)))
            assert weights.min() >= 0
            assert float(weights.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_projection_to_the_simplex_is_the_nearest_point(seed):
    point = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    projected = project_to_simplex(point)
    assert projected.min() >= 0
    assert float(projected.sum()) == pytest.approx(1)
    target = point.numpy()
    assert float((projected - point).square().sum()) == pytest.approx(
        lowest(lambda w: ((w - target) ** 2).sum(), 4), rel=1e-6
    )
