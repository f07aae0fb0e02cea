"""Fusion metrics as pure functions on B×1×H×W tensors in [0, 1], in the order (infrared, visible, fused).

Definitions follow the papers under the convention "default"; other conventions reproduce public evaluators, quirks
included. `Frame` shares work between metrics: `qabf.of(frame)`, `vif.of(frame)`.
"""

from fuseloop.metrics.functional.feature_information import fmi_dct, fmi_gradient, fmi_pixel
from fuseloop.metrics.functional.fidelity import vif, viff
from fuseloop.metrics.functional.frame import Frame, Grey, MetricFunction, Result
from fuseloop.metrics.functional.gradient import nabf, qabf
from fuseloop.metrics.functional.information import ce, en, mi, nmi, qncie, qte, qte_cvejic, te
from fuseloop.metrics.functional.perception import qcb, qcv
from fuseloop.metrics.functional.phase import qp
from fuseloop.metrics.functional.quality_index import qc, qe, qs, qw, qy
from fuseloop.metrics.functional.statistics import ag, cc, ei, mse, psnr, qsf, rmse, scd, sd, sf
from fuseloop.metrics.functional.structure import mef_ssim, ms_ssim, ssim
from fuseloop.metrics.functional.wavelet import qm

__all__ = [
    "Frame",
    "Grey",
    "MetricFunction",
    "Result",
    "ag",
    "cc",
    "ce",
    "ei",
    "en",
    "fmi_dct",
    "fmi_gradient",
    "fmi_pixel",
    "mef_ssim",
    "mi",
    "ms_ssim",
    "mse",
    "nabf",
    "nmi",
    "psnr",
    "qabf",
    "qc",
    "qcb",
    "qcv",
    "qe",
    "qm",
    "qncie",
    "qp",
    "qs",
    "qsf",
    "qte",
    "qte_cvejic",
    "qw",
    "qy",
    "rmse",
    "scd",
    "sd",
    "sf",
    "ssim",
    "te",
    "vif",
    "viff",
]
