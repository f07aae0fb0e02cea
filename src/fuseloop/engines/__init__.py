"""Engines run a fusion network: PyTorch, ONNX Runtime and OpenVINO behind one interface."""

from __future__ import annotations

from typing import get_args

from fuseloop.engines.engine import Engine, Precision
from fuseloop.errors import ConfigurationError
from fuseloop.networks.vfn import VFN

__all__ = ["ENGINES", "Engine", "Precision", "load_engine"]

ENGINES = ("torch",)


def load_engine(name: str, network: VFN, *, precision: Precision = "fp32") -> Engine:
    """Makes an engine of the given name for a network.

    Args:
        name: One of `ENGINES`.
        network: The network; the engine takes its weights as they are now, in evaluation mode.
        precision: "fp32" is within 1e-4 of the PyTorch module; "bf16" is faster where the processor supports it and
            within 2/255.

    Raises:
        ConfigurationError: The name or the precision is unknown.
    """
    if name not in ENGINES:
        raise ConfigurationError(f"unknown engine {name!r}; choose one of {', '.join(ENGINES)}")
    if precision not in get_args(Precision):
        raise ConfigurationError(f"unknown precision {precision!r}; choose one of {', '.join(get_args(Precision))}")
    from fuseloop.engines.torch_engine import TorchEngine

    return TorchEngine(network, precision)
