"""Figures are drawn over frames, and over trainings where there are several."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.results.figures import RESAMPLES, Figure, Figures, Grid, over_trainings
from benchmarks.results.images import Image
from benchmarks.results.looks import Look
from benchmarks.results.study import Study
from tests.benchmarks.conftest import NETWORKS, seeds


def width(figure: Figure) -> float:
    return figure.interval.high - figure.interval.low


def test_one_training_keeps_its_figure():
    figure = Figure(0.5, np.random.default_rng(0).random(RESAMPLES))
    found = over_trainings([figure])
    assert found.value == 0.5
    np.testing.assert_array_equal(found.drawn, figure.drawn)


def test_trainings_that_differ_widen_the_interval_by_what_their_mean_varies():
    """Of frames that do not vary, the interval is that of drawing 12 trainings of known spread."""
    values = np.linspace(0, 1, 12)
    found = over_trainings([Figure(value, np.full(RESAMPLES, value)) for value in values])
    assert found.value == pytest.approx(0.5)
    deviation = values.std() / np.sqrt(12)
    assert width(found) == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_trainings_that_agree_leave_the_interval_of_the_frames():
    frames = np.random.default_rng(0).normal(size=RESAMPLES)
    found = over_trainings([Figure(0.0, frames) for _ in range(3)])
    np.testing.assert_allclose(found.drawn, frames)


@pytest.fixture(scope="module")
def figures(data, runs) -> Figures:
    study = Study(NETWORKS, loops=seeds(runs), data=data)
    names = ("visible", "max", "vfn")
    wanted = [Look(Image(name), network) for name in names for network in NETWORKS]
    study.looks.gather([*wanted, *(look for look in loop_looks(runs))])
    return study.figures


def loop_looks(runs) -> list[Look]:
    return [Look(Image(file, "segformer-b0"), "segformer-b0") for file in seeds(runs).values()]


def test_differences_are_paired(figures):
    """The frames that are hard are hard for both: the difference varies less than the two scores do."""
    one, other = ([Look(Image(name), "ctdnet-18")] for name in ("max", "visible"))
    gain = figures.difference(one, other, "F/mean")
    assert gain.value == pytest.approx(figures.of(*one, "F/mean").value - figures.of(*other, "F/mean").value)
    apart = Figure(0.0, figures.of(*one, "F/mean").drawn - figures.of(*other, "F/mean").drawn[::-1])
    assert width(gain) < width(apart)


def test_a_mean_over_trainings_is_drawn_at_both_levels(figures, runs):
    looks = loop_looks(runs)
    single = [figures.of(look, "mIoU") for look in looks]
    assert single[0].value != single[1].value
    found = figures.mean(looks, "mIoU")
    assert found.value == pytest.approx((single[0].value + single[1].value) / 2)
    shares = (found.drawn - single[1].drawn) / (single[0].drawn - single[1].drawn)
    kept = shares[np.abs(single[0].drawn - single[1].drawn) > 1e-6]
    assert {round(share, 6) for share in kept} == {0.0, 0.5, 1.0}, "both times one training, or each once"


def test_scores_of_other_classes_are_not_compared(figures):
    with pytest.raises(ValueError, match="yolov5s and ctdnet-18 are scored by other settings"):
        figures.difference([Look(Image("max"), "yolov5s")], [Look(Image("max"), "ctdnet-18")], "mAP50")


def test_a_grid_shows_means_and_differences_and_leaves_out_what_is_not_there(figures, runs):
    looks = loop_looks(runs)
    cells = {
        "vfn": {name: [Look(Image("vfn"), name)] for name in ("segformer-b0", "ctdnet-18")},
        "loop": {"segformer-b0": looks},
    }
    grid = Grid(cells, {"loop": "vfn"}, every=False)
    assert grid.looks == [*(look for looks in cells["vfn"].values() for look in looks), *looks]
    head, *rows = grid.scores(figures)
    assert head == ["images", "mIoU<br>segformer-b0", "F mean<br>ctdnet-18"]
    assert [row[0] for row in rows] == ["vfn", "loop"]
    assert rows[1][1].startswith(f"{figures.mean(looks, 'mIoU').value:.3f}<br>")
    assert rows[1][2] == ""
    _, row = grid.differences(figures)
    assert f"{figures.difference(looks, cells['vfn']['segformer-b0'], 'mIoU').value:+.3f}" in row[1]
    assert row[2] == ""
