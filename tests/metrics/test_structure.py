"""Structural similarity over scales and patches equals what the definitions say, window by window."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuseloop.metrics.functional import Frame, Grey, mef_ssim, ms_ssim, ssim
from fuseloop.metrics.functional.structure import _halved, _pooled
from fuseloop.metrics.functional.windows import gaussian, means
from tests.metrics.tester import texture, triple

Levels = NDArray[np.float64]
SIDE = 11
GAUSSIAN = np.outer(gaussian(SIDE, 1.5), gaussian(SIDE, 1.5))
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def levels(image: Tensor) -> Levels:
    return np.floor(image[0, 0].numpy() * 255 + 0.5)


def patches(image: Levels) -> Levels:
    return np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE)).reshape(-1, SIDE, SIDE)


def halved(image: Levels) -> Levels:
    rows, columns = image.shape
    repeated = np.pad(image, ((0, 1), (0, 1)), mode="edge")
    return np.array([[repeated[i : i + 2, j : j + 2].mean() for j in range(0, columns, 2)] for i in range(0, rows, 2)])


def mean(patch: Levels) -> Levels:
    return np.asarray((GAUSSIAN * patch).sum(axis=(-2, -1)))


def covariance(x: Levels, y: Levels) -> Levels:
    return mean(x * y) - mean(x) * mean(y)


def wanted_patch(a: Levels, b: Levels) -> Levels:
    """Ma's mix of two patches."""
    deviations = [a - a.mean(), b - b.mean()]
    norms = [float(np.linalg.norm(deviation)) for deviation in deviations]
    epsilon = 2.0**-52
    agreement = (np.linalg.norm(deviations[0] + deviations[1]) + epsilon) / (sum(norms) + epsilon)
    power = min(math.tan(min(agreement, 1 - epsilon) * math.pi / 2), 10)
    stretched = [norm + 0.001 for norm in norms]
    weights = [(norm / SIDE) ** power + epsilon for norm in stretched]
    mix = sum(
        weight / sum(weights) / norm * deviation
        for weight, norm, deviation in zip(weights, stretched, deviations, strict=True)
    )
    norm = np.linalg.norm(mix)
    return np.asarray(mix if norm < 1e-9 else mix * max(stretched) / norm)


def patch_by_patch(*images: Levels) -> float:
    score = 1.0
    for exponent in (0.0448, 0.2856, 0.3001):
        infrared, visible, fused = (patches(image) for image in images)
        wanted = np.array([wanted_patch(a, b) for a, b in zip(infrared, visible, strict=True)])
        both = covariance(wanted, wanted) + covariance(fused, fused)
        quality = np.mean((2 * covariance(wanted, fused) + C2) / (both + C2))
        score *= max(float(quality), 0) ** (exponent / 0.6305)
        images = tuple(halved(image) for image in images)
    return score


@pytest.mark.parametrize("kind", ["textured", "alike", "partly flat", "opposite"])
def test_no_loop_over_patches_is_needed(kind: str):
    infrared, visible, fused = triple(1, 44, 46)
    if kind == "alike":
        visible = torch.floor(0.8 * 255 * infrared + 0.5) / 255
    elif kind == "partly flat":
        infrared[..., :20] = 0.4
        visible[..., :30, :] = 0
        fused[..., 5:30, 5:30] = 1
    elif kind == "opposite":
        visible = 1 - infrared
    expected = patch_by_patch(*(levels(image) for image in (infrared, visible, fused)))
    assert float(mef_ssim(infrared, visible, fused)) == pytest.approx(expected, rel=1e-9)


def test_opposite_structure_counts_nothing_and_is_undefined_for_tang():
    image = texture(3)
    result = mef_ssim.of(Frame.of(image, image, 1 - image), "tang")
    assert result.reason() == "the structure of a scale is opposite to what is wanted"
    assert float(mef_ssim(image, image, 1 - image)) == 0
    assert mef_ssim.of(Frame.of(image, image, image), "tang").reason() is None


