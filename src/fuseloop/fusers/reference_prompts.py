"""Takes in checkpoints of the reference implementation of T-OAR, which are pickled.

The first stage stores the base fusion network under ``net``, the second T-OAR under ``T_dpi``, in bfloat16 and with the
text adapter three times: by itself, and below the blocks of each modality.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fuseloop.errors import WeightsError
from fuseloop.fusers.prompt_weights import PromptNetwork, write_prompt_network
from fuseloop.fusers.reference import _unpickle as unpickle
from fuseloop.networks.prompt_injection import BFN, TOAR
from fuseloop.weights.files import check_finite, mismatch

_SIDES = ("ir_t_dpi", "vi_t_dpi")


def is_base(checkpoint: object) -> bool:
    """Whether an unpickled checkpoint is of the base network: VFN, whose parts have the same names, has no res.6."""
    state = checkpoint.get("net", checkpoint) if isinstance(checkpoint, Mapping) else {}
    return isinstance(state, Mapping) and any(str(key).endswith("fb.res.6.weight") for key in state)


def is_prompts(checkpoint: object) -> bool:
    """Whether an unpickled checkpoint is of T-OAR."""
    return isinstance(checkpoint, Mapping) and "T_dpi" in checkpoint


def convert_base(source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False) -> BFN:
    """Converts a checkpoint of the first stage into a weight file of the base fusion network.

    Only tensors and plain values are unpickled, so it cannot run code.

    Args:
        source: The checkpoint, as ``torch.save`` wrote it: a state dictionary, by itself or under the key ``net``.
        target: The ``.safetensors`` file to write.
        overwrite: Whether an existing target may be replaced.

    Returns:
        The network on the CPU, in evaluation mode, with every value of the checkpoint in float32.

    Raises:
        WeightsError: The checkpoint cannot be read, holds more than plain values, or is not of this network; or the
            target exists or cannot be written.
    """
    source = Path(source)
    network = _build_base(unpickle(source), source)
    write_prompt_network(target, network, description=f"converted from {source.name}", overwrite=overwrite)
    return network


def convert_prompts(source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False) -> TOAR:
    """Converts a checkpoint of the second stage into a weight file of T-OAR.

    The three copies of the adapter must be equal, and become one. Arguments, result and errors are like those of
    `convert_base`; the state dictionary is under the key ``T_dpi``.
    """
    source = Path(source)
    toar = _build_prompts(unpickle(source), source)
    write_prompt_network(target, toar, description=f"converted from {source.name}", overwrite=overwrite)
    return toar


def published_prompts(toar: TOAR, dtype: torch.dtype = torch.bfloat16) -> dict[str, dict[str, Tensor]]:
    """T-OAR as the reference stores it; the inverse of `convert_prompts`.

    Args:
        toar: The network, on any device.
        dtype: Of all floating values; the reference trains and stores bfloat16.

    Returns:
        A state dictionary under the key ``T_dpi``, with the adapter three times.
    """
    state = {
        key: value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()
        for key, value in toar.state_dict().items()
    }
    adapter = {key: value for key, value in state.items() if key.startswith("adapter.")}
    return {"T_dpi": state | {f"{side}.{key}": value for side in _SIDES for key, value in adapter.items()}}


def _build_base(checkpoint: object, source: Path) -> BFN:
    stored = checkpoint.get("net", checkpoint) if isinstance(checkpoint, Mapping) else None
    state = _state_of(stored, r"(?:vi_e|ir_e|fb|ff)\.", source, "net")
    depth = max(1, len({key.split(".")[1] for key in state if re.match(r"ir_e\.e\d", key)}))
    return _loaded(BFN(depth), state, source, f"a base fusion network of depth {depth}")


def _build_prompts(checkpoint: object, source: Path) -> TOAR:
    stored = checkpoint.get("T_dpi") if isinstance(checkpoint, Mapping) else None
    state = _state_of(stored, r"(?:adapter|ir_t_dpi|vi_t_dpi)\.", source, "T_dpi")
    copies = [key for key in state if re.match(r"(?:ir|vi)_t_dpi\.adapter\.", key)]
    for key in copies:
        own = state.get(key.split(".", 1)[1])
        if own is None or not torch.equal(own, state[key]):
            raise WeightsError(f"{source}: {key} should be a copy of {key.split('.', 1)[1]}, and is not")
    state = {key: value for key, value in state.items() if key not in copies}
    depth = 1 + max(1, len({key.split(".")[1] for key in state if key.startswith("ir_t_dpi.")}))
    weight = state.get("adapter.0.weight")
    text, sentence = (512, 4096) if weight is None or weight.ndim != 2 else weight.shape
    toar = TOAR(depth, sentence=max(1, sentence), text=max(1, text))
    return _loaded(toar, state, source, f"T-OAR of depth {depth}")


def _state_of(state: object, parts: str, source: Path, key: str) -> dict[str, Tensor]:
    """The state dictionary without the names that a wrapper, such as data parallelism, puts before the parts."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{source} holds no state dictionary under the key {key!r}")
    return {re.sub(rf"^(?:.*?\.)??(?={parts})", "", str(name), count=1): value for name, value in state.items()}


def _loaded(network: PromptNetwork, state: dict[str, Tensor], source: Path, what: str) -> PromptNetwork:
    complaint = mismatch(network.state_dict(), state)
    if complaint:
        raise WeightsError(f"{source} does not hold {what}: {complaint}")
    check_finite(source, state)
    network.load_state_dict(state)
    return network.eval()
