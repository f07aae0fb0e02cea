"""Several task networks trained beside each other within a time budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fuseloop.training.config import TaskStage
from tools import train_tasks
from tools.train_tasks import Plan, parse, shortened

CONFIG = """
network: ctdnet-18
options: {width: 0.125}
root: null
data: [{spec: "msrs:{root}/synthetic"}]
validation: ["msrs:{root}/synthetic"]
validate_every: 100000
log_every: 1
stages: [{steps: 100000, batch: 2, height: 64, width: 64, warmup: 10}, {steps: 50000, batch: 1, height: 64, width: 64}]
"""


def test_plans_are_presets_or_variants_of_them():
    assert parse("yolov5s") == Plan("yolov5s", "yolov5s")
    assert parse("a=yolov5s,seed=1") == Plan("a", "yolov5s", ("seed=1",))


def test_stages_keep_their_proportions():
    stages = [TaskStage(steps=100, batch=4, height=64, width=64, warmup=10), TaskStage(steps=50, batch=8, height=32)]
    whole = 100 * 4 * 64 * 64 + 50 * 8 * 32 * 320
    assert shortened(stages, whole / 2) == ["stages.0.steps=50", "stages.0.warmup=5", "stages.1.steps=25"]
    assert shortened(stages, whole * 2) == ["stages.0.steps=200", "stages.0.warmup=10", "stages.1.steps=100"]


def test_the_steps_follow_from_the_speed_that_was_measured(tmp_path, monkeypatch, capsys):
    """The command is replaced by one that says a speed: how fast this machine is must not decide a test."""
    (tmp_path / "narrow.yaml").write_text(CONFIG)
    (tmp_path / "synthetic").mkdir()
    commands = []

    def fuseloop(arguments, log):
        commands.append(arguments)
        folder = Path(arguments[arguments.index("--out") + 1])
        folder.mkdir(parents=True)
        log.write_text("step 1/9  1.0 steps/s  10.0 pairs/s\n")
        (folder / "history.jsonl").write_text('{"step": 7, "validation": {"selected": 0.25}}\n')
        stages = [word for word in arguments if word.startswith("stages")]
        steps = [{"steps": int(word.split("=")[1])} for word in stages if ".steps=" in word]
        (folder / "config.yaml").write_text(yaml.safe_dump({"stages": steps}))
        return 0

    monkeypatch.setattr(train_tasks, "fuseloop", fuseloop)
    plan = f"one={tmp_path / 'narrow.yaml'},seed=1"
    arguments = ["--root", str(tmp_path), "--out", str(tmp_path / "runs"), "--minutes", "10", plan]
    monkeypatch.setattr("sys.argv", ["train_tasks.py", *arguments])
    assert train_tasks.main() == 0
    trial, final = commands
    assert "seed=1" in trial
    assert "seed=1" in final
    assert "budget_minutes=1.2" in trial
    first, second = (int(word.split("=")[1]) for word in final if ".steps=" in word)
    # Ten pairs a second for ten minutes less a fifth, of stages with two and one in a step, the second half as long.
    assert 2 * first + second == pytest.approx(10 * 60 * 10 * (1 - train_tasks.KEPT_BACK), rel=0.01)
    assert first == pytest.approx(2 * second, rel=0.01)
    assert f"one: best validation 0.2500 at step 7 of {first + second}" in capsys.readouterr().out
