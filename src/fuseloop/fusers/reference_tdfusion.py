"""Takes in checkpoints of the reference implementation of TDFusion, and of ReFusion, whose fusion network is the same.

They are pickled state dictionaries that hold every convolution twice, as ``X.weight`` and as ``X.conv.weight``. A loss
generator, which is trained in parallel, has ``module.`` before every name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fuseloop.errors import WeightsError
from fuseloop.fusers.reference import _read_state as read_state
from fuseloop.fusers.weights import write_weights
from fuseloop.networks.loss_generator import LossGenerator
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.weights.files import check_finite, mismatch

_Kind = type[RestormerFusion] | type[LossGenerator]
# What only the names of that network begin with.
_SIGNS: dict[str, _Kind] = {"project_in_1.": RestormerFusion, "patch_embed1.": LossGenerator}
_WRAPPER = "module."
_TWIN = re.compile(r"\.conv\.weight$")


def is_tdfusion(checkpoint: object) -> bool:
    """Whether an unpickled checkpoint is of the fusion network or the loss generator."""
    state = checkpoint.get("net", checkpoint) if isinstance(checkpoint, Mapping) else {}
    return isinstance(state, Mapping) and any(_kind(str(key)) is not None for key in state)


def convert_tdfusion(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False
) -> RestormerFusion | LossGenerator:
    """Converts a checkpoint of the fusion network or of the loss generator into a weight file.

    Args:
        source: The checkpoint, as ``torch.save`` wrote it.
        target: The ``.safetensors`` file to write.
        overwrite: Whether an existing target may be replaced.

    Returns:
        What `read_tdfusion` gives.

    Raises:
        WeightsError: See `read_tdfusion`; or the target exists or cannot be written.
    """
    network = read_tdfusion(source)
    write_weights(target, network, description=f"converted from {Path(source).name}", overwrite=overwrite)
    return network


def read_tdfusion(source: str | os.PathLike[str]) -> RestormerFusion | LossGenerator:
    """Reads a checkpoint of the fusion network or of the loss generator; its names say which.

    Only tensors and plain values are unpickled, so it cannot run code.

    Args:
        source: The checkpoint, as ``torch.save`` wrote it: a state dictionary, by itself or under the key ``net``.

    Returns:
        The network on the CPU, in evaluation mode, with every value of the checkpoint in float32.

    Raises:
        WeightsError: The checkpoint cannot be read, holds more than plain values, is of neither network, or holds a
            convolution twice with different values.
    """
    source = Path(source)
    stored = read_state(source)
    kind = next((kind for key in stored if (kind := _kind(key)) is not None), None)
    if kind is None:
        raise WeightsError(f"{source} holds neither the fusion network of TDFusion nor its loss generator")
    network, state = kind(), _once({key.removeprefix(_WRAPPER): value for key, value in stored.items()}, source)
    complaint = mismatch(network.state_dict(), state)
    if complaint:
        raise WeightsError(f"{source} does not hold a {kind.__name__}: {complaint}")
    check_finite(source, state)
    network.load_state_dict(state)
    return network.eval()


def published_tdfusion(network: RestormerFusion | LossGenerator) -> dict[str, Tensor]:
    """A network as the reference stores it, every convolution twice; the inverse of `read_tdfusion`.

    Args:
        network: On any device.
    """
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    twins = {
        f"{key.removesuffix('weight')}conv.weight": value
        for key, value in state.items()
        if key.endswith(".weight") and value.ndim == 4
    }
    return state | twins


def _kind(key: str) -> _Kind | None:
    bare = key.removeprefix(_WRAPPER)
    return next((kind for sign, kind in _SIGNS.items() if bare.startswith(sign)), None)


def _once(state: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The state with every convolution once."""
    twins = {key: _TWIN.sub(".weight", key) for key in state if _TWIN.search(key)}
    twins = {twin: key for twin, key in twins.items() if key in state}
    for twin, key in twins.items():
        if not torch.equal(state[twin], state[key]):
            raise WeightsError(
                f"{source}: {twin} should be a copy of {key}, and is not, so it cannot be told which of the two counts"
            )
    return {key: value for key, value in state.items() if key not in twins}
