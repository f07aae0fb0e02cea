"""Typed configurations of training: YAML files and dotted overrides, where an unknown key is an error.

A configuration is a frozen tree of `Settings`. `load_config` reads one from a preset or a YAML file, applies overrides
such as `stages.0.steps=100`, and turns whatever is wrong into a `ConfigurationError` that names the place and, for a
mistyped key, the keys that exist there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from fuseloop.errors import ConfigurationError
from fuseloop.training.gradient_rules import RULES
from fuseloop.training.losses import LOSSES

ROOT = "{root}"
ROUNDING = "rounding"
VIEW = "view"
TERMS = (*LOSSES, ROUNDING)


class Settings(BaseModel):
    """Base of all configurations: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Settings):
    """Where training pairs come from.

    Attributes:
        spec: What `fuseloop.datasets.folders.open_pairs` understands: a folder or "synthetic:COUNT". "{root}" in it
            stands for the `root` of the configuration.
        weight: Share of this source in a batch, relative to the other sources.
    """

    spec: str
    weight: PositiveFloat = 1.0


class Augmentation(Settings):
    """What is done to every training pair at random.

    Attributes:
        flip: Mirror it horizontally, vertically, or not.
        rotate: Turn it by a multiple of 90°.
        jitter: Strength of the brightness, contrast and gamma changes, drawn for each modality apart; 0 is none.
        fade: Share of the images whose contrast is lowered, down to a twentieth, drawn for each modality apart.
    """

    flip: bool = True
    rotate: bool = True
    jitter: float = Field(default=0.0, ge=0, lt=1)
    fade: float = Field(default=0.0, ge=0, le=1)


class AnyStage(Settings):
    """What a stage of every recipe has.

    Attributes:
        steps: Optimiser steps.
        batch: Pairs in a step, of all processes together.
        lr: Learning rate, the largest one of the schedule.
        schedule: "constant", or "cosine" from `lr` to `lr_end` over the stage.
        lr_end: Where the cosine ends.
        warmup: Steps in which the learning rate rises linearly to `lr`.
    """

    steps: PositiveInt
    batch: PositiveInt = 16
    lr: PositiveFloat = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    lr_end: NonNegativeFloat = 0.0
    warmup: int = Field(default=0, ge=0)


class Stage(AnyStage):
    """One stage of the training of the fusion network.

    Attributes:
        crop: Side of the square crops, or "frame" for whole frames.
        norm: "batch" normalises by the statistics of the batch; "frozen" by the running statistics, which then stay as
            they are. Only with "frozen" does the network see in training what it sees in use: absolute brightness.
        calibrate: Pairs over which the running statistics are estimated anew before the stage begins; 0 keeps them.
        augmentation: What is done to the pairs.
    """

    crop: PositiveInt | Literal["frame"] = 256
    norm: Literal["batch", "frozen"] = "batch"
    calibrate: int = Field(default=0, ge=0)
    augmentation: Augmentation = Augmentation()

    @field_validator("crop")
    @classmethod
    def _crop_is_large_enough(cls, crop: int | str) -> int | str:
        if isinstance(crop, int) and crop < 48:
            raise ValueError("crops need a side of at least 48; the metrics among the loss terms are undefined below")
        return crop


