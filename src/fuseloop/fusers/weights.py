"""Weight files of fusion networks, and the names of those that are shipped.

A weight file carries in its metadata the `architecture`, its `depth`, the `version` of fuseloop that wrote it and a
`description`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fuseloop.errors import WeightsError
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.images import MAX_PIXELS
from fuseloop.pairs.tiles import TILE_PIXELS
from fuseloop.weights.files import (
    FOLDER,
    SHARED,
    SUFFIX,
    check_finite,
    mismatch,
    read_card,
    read_tensors,
    write_tensors,
)

if TYPE_CHECKING:
    from fuseloop.engines import Precision
    from fuseloop.fusers.fuser import Fuser

SHIPPED = {"vfn": "the vision-guided fusion network, L=2, for day and night scenes"}
"""What can be loaded by name, and what each is for."""

LOOPS = {"cldyn": "the closed loop of CLDyN, L=2, for detectors, segmenters and saliency networks"}
"""Closed loops by name; `fuseloop.fusers.loop_weights` loads them and says which are shipped."""

_FOR_A_NETWORK = "which fuses for a task network: use --for NETWORK (ClosedLoopFuser)"


def known_weights() -> list[str]:
    """The names that `load` knows."""
    return sorted(SHIPPED)


def load(
    name_or_path: str | os.PathLike[str] = "vfn",
    *,
    engine: str = "torch",
    precision: Precision = "fp32",
    tile_pixels: int = TILE_PIXELS,
    max_pixels: int | None = MAX_PIXELS,
) -> Fuser:
    """Makes a fuser from shipped weights or from a weight file.

    Args:
        name_or_path: A name of `known_weights`, or the path of a ``.safetensors`` file that fuseloop wrote, or of a
            folder that `Fuser.save_pretrained` wrote.
        engine: What runs the network: "torch", "onnxruntime" or "openvino".
        precision: "fp32", or "bf16" where speed matters more than a grey level or two.
        tile_pixels: Largest tile, see `Fuser`.
        max_pixels: Larger images are refused; None for no limit.

    Raises:
        WeightsError: The name is unknown, or the file is missing, corrupt or foreign.
        ConfigurationError: The engine or the precision is unknown.
    """
    from fuseloop.fusers.fuser import Fuser  # it stands on this module

    path = find_weights(name_or_path)
    return Fuser(
        read_weights(path),
        engine=engine,
        precision=precision,
        tile_pixels=tile_pixels,
        max_pixels=max_pixels,
        card=read_card(path),
    )


def find_weights(name_or_path: str | os.PathLike[str]) -> Path:
    """The file behind a shipped name or a path.

    Raises:
        WeightsError: There is no such name and no such file.
    """
    if name_or_path in SHIPPED:
        return FOLDER / f"{name_or_path}{SUFFIX}"
    if name_or_path in LOOPS:
        raise WeightsError(f"{name_or_path!r} is a closed loop, {_FOR_A_NETWORK}")
    path = Path(name_or_path)
    if os.path.isfile(path / SHARED):
        return path / SHARED
    if os.path.isfile(path):  # unlike Path.is_file, this raises nothing on a name that the system cannot hold
        return path
    if path.suffix or len(path.parts) > 1:
        raise WeightsError(f"there is no weight file {path}; give the path of a {SUFFIX} file or {_known()}")
    similar = difflib.get_close_matches(path.name.lower(), SHIPPED, n=1)
    guess = f" Did you mean {similar[0]!r}?" if similar else ""
    raise WeightsError(f"unknown weights {str(name_or_path)!r}.{guess} Give {_known()}, or the path of a {SUFFIX} file")


def _known() -> str:
    return f"one of the shipped names: {', '.join(known_weights())}"


def read_weights(path: str | os.PathLike[str]) -> VFN:
    """Reads a weight file that fuseloop wrote. Nothing in such a file can run code.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file is missing, corrupt, not safetensors, or not for a network of fuseloop.
    """
    path = Path(path)
    metadata, tensors = read_tensors(
        path, pickled=f"convert it once with: fuseloop convert {path} {path.with_suffix(SUFFIX)}"
    )
    network = _network_for(path, metadata)
    complaint = mismatch(network.state_dict(), tensors)
    if complaint:
        raise WeightsError(f"{path} does not hold a VFN of depth {network.depth}: {complaint}")
    check_finite(path, tensors)
    network.load_state_dict(tensors)
    return network.eval()


def write_weights(
    path: str | os.PathLike[str], network: VFN, *, description: str = "", overwrite: bool = False
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
    metadata = {"architecture": type(network).__name__, "depth": str(network.depth), "description": description}
    write_tensors(Path(path), network.state_dict(), metadata, overwrite=overwrite)


def _network_for(path: Path, metadata: dict[str, str]) -> VFN:
    depth = metadata.get("depth", "")
    if metadata.get("architecture") == "ClosedLoop":
        raise WeightsError(f"{path} holds a closed loop, {_FOR_A_NETWORK}")
    if metadata.get("architecture") != VFN.__name__ or not depth.isdigit() or int(depth) < 1:
        found = ", ".join(f"{key}={metadata[key]!r}" for key in ("architecture", "depth") if key in metadata)
        raise WeightsError(
            f"{path} was not written by fuseloop: its metadata should say architecture='VFN' and a depth, "
            f"but {'says ' + found if found else 'names neither'}"
        )
    return VFN(int(depth))
