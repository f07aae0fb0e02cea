"""The tests that every metric must pass.

A metric's test class derives from `MetricTester` and names the metric:

    class TestQabf(MetricTester):
        key = "qabf"

A metric without a default definition also names the convention to test it under.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import pytest
import torch
from torch import Tensor

from fuseloop.metrics import METRICS
from fuseloop.metrics.functional import Frame, MetricFunction

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
# The shortest side of an image that a metric is defined for; the others take any.
SMALLEST = {
    "sf": 2,
    "ag": 2,
    "qsf": 2,
    "nabf": 2,
    "fmi_pixel": 3,
    "fmi_gradient": 3,
    "fmi_dct": 3,
    "qm": 4,
    "qy": 7,
    "qs": 8,
    "qw": 8,
    "qe": 8,
    "qc": 8,
    "ssim": 11,
    "vif": 41,
    "viff": 41,
    "mef_ssim": 44,
    "ms_ssim": 161,
}
CROP = (..., slice(100, 164), slice(100, 164))  # where a golden name ends with @crop


def texture(seed: int, height: int = 48, width: int = 61, batch: int = 1) -> Tensor:
    """Whole levels in [0, 1] with structure at several scales, B×1×H×W float64."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(batch, 1, height, width, dtype=torch.float64)
    for cell in (1, 3, 9):
        rows, columns = -(-height // cell), -(-width // cell)
        noise = torch.rand(batch, 1, rows, columns, generator=generator, dtype=torch.float64)
        image += noise.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[..., :height, :width]
    return torch.floor(image / 3 * 255 + 0.5) / 255


def triple(seed: int = 0, height: int = 48, width: int = 61, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Infrared, visible, and something fused of them."""
    infrared, visible = texture(2 * seed, height, width, batch), texture(2 * seed + 1, height, width, batch)
    fused = torch.maximum(infrared, 0.8 * visible)
    return infrared, visible, torch.floor(fused * 255 + 0.5) / 255


@cache
def golden() -> dict[str, Any]:
    """The golden values; skips the test when there are none."""
    if "FUSELOOP_FIXTURES" not in os.environ:
        pytest.skip("FUSELOOP_FIXTURES is not set: no golden values")
    values: dict[str, Any] = json.loads((_folder() / "values.json").read_text())
    return values


@cache
def golden_frame(pair: str, fusion: str, crop: bool) -> Frame:
    images = []
    for name in ("ir", "vi", fusion):
        pixels = cv2.imread(str(_folder() / f"{pair}_{name}.png"), cv2.IMREAD_UNCHANGED)
        image = torch.from_numpy(pixels).double()[None, None] / 255
        images.append(image[CROP] if crop else image)
    return Frame.of(*images)


def _folder() -> Path:
    return Path(os.environ["FUSELOOP_FIXTURES"]) / "metrics"


class MetricTester:
    """Behaviour that all metrics share."""

    key: ClassVar[str]
    """Of the table."""

    convention: ClassVar[str] = "default"
    """What the shared tests follow."""

    @property
    def side(self) -> int:
        """A side that is large enough, for checks of many pixels."""
        return max(12, SMALLEST.get(self.key, 1))

    def triple(self, seed: int = 0, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        return triple(seed, max(48, self.side), max(61, self.side), batch)

    @property
    def function(self) -> MetricFunction:
        return METRICS[self.key].function

    def score(self, *images: Tensor, **options: Any) -> Tensor:
        """Its values, under the convention of the class unless the options name another."""
        return self.function(*images, **{"convention": self.convention} | options)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "published" in metafunc.fixturenames:
            metafunc.parametrize("published", list(self.function.conventions))

    @pytest.mark.fixtures
    def test_it_agrees_with_public_implementations(self, published: str):
        compared = [
            self._compare(source, name, published, cropped == "crop", factor, tolerance)
            for source, name, metric, convention, factor, tolerance in golden()["golden"]
            for key, _, cropped in [metric.partition("@")]
            if (key, convention) == (self.key, published)
        ]
        assert any(compared) or published == "default", "a convention that no golden value backs"

    @pytest.mark.fixtures
    def test_it_agrees_with_the_reference_program(self):
        if "default" not in self.function.conventions:
            pytest.skip("no default definition")
        assert self._compare("default", self.key, "default", False, 1.0, 1e-6)
        self._compare("default", f"{self.key}@crop", "default", True, 1.0, 1e-6)

    def _compare(self, source: str, name: str, convention: str, crop: bool, factor: float, tolerance: float) -> int:
        """How many golden values there are to compare with."""
        count = 0
        for pair, entry in golden()["pairs"].items():
            for fusion, sources in entry["values"].items():
                if name not in sources[source]:
                    continue
                count += 1
                expected = sources[source][name]
                result = self.function.of(golden_frame(pair, fusion, crop), convention)
                if expected is None:
                    assert result.reason() is not None
                else:
                    assert float(result.values) == pytest.approx(factor * expected, rel=tolerance), (
                        pair,
                        fusion,
                        source,
                    )
        return count

    @pytest.mark.parametrize("device", DEVICES)
    def test_it_gives_one_float64_value_for_each_image(self, device: str):
        values = self.score(*(image.float().to(device) for image in self.triple(batch=3)))
        assert values.shape == (3,)
        assert values.dtype == torch.float64
        assert values.isfinite().all()
        torch.testing.assert_close(values.cpu(), self.score(*self.triple(batch=3)), rtol=1e-9, atol=1e-9)

    def test_a_batch_equals_one_by_one(self):
        images = self.triple(seed=1, batch=3)
        alone = torch.cat([self.score(*(image[i : i + 1] for image in images)) for i in range(3)])
        torch.testing.assert_close(self.score(*images), alone, rtol=1e-10, atol=1e-10)

    def test_swapping_the_sources_changes_nothing(self):
        infrared, visible, fused = self.triple(seed=2)
        expected = self.score(infrared, visible, fused)
        torch.testing.assert_close(self.score(visible, infrared, fused), expected, rtol=1e-12, atol=1e-12)

    def test_what_would_be_saved_is_scored(self):
        infrared, visible, fused = self.triple(seed=3)
        unsaved = torch.where(fused < 0.5, fused, fused + 0.4 / 255)
        torch.testing.assert_close(
            self.score(infrared, visible, unsaved), self.score(infrared, visible, fused), rtol=0, atol=0
        )

    def test_an_unknown_convention_is_an_error_that_lists_the_known_ones(self):
        with pytest.raises(ValueError, match=f"tabloid.*{self.convention}"):
            self.score(*self.triple(), convention="tabloid")

    def test_it_keeps_single_precision_when_training(self):
        images = self.triple(seed=4)
        single = self.score(*(image.float() for image in images), quantize=False)
        exact = self.score(*images, quantize=False)
        if METRICS[self.key].differentiable:
            assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), exact.double(), rtol=2e-3, atol=1e-4)

    def test_mixed_precision_does_not_reach_it(self):
        images = [image.float() for image in self.triple(seed=5)]
        expected = self.score(*images, quantize=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(self.score(*images, quantize=False), expected, rtol=0, atol=0)

    def test_its_gradient_is_right(self):
        if not METRICS[self.key].differentiable:
            pytest.skip("no gradient promised")
        # Away from 0 and 1, where clipping has a corner, and without ties.
        generator = torch.Generator().manual_seed(6)
        images = [
            (
                0.1 + 0.8 * torch.rand(2, 1, self.side, self.side + 1, generator=generator, dtype=torch.float64)
            ).requires_grad_()
            for _ in range(3)
        ]
        # All at once along random directions; `sum` keeps the check at one output.
        assert torch.autograd.gradcheck(
            lambda *given: self.score(*given, quantize=False).sum(), images, eps=1e-7, atol=1e-4, fast_mode=True
        )

    @pytest.mark.parametrize("part", ["textured", "half black", "half white", "same as a source", "black", "grey"])
    def test_its_gradient_is_finite_everywhere(self, part: str):
        if not METRICS[self.key].differentiable:
            pytest.skip("no gradient promised")
        infrared, visible, fused = (image.float() for image in self.triple(seed=7))
        if part == "half black":
            for image in (infrared, visible, fused):
                image[..., :30] = 0
        elif part == "half white":
            for image in (infrared, visible, fused):
                image[..., :30] = 1
        elif part == "same as a source":
            fused = visible.clone()
        elif part != "textured":
            fused = torch.full_like(fused, 0.0 if part == "black" else 0.5)
        fused.requires_grad_()
        values = self.score(infrared, visible, fused, quantize=False)
        values.nansum().backward()
        assert fused.grad is not None
        assert fused.grad.isfinite().all()