class TrainingConfig(Settings):
    """What every recipe has in common: the loop.

    Attributes:
        recipe: What `fuseloop train` calls it, and the folder of its presets.
        folder: Run folder. Running the same configuration in it again continues where it was stopped or killed.
        seed: Seed of the initial weights and of the sampling.
        device: Where to train.
        precision: "fp32", or "bf16" for activations in bfloat16 over weights in fp32.
        clip: Largest gradient norm; null for any.
        ema: Decay of the moving average of the weights; the average is then what is validated and saved.
        validate_every: Steps in an epoch; each ends with a validation.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between entries of the history and the curves, which hold the mean over these steps.
        budget_minutes: Stop in good order after this time; the same command continues.
    """

    recipe: ClassVar[str] = ""
    folder: Path = Path("runs/visual")
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    clip: PositiveFloat | None = None
    ema: float | None = Field(default=None, gt=0, lt=1)
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 100
    log_every: PositiveInt = 20
    budget_minutes: PositiveFloat | None = None

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the result, as plain data; places and habits are left out."""
        return self.model_dump(mode="json", exclude={"folder", "root", "checkpoint_every", "budget_minutes"})


def _check_root(root: Path | None, specs: Iterable[str]) -> None:
    """Asks for the root where a spec needs one."""
    if root is None and any(ROOT in spec for spec in specs):
        raise ValueError(f"the data lies under {ROOT}: say where that is, for example root=data")


class VisualConfig(TrainingConfig):
    """Training of the vision-guided fusion network.

    Attributes:
        depth: Number L of dense residual blocks.
        start: Weights to begin with, a shipped name or a file, to tune them further; null begins with random ones.
        loss: Weights of the loss terms, by their names in `TERMS`: those of `fuseloop.training.losses.LOSSES`, and
            "rounding", what bf16 changes (see `fuseloop.training.rounding`).
        rounding_tolerance: Grey levels of an error by rounding that the term "rounding" leaves alone.
        data: Where the training pairs come from.
        validation: Where the validation pairs come from; these are fused whole.
        select: What the best weights have least of: "loss", the weighted sum, or one loss term.
        root: Folder that "{root}" in a spec stands for.
        stages: The stages, in order.
    """

    recipe = "visual"
    depth: PositiveInt = 2
    start: str | None = None
    loss: dict[str, NonNegativeFloat] = {"intensity": 0.2, "gradient": 1.0}
    rounding_tolerance: NonNegativeFloat = 0.0
    data: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(min_length=1)
    select: str = "loss"
    root: Path | None = None
    stages: tuple[Stage, ...] = Field(min_length=1)

    @field_validator("loss")
    @classmethod
    def _loss_terms_exist(cls, loss: dict[str, float]) -> dict[str, float]:
        for name in loss:
            if name not in TERMS:
                raise ValueError(_unknown("loss term", name, TERMS))
        if not any(loss.values()):
            raise ValueError("at least one loss term needs a weight above 0")
        return loss

    @field_validator("select")
    @classmethod
    def _selection_exists(cls, select: str) -> str:
        if select not in ("loss", *TERMS):
            raise ValueError(_unknown("selection", select, ("loss", *TERMS)))
        return select

    @model_validator(mode="after")
    def _rounding_is_all_that_differs(self) -> VisualConfig:
        batch = any(stage.norm == "batch" for stage in self.stages)
        if self.loss.get(ROUNDING) and (batch or self.precision != "fp32"):
            raise ValueError(
                f"the loss term {ROUNDING!r} compares engines in bf16 with the network in fp32, normalised by its "
                "running statistics; set precision=fp32 and norm=frozen in every stage"
            )
        return self

    @model_validator(mode="after")
    def _root_is_given(self) -> VisualConfig:
        _check_root(self.root, (*self.validation, *(one.spec for one in self.data)))
        return self

    def resolve(self, spec: str) -> str:
        """A spec with "{root}" replaced."""
        return spec.replace(ROOT, str(self.root))


class TaskAugmentation(Settings):
    """What is done to every labelled pair at random, to images and labels alike.

    Attributes:
        flip: Mirror it horizontally in half of the cases.
        scales: Least and greatest magnification of the part that is shown.
        mosaic: Share of the samples that are parts of four pairs around a point.
        focus: Share of the others that show a class of the segmentation, of which every one is drawn equally often,
            however rare it is.
        brighten: Strength of the brightness, contrast and gamma changes, drawn for each modality apart; 0 is none.
    """

    flip: bool = True
    scales: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.6)
    mosaic: float = Field(default=0.0, ge=0, le=1)
    focus: float = Field(default=0.0, ge=0, le=1)
    brighten: float = Field(default=0.3, ge=0, lt=1)

    @field_validator("scales")
    @classmethod
    def _scales_are_in_order(cls, scales: tuple[float, float]) -> tuple[float, float]:
        if scales[0] > scales[1]:
            raise ValueError("the least magnification comes first")
        return scales


class TaskStage(AnyStage):
    """One stage of the training of a task network.

    Attributes:
        height: Rows of the samples.
        width: Columns of the samples.
        weights: Weight of each data set among the samples, in their order; null takes those of the sources.
        augmentation: What is done to the pairs.
    """

    height: int = Field(default=256, ge=32)
    width: int = Field(default=320, ge=32)
    weights: tuple[NonNegativeFloat, ...] | None = None
    augmentation: TaskAugmentation = TaskAugmentation()


class TaskConfig(TrainingConfig):
    """Training of a task network.

    Attributes:
        network: A name of `fuseloop.tasks.weights.NETWORKS`.
        options: Keywords of the network, such as `letterbox` of YOLOv5.
        classes: Names of its classes; null takes those of the first data set.
        start: Weights of the same network to begin with, a shipped name or a file; null begins with random ones.
        data: Where the labelled training pairs come from.
        validation: Where the labelled validation pairs come from; these are looked at whole.
        on_error: What becomes of frames with broken labels: "raise" refuses the data, "skip" leaves them out and
            says so.
        fusers: What the network looks at, and the share of each: "infrared", "visible", "mean", "max", the name of
            shipped fusion weights, or a weight file.
        anchors: "auto" fits the anchors of a detector to the training boxes where the published ones do not fit them;
            "published" keeps them.
        decay: Weight decay of all weights but biases and norms.
        workers: Threads that prepare batches beside the training; 0 prepares them within it.
        root: Folder that "{root}" in a spec stands for.
        stages: The stages, in order.
    """

    recipe = "task"
    folder: Path = Path("runs/task")
    network: str
    options: dict[str, Any] = {}
    classes: tuple[str, ...] | None = None
    start: str | None = None
    data: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(min_length=1)
    on_error: Literal["raise", "skip"] = "raise"
    fusers: dict[str, PositiveFloat] = {"infrared": 1.0, "visible": 1.0, "mean": 1.0, "max": 1.0, "vfn": 1.0}
    anchors: Literal["auto", "published"] = "auto"
    decay: NonNegativeFloat = 5e-4
    workers: int = Field(default=0, ge=0)
    root: Path | None = None
    stages: tuple[TaskStage, ...] = Field(min_length=1)

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the result; how batches are prepared does not."""
        return {key: value for key, value in super().result_settings().items() if key != "workers"}

    @field_validator("fusers")
    @classmethod
    def _there_is_a_fuser(cls, fusers: dict[str, float]) -> dict[str, float]:
        if not fusers:
            raise ValueError("name at least one fuser, such as vfn: 1")
        return fusers

    @model_validator(mode="after")
    def _weights_are_one_for_each_source(self) -> TaskConfig:
        for number, stage in enumerate(self.stages, 1):
            if stage.weights is not None and (len(stage.weights) != len(self.data) or not any(stage.weights)):
                raise ValueError(
                    f"stage {number} has {len(stage.weights)} weights for {len(self.data)} data sets; give one for "
                    "each, one of them above 0"
                )
        return self

    @model_validator(mode="after")
    def _root_is_given(self) -> TaskConfig:
        _check_root(self.root, (*self.validation, *(one.spec for one in self.data)))
        return self

    def resolve(self, spec: str) -> str:
        """A spec with "{root}" replaced."""
        return spec.replace(ROOT, str(self.root))


