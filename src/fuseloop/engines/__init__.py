"""Engines run a fusion network: PyTorch, ONNX Runtime and OpenVINO behind one interface."""

from __future__ import annotations

from importlib import import_module

from fuseloop.engines.engine import Engine, Precision
from fuseloop.errors import ConfigurationError
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.networks.vfn import VFN

__all__ = ["ENGINES", "Engine", "Precision", "load_engine"]

# Where each engine lives. They are imported when first used, for each takes a while.
_HOMES = {
    "torch": ("fuseloop.engines.torch_engine", "TorchEngine"),
    "onnxruntime": ("fuseloop.engines.onnxruntime_engine", "OnnxRuntimeEngine"),
    "openvino": ("fuseloop.engines.openvino_engine", "OpenVinoEngine"),
}
ENGINES = tuple(_HOMES)
"""The names of the engines."""


def load_engine(name: str, network: VFN | RestormerFusion, *, precision: Precision = "fp32") -> Engine:
    """Makes an engine of the given name for a network.

    Args:
        name: One of `ENGINES`.
        network: The network; its weights are taken as they are now, with the running statistics of its batch norms.
        precision: "fp32" is within 1e-4 of the PyTorch module; "bf16" is faster on processors that have it, and
            with weights that were trained for it within 2/255; see `Engine`.

    Raises:
        ConfigurationError: The name is unknown, the engine does not have this precision, or it does not run this
            network: a RestormerFusion is run by "torch" in fp32 alone.
    """
    if name not in _HOMES:
        raise ConfigurationError(f"unknown engine {name!r}; choose one of {', '.join(ENGINES)}")
    if isinstance(network, RestormerFusion):
        if (name, precision) != ("torch", "fp32"):
            raise ConfigurationError(
                f"engine {name} in {precision} does not run a RestormerFusion; choose engine torch in fp32"
            )
        from fuseloop.engines.whole_frame import WholeFrameEngine

        return WholeFrameEngine(network)
    module, kind = _HOMES[name]
    engine: Engine = getattr(import_module(module), kind)(network, precision)
    return engine
