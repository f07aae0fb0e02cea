"""Weight files: safetensors, their metadata, and the card beside each.

A weight file carries in its metadata the `architecture` that it is for. A text beside it with the suffix ``.md`` is its
card: data, command, scores and terms. The shipped ones are in this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fuseloop.errors import ImageError, WeightsError
from fuseloop.pairs.atomic import written_aside

FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"
SHARED = "model.safetensors"  # the weights in a folder that was made to be shared, beside README.md, their card
_PICKLED = (b"PK\x03\x04", b"\x80")  # what torch.save writes: a zip archive, and before PyTorch 1.6 a bare pickle


def read_tensors(path: Path, *, pickled: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Reads the metadata and the tensors of a weight file, on the CPU. Nothing in such a file can run code.

    Args:
        path: A ``.safetensors`` file.
        pickled: What a user whose file is a pickled checkpoint can do; it ends the message.

    Raises:
        WeightsError: The file is missing, corrupt, or not safetensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if not start:
            raise WeightsError(f"{path} is empty (zero bytes)")
        # A safetensors file begins with the length of its header, which may look pickled, and the header with a brace.
        if start.startswith(_PICKLED) and start[8:] != b"{":
            raise WeightsError(f"{path} is a pickled checkpoint, which can run code when it is read; {pickled}")
        with safe_open(path, framework="pt", device="cpu") as archive:
            return archive.metadata() or {}, {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise WeightsError(f"{path} is corrupt or no safetensors file ({error}); get it anew") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, overwrite: bool = False
) -> None:
    """Writes a weight file, aside first and then renamed, so that no reader ever sees half of it.

    The version of fuseloop is added to the metadata.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        tensors: The state dictionary, on any device.
        metadata: What the file says of itself, the `architecture` at least.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WeightsError: The suffix is another, the file exists, or it cannot be written.
    """
    if path.suffix != SUFFIX:
        raise WeightsError(f"weights are written as {SUFFIX} files, got {path}")
    on_cpu = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        with written_aside(path, overwrite=overwrite) as aside:
            aside.write_bytes(save(on_cpu, {**metadata, "version": version("fuseloop")}))
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


def read_card(path: Path) -> str:
    """The card beside a weight file, empty when there is none."""
    card = path.with_name("README.md") if path.name == SHARED else path.with_suffix(".md")
    return card.read_text(encoding="utf-8") if card.is_file() else ""