class LoopTask(Settings):
    """A task that is trained for by the loss of a frozen task network.

    Attributes:
        task_network: Name of shipped weights, a weight file, or a folder that `transformers` wrote; it stays as it is.
        name: What it is called in the history; by default as its file, or as its run folder.
        data: Where its labelled training pairs come from.
        validation: Where its labelled validation pairs come from; these are looked at whole.
        weight: Of its loss relative to the others.
    """

    task_network: str
    name: str = ""
    data: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(min_length=1)
    weight: PositiveFloat = 1.0

    @property
    def title(self) -> str:
        """Its name."""
        path = Path(self.task_network)
        return self.name or (path.parent.name if path.stem in ("best", "last") and path.parent.name else path.stem)


class LoopStage(AnyStage):
    """One stage of a training on the losses of frozen task networks.

    Attributes:
        batch: Pairs of each task in a step.
        height: Rows of the samples.
        width: Columns of the samples.
        samples: "frames" shows each pair whole, resized, as far as its aspect allows; "tiles" cuts it into samples at
            its own resolution; both in half of the cases mirrored. A mapping shows random parts, changed as it says.
    """

    batch: PositiveInt = 4
    lr: PositiveFloat = 2e-3
    height: int = Field(default=240, ge=32)
    width: int = Field(default=320, ge=32)
    samples: Literal["frames", "tiles"] | TaskAugmentation = "frames"


