"""What holds for every metric and any 8-bit images, plain ones and odd ones alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from fuseloop.metrics import CONVENTIONS, METRICS, metrics_of, score_frame
from fuseloop.metrics.functional import Frame
from tests.metrics.tester import SMALLEST, triple

Pixels = NDArray[np.uint8]

TINY = st.tuples(st.integers(1, 14), st.integers(1, 14))
# The least that a fuser takes, whole blocks of 16, odd and ragged ones, enough for the pyramids.
USUAL = st.sampled_from([(8, 8), (11, 8), (16, 32), (23, 17), (41, 48), (47, 45)])
KINDS = ("texture", "saturated", "few levels", "flat", "one odd pixel")
# What of the default definitions the brightness of all three images does not move.
BLIND_TO_BRIGHTNESS = [
    *("en", "sd", "sf", "ag", "ei", "mi", "nmi", "fmi_pixel", "fmi_gradient", "cc", "scd", "mse", "psnr", "vif"),
    *("viff", "nabf", "mef_ssim", "qncie", "qsf", "qm", "qte"),
]


@st.composite
def pictures(draw: st.DrawFn, size: tuple[int, int]) -> Pixels:
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    kind = draw(st.sampled_from(KINDS))
    if kind in ("flat", "one odd pixel"):
        image = np.full(size, draw(st.sampled_from([0, 1, 100, 254, 255])), np.uint8)
        if kind == "one odd pixel":
            image[random.integers(size[0]), random.integers(size[1])] = draw(st.sampled_from([0, 99, 255]))
        return image
    if kind == "few levels":  # with flat areas and many ties
        cells = random.choice(np.array([0, 1, 100, 254, 255], np.uint8), size=(-(-size[0] // 3), -(-size[1] // 3)))
        return np.kron(cells, np.ones((3, 3), np.uint8))[: size[0], : size[1]]
    coarse = np.kron(random.uniform(0, 160, size=(-(-size[0] // 5), -(-size[1] // 5))), np.ones((5, 5)))
    image = coarse[: size[0], : size[1]] + random.uniform(0, 95, size=size)
    return np.clip(3 * image - 150 if kind == "saturated" else image, 0, 255).astype(np.uint8)


def offset(image: Pixels, levels: int) -> Pixels:
    return np.clip(image.astype(int) + levels, 0, 255).astype(np.uint8)


@st.composite
def frames(draw: st.DrawFn, sizes: st.SearchStrategy[tuple[int, int]]) -> tuple[Pixels, Pixels, Pixels]:
    """Pairs and fused images, unrelated or derived of each other."""
    size = draw(sizes)
    infrared, picture = draw(pictures(size)), draw(pictures(size))
    levels = draw(st.sampled_from([-20, 0, 1, 20]))
    visible = draw(st.sampled_from([picture, picture, picture, infrared, offset(infrared, levels)]))
    fused = draw(
        st.one_of(
            pictures(size),
            st.sampled_from([infrared, visible, offset(infrared, levels), offset(visible, levels)]),
            st.just(np.maximum(infrared, visible)),
            st.just(((infrared.astype(int) + visible + 1) // 2).astype(np.uint8)),
        )
    )
    return infrared, visible, fused


def tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float64))[None, None] / 255


@settings(deadline=None, max_examples=150)
@given(st.one_of(frames(TINY), frames(USUAL)), st.sampled_from(list(CONVENTIONS)))
def test_a_score_is_a_number_or_has_a_reason(images: tuple[Pixels, ...], convention: str):
    for key, score in score_frame(*images, convention=convention).items():
        assert math.isnan(score.value) == (score.reason is not None), key
        assert not math.isinf(score.value) or key == "psnr"
        if score.convention == "default" and score.reason is None:
            low, high = METRICS[key].range
            assert low - 1e-9 <= score.value <= high + 1e-9, key


@settings(deadline=None, max_examples=30)
@given(st.one_of(frames(TINY), frames(USUAL)))
def test_gradients_are_numbers(images: tuple[Pixels, ...]):
    infrared, visible, fused = (tensor(image).float().requires_grad_() for image in images)
    frame = Frame.of(infrared, visible, fused, quantize=False)
    for key, row in METRICS.items():
        values = row.function.of(frame, next(iter(row.conventions))).values
        if row.differentiable and values.requires_grad and values.isfinite().all():
            for gradient in torch.autograd.grad(
                values.sum(), (infrared, visible, fused), retain_graph=True, allow_unused=True
            ):
                assert gradient is None or gradient.isfinite().all(), key


@settings(deadline=None, max_examples=20)
@given(st.data(), USUAL)
def test_a_batch_of_anything_equals_one_by_one(data: st.DataObject, size: tuple[int, int]):
    alone = [data.draw(frames(st.just(size))) for _ in range(3)]
    together = Frame.of(*(torch.cat([tensor(image) for image in images]) for images in zip(*alone, strict=True)))
    single = [Frame.of(*(tensor(image) for image in images)) for images in alone]
    for key, row in METRICS.items():
        for convention in row.conventions:
            # Some implementations divide by next to nothing in flat areas, where rounding shows.
            tolerance = 1e-10 if convention == "default" else 1e-8
            batched = row.function.of(together, convention)
            results = [row.function.of(frame, convention) for frame in single]
            torch.testing.assert_close(
                batched.values,
                torch.cat([result.values for result in results]),
                rtol=tolerance,
                atol=tolerance,
                equal_nan=True,
                msg=lambda text, key=key, convention=convention: f"{key}, {convention}: {text}",
            )
            assert [batched.reason(i) for i in range(3)] == [result.reason() for result in results], key


@settings(deadline=None, max_examples=30)
@given(frames(USUAL))
def test_the_order_of_the_sources_does_not_matter(images: tuple[Pixels, ...]):
    infrared, visible, fused = images
    given_order, swapped = score_frame(infrared, visible, fused), score_frame(visible, infrared, fused)
    for key in set(given_order) - {"viff"}:  # where the sources are equally good, it takes the visible one
        expected = pytest.approx(given_order[key].value, rel=1e-9, abs=1e-9, nan_ok=True)
        assert swapped[key].value == expected, key


@settings(deadline=None, max_examples=30)
@given(frames(USUAL), st.integers(1, 60))
def test_brightness_moves_only_what_looks_at_it(images: tuple[Pixels, ...], levels: int):
    dark = [(image // 4 * 3).astype(np.uint8) for image in images]  # 192 at most
    # On a flat source VIF divides one rounding error by another.
    assume(all(image.min() < image.max() for image in dark))
    keys = [key for key in BLIND_TO_BRIGHTNESS if key in METRICS]
    bright = score_frame(*(offset(image, levels) for image in dark), metrics=keys)
    for key, score in score_frame(*dark, metrics=keys).items():
        assert bright[key].value == pytest.approx(score.value, rel=1e-7, abs=1e-7, nan_ok=True), key


@pytest.mark.parametrize("key", metrics_of("default"))
@settings(deadline=None, max_examples=10)
@given(rows=st.integers(0, 30), columns=st.integers(0, 30), seed=st.integers(0, 1000))
def test_textured_images_of_any_size_have_a_value_in_the_range(key: str, rows: int, columns: int, seed: int):
    smallest = max(SMALLEST.get(key, 1), 16)
    low, high = METRICS[key].range
    value = float(METRICS[key].function(*triple(seed, smallest + rows, smallest + columns)))
    assert low - 1e-9 <= value <= high + 1e-9
