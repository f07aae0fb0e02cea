"""Fuses aligned infrared and visible images for what comes next: a detector, a segmenter, a saliency network, a person.

>>> import numpy as np
>>> import fuseloop
>>> fuser = fuseloop.load("vfn")
>>> fused = fuser(np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.uint8))
>>> fused.shape, fused.dtype
((48, 64, 3), dtype('uint8'))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuseloop.errors import FuseloopError as FuseloopError
    from fuseloop.fusers.closed_loop import ClosedLoopFuser as ClosedLoopFuser
    from fuseloop.fusers.fuser import Fuser as Fuser
    from fuseloop.fusers.instructed import InstructedFuser as InstructedFuser
    from fuseloop.fusers.weights import load as load
    from fuseloop.pairs.images import Picture as Picture
    from fuseloop.pairs.images import read_image as read_image
    from fuseloop.pairs.images import write_image as write_image

    __version__: str

# Where each public name lives. They are imported when first used, so that `import fuseloop` itself is light.
_HOMES = {
    "ClosedLoopFuser": "fuseloop.fusers.closed_loop",
    "Fuser": "fuseloop.fusers.fuser",
    "FuseloopError": "fuseloop.errors",
    "InstructedFuser": "fuseloop.fusers.instructed",
    "Picture": "fuseloop.pairs.images",
    "load": "fuseloop.fusers.weights",
    "read_image": "fuseloop.pairs.images",
    "write_image": "fuseloop.pairs.images",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("fuseloop")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
