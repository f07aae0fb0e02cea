"""The benchmark of the training of the loop measures what it says, beside a plain side with the same gradient."""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_loop_training as bench
from fuseloop.training.trainer import launch


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Narrow networks and small frames."""
    monkeypatch.setattr(bench, "NETWORKS", {"yolov5n": {}, "ctdnet-18": {"width": 0.125}})
    for name, value in (("BATCH", 2), ("HEIGHT", 64), ("WIDTH", 64), ("ROUNDS", 1)):
        monkeypatch.setattr(bench, name, value)


def test_every_figure_is_there(monkeypatch):
    memory = {"reference": 600.0, "compat": 300.0, "default": 200.0, "default_first": 250.0}
    monkeypatch.setattr(
        bench, "_child", lambda what, *side: bench.measure_times() if what == "times" else {side[0]: memory[side[0]]}
    )
    figures = bench.run()
    assert {*figures} == {*bench.KEYS}
    assert all(value > 0 for value in figures.values())
    assert (figures["loop_training.memory"], figures["loop_training.memory_compat"]) == (3, 2)


@pytest.mark.parametrize("side", bench.SIDES)
def test_memory_is_that_of_two_steps(side, monkeypatch):
    steps, step_of = [], bench.step_of

    def counted(*of):
        step = step_of(*of)
        return lambda: steps.append(step())

    monkeypatch.setattr(bench, "step_of", counted)
    assert bench.measure_memory(side)[side] >= 0
    assert len(steps) == 2


def test_both_ways_give_the_same_gradient(tmp_path):
    networks = bench.write_networks(tmp_path)
    found = []
    for way in ("published", "ours"):
        recipe = bench.open_recipe(networks, **bench.PUBLISHED)
        torch.manual_seed(0)
        for block in (recipe.network.compensation.rsc_ir, recipe.network.compensation.rsc_vi):
            torch.nn.init.normal_(block["a2si0"].zc.weight)
        recipe.prepare(0, recipe.optimiser())
        batches = recipe.batches(0, range(recipe.pairs_in(0)))
        if way == "published":
            bench.backward_as_published(recipe, batches)
        else:
            recipe.backward(launch(recipe.config), batches)
        found.append([parameter.grad for parameter in recipe.network.parameters() if parameter.requires_grad])
    scale = max(float(gradient.abs().max()) for gradient in found[0])
    assert scale > 0
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)
