"""Takes in checkpoints of the reference implementation of CLDyN, which are pickled and named in several ways.

The parts of the network are called ``vi_feb``, ``ir_feb``, ``frb1`` and ``frb2``, in some of its scripts ``vi_e``,
``ir_e`` and ``fb``. Other names are recognised by what is below them, as far as that is unambiguous.
"""

from __future__ import annotations

import os
import pickle
import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from fuseloop.errors import WeightsError
from fuseloop.fusers.weights import write_weights
from fuseloop.networks.vfn import VFN
from fuseloop.weights.files import check_finite, mismatch

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


def _read_state(source: Path) -> dict[str, Tensor]:
    try:
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read {source}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{source} is damaged, or holds Python objects beside tensors and plain values, which are not loaded "
            "because they could run code; save its state dictionary alone"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # what torch.load says of damaged archives
        raise WeightsError(f"{source} is damaged or no checkpoint of torch.save") from error
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
