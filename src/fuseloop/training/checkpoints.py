"""Crash-safe files: written aside, synced, renamed. A reader sees the old file or the new one, never a part.

A checkpoint is one safetensors file. Its tensors are those of the network, of the averaged network and of the
optimiser; the numbers that go with them are JSON in its header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.training import TrainingError

NUMBERS = "numbers"


def write_file(path: Path, content: bytes) -> None:
    """Writes a whole file or nothing, and returns when it is on the disk.

    Raises:
        TrainingError: It cannot be written; what was there before is kept.
    """
    aside = path.with_name(f".{path.name}.part")
    with writing(path):
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Explains what the system says against writing a file or folder.

    Raises:
        TrainingError: It cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot write {path}: {error.strerror}; what was saved before is kept, so mend that and run the same "
            "command again"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Makes a rename last; where directories cannot be opened, it already does."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, whole or not at all."""
    write_file(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata))


def write_checkpoint(
    path: Path, networks: Mapping[str, nn.Module], optimiser: Optimizer, numbers: Mapping[str, Any]
) -> None:
    """Writes everything that the next step depends on.

    Args:
        path: File to write.
        networks: Networks by name; the name must hold no dot.
        optimiser: An optimiser whose state is tensors; learning rates belong to the recipe and are not kept.
        numbers: What JSON can hold.
    """
    tensors = {
        f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
    }
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    write_tensors(path, tensors, {NUMBERS: json.dumps(numbers)})


def read_checkpoint(path: Path, networks: Mapping[str, nn.Module], optimiser: Optimizer) -> dict[str, Any]:
    """Puts a checkpoint back into the networks and the optimiser, and returns its numbers.

    Raises:
        TrainingError: The file is no checkpoint of these networks.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers: dict[str, Any] = json.loads(file.metadata()[NUMBERS])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dictionary
        for name, network in networks.items():
            network.load_state_dict(_below(tensors, name))
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, "optimiser").items():
            index, part = key.split(".", 1)
            states.setdefault(int(index), {})[part] = _laid_out_like(parameters[int(index)], value)
    except (SafetensorError, OSError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{path} is no checkpoint of this training ({error}); remove its run folder to start anew"
        ) from error
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    return numbers


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A moment in the memory order of its parameter, without which the next step may round differently."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}
