"""Fusion metrics as pure functions on B×1×H×W tensors in [0, 1], in the order (infrared, visible, fused).

Definitions follow the papers under the convention "default"; other conventions reproduce public evaluators, quirks
included. `Frame` shares work between metrics: `qabf.of(frame)`, `vif.of(frame)`.
"""

from fuseloop.metrics.functional.fidelity import vif
from fuseloop.metrics.functional.frame import Frame, Grey, MetricFunction, Result
from fuseloop.metrics.functional.gradient import qabf
from fuseloop.metrics.functional.information import en, mi
from fuseloop.metrics.functional.perception import qcb, qcv
from fuseloop.metrics.functional.statistics import ag, cc, mse, psnr, scd, sd, sf
from fuseloop.metrics.functional.structure import ssim

__all__ = [
    "Frame",
    "Grey",
    "MetricFunction",
    "Result",
    "ag",
    "cc",
    "en",
    "mi",
    "mse",
    "psnr",
    "qabf",
    "qcb",
    "qcv",
    "scd",
    "sd",
    "sf",
    "ssim",
    "vif",
]