class FrozenTasksConfig(TrainingConfig):
    """What the trainings on the losses of frozen task networks have in common.

    Attributes:
        fusion: Weights of the fusion network, a shipped name or a file; it stays as it is.
        frozen: Names of parts of what is trained that do not learn.
        start: Weights of the same kind to begin with, a shipped name or a file; null begins with random ones, which
            change no image.
        tasks: What it is trained for.
        on_error: What becomes of frames with broken labels: "raise" refuses the data, "skip" leaves them out and
            says so.
        rule: What makes one step of the gradients of all tasks, a name of `fuseloop.training.gradient_rules.RULES`:
            "published" is the solver of the published code of CLDyN.
        radius: c of CAGrad.
        penalty: δ, weight of how much worse a loss became than that of the image that is fused for nobody.
        scale_over: Pairs of each task over which the mean loss of that image is measured, which the losses of the task
            are divided by; 0 takes the losses as they are.
        decay: Weight decay of what is neither norm nor bias.
        coupled_decay: Adam with the decay in the gradient of everything, as published, in place of AdamW.
        cache: Keep what the first look at each sample gave; random parts are never the same again.
        skip_limit: Steps that may be left out because a feature, loss or gradient is not finite.
        select: What chooses the best weights: the mean "score" of the tasks, or their mean "loss" relative to that of
            the image that is fused for nobody.
        root: Folder that "{root}" in a spec stands for.
        stages: The stages, in order.
    """

    clip: PositiveFloat | None = 1.0
    fusion: str = "vfn"
    frozen: tuple[str, ...] = ()
    start: str | None = None
    tasks: tuple[LoopTask, ...] = Field(min_length=1)
    on_error: Literal["raise", "skip"] = "raise"
    rule: str = "cagrad"
    radius: float = Field(default=0.5, ge=0, lt=1)
    penalty: NonNegativeFloat = 5.0
    scale_over: int = Field(default=16, ge=0)
    decay: NonNegativeFloat = 1e-4
    coupled_decay: bool = False
    cache: bool = True
    skip_limit: int = Field(default=10, ge=0)
    select: Literal["score", "loss"] = "score"
    root: Path | None = None
    stages: tuple[LoopStage, ...] = Field(min_length=1)

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the result; how much may go wrong does not."""
        return {key: value for key, value in super().result_settings().items() if key != "skip_limit"}

    @field_validator("rule")
    @classmethod
    def _rule_exists(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(_unknown("rule", rule, RULES))
        return rule

    @field_validator("tasks")
    @classmethod
    def _tasks_have_names_of_their_own(cls, tasks: tuple[LoopTask, ...]) -> tuple[LoopTask, ...]:
        titles = [task.title for task in tasks]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two tasks are called {title!r}; give one another name")
        return tasks

    @model_validator(mode="after")
    def _what_is_kept_comes_again(self) -> FrozenTasksConfig:
        if self.cache and any(isinstance(stage.samples, TaskAugmentation) for stage in self.stages):
            raise ValueError("random parts are never the same again: set cache=false, or samples to frames or tiles")
        return self

    @model_validator(mode="after")
    def _root_is_given(self) -> FrozenTasksConfig:
        _check_root(self.root, self.specs())
        return self

    def specs(self) -> list[str]:
        """Of all data."""
        return [spec for task in self.tasks for spec in (*task.validation, *_specs(task.data))]

    def resolve(self, spec: str) -> str:
        """A spec with "{root}" replaced."""
        return spec.replace(ROOT, str(self.root))


class ClosedLoopConfig(FrozenTasksConfig):
    """Training of the semantic compensation, by which one fusion network serves several task networks.

    Attributes:
        compensation: Keywords of `SemanticCompensation`, such as branches, width and vectors; its depth is that of the
            fusion network. "bv_f" among `frozen` is its query, "bvb" its bank; neither decays.
        logit_scale: Factor of the cosines by which structures are chosen, before the noise of training is added.
        temperature: Of the softmax by which the selection of vectors learns.
        penalty_per: Whether the penalty is of each "sample", of the means of the "batch", or of "none".
    """

    recipe = "closed-loop"
    folder: Path = Path("runs/closed-loop")
    compensation: dict[str, Any] = {}
    logit_scale: PositiveFloat = 10.0
    temperature: PositiveFloat = 0.1
    penalty_per: Literal["sample", "batch", "none"] = "sample"


class ViewTask(Settings):
    """People who look at the image: a task without a task network.

    Attributes:
        data: Where pairs come from; their labels, if they have some, are not looked at.
        validation: Where validation pairs come from; these are looked at whole.
        loss: Weights of the loss terms, by their names in `fuseloop.training.losses.LOSSES`; by default those of the
            shipped fusion network.
        weight: Of its loss relative to the tasks.
    """

    data: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(min_length=1)
    loss: dict[str, PositiveFloat] = {
        "intensity": 0.3, "gradient": 0.3, "qabf": 8.0, "vif": 2.0, "scd": 0.4, "qcv": 2.0,
    }  # fmt: skip
    weight: PositiveFloat = 1.0

    @field_validator("loss")
    @classmethod
    def _loss_terms_exist(cls, loss: dict[str, float]) -> dict[str, float]:
        if not loss:
            raise ValueError("name at least one loss term, such as gradient: 1")
        for name in loss:
            if name not in LOSSES:
                raise ValueError(_unknown("loss term", name, LOSSES))
        return loss


class InstructionConfig(FrozenTasksConfig):
    """Training of the conditioner, by which one fusion network does what an instruction says.

    Attributes:
        encoder: What makes the embeddings: "instructions", the shipped text encoder; the weight file of one, or a
            folder that `transformers` reads; or "tasks", a vector for each intent that learns with the conditioner,
            which is what text has to be compared with. A text encoder stays as it is.
        conditioner: Keywords of `InstructionConditioner`, such as places; its depth is that of the fusion network. A
            place among `frozen`, such as "decoder1", stays without effect.
        view: The intent "view"; null leaves it out.
        mixtures: Share of the samples whose instruction asks for several things.
        fidelity: Weight of the visual loss of the image for a task, relative to that of the image without instruction.
        turns: 0 for all tasks in every step; as published, the tasks one after the other, this many steps each.
    """

    recipe = "instruction"
    folder: Path = Path("runs/instruction")
    encoder: str = "instructions"
    conditioner: dict[str, Any] = {}
    view: ViewTask | None = None
    mixtures: float = Field(default=0.25, ge=0, lt=1)
    fidelity: NonNegativeFloat = 0.1
    turns: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _view_is_a_name_of_its_own(self) -> InstructionConfig:
        if self.view is not None and any(task.title == VIEW for task in self.tasks):
            raise ValueError(f"a task is called {VIEW!r}, as what people look at; give it another name")
        return self

    def specs(self) -> list[str]:
        """Of all data."""
        return [*super().specs(), *([] if self.view is None else [*self.view.validation, *_specs(self.view.data)])]


class EncoderConfig(TrainingConfig):
    """Training of the text encoder on sentences of the grammar.

    Attributes:
        encoder: Keywords of `HashedEncoder`, such as buckets and dim.
        dropout: Share of the features of a sentence that are left out.
        smoothing: Share of every purpose that is spread over all.
        decay: Weight decay of the layers.
        counted: Sentences in which the terms are counted.
        validation: Sentences that choose the best weights.
        stages: The stages, in order.
    """

    recipe = "encoder"
    folder: Path = Path("runs/encoder")
    device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"
    encoder: dict[str, int] = {}
    dropout: float = Field(default=0.2, ge=0, lt=1)
    smoothing: float = Field(default=0.02, ge=0, lt=1)
    decay: NonNegativeFloat = 1e-2
    counted: PositiveInt = 40_000
    validation: PositiveInt = 4_000
    stages: tuple[AnyStage, ...] = Field(min_length=1)


def _specs(sources: Iterable[Source]) -> list[str]:
    return [source.spec for source in sources]


Config = TypeVar("Config", bound=TrainingConfig)


def presets(kind: type[TrainingConfig]) -> dict[str, Path]:
    """The shipped configurations of a recipe by name."""
    return {path.stem: path for path in sorted((_presets_folder() / kind.recipe).glob("*.yaml"))}


def _presets_folder() -> Path:
    return Path(str(files("fuseloop.training") / "presets"))


def load_config(kind: type[Config], source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        kind: The class of the configuration.
        source: Name of a preset, or path of a YAML file.
        overrides: "key=value" each; keys are dotted (`stages.0.steps=100`), values are YAML.

    Returns:
        The checked configuration.

    Raises:
        ConfigurationError: There is no such preset or file, the preset is of another recipe, it is no YAML, or a key or
            value is wrong.
    """
    known = presets(kind)
    path = known.get(str(source), Path(source))
    if not path.is_file():
        for other in _presets_folder().glob("*/*.yaml"):
            if other.stem == str(source):
                raise ConfigurationError(
                    f"{source} is a preset of `fuseloop train {other.parent.name}`; `fuseloop train {kind.recipe}` has "
                    f"{', '.join(known)}"
                )
        raise ConfigurationError(_unknown("preset or configuration file", str(source), known))
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no YAML file: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path} holds no settings: expected lines such as 'seed: 0'")
    for override in overrides:
        _override(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {_explain(kind, error)}") from error


def dump_config(config: Settings) -> str:
    """The whole configuration as YAML, in the order of its declaration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _override(tree: dict[str, Any], override: str) -> None:
    """Sets one value of a tree of dictionaries and lists in place."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigurationError(f"override {override!r} is not of the form key=value, for example stages.0.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"override {override!r}: the value is no YAML: {error}") from error
    *parents, last = path.split(".")
    node: Any = tree
    for key in parents:
        node = node.setdefault(key, {}) if isinstance(node, dict) else _item(node, key, override)
    if isinstance(node, dict):
        node[last] = value
    else:
        _item(node, last, override)
        node[int(last)] = value


