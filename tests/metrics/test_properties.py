"""What holds for every metric and any 8-bit images, plain ones and odd ones alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from fuseloop.metrics import METRICS, score_frame
from fuseloop.metrics.functional import Frame
from tests.metrics.tester import triple

TINY = st.tuples(st.integers(1, 14), st.integers(1, 14))
# Few levels, so that flat images, ties and copies occur.
LEVELS = st.sampled_from([0, 1, 100, 254, 255])


@st.composite
def frames(draw: st.DrawFn) -> list[NDArray[np.uint8]]:
    size = draw(TINY)
    return [draw(arrays(np.uint8, size, elements=LEVELS)) for _ in range(3)]


def tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float64))[None, None] / 255


@settings(deadline=None, max_examples=100)
@given(frames(), st.sampled_from(["default", "cddfuse"]))
def test_a_score_is_a_number_or_has_a_reason(images: list[NDArray[np.uint8]], convention: str):
    for key, score in score_frame(*images, convention=convention).items():
        assert math.isnan(score.value) == (score.reason is not None), key
        if score.convention == "default" and score.reason is None:
            low, high = METRICS[key].range
            assert low - 1e-9 <= score.value <= high + 1e-9, key


@settings(deadline=None, max_examples=30)
@given(frames())
def test_gradients_are_numbers(images: list[NDArray[np.uint8]]):
    infrared, visible, fused = (tensor(image).float().requires_grad_() for image in images)
    frame = Frame.of(infrared, visible, fused, quantize=False)
    for key, row in METRICS.items():
        values = row.function.of(frame).values
        if row.differentiable and values.requires_grad and values.isfinite().all():
            for gradient in torch.autograd.grad(
                values.sum(), (infrared, visible, fused), retain_graph=True, allow_unused=True
            ):
                assert gradient is None or gradient.isfinite().all(), key


@pytest.mark.parametrize("key", sorted(METRICS))
@settings(deadline=None, max_examples=10)
@given(height=st.integers(41, 70), width=st.integers(41, 70), seed=st.integers(0, 1000))
def test_textured_images_of_any_size_have_a_value_in_the_range(key: str, height: int, width: int, seed: int):
    low, high = METRICS[key].range
    assert low - 1e-9 <= float(METRICS[key].function(*triple(seed, height, width))) <= high + 1e-9
