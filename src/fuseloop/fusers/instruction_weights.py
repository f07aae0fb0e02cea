"""Weight files of fusion by instruction: a fusion network, its conditioner, and which embeddings it understands.

A weight file carries in its metadata the `architecture` InstructedVFN, how the conditioner is built, the id of the
`encoder` that made the embeddings in training, the names of the `tasks` as JSON, the `version` of fuseloop that wrote
it and a `description`.
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
from fuseloop.fusers.weights import INSTRUCTED, LOOPS, SHIPPED, find_weights
from fuseloop.networks.instruction_conditioner import InstructedVFN, InstructionConditioner
from fuseloop.networks.vfn import VFN
from fuseloop.weights.files import FOLDER, SUFFIX, check_finite, mismatch, read_card, read_tensors, write_tensors

ARCHITECTURE = InstructedVFN.__name__
_VFN, _CONDITIONER, _VECTORS = "vfn.", "conditioner.", "vectors"
_SIZES = ("depth", "embedding", "kernels", "hidden")


@dataclass(frozen=True, eq=False)
class Instructed:
    """The networks of fusion by instruction.

    Attributes:
        network: Makes images from features.
        conditioner: Changes it for an embedding; the same L.
        encoder: Id of the encoder that made the embeddings in training; those of another one mean nothing to it.
        tasks: What it was trained for, such as "detection".
        vectors: The embedding of each task, T×d, with which no text is needed; None where there are none.
        card: What is known of the weights, in Markdown.

    Raises:
        ConfigurationError: The two networks have different L, or the vectors are not one for each task.
    """

    network: VFN
    conditioner: InstructionConditioner
    encoder: str = ""
    tasks: tuple[str, ...] = ()
    vectors: Tensor | None = None
    card: str = ""

    def __post_init__(self) -> None:
        if self.network.depth != self.conditioner.depth:
            raise ConfigurationError(
                f"the conditioner is for a VFN of depth {self.conditioner.depth}, and this one has depth "
                f"{self.network.depth}; train it for this network"
            )
        expected = (len(self.tasks), self.conditioner.embedding)
        if self.vectors is not None and self.vectors.shape != expected:
            raise ConfigurationError(
                f"the vectors of {expected[0]} tasks for this conditioner are {expected[0]}×{expected[1]}, got "
                f"shape {tuple(self.vectors.shape)}"
            )


def shipped_instructed() -> list[str]:
    """The names of `INSTRUCTED` whose weights are shipped."""
    return [name for name in INSTRUCTED if (FOLDER / f"{name}{SUFFIX}").is_file()]


def find_instructed(name_or_path: str | os.PathLike[str]) -> Path:
    """The file behind a name of `INSTRUCTED` or a path.

    Raises:
        WeightsError: There is no such name and no such file, or no weights of that name are shipped yet.
    """
    text = os.fspath(name_or_path)
    if text in INSTRUCTED:
        if text not in shipped_instructed():
            raise WeightsError(f"no weights of {text!r} are shipped yet; give the {SUFFIX} file of weights of your own")
        return FOLDER / f"{text}{SUFFIX}"
    if text in SHIPPED or text in LOOPS:
        raise WeightsError(f"{text!r} does not fuse by instruction; {_way_out()}")
    path = Path(text)
    if not os.path.exists(path) and not path.suffix and len(path.parts) == 1:
        near = difflib.get_close_matches(text.lower(), INSTRUCTED, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise WeightsError(f"unknown weights {text!r}.{guess} {_way_out().capitalize()}")
    return find_weights(path)


def _way_out() -> str:
    return f"give one of {', '.join(INSTRUCTED)}, or the {SUFFIX} file of weights of fusion by instruction"


def is_instructed(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether this is a name of `INSTRUCTED` or a weight file of fusion by instruction; it never raises."""
    if os.fspath(name_or_path) in INSTRUCTED:
        return True
    try:
        with safe_open(find_weights(name_or_path), framework="pt") as archive:
            return (archive.metadata() or {}).get("architecture") == ARCHITECTURE
    except (WeightsError, SafetensorError, OSError):
        return False


