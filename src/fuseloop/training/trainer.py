"""The loop that every recipe shares: steps, validation, curves, crash-safe checkpoints, resuming.

The weights after step n depend on nothing but the configuration, the checkpoint of an earlier step, and the machine:
batches are a pure function of the step (see `sampling`), and a checkpoint holds everything else. So a training that was
killed at any moment reaches the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
import yaml
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter
from typing_extensions import Self

from fuseloop.errors import ConfigurationError
from fuseloop.training import TrainingError
from fuseloop.training.checkpoints import read_checkpoint, write_checkpoint, write_file, writing
from fuseloop.training.config import TrainingConfig, dump_config
from fuseloop.training.progress import Reporter, say

Forward = Callable[..., Tensor]

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


class Batch(Protocol):
    """What the loop needs of a batch: how many pairs it holds, and a copy on another device."""

    @property
    def infrared(self) -> Tensor:
        """B×1×H×W."""
        ...

    def to(self: Self, device: torch.device) -> Self:
        """The same batch on another device."""
        ...


Pairs = TypeVar("Pairs", bound=Batch)


class Recipe(Protocol[Pairs]):
    """What a training is about; the loop is the `Trainer`'s.

    Attributes:
        steps: Optimiser steps.
        weights: Weights of the loss terms.
    """

    steps: int
    weights: Mapping[str, float]

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def optimiser(self) -> Optimizer:
        """A fresh optimiser of the network."""
        ...

    def pairs_in(self, step: int) -> int:
        """Size of the global batch of a step."""
        ...

    def prepare(self, step: int, optimiser: Optimizer) -> None:
        """Makes network and optimiser ready for a step: modes, learning rate, and what a stage begins with."""
        ...

    def batches(self, step: int, slots: Iterable[int]) -> list[Pairs]:
        """The pairs of some slots of the global batch, grouped by size."""
        ...

    def terms(self, forward: Forward, batch: Pairs) -> dict[str, Tensor]:
        """The loss terms of a batch, each the mean over its pairs."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Scores by name; the lowest of the one called "selected" chooses the best weights."""
        ...

    def save(self, path: Path, network: nn.Module, description: str) -> None:
        """Writes weights as they are shipped."""
        ...


@runtime_checkable
class OwnGradients(Protocol[Pairs]):
    """A recipe that makes its gradients itself, of several ones for example.

    Attributes:
        skip_limit: Steps that may be skipped before the training stops.
    """

    skip_limit: int

    def backward(self, fabric: Fabric, batches: list[Pairs]) -> dict[str, Tensor]:
        """Sets the gradients of the network, the same in all processes, and gives the terms of this one's batches.

        Raises:
            SkipStep: The step is better left out, in all processes.
        """
        ...


class SkipStep(Exception):  # noqa: N818 - no error
    """A step is left out, and why."""


