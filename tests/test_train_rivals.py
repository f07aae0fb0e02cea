"""The rivals of the closed loop go on from trained networks and leave what the results compare."""

from __future__ import annotations

import pytest
import torch

from benchmarks.results.study import rivals_in
from fuseloop.fusers.weights import find_weights, read_weights
from fuseloop.tasks.weights import build, load, write_weights
from fuseloop.training.config import TaskConfig, load_config
from tools import train_rivals

CONFIG = """
network: ctdnet-18
options: {width: 0.125}
root: null
device: cpu
data: [{spec: "synthetic:3:1"}]
validation: ["synthetic:1:2"]
validate_every: 100
log_every: 1
stages:
  - {steps: 100, batch: 2, height: 64, width: 64, lr: 0.5}
  - {steps: 50, batch: 2, height: 64, width: 64, lr: 0.01, schedule: cosine, lr_end: 0.005}
"""


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """The weights to go on from, and a preset for them."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    monkeypatch.setattr(
        train_rivals, "load_config", lambda kind, name, changes: load_config(kind, str(tmp_path / "tiny.yaml"), changes)
    )
    network = build("ctdnet-18", width=0.125)
    write_weights(tmp_path / "begun.safetensors", network, "ctdnet-18", options={"width": 0.125})
    return tmp_path / "begun.safetensors"


def test_a_plan_is_the_last_stage_cut_short_on_fused_images(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    config = train_rivals.plan(load_config(TaskConfig, str(tmp_path / "tiny.yaml")), 20)
    (stage,) = config.stages
    assert (stage.steps, stage.warmup, stage.schedule, config.validate_every) == (20, 2, "cosine", 5)
    assert (stage.lr, stage.lr_end) == pytest.approx((0.002, 0.002)), "it does not rise"
    assert config.fusers == {"vfn": 1.0}


def test_both_ways_leave_what_the_results_compare(begun, tmp_path, capsys):
    arguments = ["--root", str(tmp_path), "--out", str(tmp_path / "rivals"), "--steps", "2", f"ctdnet-18={begun}"]
    assert train_rivals.main(arguments) == 0
    assert "joint ctdnet-18: step 2, best weights " in capsys.readouterr().out
    rivals, networks = rivals_in(tmp_path / "rivals")
    assert list(networks) == ["ctdnet-18, retrained", "ctdnet-18, joint"]
    shipped = read_weights(find_weights("vfn")).state_dict()
    learnt = read_weights(find_weights(rivals[1].fusion)).state_dict()
    assert not torch.equal(shipped["frb2.res.0.weight"], learnt["frb2.res.0.weight"])
    one, other = next(load(begun).parameters()), next(networks["ctdnet-18, retrained"].parameters())
    assert 0 < float((one - other).detach().abs().max()) < 0.02, "they go on from there"


def test_errors_are_said(tmp_path, capsys):
    assert train_rivals.main(["--root", str(tmp_path), "none=nothing"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
