"""Quality indices equal what their definitions say window by window, also where windows are flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuseloop.metrics.functional import Frame, MetricFunction, qc, qe, qs, qw, qy
from fuseloop.metrics.functional.windows import gaussian
from tests.metrics.tester import texture, triple

Levels = NDArray[np.float64]
UNIFORM = np.full((8, 8), 1 / 64)
GAUSSIAN = np.outer(gaussian(7, 1.5), gaussian(7, 1.5))


def levels(image: Tensor) -> Levels:
    return np.floor(image[0, 0].numpy() * 255 + 0.5)


def windows(image: Levels, kernel: Levels) -> Levels:
    return np.lib.stride_tricks.sliding_window_view(image, kernel.shape).reshape(-1, *kernel.shape)


class Window:
    """Statistics of one window of several images, noise set to 0."""

    def __init__(self, kernel: Levels, *patches: Levels) -> None:
        self.means = [(kernel * patch).sum() for patch in patches]
        products = np.array([[(kernel * x * y).sum() for x in patches] for y in patches])
        covariances = products - np.outer(self.means, self.means)
        self.covariances = np.where(abs(covariances) < 1e-6, 0, covariances)

    def index(self, x: int, y: int, c: float) -> float:
        mean, other = self.means[x], self.means[y]
        variances = self.covariances[x, x] + self.covariances[y, y]
        luminance = (2 * mean * other + c) / (mean**2 + other**2 + c)
        return float(luminance * (2 * self.covariances[x, y] + c) / (variances + c))


def each_window(kernel: Levels, *images: Levels) -> list[Window]:
    return [Window(kernel, *patches) for patches in zip(*(windows(image, kernel) for image in images), strict=True)]


def share(first: float, second: float) -> float:
    if first + second == 0:
        return 0.5 if first == 0 else float(first > 0)
    return min(max(first / (first + second), 0), 1)


A, B, F = range(3)


def piella(*images: Levels) -> tuple[float, float]:
    quality, saliency = [], []
    for window in each_window(UNIFORM, *images):
        a, b = window.covariances[A, A], window.covariances[B, B]
        c = (1e-6 * 255) ** 2
        part = share(a, b)
        quality.append(part * window.index(A, F, c) + (1 - part) * window.index(B, F, c))
        saliency.append(max(a, b) or 0.5)
    return float(np.mean(quality)), float(np.dot(quality, saliency) / np.sum(saliency))


def outlined(image: Levels) -> Levels:
    padded = np.pad(image, 1)
    kernel = np.array([[1, 0, -1]] * 3)
    across = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return np.hypot((across * kernel).sum(axis=(2, 3)), (across * kernel.T).sum(axis=(2, 3)))


def cvejic(*images: Levels) -> float:
    quality = []
    for window in each_window(UNIFORM, *images):
        part = share(window.covariances[A, F], window.covariances[B, F])
        quality.append(part * window.index(A, F, 2e-16) + (1 - part) * window.index(B, F, 2e-16))
    return float(np.mean(quality))


def yang(*images: Levels) -> float:
    quality = []
    for window in each_window(GAUSSIAN, *images):
        first, second = window.index(A, F, 2e-16), window.index(B, F, 2e-16)
        part = share(window.covariances[A, A], window.covariances[B, B])
        alike = window.index(A, B, 2e-16) >= 0.75
        quality.append(part * first + (1 - part) * second if alike else max(first, second))
    return float(np.mean(quality))


def frame(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    infrared, visible, fused = triple(1, 17, 20)
    if kind == "alike":
        visible = torch.floor(infrared * 230 + 0.5) / 255
    elif kind == "partly flat":
        infrared[..., :12] = 0.4
        visible[..., :11, :] = 0
        fused[..., 2:14, 2:14] = 1
    elif kind == "partly black":
        for image in (infrared, visible, fused):
            image[..., :12] = 0
    elif kind == "opposite":
        visible = 1 - infrared
    return infrared, visible, fused


@pytest.mark.parametrize("kind", ["textured", "alike", "partly flat", "partly black", "opposite"])
def test_windows_count_as_defined(kind: str):
    images = frame(kind)
    infrared, visible, fused = (levels(image) for image in images)
    plain, weighted = piella(infrared, visible, fused)
    edges = piella(outlined(infrared), outlined(visible), outlined(fused))[1]
    values = {function.__name__: float(function(*images)) for function in (qs, qw, qe, qc, qy)}
    expected = {
        "qs": plain,
        "qw": weighted,
        "qe": weighted * edges,
        "qc": cvejic(infrared, visible, fused),
        "qy": yang(infrared, visible, fused),
    }
    assert values == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["partly flat", "partly black", "opposite"])
@pytest.mark.parametrize("function", [qs, qw, qe, qc, qy])
def test_gradients_are_numbers_where_windows_are_flat(function: MetricFunction, kind: str):
    images = [image.float().requires_grad_() for image in frame(kind)]
    function(*images, quantize=False).sum().backward()
    for image in images:
        assert image.grad is not None
        assert image.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["partly flat", "partly black"])
@pytest.mark.parametrize("function", [qs, qw, qe, qc, qy])
def test_single_precision_takes_no_rounding_noise_for_structure(function: MetricFunction, kind: str):
    single = function(*(image.float() for image in frame(kind)), quantize=False)
    torch.testing.assert_close(single.double(), function(*frame(kind)), rtol=1e-4, atol=1e-4)


def test_zheng_divides_by_zero_where_the_fused_image_is_black():
    infrared, visible, fused = frame("textured")
    assert qc.of(Frame.of(infrared, visible, fused), "zheng").reason() is None
    fused[..., :8, :8] = 0
    reason = qc.of(Frame.of(infrared, visible, fused), "zheng").reason()
    assert reason == "in some window the fused image has nothing of either source"
    assert qc.of(Frame.of(infrared, visible, fused)).reason() is None


def test_zheng_has_larger_windows_for_piella():
    frame_ = Frame.of(*triple(2, 10, 30))
    for function in (qs, qw):
        assert function.of(frame_).reason() is None
        text = function.of(frame_, "zheng").reason()
        assert text == f"the shorter side has 10 pixels, {function.__name__} needs 11"


def test_ivif_zoo_has_a_window_for_every_pixel():
    image = texture(3, 4, 5)
    assert qy.of(Frame.of(image, image, image), "ivif_zoo").reason() is None
    assert qy.of(Frame.of(image, image, image)).reason() == "the shorter side has 4 pixels, qy needs 7"
