"""A task network trained anew for each fuser, which is one of the two published protocols of comparing fusers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from fuseloop.errors import ConfigurationError
from fuseloop.fusers.rules import RULES
from fuseloop.fusers.weights import SHIPPED
from fuseloop.tasks.protocol import TaskNetwork
from fuseloop.tasks.weights import load
from fuseloop.training.config import TaskConfig, load_config
from fuseloop.training.task import train
from fuseloop.weights.files import SHARED


def retrain(
    source: str,
    fusers: Mapping[str, str],
    folder: Path,
    changes: Sequence[str] = (),
    *,
    console: Console | None = None,
) -> dict[str, TaskNetwork]:
    """Trains a task network on the images of each fuser alone; all else is the same for all.

    A run that was stopped is continued, and one that has ended is taken as it is.

    Args:
        source: Name of a preset, or a configuration file.
        fusers: What makes the images, by name: a rule, the name of shipped weights, or a weight file.
        folder: The run of each fuser is in a folder of its name in here.
        changes: "key=value" each, see `load_config`.
        console: Where to show progress; standard output by default.

    Returns:
        The best network by validation of each fuser, in evaluation mode.

    Raises:
        ConfigurationError: A fuser is a folder of images, of which there are none for the training pairs; or the
            configuration makes no sense, or a run ended before its first validation.
    """
    for name, value in fusers.items():
        if value not in RULES and value not in SHIPPED and os.path.isdir(value) and not (Path(value) / SHARED).exists():
            raise ConfigurationError(
                f"{name}: {value} is a folder of images, and retraining needs those of the training pairs too; give a "
                "rule, the name of shipped weights, or a weight file"
            )
    config = load_config(TaskConfig, source, changes)
    networks = {}
    for name, value in fusers.items():
        result = train(config.model_copy(update={"fusers": {value: 1.0}, "folder": folder / name}), console=console)
        if result.weights is None:
            raise ConfigurationError(f"the run in {folder / name} ended before its first validation; give it more time")
        networks[name] = load(result.weights)
    return networks
