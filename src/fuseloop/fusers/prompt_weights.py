"""Weight files of T-OAR and of its base fusion network, in their published form.

A weight file carries in its metadata the `architecture`, BFN or TOAR, how the network is built, the `version` of
fuseloop that wrote it and a `description`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from fuseloop.errors import WeightsError
from fuseloop.networks.prompt_injection import BFN, TOAR
from fuseloop.weights.files import SUFFIX, check_finite, mismatch, read_tensors, write_tensors

_SIZES: dict[type[BFN] | type[TOAR], tuple[str, ...]] = {BFN: ("depth",), TOAR: ("depth", "sentence", "text")}

PromptNetwork = TypeVar("PromptNetwork", BFN, TOAR)


def write_prompt_network(
    path: str | os.PathLike[str], network: BFN | TOAR, *, description: str = "", overwrite: bool = False
) -> None:
    """Writes a weight file, aside first and then renamed, so that no reader ever sees half of it.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        network: The network, on any device.
        description: What these weights are, in one line.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WeightsError: The suffix is another, the file exists, or it cannot be written.
    """
    sizes = {name: str(getattr(network, name)) for name in _SIZES[type(network)]}
    metadata = {"architecture": type(network).__name__, **sizes, "description": description}
    write_tensors(Path(path), network.state_dict(), metadata, overwrite=overwrite)


def read_base(path: str | os.PathLike[str]) -> BFN:
    """Reads a weight file of a base fusion network. Nothing in such a file can run code.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file is missing, corrupt, not safetensors, or not for a base fusion network.
    """
    return _read(Path(path), BFN)


def read_prompts(path: str | os.PathLike[str]) -> TOAR:
    """Reads a weight file of T-OAR; result and errors are like those of `read_base`."""
    return _read(Path(path), TOAR)


def _read(path: Path, make: type[PromptNetwork]) -> PromptNetwork:
    metadata, tensors = read_tensors(
        path, pickled=f"convert it once with: fuseloop convert {path} {path.with_suffix(SUFFIX)}"
    )
    names = _SIZES[make]
    sizes = {name: int(metadata[name]) for name in names if metadata.get(name, "").isdigit()}
    if metadata.get("architecture") != make.__name__ or len(sizes) < len(names):
        raise WeightsError(
            f"{path} holds no {make.__name__}: its metadata should say architecture='{make.__name__}' "
            f"and {', '.join(names)}"
        )
    try:
        network = make(**sizes)
    except ValueError as error:
        raise WeightsError(f"{path} says of itself what is not possible: {error}") from error
    complaint = mismatch(network.state_dict(), tensors)
    if complaint:
        raise WeightsError(f"{path} does not hold the {make.__name__} that its metadata say: {complaint}")
    check_finite(path, tensors)
    network.load_state_dict(tensors)
    return network.eval()
