"""Both fidelities equal what their definition says, window by window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fuseloop.metrics.functional import Frame, vif, viff
from tests.metrics.tester import texture, triple

Map = NDArray[np.float64]
FLAT = torch.full((1, 1, 48, 61), 100 / 255, dtype=torch.float64)


def window(size: int, zoo: bool) -> Map:
    places = np.linspace(-(size // 2) - 1, size // 2, size) if zoo else np.arange(size) - size // 2
    weights = np.exp(-(places**2) / (2 * (size / 5) ** 2))
    kernel: Map = np.outer(weights, weights) / weights.sum() ** 2
    return kernel


def mean(image: Map, kernel: Map, zoo: bool) -> Map:
    image = np.pad(image, len(kernel) // 2) if zoo else image
    made: Map = (np.lib.stride_tricks.sliding_window_view(image, kernel.shape) * kernel).sum(axis=(2, 3))
    return made


def channel(r: Map, f: Map, kernel: Map, zoo: bool) -> tuple[Map, Map, Map]:
    """Gain, residual and variance of the source."""
    mean_r, mean_f = mean(r, kernel, zoo), mean(f, kernel, zoo)
    source = np.maximum(mean(r * r, kernel, zoo) - mean_r**2, 0)
    fused = np.maximum(mean(f * f, kernel, zoo) - mean_f**2, 0)
    shared = mean(r * f, kernel, zoo) - mean_r * mean_f
    gain = shared / (source + 1e-10)
    residual = fused - gain * shared
    dull, lost = source < 1e-10, fused < 1e-10
    gain[dull], residual[dull], source[dull] = 0, fused[dull], 0
    gain[lost], residual[lost] = 0, 0
    negative = gain < 0
    residual[negative], gain[negative] = fused[negative], 0
    return gain, np.maximum(residual, 1e-10), source


def scales(images: list[Map], zoo: bool) -> list[list[tuple[Map, Map, Map]]]:
    """For each scale the channel of each source."""
    found = []
    for size in (17, 9, 5, 3):
        kernel = window(size, zoo)
        if found:
            images = [mean(image, kernel, zoo)[::2, ::2] for image in images]
        found.append([channel(source, images[2], kernel, zoo) for source in images[:2]])
    return found


def levels(images: tuple[torch.Tensor, ...]) -> list[Map]:
    return [np.floor(image[0, 0].numpy() * 255 + 0.5) for image in images]


@pytest.mark.parametrize(("convention", "factor"), [("default", 0.5), ("tang", 1), ("ivif_zoo", 1)])
def test_vif_follows_the_definition(convention: str, factor: float):
    images = triple(1, 44, 51)
    pyramid = scales(levels(images), convention == "ivif_zoo")
    ratios = []
    for source in range(2):
        channels = [scale[source] for scale in pyramid]
        kept = sum(np.log10(1 + g * g * s / (v + 2)).sum() for g, v, s in channels)
        ratios.append(kept / sum(np.log10(1 + s / 2).sum() for _, _, s in channels))
    assert float(vif(*images, convention=convention)) == pytest.approx(factor * sum(ratios), rel=1e-9)


def test_viff_follows_the_definition():
    images = triple(1, 44, 51)
    expected = 0.0
    for weight, (infrared, visible) in zip((1, 0, 0.15, 1), scales(levels(images), False), strict=True):
        smaller = infrared[0] < visible[0]
        gain, residual, variance = (np.where(smaller, a, b) for a, b in zip(infrared, visible, strict=True))
        kept = np.log10(1 + gain**2 * variance / (residual + 325.125)) + 1e-7
        expected += weight * kept.sum() / (np.log10(1 + variance / 325.125) + 1e-7).sum() / 2.15
    assert float(viff(*images)) == pytest.approx(expected, rel=1e-9)


def test_strips_of_windows_add_up(monkeypatch: pytest.MonkeyPatch):
    images = triple(2, 90, 83)
    whole = [float(function(*images)) for function in (vif, viff)]
    monkeypatch.setattr("fuseloop.metrics.functional.windows._STRIP", 83 * 13)
    assert [float(function(*images)) for function in (vif, viff)] == pytest.approx(whole, rel=1e-12)


def test_only_two_conventions_count_a_flat_source_as_kept():
    _, visible, _ = triple()
    results = {name: vif.of(Frame.of(FLAT, visible, visible), name) for name in vif.conventions}
    assert float(results["cddfuse"].values) == pytest.approx(2)
    assert float(results["tdfusion"].values) == pytest.approx(1)
    assert results["tang"].reason() == results["default"].reason() == "the infrared image is flat"
    # Between the zeros around it a flat image has a border, unless it is black.
    assert results["ivif_zoo"].reason() is None
    black = Frame.of(torch.zeros_like(FLAT), visible, visible)
    assert vif.of(black, "ivif_zoo").reason() == "the infrared image is flat"


def test_a_flat_source_takes_all_of_viff():
    """Its gain is 0 everywhere, which is the smaller one."""
    image = texture(1)
    assert float(viff(FLAT, image, image)) == 0
    assert float(viff(image, FLAT, image)) == 0


def test_viff_takes_the_visible_image_where_both_are_lost():
    strong, weak, noise = texture(1), 0.1 * texture(1), texture(9)
    fused = 1 - strong
    fused[..., :30] = noise[..., :30]
    assert float(viff(strong, weak, fused)) != pytest.approx(float(viff(weak, strong, fused)), rel=1e-6)
