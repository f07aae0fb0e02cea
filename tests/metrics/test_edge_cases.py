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


@pytest.mark.parametrize(
    ("key", "expected"),
    [("cc", 1), ("vif", 1), ("ssim", 1), ("qcb", 1), ("mse", 0), ("qcv", 0), ("psnr", math.inf)],
)
def test_three_equal_images(key: str, expected: float):
    image = texture(1)
    assert value(key, image, image, image) == pytest.approx(expected, abs=1e-9)


def test_three_equal_images_keep_almost_all_edges():
    image = texture(1)
    assert value("qabf", image, image, image) == pytest.approx(0.9747936, abs=1e-7)
    assert 0.9747936 < value("qabf", image, image, image, "cddfuse") <= 0.975333


@pytest.mark.parametrize("copied", ["infrared", "visible"])
@pytest.mark.parametrize("offset", [0, 10])
def test_a_copied_source_has_no_difference_to_correlate(copied: str, offset: int):
    infrared, visible = texture(2) * 0.5, texture(3) * 0.5
    infrared, visible = (torch.floor(image * 255 + 0.5) / 255 for image in (infrared, visible))
    fused = {"infrared": infrared, "visible": visible}[copied] + offset / 255
    assert reason("scd", infrared, visible, fused) == f"fused and {copied} image differ by a constant"


@pytest.mark.parametrize("key", ["en", "sd", "sf", "ag", "mi", "vif"])
def test_a_flat_fused_image_holds_nothing(key: str):
    infrared, visible, _ = triple()
    assert value(key, infrared, visible, FLAT) == pytest.approx(0, abs=1e-12)


def test_a_flat_fused_image_correlates_with_nothing():
    infrared, visible, _ = triple()
    assert reason("cc", infrared, visible, FLAT) == "the fused image is flat"


@pytest.mark.parametrize("key", ["cc", "scd", "vif"])
@pytest.mark.parametrize("flat", ["infrared", "visible"])
def test_a_flat_source_has_nothing_to_keep(key: str, flat: str):
    images = dict(zip(("infrared", "visible", "fused"), triple(), strict=True)) | {flat: FLAT}
    assert reason(key, **images) == f"the {flat} image is flat"


def test_cddfuse_counts_the_vif_of_a_flat_source_as_one():
    _, visible, fused = triple()
    assert value("vif", FLAT, visible, visible, "cddfuse") == pytest.approx(2)
    assert value("vif", FLAT, FLAT, fused, "cddfuse") == 2


@pytest.mark.parametrize("key", ["cc", "scd", "vif", "qcv"])
def test_three_flat_images_leave_little_to_say(key: str):
    assert reason(key, FLAT, FLAT, FLAT) is not None


@pytest.mark.parametrize("key", ["qabf", "qcv"])
def test_without_any_edge_there_is_none_to_weigh(key: str):
    black = torch.zeros_like(FLAT)
    assert reason(key, black, black, texture(1)) == "neither source has an edge"


def test_saturation_is_nothing_special():
    """Levels 254 and 255 are two bins, as any others."""
    image = torch.tensor([254.0, 255.0]).repeat(20).reshape(1, 1, 4, 10) / 255
    assert value("en", image, image, image) == pytest.approx(1)
    assert value("mi", image, image, image) == pytest.approx(2)


@pytest.mark.parametrize(("key", "smallest"), [row for row in SMALLEST.items() if row[0] in METRICS])
def test_images_smaller_than_the_window_are_undefined(key: str, smallest: int):
    assert reason(key, *triple(height=smallest, width=smallest + 9)) is None
    assert reason(key, *triple(height=smallest + 9, width=smallest)) is None
    text = reason(key, *triple(height=smallest + 9, width=smallest - 1))
    assert text == f"the shorter side has {smallest - 1} pixels, {key} needs {smallest}"


@pytest.mark.parametrize("key", [key for key in metrics_of("default") if key not in SMALLEST])
def test_the_others_take_any_size(key: str):
    assert reason(key, *triple(height=3, width=5)) is None


def test_undefined_values_of_a_batch_leave_the_others_alone():
    infrared, visible, fused = triple(batch=3)
    fused[1] = visible[1]
    result = METRICS["scd"].function.of(Frame.of(infrared, visible, fused))
    assert result.values.isnan().tolist() == [False, True, False]
    assert [result.reason(i) is None for i in range(3)] == [True, False, True]


@pytest.mark.parametrize("key", ["qabf", "qcv", "vif", "ssim"])
def test_no_row_or_column_is_cropped_or_resized_away(key: str):
    """A change in the last corner of a size that nothing divides is seen."""
    infrared, visible, fused = triple(height=45, width=51)
    changed = fused.clone()
    changed[..., -1, -1] = 1 - fused[..., -1, -1]
    assert value(key, infrared, visible, changed) != value(key, infrared, visible, fused)


def test_vif_reads_ragged_pyramids_to_their_last_whole_window():
    """Valid windows and every second sample: an odd remainder may be out of reach at the coarser scales only."""
    infrared, visible, fused = triple(height=41, width=41)
    assert math.isfinite(value("vif", infrared, visible, fused))


def test_swapping_keeps_the_reason_right():
    infrared, visible, _ = triple()
    assert reason("scd", visible, infrared, infrared) == "fused and visible image differ by a constant"
