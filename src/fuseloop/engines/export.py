"""Writes networks as ONNX files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Literal

import onnx

from fuseloop.engines.compensation import DeployedCompensation, Injection, SecondPass, is_deployable
from fuseloop.engines.deployment import Deployment, Part, deploy
from fuseloop.engines.graph import Shape, write_graph
from fuseloop.errors import ConfigurationError
from fuseloop.networks.semantic_compensation import GRID, SemanticCompensation
from fuseloop.networks.vfn import CHANNELS, VFN
from fuseloop.pairs.atomic import written_aside

MASK: Shape = ("batch", 1, "height", "width")
STATISTIC: Shape = ("batch", 2 * CHANNELS, 1, 1)
FEATURES: Shape = ("batch", CHANNELS, "height", "width")
REQUIREMENT: Shape = ("batch", "channels", GRID, GRID)
REQUIREMENT_SAID = (
    "feature of the task network for the neutral image, BxCxhxw, averaged over a 4x4 grid of cells from floor(i h/4) "
    "to ceil((i+1) h/4), divided by the root mean square of the result; of tokens BxNxC over 16 cells likewise"
)
Exported = Literal[Part, "first", "second"]
"""The parts that files are made of."""


def part_graph(deployment: Deployment, part: str, metadata: Mapping[str, str] = {}) -> onnx.ModelProto:
    """Writes one part of a deployment as an ONNX model of free batch, height and width.

    Args:
        deployment: What `deploy` made.
        part: "frame", "statistics" or "tile", or the name of a step.
        metadata: Entries for the metadata of the model.
    """
    if part in deployment.steps:
        shape: Shape = ("batch", deployment.image_channels if part == "first" else CHANNELS, "height", "width")
        made = {"fused": MASK} if part == "last" else {"infrared_features": FEATURES, "visible_features": FEATURES}
        return write_graph(deployment.steps[part], {"infrared": shape, "visible": shape}, made, metadata)
    image: Shape = ("batch", deployment.image_channels, "height", "width")
    pair = {"infrared": image, "luma": image}
    if part == "frame":
        return write_graph(deployment.frame, pair, {"fused": MASK}, metadata)
    if part == "statistics":
        outputs = {"total": STATISTIC, "peak": STATISTIC}
        return write_graph(deployment.statistics, pair | {"interior": MASK}, outputs, metadata)
    return write_graph(deployment.tile, pair | {"mean": STATISTIC, "peak": STATISTIC}, {"fused": MASK}, metadata)


def compensation_graph(deployed: DeployedCompensation, part: str, *, together: bool = False) -> onnx.ModelProto:
    """Writes a part of a compensation as an ONNX model of free height and width.

    Args:
        deployed: The compensation.
        part: "decision.BLOCK", which takes any batch and requirement, or "injection.COUNTS", which takes one image.
        together: See `Injection`.
    """
    kind, *which = part.split(".")
    if kind == "decision":
        decision = deployed.decisions[which[0]]
        choice: Shape = ("batch", "branches")
        inputs = {"cells": ("batch", CHANNELS, "rows", "columns"), "requirement": REQUIREMENT}
        return write_graph(decision, inputs, {"configurations": choice, "vectors": choice})
    counts = tuple(map(int, which))
    width = CHANNELS * sum(counts)
    one = (1, *FEATURES[1:])
    inputs = {
        "features": one,
        "kernels": (width, CHANNELS, 3, 3),
        "gain": (1, width, 1, 1),
        "offset": (1, width, 1, 1),
        "mixer": (CHANNELS, width, 1, 1),
        "bias": (1, CHANNELS, 1, 1),
        "strength": (1, 1, 1, 1),
    }
    return write_graph(Injection(counts, deployed.eps, together=together), inputs, {"compensated": one})


def export_onnx(
    network: VFN,
    path: str | os.PathLike[str],
    *,
    part: Exported = "frame",
    compensation: SemanticCompensation | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a network as an ONNX file of float32, free in batch, height and width (8 at least).

    | part | inputs | outputs |
    |---|---|---|
    | frame | infrared, luma: B×1×H×W in [0, 1] | fused: B×1×H×W in [0, 1] |
    | statistics | infrared, luma; interior: B×1×H×W, 1 where a tile counts | total, peak: B×16×1×1 |
    | tile | infrared, luma; mean, peak: B×16×1×1 | fused |
    | first | infrared, visible: the luma; as infrared and luma above | infrared_features, visible_features: B×8×H×W |
    | second | infrared, visible: 1×8×H×W; requirement: 1×C×4×4; strength: 1 | fused: 1×1×H×W |

    A large frame is fused in tiles that overlap by the halo: the totals of all tiles, divided by the pixels of the
    frame, are the mean, the largest peak is the peak, and both are inputs of every tile. What the file's metadata say:
    architecture, depth, version, part, value range, colour convention, halo, minimum side.

    The last two are the passes of a closed loop. The second one takes what the first one made, and one image, since
    each chooses kernels of its own; with strength 0 it makes the neutral image. It computes all kernels that could be
    chosen, where the engines of fuseloop compute those that are. Its metadata say what the compensation is and how a
    requirement is made of the feature of a task network.

    Args:
        network: The network, with the running statistics of its batch norms.
        path: The file to write.
        part: What to write.
        compensation: The compensation of the second pass, in its mended form; for "second" alone.
        overwrite: Replace a file that exists.

    Raises:
        ConfigurationError: The second pass has no compensation, or one that is not of the mended form.
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
    if part == "second":
        model = _second_pass(network, compensation, metadata)
    else:
        model = part_graph(deploy(network), part, metadata)
    with written_aside(path, overwrite=overwrite) as aside:
        onnx.save(model, aside)


def _second_pass(
    network: VFN, compensation: SemanticCompensation | None, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    if compensation is None:
        raise ConfigurationError(
            "the second pass is that of a closed loop, and this is a fusion network alone; give the weight file of a "
            "loop"
        )
    if not is_deployable(compensation):
        raise ConfigurationError(
            "the second pass is exported with the mended compensation and all its parts; this one is published, or "
            "goes without some"
        )
    said = {
        "compensation": f"branches={compensation.branches}, width={compensation.width}, vectors={compensation.vectors}",
        "requirement": REQUIREMENT_SAID,
        "strength": "from 0, the neutral image, to 1",
    }
    one = (1, *FEATURES[1:])
    inputs = {"infrared": one, "visible": one, "requirement": (1, *REQUIREMENT[1:]), "strength": (1,)}
    module = SecondPass(DeployedCompensation(compensation), deploy(network).steps)
    # The halo is without end: statistics are of the whole frame.
    return write_graph(module, inputs, {"fused": (1, *MASK[1:])}, {**metadata, **said, "halo": "the whole frame"})
