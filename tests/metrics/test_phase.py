"""Phase congruency equals its definition, with whole complex filters and nothing shared."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fuseloop.metrics.functional import Frame, qp
from fuseloop.metrics.functional.windows import gaussian
from tests.metrics.tester import texture, triple

Map = NDArray[np.float64]


def filters(height: int, width: int, convention: str) -> Map:
    """6×4×H×W."""

    def grid(divisor: int) -> list[Map]:  # of odd sizes
        axes = [(np.arange(n) - n // 2) / (n - divisor * (n % 2)) for n in (height, width)]
        return list(np.meshgrid(*axes, indexing="ij"))

    y, x = grid(1)
    radius = np.fft.ifftshift(np.hypot(y, x))
    low = np.fft.fftshift(np.hypot(*grid(0))) if convention == "zheng" else radius
    radius[0, 0] = 1
    angle = np.fft.ifftshift(np.arctan2(-y, x))
    made = np.empty((6, 4, height, width))
    for orientation in range(6):
        apart = np.angle(np.exp(1j * (angle - orientation * np.pi / 6)))
        for scale in range(4):
            band = np.exp(-(np.log(radius * 3 * 2.1**scale) ** 2) / (2 * np.log(0.55) ** 2)) / (1 + (low / 0.45) ** 30)
            band[0, 0] = 0
            made[orientation, scale] = band * np.exp(-(apart**2) / (2 * (np.pi / 6 / 1.2) ** 2))
    return made


def congruency(image: Map, bank: Map) -> Map:
    """Phase congruency and both moments, 3×H×W."""
    energies, amplitudes, parts = [], [], []
    for orientation in bank:
        responses = np.fft.ifft2(np.fft.fft2(image) * orientation)
        sizes = abs(responses)
        total = responses.sum(axis=0)
        length = abs(total) + 1e-4
        along = (responses * total.conj()).real / length
        across = abs((responses * total.conj()).imag) / length
        passed = np.fft.ifft2(orientation).real * math.sqrt(image.size)
        power = np.median(sizes[0] ** 2) / math.log(2) / (orientation[0] ** 2).sum()
        tau = math.sqrt(power * sum((one * other).sum() for one in passed for other in passed))
        noise = tau * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7
        width = sizes.sum(axis=0) / (sizes.max(axis=0) + 1e-4) / 4
        energies.append(np.maximum((along - across).sum(axis=0) - noise, 0) / (1 + np.exp(10 * (0.5 - width))))
        amplitudes.append(sizes.sum(axis=0))
        parts.append(energies[-1] / amplitudes[-1])
    angles = np.arange(6)[:, None, None] * np.pi / 6
    cosines, sines = np.array(parts) * np.cos(angles), np.array(parts) * np.sin(angles)
    a, b, c = (cosines**2).sum(axis=0) / 3, (sines**2).sum(axis=0) / 3, (cosines * sines).sum(axis=0) / 6
    d = np.sqrt(c**2 + (a - b) ** 2) + 1e-4
    return np.array([sum(energies) / (sum(amplitudes) + 1e-4), (a + b + d) / 2, (a + b - d) / 2])


def blurred(image: Map) -> Map:
    padded = np.pad(image, 5)
    kernel = np.outer(gaussian(11, 1.5), gaussian(11, 1.5))
    made: Map = (np.lib.stride_tricks.sliding_window_view(padded, (11, 11)) * kernel).sum(axis=(2, 3))
    return made


def related(x: Map, f: Map, mask: Map) -> Map:
    def covariance(p: Map, q: Map) -> Map:
        made: Map = blurred(p * q) - blurred(p) * blurred(q)
        return made

    x = x * mask
    return mask * (covariance(x, f) + 1e-4) / (np.sqrt(abs(covariance(x, x) * covariance(f, f))) + 1e-4)


@pytest.mark.parametrize("convention", ["default", "zheng"])
@pytest.mark.parametrize("size", [(40, 46), (41, 37)])
def test_it_follows_the_definition(size: tuple[int, int], convention: str):
    images = triple(1, *size)
    bank = filters(*size, convention)
    a, b, f = (congruency(np.floor(image[0, 0].numpy() * 255 + 0.5), bank) for image in images)
    masks = a[0] > 0.1, b[0] > 0.1
    expected = 1.0
    for one, other, fused in zip(a, b, f, strict=True):
        larger = np.where(a[0] > b[0], one, other)
        candidates = [
            related(one, fused, masks[0]),
            related(other, fused, masks[1]),
            related(larger, fused, masks[0] | masks[1]),
        ]
        expected *= np.max(candidates, axis=0).sum() / (masks[0] | masks[1]).sum()
    assert float(qp(*images, convention=convention)) == pytest.approx(expected, rel=1e-9)


def test_zheng_differs_for_odd_sizes_only():
    for size, same in [((40, 46), True), ((41, 46), False)]:
        images = triple(2, *size)
        assert (float(qp(*images, convention="zheng")) == pytest.approx(float(qp(*images)), rel=1e-9)) == same


def test_flat_images_have_no_phase():
    image = texture(1)
    flat = torch.full_like(image, 0.4)
    assert qp.of(Frame.of(image, image, flat)).reason() == "the fused image is flat"
    assert qp.of(Frame.of(flat, flat, image)).reason() == "neither source has a feature"
    assert qp.of(Frame.of(flat, image, image)).reason() is None