def test_gradients_pass_opposite_sources():
    infrared, _, fused = triple(4)
    infrared, fused = infrared.float().requires_grad_(), fused.float().requires_grad_()
    mef_ssim(infrared, 1 - infrared, fused, quantize=False).sum().backward()
    for image in (infrared, fused):
        assert image.grad is not None
        assert image.grad.isfinite().all()


def similarity(x: Levels, y: Levels) -> tuple[float, float]:
    """Means of the similarity and of its structure factor."""
    a, b = patches(x), patches(y)
    structure = (2 * covariance(a, b) + C2) / (covariance(a, a) + covariance(b, b) + C2)
    luminance = (2 * mean(a) * mean(b) + C1) / (mean(a) ** 2 + mean(b) ** 2 + C1)
    return float((luminance * structure).mean()), float(structure.mean())


def test_ssim_is_the_mean_over_the_windows():
    images = triple(5, 15, 18)
    infrared, visible, fused = (levels(image) for image in images)
    expected = (similarity(infrared, fused)[0] + similarity(visible, fused)[0]) / 2
    assert float(ssim(*images)) == pytest.approx(expected, rel=1e-12)


def test_ms_ssim_multiplies_the_structure_of_the_finer_scales_with_the_similarity_of_the_last():
    image = texture(6, 161, 162)
    changed = torch.floor(image.sqrt() * 255 + 0.5) / 255
    pair, expected = (levels(image), levels(changed)), 1.0
    for exponent in (0.0448, 0.2856, 0.3001, 0.2363):
        expected *= similarity(*pair)[1] ** exponent
        pair = halved(pair[0]), halved(pair[1])
    expected *= similarity(*pair)[0] ** 0.1333
    assert float(ms_ssim(image, image, changed)) == pytest.approx(expected, rel=1e-9)


def test_opposite_images_have_no_similarity_over_scales_but_a_gradient():
    image = texture(7, 161, 163).float()
    opposite = (1 - image).requires_grad_()
    score = ms_ssim(image, image, opposite, quantize=False)
    assert float(score.detach()) == 0
    score.sum().backward()
    assert opposite.grad is not None
    assert opposite.grad.isfinite().all()


def test_of_an_odd_side_the_last_pixel_stands_for_two():
    image = Grey(torch.arange(15.0, dtype=torch.float64).reshape(1, 1, 3, 5), quantized=True)
    assert _halved(image).levels[0, 0].tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
    assert _halved(image).levels[0, 0].numpy().tolist() == halved(image.levels[0, 0].numpy()).tolist()


def test_ivif_zoo_surrounds_an_odd_side_with_zeros():
    image = Grey(torch.arange(15.0, dtype=torch.float64).reshape(1, 1, 3, 5), quantized=True)
    assert _pooled(image).levels[0, 0].tolist() == [[0, 0.75, 1.75], [3.75, 9, 11]]


@pytest.mark.parametrize(("convention", "smallest"), [("cddfuse", 7), ("tdfusion", 7), ("vifb", 11), ("tang", 1)])
def test_how_small_an_image_may_be_depends_on_the_convention(convention: str, smallest: int):
    assert ssim.of(Frame.of(*triple(8, smallest, smallest + 3)), convention).reason() is None
    if smallest > 1:
        text = ssim.of(Frame.of(*triple(8, smallest + 3, smallest - 1)), convention).reason()
        assert text == f"the shorter side has {smallest - 1} pixels, ssim needs {smallest}"


def test_conventions_of_three_equal_images():
    image = texture(9)
    for convention, expected in {"cddfuse": 2, "tdfusion": 1, "tang": 1, "ivif_zoo": 2, "vifb": 2}.items():
        assert float(ssim(image, image, image, convention=convention)) == pytest.approx(expected, abs=1e-9)


def test_strips_change_no_mean():
    generator = torch.Generator().manual_seed(10)
    x, y = (torch.rand(3, 1, 700, 65, generator=generator, dtype=torch.float64) for _ in range(2))
    product, total = means(lambda a, b: (a * b, a + b), x, y)
    torch.testing.assert_close(product, (x * y).mean(dim=(1, 2, 3)))
    torch.testing.assert_close(total, (x + y).mean(dim=(1, 2, 3)))
