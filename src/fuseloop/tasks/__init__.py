"""Task networks: detectors, segmenters and saliency networks behind one protocol.

>>> from fuseloop import tasks
>>> tasks.build("yolov5n").classes
('person', 'bicycle', 'car')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuseloop.tasks.weights import build as build
    from fuseloop.tasks.weights import load as load
    from fuseloop.tasks.wrapping import wrap as wrap

# Where each public name lives. They are imported when first used, since one network needs not the libraries of all.
_HOMES = {"build": "fuseloop.tasks.weights", "load": "fuseloop.tasks.weights", "wrap": "fuseloop.tasks.wrapping"}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
