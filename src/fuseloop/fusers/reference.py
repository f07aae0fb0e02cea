"""Takes in checkpoints of the reference implementation of CLDyN, which are pickled and named in several ways.

The parts of the network are called ``vi_feb``, ``ir_feb``, ``frb1`` and ``frb2``, in some of its scripts ``vi_e``,
``ir_e`` and ``fb``. Other names are recognised by what is below them, as far as that is unambiguous.

The semantic compensation has a checkpoint of its own: ``rsc_ir``, ``rsc_vi``, and the bank ``bvb``, which belongs to no
module there.
"""

from __future__ import annotations

import codecs
import os
import pickle
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuseloop.errors import WeightsError
from fuseloop.fusers.compensation_weights import write_compensation
from fuseloop.fusers.loop_weights import Loop, write_loop
from fuseloop.fusers.weights import find_weights, read_weights, write_weights
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.weights.files import SUFFIX, check_finite, mismatch

ALIASES = {"vi_e": "vi_feb", "ir_e": "ir_feb", "fb": "frb2"}
_ENCODER, _ATTENTION, _RECONSTRUCTION = r"bfe|e\d+", r"mlp_aa|mlp_ma|conv_mean_a|conv_max_a", r"f_conv|d\d+|res"
_BELOW = {"vi_feb": _ENCODER, "ir_feb": _ENCODER, "frb1": _ATTENTION, "frb2": _RECONSTRUCTION}
_KEY = re.compile(rf"(?:(?P<prefix>.+?)\.)?(?P<rest>(?P<block>{_ENCODER}|{_ATTENTION}|{_RECONSTRUCTION})\..+)")


def convert_checkpoint(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False
) -> VFN:
    """Converts a pickled checkpoint of the reference into a weight file.

    The checkpoint is a state dictionary of the network, by itself or under the key ``net``. Only tensors and plain
    values are unpickled (``weights_only=True``), so it cannot run code.

    Args:
        source: The checkpoint, as ``torch.save`` wrote it.
        target: The ``.safetensors`` file to write.
        overwrite: Whether an existing target may be replaced.

    Returns:
        The network on the CPU, in evaluation mode, with every value of the checkpoint in float32.

    Raises:
        WeightsError: The checkpoint cannot be read, holds more than plain values, or is not of this network; or the
            target exists or cannot be written.
    """
    source = Path(source)
    network = _build(_read_state(source), source)
    write_weights(target, network, description=f"converted from {source.name}", overwrite=overwrite)
    return network


def convert_compensation(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False
) -> SemanticCompensation:
    """Converts a pickled checkpoint of the reference's semantic compensation, with its bank, into a weight file.

    Only tensors, plain values and NumPy scalars are unpickled, so it cannot run code.

    Args:
        source: The checkpoint, as ``torch.save`` wrote it.
        target: The ``.safetensors`` file to write.
        overwrite: Whether an existing target may be replaced.

    Returns:
        The network in its published form, on the CPU, in evaluation mode, with every value in float32; prototypes and
        bank as they were stored, not made orthogonal or of length 1 again.

    Raises:
        WeightsError: The checkpoint cannot be read, holds more than plain values, or is not of this network; or the
            target exists or cannot be written.
    """
    source = Path(source)
    compensation = _build_compensation(_unpickle(source), source)
    write_compensation(target, compensation, description=f"converted from {source.name}", overwrite=overwrite)
    return compensation