@dataclass
class State:
    """The numbers of a checkpoint.

    Attributes:
        step: Steps done.
        best: Lowest validation score so far.
        best_step: When that was.
        sums: Sums of the loss terms since the last entry of the history.
        count: Steps in these sums.
        threads: CPU threads that computed it; sums in another order round otherwise.
        skipped: Steps that were left out.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    threads: int = field(default_factory=torch.get_num_threads)
    skipped: int = 0


@dataclass(frozen=True)
class Result:
    """What a training leaves.

    Attributes:
        folder: Run folder.
        weights: The best weights by validation, None when it stopped before the first validation.
        finished: False when the time budget ended it early.
        step: Steps done.
        best: Lowest validation score.
        best_step: When that was.
    """

    folder: Path
    weights: Path | None
    finished: bool
    step: int
    best: float | None
    best_step: int | None


class Trainer:
    """Runs a recipe in a run folder, from the beginning or from the folder's checkpoint.

    The folder holds `config.yaml`, `environment.json`, `history.jsonl`, TensorBoard curves, the checkpoint
    `checkpoints/last.safetensors`, and the weights `best.safetensors` (by validation) and `last.safetensors`.

    Args:
        config: The settings of the loop.
        fabric: A launched Fabric.
        recipe: What is trained.
        console: Where to show progress; only the first process shows it.

    Raises:
        ConfigurationError: The folder holds a run of another configuration.
        TrainingError: The folder cannot be written, or its checkpoint is damaged.
    """

    def __init__(self, config: TrainingConfig, fabric: Fabric, recipe: Recipe[Any], console: Console) -> None:
        self._config = config
        self._fabric = fabric
        self._recipe = recipe
        self._folder = config.folder
        self._console = console if fabric.is_global_zero else Console(quiet=True)
        self._network = recipe.network
        self._average = copy.deepcopy(recipe.network).requires_grad_(False) if config.ema else None
        self._optimiser = recipe.optimiser()
        # The wrapped pair is for the steps; the bare one for everything else. Both share their tensors.
        self._forward, self._wrapped_optimiser = fabric.setup(self._network, self._optimiser)
        if self._average is not None:
            self._average.to(fabric.device)
        self._state = self._open_folder()

    def run(self) -> Result:
        """Trains to the last step, or until the time budget is spent.

        Raises:
            TrainingError: The loss or its gradient is not finite, or the folder cannot be written.
            KeyboardInterrupt: Ctrl-C, after a checkpoint.
        """
        state, config, steps = self._state, self._config, self._recipe.steps
        deadline = time.monotonic() + 60 * (math.inf if config.budget_minutes is None else config.budget_minutes)
        reporter = Reporter(steps, state.step, self._console)
        if state.step == steps:
            reporter.say(f"{self._folder} is finished already: {steps} steps")
            return self._result(state)
        with _interrupts() as interrupted, reporter, self._open_curves(state.step) as curves:

            def asked_to_stop() -> dict[str, bool]:
                return {"interrupted": interrupted.is_set(), "spent": time.monotonic() > deadline}

            while state.step < steps:
                stop = self._step(state, asked_to_stop)
                reporter.advance(state.step, self._recipe.pairs_in(state.step - 1))

                def due(every: int) -> bool:
                    return state.step % every == 0 or state.step == steps

                if due(config.log_every):
                    self._log(state, reporter, curves)
                if due(config.validate_every):
                    self._validate(state, reporter, curves)
                if due(config.checkpoint_every) or due(config.validate_every) or any(stop.values()):
                    self._checkpoint(state, curves)
                if any(stop.values()) and state.step < steps:
                    reason = "interrupted" if stop["interrupted"] else "time budget spent"
                    reporter.say(f"{reason} at step {state.step}/{steps}: run the same command again to continue")
                    if stop["interrupted"]:
                        raise KeyboardInterrupt
                    break
        return self._result(state)

    def _open_curves(self, step: int) -> contextlib.AbstractContextManager[SummaryWriter | None]:
        """The TensorBoard curves, of which the first process forgets what came after the checkpoint."""
        if not self._fabric.is_global_zero:
            return contextlib.nullcontext()
        writer: contextlib.AbstractContextManager[SummaryWriter] = SummaryWriter(str(self._folder), purge_step=step + 1)
        return writer

    def _step(self, state: State, asked_to_stop: Callable[[], dict[str, bool]]) -> dict[str, bool]:
        """One optimiser step; returns whether any of the processes was asked to stop, by reason."""
        recipe, fabric = self._recipe, self._fabric
        recipe.prepare(state.step, self._optimiser)
        self._wrapped_optimiser.zero_grad()
        pairs = recipe.pairs_in(state.step)
        slots = range(fabric.global_rank, pairs, fabric.world_size)
        batches = [batch.to(fabric.device) for batch in recipe.batches(state.step, slots)]
        skip: SkipStep | None = None
        means: dict[str, Tensor] = {}
        try:
            if isinstance(recipe, OwnGradients):
                means = recipe.backward(fabric, batches)
            else:
                means = self._backward(batches, pairs)
        except SkipStep as reason:
            skip = reason
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), self._config.clip or float("inf"))
        stop = asked_to_stop()
        flags = torch.tensor([float(flag) for flag in stop.values()], device=fabric.device)
        shared = torch.stack([*means.values(), *flags])
        values = [float(value) for value in fabric.all_reduce(shared, reduce_op="mean")]
        losses = dict(zip(means, values, strict=False))
        if skip is None:
            self._check_finite(state.step, losses, float(norm))
            self._wrapped_optimiser.step()
            if self._average is not None and self._config.ema is not None:
                _average(self._average, self._network, min(self._config.ema, (1 + state.step) / (10 + state.step)))
            state.count += 1
            state.sums = {name: state.sums.get(name, 0.0) + value for name, value in losses.items()}
        else:
            self._note_skip(state, skip)
        state.step += 1
        return {name: value > 0 for name, value in zip(stop, values[len(losses) :], strict=True)}

    def _backward(self, batches: list[Any], pairs: int) -> dict[str, Tensor]:
        """Adds up the gradients of the loss of all batches of a step, and gives its terms."""
        recipe, fabric = self._recipe, self._fabric
        means = {name: torch.zeros((), device=fabric.device) for name in recipe.weights}
        for index, batch in enumerate(batches):
            with fabric.no_backward_sync(self._forward, enabled=index < len(batches) - 1):
                terms = recipe.terms(self._forward, batch)
                share = len(batch.infrared) / pairs * fabric.world_size  # gradients are averaged over processes
                fabric.backward(_weighted(terms, recipe.weights) * share)
            means = {name: means[name] + term.detach() * share for name, term in terms.items()}
        return means

    def _note_skip(self, state: State, reason: SkipStep) -> None:
        """Counts a step that is left out.

        Raises:
            TrainingError: There were too many.
        """
        assert isinstance(self._recipe, OwnGradients)
        state.skipped += 1
        said = f"step {state.step + 1} is left out: {reason}"
        if state.skipped > self._recipe.skip_limit:
            raise TrainingError(
                f"{said}. That is one more than the {self._recipe.skip_limit} steps that may be; the checkpoint of "
                f"step {self._saved} is kept in {self._folder}"
            )
        say(self._console, said)

    def _check_finite(self, step: int, losses: Mapping[str, float], norm: float) -> None:
        values = {**losses, "gradient norm": norm}
        if not all(math.isfinite(value) for value in values.values()):
            shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
            raise TrainingError(
                f"training diverged at step {step + 1} (batch {step}, {self._recipe.pairs_in(step)} pairs): {shown}. "
                f"The checkpoint of step {self._saved} is kept in {self._folder}; "
                "a lower learning rate or a gradient clip in a new folder may help"
            )

    def _log(self, state: State, reporter: Reporter, curves: SummaryWriter | None) -> None:
        """Writes the means since the last entry to history, curves and console."""
        if not state.count:
            return  # all steps since were left out
        losses = {name: total / state.count for name, total in state.sums.items()}
        losses = {"loss": sum(self._recipe.weights[name] * value for name, value in losses.items()), **losses}
        state.sums, state.count = {}, 0
        rates = reporter.show(state.step, losses)
        rate = float(self._optimiser.param_groups[0]["lr"])
        if curves is not None:
            skipped = {"skipped": state.skipped} if state.skipped else {}
            self._remember({"step": state.step, "lr": rate, **losses, **skipped})
            scalars = {**{f"train/{name}": value for name, value in losses.items()}, "train/lr": rate}
            scalars |= {f"rate/{name}": value for name, value in rates.items()}
            _draw(curves, state.step, scalars)

    def _validate(self, state: State, reporter: Reporter, curves: SummaryWriter | None) -> None:
        """Scores the weights, and keeps them when they are the best so far."""
        if curves is None:
            return
        network = self._average if self._average is not None else self._network
        scores = self._recipe.validate(network.eval())
        best = scores["selected"] < (math.inf if state.best is None else state.best)  # never a NaN
        facts = f"step {state.step}, seed {self._config.seed}, " + ", ".join(f"{k} {v:.5f}" for k, v in scores.items())
        self._recipe.save(self._folder / "last.safetensors", network, facts)
        if best:
            state.best, state.best_step = scores["selected"], state.step
            self._recipe.save(self._folder / "best.safetensors", network, facts)
        self._remember({"step": state.step, "validation": scores})
        _draw(curves, state.step, {f"validation/{name}": value for name, value in scores.items()})
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        reporter.say(f"validation at step {state.step}: {shown}{'  (best so far)' if best else ''}")

    def _remember(self, entry: Mapping[str, Any]) -> None:
        history = self._folder / "history.jsonl"
        with writing(history), history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _checkpoint(self, state: State, curves: SummaryWriter | None) -> None:
        if curves is not None:
            with writing(self._folder):
                curves.flush()  # what lies before the checkpoint is not drawn again
            write_checkpoint(self._checkpoint_path, self._networks(), self._optimiser, asdict(state))
        self._saved = state.step

    @property
    def _checkpoint_path(self) -> Path:
        return self._folder / "checkpoints" / "last.safetensors"

    def _networks(self) -> dict[str, nn.Module]:
        return {"network": self._network} | ({} if self._average is None else {"average": self._average})

    def _open_folder(self) -> State:
        """Begins a run folder, or continues the run that it holds."""
        config, path = self._config, self._folder / "config.yaml"
        self._saved = 0
        if path.exists():
            _check_same_settings(config, yaml.safe_load(path.read_text(encoding="utf-8")), self._folder)
        state = State()
        if self._checkpoint_path.exists():
            state = State(**read_checkpoint(self._checkpoint_path, self._networks(), self._optimiser))
            self._saved = state.step
            say(self._console, f"continuing {self._folder} at step {state.step}")
            if state.threads != torch.get_num_threads():
                say(
                    self._console,
                    f"warning: begun with {state.threads} CPU threads, now {torch.get_num_threads()}: the result will "
                    "differ in its last bits from an uninterrupted run",
                )
        self._fabric.barrier()  # everyone has read before anyone writes
        if self._fabric.is_global_zero:
            with writing(self._folder):
                self._checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
            _forget_after(self._folder / "history.jsonl", state.step)
            if not path.exists():
                write_file(self._folder / "environment.json", json.dumps(environment(), indent=2).encode())
                write_file(path, dump_config(config).encode())
        return state

    def _result(self, state: State) -> Result:
        best, best_step = self._fabric.broadcast((state.best, state.best_step))  # only the first process validates
        weights = None if best_step is None else self._folder / "best.safetensors"
        return Result(self._folder, weights, state.step == self._recipe.steps, state.step, best, best_step)


def launch(config: TrainingConfig) -> Fabric:
    """A Fabric for the configuration, with all processes of `torchrun` when it runs under it.

    Raises:
        ConfigurationError: The device is not there.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    everywhere = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        fabric = Fabric(
            accelerator=config.device,
            devices=here,
            num_nodes=everywhere // here,
            strategy="ddp" if everywhere > 1 else "auto",
            precision=PRECISIONS[config.precision],
        )
    except RuntimeError as error:
        raise ConfigurationError(f"device {config.device!r} cannot be used here, set another: {error}") from error
    fabric.launch()
    return fabric


