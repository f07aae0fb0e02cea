"""Training in two processes under `torchrun` is training in one, up to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from fuseloop.errors import ConfigurationError
from fuseloop.training.config import dump_config
from fuseloop.training.visual import _check_processes, train

SCRIPT = """
import os, sys
from pathlib import Path
from fuseloop.training.config import VisualConfig, load_config
from fuseloop.training.visual import train
result = train(load_config(VisualConfig, sys.argv[1]))
Path(sys.argv[1]).with_suffix(".best" + os.environ["RANK"]).write_text(str(result.best))
"""


def numbers(folder):
    entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return torch.tensor([value for entry in entries for value in (entry.get("validation") or entry).values()])


def test_two_processes_give_the_loss_curve_and_the_weights_of_one(tiny, tmp_path):
    # Batches that two cannot share evenly, batch statistics, frames of two sizes, calibration. Training is chaotic: a
    # relative change of 1e-7 in one weight grows to some per cent within 25 steps at 1e-3. So the steps are small here.
    stages = [
        {"steps": 7, "crop": 48, "batch": 3, "lr": 1e-4},
        {"steps": 6, "crop": "frame", "batch": 3, "lr": 1e-4, "norm": "frozen", "calibrate": 5},
    ]
    settings = {"stages": stages, "log_every": 1, "loss": {"intensity": 0.2, "gradient": 1.0}}
    alone = train(tiny(**settings, folder=tmp_path / "one"))
    (tmp_path / "config.yaml").write_text(dump_config(tiny(**settings, folder=tmp_path / "two")))
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "script.py"), str(tmp_path / "config.yaml")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    known = [float((tmp_path / f"config.best{rank}").read_text()) for rank in range(2)]
    assert known == pytest.approx([alone.best] * 2, rel=1e-3), "both processes know the result"
    torch.testing.assert_close(numbers(tmp_path / "two"), numbers(tmp_path / "one"), rtol=5e-4, atol=1e-6)


def test_batches_that_processes_cannot_share_are_errors(tiny):
    stages = tiny().stages
    with pytest.raises(ConfigurationError, match="stage 1 has batches of 3 for 4 processes"):
        _check_processes(stages, 4)
    batch_norm_on_frames = stages[1].model_copy(update={"norm": "batch"})
    with pytest.raises(ConfigurationError, match="stage 2 normalises whole frames by batch statistics"):
        _check_processes([stages[0], batch_norm_on_frames], 2)
