"""Weight files of semantic compensations: safetensors whose metadata say how the network is built."""

from __future__ import annotations

import os
from pathlib import Path

from fuseloop.errors import WeightsError
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.weights.files import SUFFIX, check_finite, mismatch, read_tensors, write_tensors

_SIZES = ("depth", "branches", "width", "vectors")
_CALLED = {SemanticCompensation.__name__: "semantic compensation", "ClosedLoop": "closed loop"}


def write_compensation(
    path: str | os.PathLike[str],
    compensation: SemanticCompensation,
    *,
    description: str = "",
    overwrite: bool = False,
) -> None:
    """Writes a weight file, aside first and then renamed, so that no reader ever sees half of it.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        compensation: The network, on any device.
        description: What these weights are, in one line.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WeightsError: The suffix is another, the file exists, or it cannot be written.
    """
    metadata = {
        "architecture": SemanticCompensation.__name__,
        **sizes_of(compensation),
        "description": description,
    }
    write_tensors(Path(path), compensation.state_dict(), metadata, overwrite=overwrite)


def sizes_of(compensation: SemanticCompensation) -> dict[str, str]:
    """What metadata say of how a network is built; that it goes without parts only where it does."""
    sizes = {name: str(getattr(compensation, name)) for name in _SIZES}
    without = {"without": ",".join(compensation.without)} if compensation.without else {}
    return sizes | {"reference_compat": str(compensation.reference_compat).lower()} | without


def read_compensation(path: str | os.PathLike[str]) -> SemanticCompensation:
    """Reads a weight file that `write_compensation` wrote. Nothing in such a file can run code.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file is missing, corrupt, not safetensors, or not for a semantic compensation.
    """
    path = Path(path)
    metadata, tensors = read_tensors(
        path,
        pickled=f"convert it once with fuseloop.fusers.reference.convert_compensation, to {path.with_suffix(SUFFIX)}",
    )
    compensation = build(path, metadata, SemanticCompensation.__name__)
    complaint = mismatch(compensation.state_dict(), tensors)
    if complaint:
        raise WeightsError(f"{path} does not hold the semantic compensation that its metadata say: {complaint}")
    check_finite(path, tensors)
    compensation.load_state_dict(tensors)
    return compensation.eval()


def build(path: Path, metadata: dict[str, str], architecture: str) -> SemanticCompensation:
    """An untrained network of the sizes that the metadata of a file say.

    Raises:
        WeightsError: They name another architecture, sizes that are missing or not possible, or parts to go without
            that are not known.
    """
    sizes = {name: int(metadata[name]) for name in _SIZES if metadata.get(name, "").isdigit()}
    compat = {"true": True, "false": False}.get(metadata.get("reference_compat", ""))
    if metadata.get("architecture") != architecture or len(sizes) < len(_SIZES) or compat is None:
        raise WeightsError(
            f"{path} holds no {_CALLED[architecture]}: its metadata should say "
            f"architecture='{architecture}', {', '.join(_SIZES)} and reference_compat"
        )
    try:
        without = [part for part in metadata.get("without", "").split(",") if part]
        return SemanticCompensation(**sizes, reference_compat=compat, without=without)
    except ValueError as error:
        raise WeightsError(f"{path} says of itself what is not possible: {error}") from error