def leave(fabric: Fabric) -> None:
    """Ends the group of processes, together: its threads may not outlive the interpreter, which aborts otherwise."""
    if dist.is_initialized():
        fabric.barrier()
        dist.destroy_process_group()


def environment() -> dict[str, Any]:
    """What a result may depend on besides its configuration: versions, processor, threads."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("fuseloop", "torch", "numpy", "lightning-fabric")},
        "system": platform.platform(),
        "machine": platform.machine(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into an event, so that a step is never cut in two; the second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may handle signals, and only it gets them
        return

    def note(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves `average` towards `network`, the running statistics like the parameters that they belong to."""
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    means, values = zip(*(pair for pair in pairs if pair[1].is_floating_point()), strict=True)
    torch._foreach_lerp_(means, values, 1 - decay)  # one kernel for all of them, where a GPU would wait for each
    for mean, value in pairs:
        if not value.is_floating_point():
            mean.copy_(value)


def _draw(curves: SummaryWriter, step: int, scalars: Mapping[str, float]) -> None:
    for name, value in scalars.items():
        curves.add_scalar(name, value, step)


def _check_same_settings(config: TrainingConfig, found: Mapping[str, Any], folder: Path) -> None:
    wanted = config.result_settings()
    different = sorted(key for key, value in _flat(wanted).items() if _flat(found).get(key, None) != value)
    different += sorted(
        key for key in _flat({key: value for key, value in found.items() if key in wanted}) if key not in _flat(wanted)
    )
    if different:
        raise ConfigurationError(
            f"{folder} holds a run with other settings: {', '.join(different)}; "
            "choose another folder, or repeat the settings of its config.yaml to continue it"
        )


def _flat(tree: Any, place: str = "") -> dict[str, Any]:
    """Leaves of a tree of dictionaries and lists by dotted place."""
    if isinstance(tree, dict):
        items: Iterable[tuple[Any, Any]] = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    else:
        return {place: tree}
    leaves: dict[str, Any] = {}
    for key, value in items:
        leaves |= _flat(value, f"{place}.{key}" if place else str(key))
    return leaves


def _forget_after(history: Path, step: int) -> None:
    """Drops what was written after the checkpoint, and a line that a crash cut short."""
    if not history.exists():
        return
    kept = []
    for line in history.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_file(history, "".join(kept).encode())