def convert_loop(
    source: str | os.PathLike[str],
    fusion: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Loop:
    """Converts a pickled checkpoint of the reference's semantic compensation into the weight file of a closed loop.

    Args:
        source: The checkpoint, see `convert_compensation`.
        fusion: The fusion network that it was trained for, which the checkpoint does not hold: a checkpoint as
            `convert_checkpoint` takes it, a weight file, or the name of shipped weights.
        target: The ``.safetensors`` file to write.
        overwrite: Whether an existing target may be replaced.

    Returns:
        The networks on the CPU, in evaluation mode; the compensation in its published form.

    Raises:
        WeightsError: A checkpoint or weight file cannot be read, holds more than plain values, or is not of these
            networks; or the target exists or cannot be written.
        ConfigurationError: The two networks have different L.
    """
    source, found = Path(source), find_weights(fusion)
    compensation = _build_compensation(_unpickle(source), source)
    network = read_weights(found) if found.suffix == SUFFIX else _build(_read_state(found), found)
    description = f"converted from {source.name} and {found.name}"
    write_loop(target, network, compensation, description=description, overwrite=overwrite)
    return Loop(network, compensation)


def published_compensation(
    compensation: SemanticCompensation, dtype: torch.dtype = torch.bfloat16
) -> dict[str, dict[str, Tensor] | Tensor]:
    """A semantic compensation as the reference stores it; the inverse of `convert_compensation`.

    Args:
        compensation: In its published form; the mended one has other norms.
        dtype: Of all floating values; the reference trains and stores bfloat16.

    Returns:
        State dictionaries ``rsc_ir`` and ``rsc_vi``, and the bank ``bvb``, 4×V×e2.

    Raises:
        ValueError: The compensation is not in its published form.
    """
    if not compensation.reference_compat:
        raise ValueError("only a compensation with reference_compat has the published layout")

    def stored(value: Tensor) -> Tensor:
        return value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()

    return {
        "rsc_ir": {key: stored(value) for key, value in compensation.rsc_ir.state_dict().items()},
        "rsc_vi": {key: stored(value) for key, value in compensation.rsc_vi.state_dict().items()},
        "bvb": stored(compensation.bvb),
    }


def _build_compensation(checkpoint: object, source: Path) -> SemanticCompensation:
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(f"{source} holds no dictionary with rsc_ir, rsc_vi and bvb")
    bank = checkpoint.get("bvb")
    if not isinstance(bank, Tensor) or bank.ndim != 3:
        raise WeightsError(f"{source} holds no bank of basis vectors, a tensor of three dimensions under 'bvb'")
    state = {"bvb": bank.detach()}
    for side in ("rsc_ir", "rsc_vi"):
        part = checkpoint.get(side)
        if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
            raise WeightsError(f"{source} holds no state dictionary under {side!r}")
        # What wraps the network, such as data parallelism, puts names before the blocks.
        state |= {f"{side}.{re.sub(r'^.*?(?=a2si)', '', str(key))}": value for key, value in part.items()}
    blocks = {match[1] for key in state if (match := re.match(r"rsc_ir\.a2si(\d+)\.", key))}
    embedding = state.get("rsc_ir.a2si0.a_task_img.3.weight")
    sizes: dict[str, Any] = {
        "depth": 1 + max(1, len(blocks)),
        "branches": 4 if embedding is None or embedding.ndim == 0 else max(1, len(embedding) // 16),
        "width": bank.shape[2],
        "vectors": bank.shape[1],
    }
    try:
        compensation = SemanticCompensation(**sizes, reference_compat=True)
    except ValueError as error:
        raise WeightsError(f"{source} does not hold a semantic compensation: {error}") from error
    complaint = mismatch(compensation.state_dict(), state)
    if complaint:
        raise WeightsError(f"{source} does not hold a semantic compensation of depth {sizes['depth']}: {complaint}")
    check_finite(source, state)
    compensation.load_state_dict(state)
    return compensation.eval()


def _unpickle(source: Path) -> Any:
    """Reads a checkpoint: tensors, plain values, and the NumPy scalars that the reference leaves among them."""
    scalar: Any = np.float64(0).__reduce__()[0]
    numpy_scalars: list[Any] = [
        (scalar, "numpy.core.multiarray.scalar"),  # by the name of NumPy 1, and below by that of NumPy 2
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")),
        (codecs.encode, "_codecs.encode"),
    ]
    try:
        with torch.serialization.safe_globals(numpy_scalars):
            return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read {source}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{source} is damaged, or holds Python objects beside tensors and plain values, which are not loaded "
            "because they could run code; save its state dictionary alone"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # what torch.load says of damaged archives
        raise WeightsError(f"{source} is damaged or no checkpoint of torch.save") from error


def _read_state(source: Path) -> dict[str, Tensor]:
    checkpoint = _unpickle(source)
    state = checkpoint.get("net", checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"{source} holds no state dictionary, neither by itself nor under the key 'net'")
    return state


def _build(state: dict[str, Tensor], source: Path) -> VFN:
    renamed = _rename(state, source)
    depth = max(1, len({key.split(".")[1] for key in renamed if re.match(r"ir_feb\.e\d", key)}))
    network = VFN(depth)
    complaint = mismatch(network.state_dict(), renamed)
    if complaint:
        raise WeightsError(f"{source} does not hold a VFN of depth {depth}: {complaint}")
    check_finite(source, renamed)
    network.load_state_dict(renamed)
    return network.eval()


def _rename(state: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The state by the keys of `VFN`; what is not recognised keeps its key."""
    matches = {key: match for key in state if (match := _KEY.fullmatch(key))}
    blocks = defaultdict(set)
    for match in matches.values():
        blocks[match["prefix"] or ""].add(match["block"])
    parts = _recognise(blocks, source)
    return {
        f"{parts[match['prefix'] or '']}.{match['rest']}" if (match := matches.get(key)) else key: value
        for key, value in state.items()
    }


def _recognise(blocks: dict[str, set[str]], source: Path) -> dict[str, str]:
    """Finds which part of the network each prefix stands for, by its last name or else by the blocks below it."""
    named = {prefix: ALIASES.get(name, name) for prefix in blocks for name in [prefix.split(".")[-1]]}
    parts = {prefix: part for prefix, part in named.items() if part in _BELOW}
    for prefix in blocks.keys() - parts.keys():
        free = [
            part
            for part, pattern in _BELOW.items()
            if part not in parts.values() and all(re.fullmatch(pattern, block) for block in blocks[prefix])
        ]
        if len(free) != 1:
            raise WeightsError(
                f"{source}: cannot tell which part of the network {prefix!r} is"
                f"{' (' + ' or '.join(free) + ')' if free else ''}; rename it to one of {', '.join(_BELOW)}"
            )
        parts[prefix] = free[0]
    if len(set(parts.values())) < len(parts):
        raise WeightsError(f"{source} holds a part of the network twice: {', '.join(sorted(parts))}")
    return parts
