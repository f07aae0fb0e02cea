"""Training that is killed with SIGKILL, again and again, ends with the same bits as training that is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fuseloop.training.config import dump_config

# The child imports once and forks for every attempt, as importing takes far longer than training. A fork kills itself
# while it writes a checkpoint aside or before it renames it, or is killed from outside at a random moment.
SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
from rich.console import Console
from fuseloop.training import checkpoints
from fuseloop.training.config import VisualConfig, load_config
from fuseloop.training.visual import train

config, whole, killed = sys.argv[1:]
quiet = Console(quiet=True)

def attempt(folder, die_in=None, call=0, after=None):
    child = os.fork()
    if child == 0:
        if die_in:
            real, calls = getattr(os, die_in), iter(range(1000))
            def fatal(*arguments):
                if next(calls) == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments)
            setattr(os, die_in, fatal)
        train(load_config(VisualConfig, config, ["folder=" + folder]), console=quiet)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

began = time.monotonic()
assert attempt(whole) == 0
seconds = time.monotonic() - began
codes = [attempt(killed, "fsync", 8), attempt(killed, "replace", 4)]
chance = random.Random(0)
codes += [attempt(killed, after=seconds * chance.uniform(0.1, 0.4)) for _ in range(3)]
print(*codes, attempt(killed))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks")
def test_killed_at_any_moment_it_reaches_the_same_weights_bit_for_bit(tiny, tmp_path):
    stages = [
        {"steps": 16, "crop": 48, "batch": 2, "schedule": "cosine", "warmup": 2},
        {"steps": 14, "crop": "frame", "batch": 2, "norm": "frozen", "calibrate": 5},
    ]
    (tmp_path / "config.yaml").write_text(dump_config(tiny(stages=stages, validate_every=10, checkpoint_every=2)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "config.yaml"), str(whole), str(killed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes = [int(code) for code in done.stdout.split()]
    assert codes[:2] == [-9, -9], "it was killed in the middle of two writes"
    assert codes[-1] == 0
    for name in ("best.safetensors", "last.safetensors", "checkpoints/last.safetensors"):
        wanted, found = load_file(whole / name), load_file(killed / name)
        assert wanted.keys() == found.keys()
        for key, value in wanted.items():
            assert torch.equal(found[key], value), f"{key} of {name}"
    curves = EventAccumulator(str(killed)).Reload()
    assert [event.step for event in curves.Scalars("train/loss")] == list(range(2, 31, 2)), "no step twice, none lost"
    assert (killed / "history.jsonl").read_text() == (whole / "history.jsonl").read_text()
