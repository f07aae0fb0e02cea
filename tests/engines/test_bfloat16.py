"""Rounding to bf16 that keeps what the eye would see."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.engines.bfloat16 import round_weight, split_image


def holds(value: torch.Tensor) -> bool:
    return torch.equal(value.bfloat16().float(), value)


@given(st.integers(0, 2**32), st.floats(0.01, 100))
def test_rounded_kernels_keep_their_sum(seed: int, scale: float):
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * scale
    rounded = round_weight(weight)
    assert holds(rounded)
    # Each tap moves by its own step at most, and by what the next larger one left.
    assert bool(((rounded - weight).abs() <= weight.abs().amax(dim=(2, 3), keepdim=True) * 2**-7).all())
    plain = weight.bfloat16().float()

    def drift(other: torch.Tensor) -> float:
        return float((other.sum(dim=(2, 3)) - weight.sum(dim=(2, 3))).abs().mean())

    assert drift(rounded) < drift(plain) / 4


def test_zeros_and_exact_kernels_stay():
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).expand(2, 1, 3, 3) / 8
    assert torch.equal(round_weight(sobel), sobel)
    centre = torch.zeros(1, 1, 3, 3)
    centre[..., 1, 1] = 0.3
    assert (round_weight(centre) != 0).sum() == 1


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_the_parts_of_an_image_sum_to_it(values: list[float]):
    image = torch.tensor(values)[None, None, None]
    parts = split_image(image)
    assert parts.shape == (1, 2, 1, len(values))
    assert holds(parts[:, :1])
    assert float((parts.bfloat16().float().sum(dim=1, keepdim=True) - image).abs().max()) <= 2**-17
