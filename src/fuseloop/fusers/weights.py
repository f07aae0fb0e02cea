"""Weight files: safetensors that say which network they are for, and the names of those that are shipped.

A weight file carries in its metadata the `architecture`, its `depth`, the `version` of fuseloop that wrote it and a
`description`. A text beside it with the suffix ``.md`` is its card: data, command, scores and terms.
"""

from __future__ import annotations

import difflib
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fuseloop.errors import ImageError, WeightsError
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.atomic import written_aside
from fuseloop.pairs.images import MAX_PIXELS
from fuseloop.pairs.tiles import TILE_PIXELS

if TYPE_CHECKING:
    from fuseloop.engines import Precision
    from fuseloop.fusers.fuser import Fuser

SHIPPED = {"vfn": "the vision-guided fusion network, L=2, for day and night scenes"}
"""What can be loaded by name, and what each is for."""

FOLDER = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"
SHARED = "model.safetensors"  # the weights in a folder that was made to be shared, beside README.md, their card
_PICKLED = (b"PK\x03\x04", b"\x80")  # what torch.save writes: a zip archive, and before PyTorch 1.6 a bare pickle


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
        precision: "fp32", or "bf16" where speed matters more than some grey levels in a few pixels.
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


def read_card(path: Path) -> str:
    """The card beside a weight file, empty when there is none."""
    card = path.with_name("README.md") if path.name == SHARED else path.with_suffix(".md")
    return card.read_text(encoding="utf-8") if card.is_file() else ""


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
    metadata, tensors = _read_safetensors(path)
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
    path = Path(path)
    if path.suffix != SUFFIX:
        raise WeightsError(f"weights are written as {SUFFIX} files, got {path}")
    metadata = {
        "architecture": type(network).__name__,
        "depth": str(network.depth),
        "version": version("fuseloop"),
        "description": description,
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    try:
        with written_aside(path, overwrite=overwrite) as aside:
            aside.write_bytes(save(tensors, metadata))
    except ImageError as error:
        raise WeightsError(str(error)) from error


def check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuses weights that are not numbers.

    Raises:
        WeightsError: A value is NaN or infinite.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise WeightsError(f"{path} holds NaN or infinite weights; its training diverged or the file is damaged")


def mismatch(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """Says how two state dictionaries differ in keys and shapes, in a few words; empty when they do not."""
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    reshaped = [
        f"{key} is {list(found[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    complaints = [
        f"{len(keys)} of its {len(expected)} tensors {verb} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for keys, verb in ((missing, "are missing"), (reshaped, "have another shape"))
        if keys
    ]
    if unknown:
        complaints.append(f"{len(unknown)} tensors do not belong to it ({', '.join(sorted(unknown)[:3])})")
    return "; ".join(complaints)


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if not start:
            raise WeightsError(f"{path} is empty (zero bytes)")
        # A safetensors file begins with the length of its header, which may look pickled, and the header with a brace.
        if start.startswith(_PICKLED) and start[8:] != b"{":
            raise WeightsError(
                f"{path} is a pickled checkpoint, which can run code when it is read; "
                f"convert it once with: fuseloop convert {path} {path.with_suffix(SUFFIX)}"
            )
        with safe_open(path, framework="pt", device="cpu") as archive:
            return archive.metadata() or {}, {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise WeightsError(f"{path} is corrupt or no safetensors file ({error}); get it anew") from error


def _network_for(path: Path, metadata: dict[str, str]) -> VFN:
    depth = metadata.get("depth", "")
    if metadata.get("architecture") != VFN.__name__ or not depth.isdigit() or int(depth) < 1:
        found = ", ".join(f"{key}={metadata[key]!r}" for key in ("architecture", "depth") if key in metadata)
        raise WeightsError(
            f"{path} was not written by fuseloop: its metadata should say architecture='VFN' and a depth, "
            f"but {'says ' + found if found else 'names neither'}"
        )
    return VFN(int(depth))
