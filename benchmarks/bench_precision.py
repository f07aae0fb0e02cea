"""How far each engine and precision is from the PyTorch module on real frames.

All frames of MSRS/test and TNO below FUSELOOP_DATA are fused with the shipped weights, which have seen TNO in training
and MSRS/test never. Figures are of the fused luma, in grey levels of 1/255. Infrared of low contrast (TNO) is the hard
case for bf16: the attention looks at differences of neighbouring features, and eight bits of mantissa round small ones
away.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fuseloop.datasets.folders import open_pairs
from fuseloop.errors import ConfigurationError
from fuseloop.fusers.weights import load

SETS = {"msrs": "MSRS/test", "tno": "TNO"}
CHOICES = [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("torch", "bf16")]
KEYS = {
    f"precision.{name}_{engine}_{precision}_{figure}": f"{folder}, {engine} in {precision}: {meaning}"
    for name, folder in SETS.items()
    for engine, precision in CHOICES
    for figure, meaning in {
        "max": "largest difference of any pixel of any frame",
        "above_2": "share of pixels more than 2/255 off",
    }.items()
}


def run() -> dict[str, float]:
    """Compares all engines with the module, frame by frame.

    Raises:
        ConfigurationError: FUSELOOP_DATA is not set.
    """
    root = os.environ.get("FUSELOOP_DATA")
    if not root:
        raise ConfigurationError("this benchmark needs real pairs: set FUSELOOP_DATA to the folder that holds MSRS")
    exact = load("vfn")
    fusers = {choice: load("vfn", engine=choice[0], precision=choice[1]) for choice in CHOICES}  # type: ignore[arg-type]
    figures: dict[str, float] = {}
    for name, folder in SETS.items():
        differences: dict[tuple[str, str], list[Tensor]] = {choice: [] for choice in CHOICES}
        for pair in open_pairs(str(Path(root) / folder)):
            infrared, luma = (torch.from_numpy(np.ascontiguousarray(image))[None, None] / 255 for image in pair)
            fused = exact.fuse_luma(infrared, luma)
            for choice, fuser in fusers.items():
                differences[choice].append(((fuser.fuse_luma(infrared, luma) - fused).abs() * 255).flatten())
        for (engine, precision), parts in differences.items():
            levels = torch.cat(parts)
            figures[f"precision.{name}_{engine}_{precision}_max"] = float(levels.max())
            figures[f"precision.{name}_{engine}_{precision}_above_2"] = float((levels > 2).double().mean())
    return figures