def _item(node: Any, key: str, override: str) -> Any:
    if not isinstance(node, list) or not key.isdecimal() or int(key) >= len(node):
        there = f"a list of {len(node)}: 0 to {len(node) - 1}" if isinstance(node, list) else f"the value {node!r}"
        raise ConfigurationError(f"override {override!r}: {key!r} does not exist there; found {there}")
    return node[int(key)]


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    """One line per fault: where, what, and for an unknown key the known ones."""
    lines = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _fields_at(kind, fault["loc"][:-1])
            lines.append(_unknown("key", place, known, str(fault["loc"][-1])))
        else:
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(f"{place}: {message}" if place else message)
    return "\n".join(dict.fromkeys(lines))


def _fields_at(kind: type[BaseModel], place: Iterable[int | str]) -> list[str]:
    """Names of the settings at a place of the tree."""
    for part in place:
        if isinstance(part, str) and part in kind.model_fields:
            kind = _settings_in(kind.model_fields[part].annotation) or kind
    return list(kind.model_fields)


def _settings_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class that an annotation is or holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _settings_in(part))), None)


def _unknown(what: str, name: str, known: Iterable[str], compared: str | None = None) -> str:
    close = difflib.get_close_matches(compared or name, list(known), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {name!r}; {hint}Known: {', '.join(known)}"
