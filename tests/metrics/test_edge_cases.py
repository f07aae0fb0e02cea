"""What metrics are worth where their definitions get thin: equal, flat, saturated and small images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fuseloop.metrics import METRICS, metrics_of
from fuseloop.metrics.functional import Frame
from tests.metrics.tester import SMALLEST, texture, triple

FLAT = torch.full((1, 1, 48, 61), 100 / 255, dtype=torch.float64)


def value(key: str, infrared: Tensor, visible: Tensor, fused: Tensor, convention: str = "default") -> float:
    return float(METRICS[key].function(infrared, visible, fused, convention=convention))


def reason(key: str, infrared: Tensor, visible: Tensor, fused: Tensor, convention: str = "default") -> str | None:
    result = METRICS[key].function.of(Frame.of(infrared, visible, fused), convention)
    assert math.isnan(float(result.values)) == (result.reason() is not None)
    return result.reason()


Expected = dict[str, float | None]

# What is scored from the two sources and their copy; None is undefined.
OF_EQUAL_IMAGES = {
    "nmi": 2,
    **dict.fromkeys(["fmi_pixel", "fmi_gradient", "fmi_dct", "cc", "vif", "viff", "ssim", "ms_ssim", "mef_ssim"], 1),
    **dict.fromkeys(["qcb", "qy", "qs", "qw", "qe", "qc"], 1),
    **dict.fromkeys(["nabf", "mse", "ce", "qcv", "qsf"], 0),
    "psnr": math.inf,
    "qm": 3,
    "scd": None,
}
OF_A_FLAT_FUSED_IMAGE = {
    **dict.fromkeys(["en", "sd", "sf", "ag", "ei", "mi", "nmi", "vif", "nabf"], 0),
    "qsf": -1,
    **dict.fromkeys(["cc", "qp"]),
}
OF_A_FLAT_SOURCE: Expected = dict.fromkeys(["cc", "scd", "vif"])
OF_FLAT_IMAGES = dict.fromkeys(["cc", "scd", "vif", "nmi", "qcv", "qsf", "qm", "qp", "qte"])


def cases(expected: Expected) -> list[tuple[str, float | None]]:
    return [row for row in expected.items() if row[0] in METRICS]


def check(key: str, expected: float | None, *images: Tensor, tolerance: float = 1e-9) -> None:
    if expected is None:
        assert reason(key, *images) is not None
    else:
        assert value(key, *images) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("key", "expected"), cases(OF_EQUAL_IMAGES))
def test_three_equal_images(key: str, expected: float | None):
    side = SMALLEST.get(key, 1)
    image = texture(1, max(48, side), max(61, side + 4))
    check(key, expected, image, image, image)


@pytest.mark.parametrize("key", [key for key in ("qncie", "qp") if key in METRICS])
def test_three_equal_images_fall_short_of_one(key: str):
    image = texture(1)
    assert 0.8 < value(key, image, image, image) < 1


def test_three_equal_images_keep_almost_all_edges():
    image = texture(1)
    assert value("qabf", image, image, image) == pytest.approx(0.9747936, abs=1e-7)
    for quirk in ("cddfuse", "tdfusion", "tang", "ivif_zoo", "vifb"):
        assert 0.9747936 < value("qabf", image, image, image, quirk) <= 0.975333


@pytest.mark.parametrize("copied", ["infrared", "visible"])
@pytest.mark.parametrize("offset", [0, 10])
def test_a_copied_source_has_no_difference_to_correlate(copied: str, offset: int):
    infrared, visible = texture(2) * 0.5, texture(3) * 0.5
    infrared, visible = (torch.floor(image * 255 + 0.5) / 255 for image in (infrared, visible))
    fused = {"infrared": infrared, "visible": visible}[copied] + offset / 255
    assert reason("scd", infrared, visible, fused) == f"fused and {copied} image differ by a constant"


@pytest.mark.parametrize(("key", "expected"), cases(OF_A_FLAT_FUSED_IMAGE))
def test_a_flat_fused_image_holds_nothing(key: str, expected: float | None):
    infrared, visible, _ = triple()
    check(key, expected, infrared, visible, FLAT, tolerance=1e-12)


def test_a_flat_fused_image_correlates_with_nothing():
    infrared, visible, _ = triple()
    assert reason("cc", infrared, visible, FLAT) == "the fused image is flat"


@pytest.mark.parametrize(("key", "expected"), cases(OF_A_FLAT_SOURCE))
@pytest.mark.parametrize("flat", ["infrared", "visible"])
def test_a_flat_source_has_nothing_to_keep(key: str, expected: float | None, flat: str):
    images = dict(zip(("infrared", "visible", "fused"), triple(), strict=True)) | {flat: FLAT}
    check(key, expected, *images.values())
    assert reason(key, **images) == f"the {flat} image is flat"


@pytest.mark.parametrize("flat", ["infrared", "visible"])
def test_nothing_comes_through_of_a_flat_source(flat: str):
    images = dict(zip(("infrared", "visible", "fused"), triple(), strict=True)) | {flat: FLAT}
    assert value("viff", **images) == 0


def test_cddfuse_counts_the_vif_of_a_flat_source_as_one():
    _, visible, fused = triple()
    assert value("vif", FLAT, visible, visible, "cddfuse") == pytest.approx(2)
    assert value("vif", FLAT, FLAT, fused, "cddfuse") == 2


@pytest.mark.parametrize(("key", "expected"), cases(OF_FLAT_IMAGES))
@pytest.mark.parametrize("level", [0, 100, 255])
def test_three_flat_images_leave_little_to_say(key: str, expected: float | None, level: int):
    check(key, expected, *(torch.full_like(FLAT, level / 255),) * 3)


@pytest.mark.parametrize("convention", ["zheng", "yuliu"])
@pytest.mark.parametrize("key", ["qncie", "qte", "qte_cvejic", "qcb", "qcv"])
@pytest.mark.parametrize("flat", ["infrared", "visible", "fused"])
def test_zheng_divides_by_zero_where_an_image_is_flat_but_not_black(convention: str, key: str, flat: str):
    images = dict(zip(("infrared", "visible", "fused"), triple(), strict=True))
    assert reason(key, **images | {flat: FLAT}, convention=convention) == f"the {flat} image is flat"
    assert reason(key, **images | {flat: torch.zeros_like(FLAT)}, convention=convention) is None


def test_ivif_zoo_has_no_correlation_with_a_flat_image():
    _, visible, fused = triple()
    assert reason("qncie", FLAT, visible, fused, "ivif_zoo") == "the infrared image is flat"
    assert reason("qncie", FLAT, visible, fused) is None
    assert reason("nmi", FLAT, FLAT, fused, "ivif_zoo") == "both sources are flat"


def test_information_is_normalised_source_by_source():
    infrared, _, fused = triple()
    assert reason("nmi", infrared, FLAT, FLAT) == "the visible and the fused image are flat"
    assert reason("nmi", infrared, FLAT, fused) is None


@pytest.mark.parametrize("key", ["qabf", "qcv"])
def test_without_any_edge_there_is_none_to_weigh(key: str):
    black = torch.zeros_like(FLAT)
    assert reason(key, black, black, texture(1)) == "neither source has an edge"


def test_saturation_is_nothing_special():
    """Levels 254 and 255 are two bins, as any others."""
    image = torch.tensor([254.0, 255.0]).repeat(20).reshape(1, 1, 4, 10) / 255
    assert value("en", image, image, image) == pytest.approx(1)
    assert value("mi", image, image, image) == pytest.approx(2)


def test_saturation_moves_the_mutual_information_of_tang_alone():
    darker = [image * 0.9 for image in triple()]
    assert value("mi", *darker, "tang") == value("mi", *darker)
    saturated = [(image * 1.5).clamp_max(1) for image in triple()]
    assert value("mi", *saturated, "tang") != value("mi", *saturated)
    assert value("mi", *saturated, "ivif_zoo") == value("mi", *saturated)
    # Both levels of such an image are in one joint bin, so its information counts twice over.
    image = torch.tensor([254.0, 255.0]).repeat(20).reshape(1, 1, 4, 10) / 255
    assert value("mi", image, image, image, "tang") == pytest.approx(4)


def test_weak_edges_weigh_nothing_in_ivif_zoo():
    infrared, visible, fused = triple()
    faint = [torch.floor(image * 255 / 200) / 255 for image in (infrared, visible)]  # levels 0 and 1
    assert reason("nabf", *faint, fused, "ivif_zoo") == "neither source has an edge of 2 levels"
    assert reason("nabf", *faint, fused) is None


@pytest.mark.parametrize(("key", "convention"), [("nabf", "tang"), ("qabf", "zheng")])
def test_some_implementations_favour_a_source(key: str, convention: str):
    infrared, visible, fused = triple()
    for image in (infrared, visible, fused):
        image[..., :20, :20] = 0.4  # zeros among the gradients, which Zheng replaces one source after the other
    fused[..., :12, :12] = 0.6
    visible[..., :9, :20] = 0.5
    infrared[..., :20, :9] = 0.3
    given_order = value(key, infrared, visible, fused, convention)
    assert value(key, visible, infrared, fused, convention) != pytest.approx(given_order, rel=1e-12)
    assert value(key, visible, infrared, fused) == pytest.approx(value(key, infrared, visible, fused), rel=1e-12)


@pytest.mark.parametrize(("key", "smallest"), [row for row in SMALLEST.items() if row[0] in METRICS])
def test_images_smaller_than_the_window_are_undefined(key: str, smallest: int):
    assert reason(key, *triple(height=smallest, width=smallest + 9)) is None
    assert reason(key, *triple(height=smallest + 9, width=smallest)) is None
    text = reason(key, *triple(height=smallest + 9, width=smallest - 1))
    assert text == f"the shorter side has {smallest - 1} pixels, {key} needs {smallest}"


@pytest.mark.parametrize("key", [key for key in metrics_of("default") if key not in SMALLEST])
def test_the_others_take_any_size(key: str):
    nothing_to_see = "neither source has a feature" if key == "qp" else None
    assert reason(key, *triple(height=3, width=5)) == nothing_to_see


def test_undefined_values_of_a_batch_leave_the_others_alone():
    infrared, visible, fused = triple(batch=3)
    fused[1] = visible[1]
    result = METRICS["scd"].function.of(Frame.of(infrared, visible, fused))
    assert result.values.isnan().tolist() == [False, True, False]
    assert [result.reason(i) is None for i in range(3)] == [True, False, True]


@pytest.mark.parametrize("key", sorted(set(metrics_of("default")) - {"en", "qm", "qp", "ms_ssim", "viff"}))
def test_no_row_or_column_is_cropped_or_resized_away(key: str):
    """A change in the last corner of a size that nothing divides is seen."""
    infrared, visible, fused = triple(height=45, width=51)
    changed = fused.clone()
    changed[..., -1, -1] = 1 - fused[..., -1, -1].round()
    assert value(key, infrared, visible, changed) != value(key, infrared, visible, fused)


def test_vif_reads_ragged_pyramids_to_their_last_whole_window():
    """Valid windows and every second sample: an odd remainder may be out of reach at the coarser scales only."""
    infrared, visible, fused = triple(height=41, width=41)
    assert math.isfinite(value("vif", infrared, visible, fused))


def test_swapping_keeps_the_reason_right():
    infrared, visible, _ = triple()
    assert reason("scd", visible, infrared, infrared) == "fused and visible image differ by a constant"
