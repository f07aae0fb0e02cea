"""Every metric of the table passes the shared tests; some have behaviour of their own."""

from __future__ import annotations

import math

import pytest
import torch

from fuseloop.metrics import METRICS
from fuseloop.metrics.functional import Frame, Grey, qabf, qcv, ssim, vif
from fuseloop.metrics.functional.windows import gaussian, safe_sqrt, uniform, window
from fuseloop.metrics.table import metrics_of
from tests.metrics.tester import MetricTester, golden, triple


class TestEn(MetricTester):
    key = "en"


class TestSd(MetricTester):
    key = "sd"


class TestSf(MetricTester):
    key = "sf"


class TestAg(MetricTester):
    key = "ag"


class TestMi(MetricTester):
    key = "mi"


class TestCc(MetricTester):
    key = "cc"


class TestScd(MetricTester):
    key = "scd"


class TestMse(MetricTester):
    key = "mse"


class TestPsnr(MetricTester):
    key = "psnr"


class TestEi(MetricTester):
    key = "ei"


class TestRmse(MetricTester):
    key = "rmse"
    convention = "vifb"


class TestQsf(MetricTester):
    key = "qsf"


class TestNmi(MetricTester):
    key = "nmi"


class TestCe(MetricTester):
    key = "ce"


class TestTe(MetricTester):
    key = "te"
    convention = "ivif_zoo"


class TestQncie(MetricTester):
    key = "qncie"


class TestQte(MetricTester):
    key = "qte"


class TestQteCvejic(MetricTester):
    key = "qte_cvejic"
    convention = "zheng"


class TestFmiPixel(MetricTester):
    key = "fmi_pixel"


class TestFmiGradient(MetricTester):
    key = "fmi_gradient"


class TestFmiDct(MetricTester):
    key = "fmi_dct"


class TestQp(MetricTester):
    key = "qp"


class TestQm(MetricTester):
    key = "qm"


class TestNabf(MetricTester):
    key = "nabf"


class TestVif(MetricTester):
    key = "vif"


class TestViff(MetricTester):
    key = "viff"


class TestQabf(MetricTester):
    key = "qabf"


class TestSsim(MetricTester):
    key = "ssim"


class TestMsSsim(MetricTester):
    key = "ms_ssim"


class TestMefSsim(MetricTester):
    key = "mef_ssim"


class TestQy(MetricTester):
    key = "qy"


class TestQs(MetricTester):
    key = "qs"


class TestQw(MetricTester):
    key = "qw"


class TestQe(MetricTester):
    key = "qe"


class TestQc(MetricTester):
    key = "qc"


class TestQcb(MetricTester):
    key = "qcb"


class TestQcv(MetricTester):
    key = "qcv"


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (0.0, 1.6), (-1.0, 1.0)])
def test_images_clearly_outside_the_range_are_refused_when_scoring(low: float, high: float):
    image = torch.tensor([low, high]).reshape(1, 1, 1, 2)
    with pytest.raises(ValueError, match=rf"fused image go from {low:g} to {high:g}; .*divide by 255"):
        Grey.of(image, quantize=True, name="fused")
    assert Grey.of(image, quantize=False).levels.max() == 255


def test_every_metric_of_the_table_is_tested():
    tested = {
        cls.key
        for cls in globals().values()
        if isinstance(cls, type) and cls is not MetricTester and issubclass(cls, MetricTester)
    }
    assert tested == set(METRICS)


