"""Feature mutual information equals what its definition says patch by patch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fuseloop.metrics.functional import Frame, fmi_dct, fmi_gradient, fmi_pixel
from tests.metrics.tester import texture, triple

Map = NDArray[np.float64]


def patches(features: Map) -> Map:
    """Each 3×3 window column by column, N×9."""
    return np.lib.stride_tricks.sliding_window_view(features, (3, 3)).transpose(0, 1, 3, 2).reshape(-1, 9)


def stretched(patch: Map) -> Map:
    low, high = patch.min(), patch.max()
    return np.ones(9) if low == high else (patch - low) / (high - low)


def entropy(shares: Map) -> float:
    return float(-sum(share * math.log2(abs(share)) for share in shares.flat if share))


def spread(shares: Map) -> float:
    index = np.arange(9)
    return math.sqrt((shares * (index - (shares * index).sum()) ** 2).sum())


def information(x: Map, f: Map) -> float:
    """Of two patches that are neither equal nor both flat."""
    x, f = stretched(x), stretched(f)
    x, f = x / x.sum(), f / f.sum()
    centred = (x - 1 / 9) * (f - 1 / 9)
    correlation = 0.0
    if abs(centred.sum()) > 1e-15:
        correlation = centred.sum() / math.sqrt(((x - 1 / 9) ** 2).sum() * ((f - 1 / 9) ** 2).sum())
    upper_x, upper_f = x.cumsum(), f.cumsum()
    if correlation >= 0:
        bound = np.minimum.outer(upper_f, upper_x)
    else:
        bound = np.maximum(np.add.outer(upper_f, upper_x) - 1, 0)
    strongest = (bound - np.outer(upper_f, upper_x)).sum()
    mixture = 0.0
    if correlation and spread(x) and spread(f):
        mixture = correlation / (strongest / (spread(x) * spread(f)))
    mass = np.diff(np.diff(np.pad(bound, ((1, 0), (1, 0))), axis=0), axis=1)
    joint = mixture * np.where(abs(mass) < 1e-15, 0, mass) + (1 - mixture) * np.outer(f, x)
    total = entropy(x) + entropy(f)
    return 2 * (total - entropy(joint)) / total if total else 0.0


def expected(a: Map, b: Map, f: Map, convention: str) -> float:
    scores = []
    for one, other, fused in zip(patches(a), patches(b), patches(f), strict=True):
        compared = fused if convention == "default" or (one == fused).all() else stretched(fused)
        for source, seen in ((one, fused), (other, compared)):
            alike = (source == seen).all() or (np.ptp(source) == 0 and np.ptp(fused) == 0)
            scores.append(1.0 if alike else information(source, fused))
    return float(np.mean(scores))


@pytest.mark.parametrize("convention", ["default", "tang"])
@pytest.mark.parametrize("levels", [2, 4, 256])  # few of them make flat, equal and one-sided patches
def test_every_patch_follows_the_definition(levels: int, convention: str):
    random = np.random.default_rng(levels)
    a, b, f = random.integers(levels, size=(3, 12, 11)).astype(float)
    f = np.where(random.random(f.shape) < 0.5, b, f)
    a[:4], f[:4, :5], b[8:, 6:], f[8:, 6:] = 0, 1, 1, 0
    frame = Frame.of(*(torch.from_numpy(image)[None, None] / 255 for image in (a, b, f)))
    assert float(fmi_pixel.of(frame, convention).values) == pytest.approx(expected(a, b, f, convention), abs=1e-10)
    slopes = [np.gradient(image, axis=1) for image in (a, b, f)]
    assert float(fmi_gradient.of(frame, convention).values) == pytest.approx(expected(*slopes, convention), abs=1e-10)


@pytest.mark.parametrize(("height", "width"), [(12, 11), (9, 16), (3, 3)])
def test_frequencies_are_those_of_the_cosine_transform(height: int, width: int):
    images = triple(1, height, width)

    def matrix(size: int) -> Map:
        index = np.arange(size)
        rows: Map = np.sqrt(2 / size) * np.cos(np.pi * np.outer(index, index + 0.5) / size)
        return rows * np.where(index == 0, math.sqrt(0.5), 1)[:, None]

    a, b, f = (matrix(height) @ (image[0, 0].numpy() * 255) @ matrix(width).T for image in images)
    assert float(fmi_dct(*images)) == pytest.approx(expected(a, b, f, "default"), rel=1e-7)


def test_flat_images_have_no_frequencies_but_the_lowest():
    """And not patches of rounding noise, which would be compared."""
    image = texture(1, 20, 23)
    flat = torch.full_like(image, 77 / 255)
    assert float(fmi_dct(flat, flat, flat * 2)) == pytest.approx(1, abs=0.01)  # all but the first patch are flat


def test_tang_scores_a_single_bright_pixel_of_the_visible_image_as_lost():
    dark, bright = torch.zeros(2, 1, 1, 3, 3, dtype=torch.float64)
    bright[..., 1, 1] = 0.5
    assert float(fmi_pixel(dark, bright, bright, convention="tang")) == 0
    assert float(fmi_pixel(dark, bright, bright)) == 0.5
    assert float(fmi_pixel(bright, dark, bright, convention="tang")) == 0.5


def test_strips_of_patches_add_up():
    """Images that go through in several strips, against one that fits into a single one."""
    a, b, f = triple(3, 40, 300)
    pieces = [float(fmi_pixel(*(image[..., top : top + 7, :] for image in (a, b, f)))) for top in range(0, 38 - 4, 5)]
    whole = float(fmi_pixel(*(image[..., : 5 * len(pieces) + 2, :] for image in (a, b, f))))
    assert whole == pytest.approx(np.mean(pieces), rel=1e-12)
