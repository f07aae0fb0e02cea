from __future__ import annotations

import pytest

from fuseloop.errors import ConfigurationError
from fuseloop.training.config import VisualConfig, dump_config, load_config, presets
from fuseloop.training.visual import train

MINIMAL = """
data: [{spec: "synthetic:4"}]
validation: ["synthetic:2"]
stages:
  - {steps: 3, crop: 64}
  - {steps: 2, crop: frame}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def test_overrides_reach_every_depth(minimal):
    config = load_config(
        VisualConfig, minimal, ["seed=7", "stages.1.lr=5e-4", "loss.vif=0.5", "stages.0.augmentation.jitter=0.1"]
    )
    assert config.seed == 7
    assert config.stages[1].lr == 5e-4
    assert config.stages[0].augmentation.jitter == 0.1
    assert config.stages[0].augmentation.flip, "what was not overridden keeps its default"


def test_a_dumped_configuration_reads_back_the_same(minimal, tmp_path):
    config = load_config(VisualConfig, minimal)
    (tmp_path / "dump.yaml").write_text(dump_config(config))
    assert load_config(VisualConfig, tmp_path / "dump.yaml") == config


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("sed=1", "unknown key 'sed'; did you mean 'seed'?"),
        ("stages.0.warm_up=3", "unknown key 'stages.0.warm_up'; did you mean 'warmup'?"),
        ("stages.0.augmentation.flips=true", "did you mean 'flip'? Known: flip, rotate, jitter, fade"),
        ("data.0.wieght=2", "did you mean 'weight'?"),
        ("loss.qabff=1", "unknown loss term 'qabff'; did you mean 'qabf'?"),
        ("select=vfi", "unknown selection 'vfi'; did you mean 'vif'?"),
        ("loss={rounding: 1}", "the loss term 'rounding' compares engines in bf16 with the network in fp32"),
        ("stages.0.norm=layer", "stages.0.norm: Input should be 'batch' or 'frozen'"),
        ("stages.0.steps=0", "stages.0.steps: Input should be greater than 0"),
        ("stages.0.crop=20", "crops need a side of at least 48"),
        ("stages.5.steps=3", "'5' does not exist there; found a list of 2: 0 to 1"),
        ("seed.deep=3", "found the value"),
        ("stages=[]", "stages: "),
        ("loss={intensity: 0}", "at least one loss term needs a weight above 0"),
        ("validation=['{root}/val']", "say where that is, for example root="),
        ("seed", "is not of the form key=value"),
        ("seed=[", "the value is no YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(minimal, override, complaint):
    minimal.write_text(MINIMAL + "seed: 0\n")
    with pytest.raises(ConfigurationError) as error:
        load_config(VisualConfig, minimal, [override])
    assert complaint in str(error.value)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"did you mean 'paper'.*Known: finetune, paper, shipped"):
        load_config(VisualConfig, "papper")


@pytest.mark.parametrize("content", ["- a list", "{", "\x00"])
def test_a_file_without_settings_is_an_error(tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"bad\.yaml"):
        load_config(VisualConfig, tmp_path / "bad.yaml")


def test_the_paper_preset_is_the_published_recipe():
    config = load_config(VisualConfig, "paper", ["root=data"])
    assert config.loss == {"intensity": 0.2, "gradient": 1.0}
    assert config.clip is None
    assert config.ema is None
    (stage,) = config.stages
    assert (stage.crop, stage.batch, stage.lr, stage.schedule, stage.norm) == (256, 16, 1e-3, "constant", "batch")


@pytest.mark.parametrize("name", presets(VisualConfig))
def test_every_preset_trains_one_step_of_each_stage(name, tiny_data, tmp_path):
    small = [
        "start=null",
        f"root={tiny_data}",
        "data=[{spec: '{root}/train'}]",
        "validation=['{root}/val']",
        f"folder={tmp_path}",
    ]
    for stage in range(len(load_config(VisualConfig, name, small).stages)):
        small += [f"stages.{stage}.steps=1", f"stages.{stage}.batch=2", f"stages.{stage}.crop=48"]
        small += [f"stages.{stage}.calibrate=2", f"stages.{stage}.warmup=0"]
    result = train(load_config(VisualConfig, name, small))
    assert result.finished
    assert result.weights is not None
    assert result.weights.exists()