@pytest.mark.parametrize("size", [(9, 9), (8, 11), (17, 6), (40, 45)])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("longer", [0, 4])  # many weights are applied otherwise than few
def test_windows_are_correlations_over_the_full_windows(size: tuple[int, int], step: int, longer: int):
    maps = torch.rand(2, 3, size[0] + longer, size[1] + longer, dtype=torch.float64)
    more = (0.3, -0.1, 0.7, 0.6)[:longer]
    rows, columns = (0.2, -0.5, 1.0, *more), (1.0, 2.0, 3.0, 4.0, *more)
    kernel = torch.tensor(columns, dtype=torch.float64)[:, None] * torch.tensor(rows, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(maps, kernel.expand(3, 1, -1, -1), stride=step, groups=3)
    torch.testing.assert_close(window(maps, rows, columns, step=step), expected)


@pytest.mark.parametrize(("kernel", "step"), [(gaussian(5, 1.0), 2), (gaussian(5, 1.0), 1), (uniform(7), 1)])
def test_windows_pass_their_gradient_back(kernel: tuple[float, ...], step: int):
    maps = torch.rand(1, 2, 9, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: window(x, kernel, step=step), maps)


@pytest.mark.parametrize("size", range(1, 12))
def test_sums_of_whole_numbers_are_exact(size: int):
    maps = torch.randint(0, 2**40, (1, 2, 15, 11), generator=torch.Generator().manual_seed(size)).double()
    expected = maps.long().unfold(-2, size, 1).unfold(-2, size, 1).sum(dim=(-2, -1))
    assert (window(maps, (1.0,) * size) == expected).all()


@pytest.mark.parametrize("kernel", [gaussian(11, 1.5), gaussian(4, 1.0), uniform(7)])
def test_windows_weigh_one(kernel: tuple[float, ...]):
    assert sum(kernel) == pytest.approx(1)
    assert kernel == pytest.approx(kernel[::-1])


def test_the_safe_root_has_no_slope_at_zero():
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    safe_sqrt(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.25]


def test_rounding_is_half_up_and_clips():
    levels = Grey.of(
        torch.tensor([0.5, 1.5, 2.5, -3.0, 300.0]).reshape(1, 1, 1, 5).double() / 255, quantize=True
    ).levels
    assert levels.flatten().tolist() == [1.0, 2.0, 3.0, 0.0, 255.0]


def test_work_on_an_image_is_done_once():
    calls = []

    def work(image: Grey, factor: int) -> int:
        calls.append(factor)
        return factor

    image = Grey.of(torch.rand(1, 1, 4, 4), quantize=True)
    assert [image.once(work, 2), image.once(work, 2), image.once(work, 3)] == [2, 2, 3]
    assert calls == [2, 3]


def test_a_frame_gives_the_same_values_to_all_metrics():
    images = triple()
    frame = Frame.of(*images)
    for row in METRICS.values():
        for convention in row.conventions:
            together = row.function.of(frame, convention).values
            alone = row.function(*images, convention=convention)
            torch.testing.assert_close(together, alone, rtol=0, atol=0, equal_nan=True)


def test_training_can_follow_scoring():
    """What scoring remembers between calls must not be bound to inference mode."""
    with torch.inference_mode():
        qcv(*triple(height=33, width=35))
    infrared, visible, fused = triple(height=33, width=35)
    qcv(infrared, visible, fused.requires_grad_(), quantize=False).sum().backward()


@pytest.mark.parametrize("name", ["infrared", "visible", "fused"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pixels_that_are_no_numbers_are_an_error_that_names_the_image(name: str, bad: float):
    images = dict(zip(("infrared", "visible", "fused"), triple(), strict=True))
    images[name][0, 0, 3, 4] = bad
    with pytest.raises(ValueError, match=f"{name}.*NaN"):
        ssim(**images)


def test_sizes_that_differ_are_an_error_that_names_them():
    infrared, visible, fused = triple()
    with pytest.raises(ValueError, match=r"48, 61.*48, 61.*48, 60"):
        vif(infrared, visible, fused[..., 1:])


@pytest.mark.parametrize("shape", [(1, 1, 0, 5), (0, 1, 8, 8), (8, 8), (1, 3, 8, 8)])
def test_shapes_that_are_no_grey_images_are_an_error(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"infrared.*B×1×H×W"):
        qabf(*(torch.zeros(shape),) * 3)


def test_whole_number_types_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="divide by 255"):
        qabf(*(torch.zeros(1, 1, 8, 8, dtype=torch.uint8),) * 3)


def test_help_tells_the_arguments_and_conventions():
    assert ssim.__doc__ is not None
    for part in ("Wang 2004", "infrared:", "default: the definition above", "cddfuse: the sum", "Returns:", "Raises:"):
        assert part in ssim.__doc__


@pytest.mark.fixtures
def test_every_golden_value_has_a_metric_and_a_convention():
    wanted = {(metric.partition("@")[0], convention) for _, _, metric, convention, *_ in golden()["golden"]}
    assert wanted == {pair for pair in wanted if pair[1] in METRICS[pair[0]].conventions}
    defaults = {
        key.partition("@")[0]
        for pair in golden()["pairs"].values()
        for sources in pair["values"].values()
        for key in sources["default"]
    }
    assert defaults == set(metrics_of("default"))
