"""Metrics as classes of torchmetrics: the mean of the functional values, over batches and over processes."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from fuseloop import metrics
from fuseloop.errors import ConfigurationError
from fuseloop.metrics import METRICS, class_name, fusion_metrics, metrics_of, score_frame
from fuseloop.metrics.classes import FusionMetric
from tests.metrics.tester import triple

KEYS = sorted(METRICS)


def made(key: str, **options) -> FusionMetric:
    convention = "default" if "default" in METRICS[key].conventions else next(iter(METRICS[key].conventions))
    return getattr(metrics, class_name(key))(**{"convention": convention} | options)


def images(key: str, seed: int = 0, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Large enough for the metric to be defined."""
    return triple(seed, *((164, 171) if key == "ms_ssim" else (48, 61)), batch)


@pytest.mark.parametrize("key", KEYS)
def test_every_metric_is_a_class_that_gives_the_mean_of_its_values(key: str):
    metric = made(key)
    assert isinstance(metric, Metric)
    for seed in range(2):
        metric.update(*images(key, seed, batch=2))
    values = [METRICS[key].function(*images(key, seed, batch=2), convention=metric.convention) for seed in range(2)]
    assert metric.compute() == pytest.approx(float(torch.cat(values).mean()), rel=1e-12)


@pytest.mark.parametrize("key", KEYS)
def test_a_class_says_what_the_table_says(key: str):
    row, metric = METRICS[key], made(key)
    assert metric.higher_is_better == {"higher": True, "lower": False, "zero": None}[row.direction]
    assert metric.is_differentiable == row.differentiable
    assert row.summary in type(metric).__doc__
    assert metric.plot_legend_name == row.name


def test_a_convention_can_be_chosen_and_is_not_claimed_where_it_is_lacking():
    published, other = metrics.Ssim("cddfuse"), metrics.Qcb(convention="cddfuse")
    assert (published.convention, other.convention) == ("cddfuse", "default")
    published.update(*triple())
    assert published.compute() == METRICS["ssim"].function(*triple(), convention="cddfuse")
    with pytest.raises(ConfigurationError, match="did you mean 'cddfuse'"):
        metrics.Ssim("cdfuse")


def test_undefined_values_are_left_out_and_counted():
    infrared, visible, fused = triple(batch=3)
    fused[1] = visible[1]
    metric = metrics.Scd()
    metric.update(infrared, visible, fused)
    values = METRICS["scd"].function(infrared, visible, fused)
    assert metric.compute() == pytest.approx(float(values[[0, 2]].mean()), rel=1e-12)
    assert metric.undefined == 1


def test_nothing_defined_is_undefined():
    infrared, visible, _ = triple()
    metric = metrics.Scd()
    metric.update(infrared, visible, visible)
    assert math.isnan(metric.compute())


def test_forward_gives_the_value_of_the_batch_and_reset_forgets():
    metric = metrics.En()
    first, second = (METRICS["en"].function(*triple(seed)) for seed in range(2))
    assert metric(*triple(0)) == first
    assert metric(*triple(1)) == second
    assert metric.compute() == pytest.approx(float(first + second) / 2, rel=1e-12)
    metric.reset()
    metric.update(*triple(1))
    assert metric.compute() == second
    assert metric.undefined == 0


def test_it_can_be_a_training_term():
    infrared, visible, fused = triple()
    fused.requires_grad_()
    metrics.Qabf(quantize=False)(infrared, visible, fused).backward()
    assert fused.grad is not None
    assert fused.grad.abs().sum() > 0


@pytest.mark.parametrize("key", KEYS)
def test_it_can_be_pickled_with_what_it_has_seen(key: str):
    metric = made(key)
    metric.update(*images(key))
    again = pickle.loads(pickle.dumps(metric))
    assert type(again) is type(metric)
    assert again.compute() == metric.compute()
    again.update(*images(key, 1))
    assert again.compute() != metric.compute()


def test_it_moves_to_other_devices_and_keeps_double_precision():
    metric = metrics.Mse().to("cpu").half()
    metric.update(*triple())
    assert metric.compute() == METRICS["mse"].function(*triple())


def test_a_collection_gives_the_scores_of_a_frame():
    frame = triple()
    pixels = [(image[0, 0] * 255).round().byte().numpy() for image in frame]
    collection = fusion_metrics(convention="cddfuse")
    assert set(collection) == set(metrics_of("cddfuse"))
    collection.update(*frame)
    expected = score_frame(*pixels, convention="cddfuse")
    for key, value in collection.compute().items():
        score = expected[key]
        assert float(value) == pytest.approx(score.value, rel=1e-9, nan_ok=True), key


def test_a_collection_that_groups_equal_metrics_keeps_ours_apart():
    """On the first batch all three are undefined, so their states are equal."""
    infrared, visible, fused = triple()
    grouped = MetricCollection([metrics.Scd(), metrics.Cc(), metrics.Vif()])
    flat = torch.full_like(fused, 0.5)
    grouped.update(flat, flat, flat)
    grouped.update(infrared, visible, fused)
    for name, value in grouped.compute().items():
        assert value == METRICS[name.lower()].function(infrared, visible, fused), name


def test_a_plot_is_a_figure():
    metric = metrics.Qabf()
    figure, axes = metric.plot([metric(*triple(seed)) for seed in range(2)])
    assert axes.lines
    plt.close(figure)


def add_up(rank: int, meeting: Path, batches: list[tuple[Tensor, Tensor, Tensor]]) -> list[float]:
    """What one of two processes knows in the end: Qabf and SCD of all, and how often SCD was undefined here."""
    limit = timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2, timeout=limit)
    try:
        qabf, scd = metrics.Qabf(), metrics.Scd()
        for batch in batches:
            qabf.update(*batch)
            scd.update(*batch)
        return [float(qabf.compute()), float(scd.compute()), scd.undefined]
    finally:
        torch.distributed.destroy_process_group()


def test_processes_add_up(tmp_path: Path):
    batches = [triple(seed, batch=2) for seed in range(4)]
    batches[3] = (*batches[3][:2], batches[3][1])  # a copy of the visible image, so that SCD is undefined
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        remote = other.submit(add_up, 1, tmp_path / "meeting", batches[3:])
        here = add_up(0, tmp_path / "meeting", batches[:3])
        there = remote.result()
    qabf = torch.cat([METRICS["qabf"].function(*batch) for batch in batches]).mean()
    scd = torch.cat([METRICS["scd"].function(*batch) for batch in batches[:3]]).mean()
    assert here == pytest.approx([float(qabf), float(scd), 0], rel=1e-12)
    assert there == pytest.approx([float(qabf), float(scd), 2], rel=1e-12)


def test_the_classes_cost_nothing_until_they_are_used():
    program = "import sys, fuseloop.metrics; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert "Qabf" in dir(metrics)
    with pytest.raises(AttributeError, match="no attribute 'Qapf'"):
        metrics.Qapf  # noqa: B018
