"""Fusion metrics as pure functions on B×1×H×W tensors in [0, 1], in the order (infrared, visible, fused).

Definitions follow the papers under the convention "default"; other conventions reproduce public evaluators, quirks
included. `Frame` shares work between metrics: `qabf.of(frame)`, `vif.of(frame)`.
"""

from fuseloop.metrics.functional.fidelity import vif
from fuseloop.metrics.functional.frame import Frame, Grey, MetricFunction, Result
from fuseloop.metrics.functional.gradient import qabf
from fuseloop.metrics.functional.perception import qcv
from fuseloop.metrics.functional.statistics import scd
from fuseloop.metrics.functional.structure import ssim

__all__ = ["Frame", "Grey", "MetricFunction", "Result", "qabf", "qcv", "scd", "ssim", "vif"]