def read_instructed(path: str | os.PathLike[str]) -> Instructed:
    """Reads a weight file that `write_instructed` wrote. Nothing in such a file can run code.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        The networks on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file is missing, corrupt, not safetensors, or not for fusion by instruction.
    """
    path = Path(path)
    metadata, tensors = read_tensors(path, pickled=f"only {SUFFIX} files are read")
    conditioner = _build(path, metadata)
    network = VFN(conditioner.depth)
    vectors = tensors.pop(_VECTORS, None)
    complaint = mismatch(_together(network, conditioner), tensors)
    if complaint:
        raise WeightsError(f"{path} does not hold the networks that its metadata say: {complaint}")
    check_finite(path, tensors if vectors is None else {**tensors, _VECTORS: vectors})
    for module, prefix in ((network, _VFN), (conditioner, _CONDITIONER)):
        module.load_state_dict({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
    try:
        tasks = tuple(str(task) for task in json.loads(metadata.get("tasks", "[]")))
        encoder, card = metadata.get("encoder", ""), read_card(path)
        return Instructed(network.eval(), conditioner.eval(), encoder, tasks, vectors, card)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its metadata do not list its tasks ({error})") from error
    except ConfigurationError as error:
        raise WeightsError(f"{path}: {error}") from error


def write_instructed(
    path: str | os.PathLike[str],
    network: VFN,
    conditioner: InstructionConditioner,
    *,
    encoder: str,
    tasks: Sequence[str] = (),
    vectors: Tensor | None = None,
    description: str = "",
    overwrite: bool = False,
) -> None:
    """Writes a weight file, aside first and then renamed, so that no reader ever sees half of it.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        network: The fusion network, on any device.
        conditioner: Its conditioner, on any device.
        encoder: Id of the encoder that made the embeddings in training.
        tasks: What it was trained for.
        vectors: The embedding of each task, T×d.
        description: What these weights are, in one line.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ConfigurationError: The two networks have different L, or the vectors are not one for each task.
        WeightsError: The suffix is another, the file exists, or it cannot be written.
    """
    instructed = Instructed(network, conditioner, encoder, tuple(tasks), vectors)
    metadata = {
        "architecture": ARCHITECTURE,
        **{name: str(getattr(conditioner, name)) for name in _SIZES},
        "places": ",".join(conditioner.places),
        "encoder": encoder,
        "tasks": json.dumps(instructed.tasks),
        "description": description,
    }
    tensors = _together(network, conditioner) | ({} if vectors is None else {_VECTORS: vectors})
    write_tensors(Path(path), tensors, metadata, overwrite=overwrite)


def _build(path: Path, metadata: dict[str, str]) -> InstructionConditioner:
    """An untrained conditioner of the sizes that the metadata of a file say."""
    architecture = metadata.get("architecture")
    if architecture in (VFN.__name__, "ClosedLoop"):
        raise WeightsError(f"{path} does not fuse by instruction, it is a {architecture}; {_way_out()}")
    sizes = {name: int(metadata[name]) for name in _SIZES if metadata.get(name, "").isdigit()}
    if architecture != ARCHITECTURE or len(sizes) < len(_SIZES) or "places" not in metadata:
        raise WeightsError(
            f"{path} holds no weights of fusion by instruction: its metadata should say "
            f"architecture='{ARCHITECTURE}', {', '.join(_SIZES)} and places"
        )
    try:
        return InstructionConditioner(**sizes, places=metadata["places"].split(","))
    except ValueError as error:
        raise WeightsError(f"{path} says of itself what is not possible: {error}") from error


def _together(network: VFN, conditioner: InstructionConditioner) -> dict[str, Tensor]:
    parts = ((network, _VFN), (conditioner, _CONDITIONER))
    return {f"{prefix}{key}": value for module, prefix in parts for key, value in module.state_dict().items()}
