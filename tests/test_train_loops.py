"""All trainings of the closed loop from one table."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from fuseloop import cli
from fuseloop.fusers.loop_weights import read_loop
from fuseloop.fusers.weights import write_weights as write_fusion
from fuseloop.networks.semantic_compensation import ABLATIONS, SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.tasks.weights import build, write_weights
from fuseloop.training.config import ClosedLoopConfig, LoopStage, load_config
from tools import train_loops
from tools.train_loops import RUNS, Run, chosen, shortened

CONFIG = """
tasks:
  - task_network: {network}
    data: [{{spec: "synthetic:1:1"}}]
    validation: ["synthetic:1:2"]
root: null
scale_over: 1
validate_every: 2
log_every: 1
stages: [{{steps: 6, batch: 1, height: 64, width: 64, warmup: 3}}]
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A folder with a configuration of a small network; the command runs in this process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("ctdnet-18", width=0.125)
        write_weights(tmp_path / "small.safetensors", network, "ctdnet-18", options={"width": 0.125})
        write_fusion(tmp_path / "deep.safetensors", VFN(3))
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(network=tmp_path / "small.safetensors"))
    (tmp_path / "synthetic").mkdir()
    monkeypatch.setattr("fuseloop.engines.allocator.tune_allocator", lambda: None)  # this process is pytest's

    def here(arguments, log):
        said = io.StringIO()
        with redirect_stdout(said):
            code = cli.main(arguments)
        log.write_text(said.getvalue())
        return code

    monkeypatch.setattr(train_loops, "fuseloop", here)
    return tmp_path


