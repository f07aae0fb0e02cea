"""Weight files of fusion networks, and the names of those that are shipped.

A weight file carries in its metadata the `architecture`, its `depth` if it has one, the `version` of fuseloop that
wrote it and a `description`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fuseloop.errors import WeightsError
from fuseloop.networks.loss_generator import LossGenerator
from fuseloop.networks.restormer_fusion import RestormerFusion
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

FusionNetwork = VFN | RestormerFusion
"""The fusion networks that weight files are for."""

SHIPPED = {"vfn": "the vision-guided fusion network, L=2, for day and night scenes"}
"""What can be loaded by name, and what each is for."""

LOOPS = {"cldyn": "the closed loop of CLDyN, L=2, for detectors, segmenters and saliency networks"}
"""Closed loops by name; `fuseloop.fusers.loop_weights` loads them and says which are shipped."""

INSTRUCTED = {"toar": "fusion by instruction, L=2, for sentences that say what the image is for"}
"""Fusion by instruction by name; `fuseloop.fusers.instruction_weights` loads them and says which are shipped."""

_BY_INSTRUCTION = "which fuses by instruction: use --instruction TEXT (InstructedFuser)"
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
        read_network(path),
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
    if name_or_path in INSTRUCTED:
        raise WeightsError(f"{name_or_path!r} is a conditioned network, {_BY_INSTRUCTION}")
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


def read_network(path: str | os.PathLike[str]) -> FusionNetwork:
    """Reads a weight file of any fusion network that fuseloop wrote. Nothing in such a file can run code.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file is missing, corrupt, not safetensors, or not for a fusion network of fuseloop.
    """
    network = _read(Path(path))
    if isinstance(network, LossGenerator):
        raise WeightsError(f"{path} holds a loss generator, which weights a fusion loss and makes no image")
    return network


def read_weights(path: str | os.PathLike[str]) -> VFN:
    """Reads a weight file of a VFN; see `read_network`.

    Raises:
        WeightsError: See `read_network`; or the network is another, for what only VFN can do.
    """
    network = read_network(path)
    if not isinstance(network, VFN):
        raise WeightsError(f"{path} holds a {type(network).__name__}, and this is for a VFN alone")
    return network


def read_generator(path: str | os.PathLike[str]) -> LossGenerator:
    """Reads a weight file of a loss generator; see `read_network`.

    Raises:
        WeightsError: See `read_network`; or the network is another.
    """
    network = _read(Path(path))
    if not isinstance(network, LossGenerator):
        raise WeightsError(f"{path} holds a {type(network).__name__}, and this needs a loss generator")
    return network


def _read(path: Path) -> FusionNetwork | LossGenerator:
    metadata, tensors = read_tensors(
        path, pickled=f"convert it once with: fuseloop convert {path} {path.with_suffix(SUFFIX)}"
    )
    network = _network_for(path, metadata)
    complaint = mismatch(network.state_dict(), tensors)
    if complaint:
        raise WeightsError(f"{path} does not hold a {title(network)}: {complaint}")
    check_finite(path, tensors)
    network.load_state_dict(tensors)
    return network.eval()


def title(network: FusionNetwork | LossGenerator) -> str:
    """What a network is, in a few words."""
    return f"VFN of depth {network.depth}" if isinstance(network, VFN) else type(network).__name__


def describe(network: FusionNetwork | LossGenerator) -> dict[str, str | int]:
    """What it takes to make such a network: its `architecture`, and its `depth` if it has one."""
    depth = {"depth": network.depth} if isinstance(network, VFN) else {}
    return {"architecture": type(network).__name__, **depth}


def write_weights(
    path: str | os.PathLike[str],
    network: FusionNetwork | LossGenerator,
    *,
    description: str = "",
    overwrite: bool = False,
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
    metadata = {name: str(value) for name, value in describe(network).items()} | {"description": description}
    write_tensors(Path(path), network.state_dict(), metadata, overwrite=overwrite)


def _network_for(path: Path, metadata: dict[str, str]) -> FusionNetwork | LossGenerator:
    architecture, depth = metadata.get("architecture"), metadata.get("depth", "")
    if architecture == "ClosedLoop":
        raise WeightsError(f"{path} holds a closed loop, {_FOR_A_NETWORK}")
    if architecture == "InstructedVFN":
        raise WeightsError(f"{path} holds a conditioned network, {_BY_INSTRUCTION}")
    if architecture in ("BFN", "TOAR"):
        raise WeightsError(
            f"{path} holds a network of T-OAR, which no fuser runs; read it with fuseloop.fusers.prompt_weights"
        )
    for other in (RestormerFusion, LossGenerator):
        if architecture == other.__name__:
            return other()
    if architecture != VFN.__name__ or not depth.isdigit() or int(depth) < 1:
        found = ", ".join(f"{key}={metadata[key]!r}" for key in ("architecture", "depth") if key in metadata)
        raise WeightsError(
            f"{path} was not written by fuseloop: its metadata should name a network, such as architecture='VFN' and a "
            f"depth, but {'says ' + found if found else 'names neither'}"
        )
    return VFN(int(depth))
