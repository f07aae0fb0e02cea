"""Rules that combine the gradients of several tasks into one step, as pure functions.

Every rule here is a weighted sum of the gradients, and its weights depend on their inner products alone. A rule
therefore takes the Gram matrix of T gradients and gives T weights; `combine` does the rest for a T×P matrix.

Gram matrices are computed in float64 and divided by their mean diagonal, so that the weights do not depend on the scale
of the losses. T is small: the exact solvers look at all 2^T - 1 subsets of tasks.

Sources: CAGrad (Liu et al., NeurIPS 2021), MGDA (Désidéri 2012; Sener and Koltun, NeurIPS 2018), PCGrad (Yu et al.,
NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import torch
from torch import Tensor

Rule = Callable[[Tensor], Tensor]
"""Weights (T,) float64 of a Gram matrix T×T float64."""


def combine(gradients: Tensor, rule: Rule) -> Tensor:
    """The step that a rule makes of the gradients of all tasks.

    Args:
        gradients: One flat gradient a row, T×P, any floating type.
        rule: `mean`, `mgda`, `cagrad`, `pcgrad` or `published`, with its options bound.

    Returns:
        The weighted sum, (P,), of the type of `gradients`.

    Raises:
        ValueError: `gradients` is no matrix, has no row, or is not finite.
    """
    if gradients.ndim != 2 or len(gradients) == 0:
        raise ValueError(f"gradients must be T×P with at least one task, got shape {tuple(gradients.shape)}")
    products = gram(gradients)
    if not bool(products.isfinite().all()):
        raise ValueError("a gradient is not finite; leave the step out")
    return rule(products).to(gradients) @ gradients


def gram(gradients: Tensor) -> Tensor:
    """Inner products of all rows of a T×P matrix, T×T float64."""
    exact = gradients.double()
    return exact @ exact.T


def mean(products: Tensor) -> Tensor:
    """Equal weights that sum to 1."""
    return torch.full_like(products[0], 1 / len(products))


def mgda(products: Tensor) -> Tensor:
    """Weights of the shortest convex combination: a step that harms no task, or zero where there is none."""
    products = _scaled(products)
    candidates = [_on_simplex(constant, len(products), tasks) for tasks, constant, _ in _faces(products)]
    return min(candidates, key=lambda weights: float(_quadratic(products, weights)))


def cagrad(products: Tensor, *, c: float = 0.5, rescale: bool = False) -> Tensor:
    """CAGrad: within c × length of the mean gradient around it, the step that serves the worst task best.

    With g_0 the mean gradient it is g_0 + c‖g_0‖/‖g_w‖ · g_w, where the convex combination g_w minimises
    g_w·g_0 + c‖g_0‖‖g_w‖.

    Args:
        products: Gram matrix.
        c: Radius relative to the mean gradient, in [0, 1); 0 gives the mean.
        rescale: Whether the step is divided by 1 + c².

    Raises:
        ValueError: `c` is out of range.
    """
    if not 0 <= c < 1:
        raise ValueError(f"c of CAGrad must be in [0, 1), got {c}")
    products = _scaled(products)
    anchor = mean(products)
    along = products @ anchor
    radius = c * float(_quadratic(products, anchor).sqrt())
    weights = anchor
    if radius > 0:
        combination = _closest_to_worst(products, along, radius)
        length = float(_quadratic(products, combination).sqrt())
        # A combination of length zero has no direction to lean to: no step improves all tasks.
        weights = anchor + radius / length * combination if length > 1e-9 else anchor
    return weights / (1 + c**2) if rescale else weights


def pcgrad(products: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """PCGrad: each gradient loses what it has against the others, taken in random order; then their mean.

    The published rule adds them up; the mean makes its steps comparable with those of the other rules.

    Args:
        products: Gram matrix.
        generator: Draws the orders, on the CPU.
    """
    count = len(products)
    projected = torch.eye(count, dtype=products.dtype, device=products.device)
    for task in range(count):
        for other in torch.randperm(count, generator=generator).tolist():
            conflict = projected[task] @ products[:, other]
            if other != task and conflict < 0:
                projected[task, other] -= conflict / products[other, other]
    return projected.mean(dim=0)


def published(products: Tensor, *, balance: float = 0.5) -> Tensor:
    """What the published code of CLDyN computes and calls CAGrad, for comparison.

    250 projected gradient steps of 0.1 on the simplex for αᵀ(K + 1e-8)α - 2λ Σ α_i min_j K_ij, in float32. It depends
    on the scale of the gradients: small ones are averaged, with large ones it jumps between single tasks.

    Args:
        products: Gram matrix K.
        balance: λ.
    """
    single = products.float()
    curvature = single + 1e-8 * torch.eye(len(single), device=single.device)
    worst = single.amin(dim=1)
    weights = torch.full_like(worst, 1 / len(worst))
    for _ in range(250):
        weights = project_to_simplex(weights - 0.1 * (2 * curvature @ weights - 2 * balance * worst))
    return weights.double()


def project_to_simplex(point: Tensor) -> Tensor:
    """The nearest point (T,) with no negative part and sum 1 (Held, Wolfe and Crowder 1974)."""
    falling = point.sort(descending=True).values
    excess = falling.cumsum(dim=0) - 1
    place = torch.arange(1, len(point) + 1, dtype=point.dtype, device=point.device)
    kept = int((falling - excess / place > 0).sum())
    return (point - excess[kept - 1] / kept).clamp(min=0)


RULES: dict[str, Rule] = {"cagrad": cagrad, "mgda": mgda, "pcgrad": pcgrad, "mean": mean, "published": published}
"""The rules by name."""


def _scaled(products: Tensor) -> Tensor:
    size = products.diagonal().mean()
    return products / size if size > 0 else products


def _quadratic(products: Tensor, weights: Tensor) -> Tensor:
    return (weights @ products @ weights).clamp(min=0)


def _faces(products: Tensor, slope: Tensor | None = None) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """For every subset of tasks, where wᵀKw/2 + η·slopeᵀw with Σw=1 is stationary: at w = constant + η·linear.

    On a subset whose gradients depend on each other this is one solution of several. That loses nothing, since an
    optimum there can be moved to a smaller subset.
    """
    count = len(products)
    for size in range(1, count + 1):
        for tasks in map(list, combinations(range(count), size)):
            system = products.new_zeros(size + 1, size + 1)
            system[:size, :size] = products[tasks][:, tasks]
            system[size, :size] = system[:size, size] = 1
            right = products.new_zeros(size + 1, 2)
            right[size, 0] = 1
            if slope is not None:
                right[:size, 1] = -slope[tasks]
            solution = (torch.linalg.pinv(system, hermitian=True) @ right)[:size]
            yield tasks, solution[:, 0], solution[:, 1]


def _on_simplex(part: Tensor, count: int, tasks: list[int]) -> Tensor:
    """Weights of a subset among all tasks; what is out of the simplex is brought into it, as one more candidate."""
    weights = part.new_zeros(count)
    weights[tasks] = part.clamp(min=0)
    total = weights.sum()
    return weights / total if total > 0 else torch.full_like(weights, 1 / count)


def _closest_to_worst(products: Tensor, along: Tensor, radius: float) -> Tensor:
    """Minimises alongᵀw + radius·√(wᵀKw) on the simplex.

    Where it is stationary on a subset, w is linear in its length η = √(wᵀKw), which makes η the root of a quadratic.
    All roots of all subsets are compared, and so are the shortest combinations, where the length has its kink.
    """

    def objective(weights: Tensor) -> float:
        return float(along @ weights + radius * _quadratic(products, weights).sqrt())

    candidates = []
    for tasks, constant, linear in _faces(products, along / radius):
        inner = products[tasks][:, tasks]
        squared = [float(x @ inner @ y) for x, y in ((constant, constant), (constant, linear), (linear, linear))]
        lengths = [0.0, *_roots(squared[2] - 1, 2 * squared[1], squared[0])]
        candidates += [_on_simplex(constant + length * linear, len(products), tasks) for length in lengths]
    return min(candidates, key=objective)


def _roots(a: float, b: float, c: float) -> list[float]:
    """Positive roots of ax² + bx + c."""
    if abs(a) < 1e-14:
        roots = [-c / b] if abs(b) > 1e-14 else []
    else:
        inside = b * b - 4 * a * c
        if inside < 0:
            return []
        # The stable form: adding numbers of one sign loses no digits.
        half = -(b + (inside**0.5 if b >= 0 else -(inside**0.5))) / 2
        roots = [half / a, c / half] if half else [0.0]
    return [root for root in roots if root > 0]
