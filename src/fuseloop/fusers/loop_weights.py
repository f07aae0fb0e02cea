"""Weight files of closed loops: a fusion network, its semantic compensation, and the tasks that it was trained for.

A weight file carries in its metadata the `architecture` ClosedLoop, how the compensation is built, the names of the
`tasks` as JSON, the `version` of fuseloop that wrote it and a `description`.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.fusers.compensation_weights import build, sizes_of
from fuseloop.fusers.weights import LOOPS, SHIPPED, find_weights
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.weights.files import FOLDER, SUFFIX, check_finite, mismatch, read_card, read_tensors, write_tensors

ARCHITECTURE = "ClosedLoop"
_VFN, _RSC = "vfn.", "rsc."


@dataclass(frozen=True, eq=False)
class Loop:
    """The networks of a closed loop.

    Attributes:
        network: Makes images from features, L at least 2.
        compensation: Changes its features for a task network; the same L.
        tasks: What it was trained for, such as "detection"; it may serve others too.
        card: What is known of the weights, in Markdown.

    Raises:
        ConfigurationError: The two have different L.
    """

    network: VFN
    compensation: SemanticCompensation
    tasks: tuple[str, ...] = ()
    card: str = ""

    def __post_init__(self) -> None:
        if self.network.depth != self.compensation.depth:
            raise ConfigurationError(
                f"the compensation is for a VFN of depth {self.compensation.depth}, and this one has depth "
                f"{self.network.depth}; train it for this network"
            )


def shipped_loops() -> list[str]:
    """The closed loops whose weights are shipped."""
    return [name for name in LOOPS if (FOLDER / f"{name}{SUFFIX}").is_file()]


def find_loop(name_or_path: str | os.PathLike[str]) -> Path:
    """The file behind a name of `LOOPS` or a path.

    Raises:
        WeightsError: There is no such name and no such file, or no weights of that name are shipped yet.
    """
    text = os.fspath(name_or_path)
    if text in LOOPS:
        if text not in shipped_loops():
            raise WeightsError(
                f"no weights of the closed loop {text!r} are shipped yet; train some with `fuseloop train closed-loop` "
                f"and give their {SUFFIX} file"
            )
        return FOLDER / f"{text}{SUFFIX}"
    if text in SHIPPED:
        raise WeightsError(f"{text!r} is a fusion network without a closed loop; {_way_out()}")
    path = Path(text)
    if not os.path.exists(path) and not path.suffix and len(path.parts) == 1:
        near = difflib.get_close_matches(text.lower(), LOOPS, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise WeightsError(f"unknown closed loop {text!r}.{guess} {_way_out().capitalize()}")
    return find_weights(path)


def _way_out() -> str:
    return f"give one of {', '.join(LOOPS)}, or the {SUFFIX} file that `fuseloop train closed-loop` wrote"


def is_loop(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether this is the name of a closed loop or its weight file; it never raises."""
    if os.fspath(name_or_path) in LOOPS:
        return True
    try:
        with safe_open(find_weights(name_or_path), framework="pt") as archive:
            return (archive.metadata() or {}).get("architecture") == ARCHITECTURE
    except (WeightsError, SafetensorError, OSError):
        return False


def read_loop(path: str | os.PathLike[str]) -> Loop:
    """Reads a weight file that `write_loop` wrote. Nothing in such a file can run code.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        The networks on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file is missing, corrupt, not safetensors, or not for a closed loop.
    """
    path = Path(path)
    metadata, tensors = read_tensors(path, pickled=f"only {SUFFIX} files are read")
    if metadata.get("architecture") == VFN.__name__:
        raise WeightsError(f"{path} holds a fusion network without a closed loop; {_way_out()}")
    compensation = build(path, metadata, ARCHITECTURE)
    network = VFN(compensation.depth)
    complaint = mismatch(_together(network, compensation), tensors)
    if complaint:
        raise WeightsError(f"{path} does not hold the closed loop that its metadata say: {complaint}")
    check_finite(path, tensors)
    for module, prefix in ((network, _VFN), (compensation, _RSC)):
        module.load_state_dict({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
    try:
        tasks = tuple(str(task) for task in json.loads(metadata.get("tasks", "[]")))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its metadata do not list its tasks ({error})") from error
    return Loop(network.eval(), compensation.eval(), tasks, read_card(path))


def write_loop(
    path: str | os.PathLike[str],
    network: VFN,
    compensation: SemanticCompensation,
    tasks: Sequence[str] = (),
    *,
    description: str = "",
    overwrite: bool = False,
) -> None:
    """Writes a weight file, aside first and then renamed, so that no reader ever sees half of it.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        network: The fusion network, on any device.
        compensation: Its compensation, on any device.
        tasks: What it was trained for.
        description: What these weights are, in one line.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ConfigurationError: The two networks have different L.
        WeightsError: The suffix is another, the file exists, or it cannot be written.
    """
    loop = Loop(network, compensation, tuple(tasks))
    metadata = {
        "architecture": ARCHITECTURE,
        **sizes_of(compensation),
        "tasks": json.dumps(loop.tasks),
        "description": description,
    }
    write_tensors(Path(path), _together(network, compensation), metadata, overwrite=overwrite)


def _together(network: VFN, compensation: SemanticCompensation) -> dict[str, Tensor]:
    parts = ((network, _VFN), (compensation, _RSC))
    return {f"{prefix}{key}": value for module, prefix in parts for key, value in module.state_dict().items()}
