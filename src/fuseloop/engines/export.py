"""Writes networks as ONNX files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version

import onnx

from fuseloop.engines.deployment import Deployment, Part, deploy
from fuseloop.engines.graph import Shape, write_graph
from fuseloop.networks.vfn import CHANNELS, VFN
from fuseloop.pairs.atomic import written_aside

MASK: Shape = ("batch", 1, "height", "width")
STATISTIC: Shape = ("batch", 2 * CHANNELS, 1, 1)


def part_graph(deployment: Deployment, part: str, metadata: Mapping[str, str] = {}) -> onnx.ModelProto:
    """Writes one part of a deployment as an ONNX model of free batch, height and width.

    Args:
        deployment: What `deploy` made.
        part: "frame", "statistics" or "tile", or the name of a step.
        metadata: Entries for the metadata of the model.
    """
    if part in deployment.steps:
        shape: Shape = ("batch", deployment.image_channels if part == "first" else CHANNELS, "height", "width")
        made = {"fused": MASK} if part == "last" else {"features": ("batch", 2 * CHANNELS, "height", "width")}
        return write_graph(deployment.steps[part], {"infrared": shape, "visible": shape}, made, metadata)
    image: Shape = ("batch", deployment.image_channels, "height", "width")
    pair = {"infrared": image, "luma": image}
    if part == "frame":
        return write_graph(deployment.frame, pair, {"fused": MASK}, metadata)
    if part == "statistics":
        outputs = {"total": STATISTIC, "peak": STATISTIC}
        return write_graph(deployment.statistics, pair | {"interior": MASK}, outputs, metadata)
    return write_graph(deployment.tile, pair | {"mean": STATISTIC, "peak": STATISTIC}, {"fused": MASK}, metadata)


def export_onnx(network: VFN, path: str | os.PathLike[str], *, part: Part = "frame", overwrite: bool = False) -> None:
    """Writes a network as an ONNX file of float32, free in batch, height and width (8 at least).

    | part | inputs | outputs |
    |---|---|---|
    | frame | infrared, luma: B×1×H×W in [0, 1] | fused: B×1×H×W in [0, 1] |
    | statistics | infrared, luma; interior: B×1×H×W, 1 where a tile counts | total, peak: B×16×1×1 |
    | tile | infrared, luma; mean, peak: B×16×1×1 | fused |

    A large frame is fused in tiles that overlap by the halo: the totals of all tiles, divided by the pixels of the
    frame, are the mean, the largest peak is the peak, and both are inputs of every tile. What the file's metadata say:
    architecture, depth, version, part, value range, colour convention, halo, minimum side.

    Args:
        network: The network, with the running statistics of its batch norms.
        path: The file to write.
        part: What to write.
        overwrite: Replace a file that exists.

    Raises:
        ImageError: The file exists and `overwrite` is not set, or it cannot be written.
    """
    metadata = {
        "architecture": type(network).__name__,
        "depth": str(network.depth),
        "fuseloop_version": version("fuseloop"),
        "part": part,
        "value_range": "[0, 1]",
        "colour_convention": "luma is Y = 0.299 R + 0.587 G + 0.114 B of full-range RGB; Cb and Cr pass by",
        "halo": str(network.halo),
        "minimum_side": str(network.minimum_side),
    }
    with written_aside(path, overwrite=overwrite) as aside:
        onnx.save(part_graph(deploy(network), part, metadata), aside)