@pytest.fixture
def train(tiny, monkeypatch):
    """Runs the tool and gives its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        lines: list[str] = []
        # Trainings in other threads take the standard output for themselves, and what is printed meanwhile.
        monkeypatch.setattr(train_loops, "print", lambda line, flush=False: lines.append(line), raising=False)
        fixed = ["--root", str(tiny), "--out", str(tiny / "runs"), "--preset", str(tiny / "tiny.yaml")]
        monkeypatch.setattr("sys.argv", ["train_loops.py", *fixed, "--device", "cpu", *arguments])
        return train_loops.main(), "\n".join(lines)

    return run


class TestTheTable:
    @pytest.mark.parametrize("name", RUNS)
    def test_every_row_is_the_preset_with_a_change_that_fits_it(self, name):
        changes = [change.replace(train_loops.DEEP, "deep.safetensors") for change in RUNS[name]]
        config, preset = (load_config(ClosedLoopConfig, "cldyn", ["root=data", *own]) for own in (changes, []))
        assert (config == preset) == (name in ("seeds/seed-0", "ablations/main"))
        SemanticCompensation(**config.compensation)

    def test_there_are_three_seeds_and_a_run_without_every_part(self):
        assert len({RUNS[name] for name in RUNS if name.startswith("seeds/")}) == 3
        gone = {f"compensation.without=[{part}]" for part in ABLATIONS}
        assert gone <= {change for changes in RUNS.values() for change in changes}

    def test_names_can_be_given_by_patterns_and_keep_the_order_of_the_table(self, capsys):
        assert chosen(["ablations/M-*", "seeds/seed-1"], deep=None) == [
            "seeds/seed-1", "ablations/M-2", "ablations/M-8",
        ]  # fmt: skip
        assert chosen(["*"], deep=Path("deep.safetensors")) == list(RUNS)
        assert not capsys.readouterr().out

    def test_without_a_deep_fusion_network_its_run_is_left_out_and_it_is_said_how_to_get_one(self, capsys):
        assert chosen(["*"], deep=None) == [name for name in RUNS if name != "ablations/L-3"]
        assert "fuseloop train visual --preset shipped-1 root=DATA depth=3" in capsys.readouterr().out

    def test_stages_keep_their_proportions(self):
        stages = [LoopStage(steps=600, warmup=30), LoopStage(steps=150)]
        expected = ["stages.0.steps=200", "stages.0.warmup=10", "stages.1.steps=50"]
        assert shortened(stages, 1 / 3) == expected
        assert shortened(stages, 2)[:2] == ["stages.0.steps=1200", "stages.0.warmup=30"]


class TestRunning:
    def test_runs_are_trained_and_again_nothing_is(self, tiny, train, monkeypatch):
        common = ("--only", "seeds/seed-1", "--only", "ablations/L-3", "--deep", str(tiny / "deep.safetensors"))
        code, said = train(*common, "--steps", "3", "select=loss")
        assert code == 0, said
        assert "2 of 2 runs have ended" in said
        assert "seeds/seed-1: best validation" in said
        assert "of 3; gains: small " in said
        seed, deep = (
            read_loop(tiny / "runs" / name / "best.safetensors") for name in ("seeds/seed-1", "ablations/L-3")
        )
        assert (seed.compensation.depth, deep.compensation.depth) == (2, 3)
        config, ablation = (
            load_config(ClosedLoopConfig, str(tiny / "runs" / name / "config.yaml"))
            for name in ("seeds/seed-1", "ablations/L-3")
        )
        assert (config.seed, config.select, config.stages[0].steps, ablation.stages[0].steps) == (1, "loss", 3, 1)
        monkeypatch.setattr(train_loops, "fuseloop", lambda *_: pytest.fail("it has ended"))
        code, again = train(*common, "--steps", "3", "select=loss")
        assert code == 0
        assert again.splitlines() == said.splitlines()[-2:]

    def test_a_run_that_was_stopped_goes_on(self, tiny, train, monkeypatch):
        monkeypatch.setattr(train_loops, "TO_BEGIN", 0)
        code, said = train("--only", "seeds/seed-0", "--minutes", "1e-9")
        assert code == 0
        assert "time is over" in said
        run = Run(tiny / "runs/seeds/seed-0", str(tiny / "tiny.yaml"), ("device=cpu", f"root={tiny}"))
        assert train_loops.train(run, 1e-9) == ""
        assert train_loops.steps_done(run) == 1
        assert not train_loops.has_ended(run)
        code, said = train("--only", "seeds/seed-0")
        assert code == 0, said
        assert "at step" in said
        assert "stopped at" not in said
        assert train_loops.has_ended(run)

    def test_one_that_fails_is_told_and_the_others_are_done(self, tiny, train):
        (tiny / "runs/ablations").mkdir(parents=True)
        (tiny / "runs/ablations/M-2").write_text("in the way")
        code, said = train("--only", "ablations/M-2", "--only", "ablations/delta-1", "--jobs", "1")
        assert code == 1
        assert "ablations/M-2: failed: " in said
        assert "ablations/delta-1: best validation" in said

    def test_a_run_of_other_settings_is_no_ended_one(self, tiny, train):
        assert train("--only", "ablations/delta-1")[0] == 0
        code, said = train("--only", "ablations/delta-1", "rule=mean")
        assert code == 1
        assert "ablations/delta-1: failed: " in said

    def test_unknown_runs_and_settings_are_refused(self, train, capsys):
        for arguments, message in ((("--only", "ablations/L-9"), "no such run"), (("rule=most",), "unknown rule")):
            with pytest.raises(SystemExit):
                train(*arguments)
            assert message in capsys.readouterr().err


def test_the_time_left_follows_from_the_steps_so_far(tmp_path, monkeypatch):
    clock = iter((0.0, 30.0))
    monkeypatch.setattr(train_loops.time, "monotonic", lambda: next(clock))
    runs = {}
    for name, steps in (("a", 4), ("b", 0)):
        runs[name] = Run(tmp_path / name, "cldyn", ("root=data", "stages.0.steps=100"))
        runs[name].folder.mkdir()
        (runs[name].folder / "history.jsonl").write_text(json.dumps({"step": steps}) + "\n" if steps else "")
    shown = train_loops.Clock(runs)
    (tmp_path / "a/history.jsonl").write_text('{"step": 4}\n{"step": 54}\n{"step": 6')
    # 50 steps in half a minute; 46 and 100 are left.
    assert shown.show() == "0 of 2 runs have ended; a 54/100; about 1 min left"
