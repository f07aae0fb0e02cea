"""What the parts of the closed loop cost for frames of several sizes, as a table to print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch

from fuseloop.fusers.loop_weights import Loop
from fuseloop.networks.cost import CompensationCost, compensation_cost, multiply_accumulates, parameter_count
from fuseloop.scoring.tables import TextTable
from fuseloop.tasks.protocol import Outputs, TaskNetwork

Size = tuple[int, int]


class LookCost(NamedTuple):
    """One look of a task network.

    Attributes:
        operations: Its multiply-accumulates.
        feature: Shape of the feature that it leaves.
    """

    operations: int
    feature: tuple[int, ...]


class FuserCost(NamedTuple):
    """Multiply-accumulates of a fusion network.

    Attributes:
        whole: One pass.
        first: Of that, what both passes of the closed loop share.
    """

    whole: int
    first: int


def look_cost(network: TaskNetwork, height: int, width: int) -> LookCost:
    """What a look of a task network at a frame costs; nothing is computed."""
    on_meta = deepcopy(network).requires_grad_(False).eval().to("meta")
    seen: list[Outputs] = []
    operations = multiply_accumulates(
        lambda images: seen.append(on_meta(images)), torch.empty(1, 3, height, width, device="meta")
    )
    return LookCost(operations, tuple(seen[0].feature.shape))


def fuser_cost(loop: Loop, height: int, width: int) -> FuserCost:
    """What a pass of the fusion network costs; nothing is computed."""
    network = deepcopy(loop.network).eval().to("meta")
    image = torch.empty(1, 1, height, width, device="meta")
    return FuserCost(
        multiply_accumulates(network, image, image), multiply_accumulates(network.encode_first, image, image)
    )


def tables(loop: Loop, networks: Mapping[str, TaskNetwork], sizes: Sequence[Size]) -> Iterator[TextTable]:
    """Parameters and multiply-accumulates of the parts of the loop, apart, for each task network.

    Args:
        loop: The fusion network and its compensation.
        networks: Task networks by their names.
        sizes: Width and height of the frames.
    """
    fusing = [fuser_cost(loop, height, width) for width, height in sizes]
    for name, network in networks.items():
        looks = [look_cost(network, height, width) for width, height in sizes]
        costs = [
            compensation_cost(loop.compensation, height, width, look.feature)
            for (width, height), look in zip(sizes, looks, strict=True)
        ]
        rows = [
            ["VFN, one pass", _counted(parameter_count(loop.network)), *(_giga(cost.whole) for cost in fusing)],
            ["  of it shared by both passes", "", *(_giga(cost.first) for cost in fusing)],
            ["RSC", _counted(parameter_count(loop.compensation)), *map(_range, costs)],
            [name, _counted(parameter_count(network)), *(_giga(look.operations) for look in looks)],
        ]
        loops = [
            [
                "loop without task network",
                "",
                *(
                    _range(CompensationCost(*(2 * one.whole - one.first + cost for cost in both)))
                    for one, both in zip(fusing, costs, strict=True)
                ),
            ]
        ]
        heads = ["", "parameters", *(f"{width}x{height}" for width, height in sizes)]
        yield TextTable(f"{name}: billions of multiply-accumulates for one frame", heads, 1, [rows, loops])


def _counted(parameters: int) -> str:
    return f"{parameters:,}"


def _giga(operations: int) -> str:
    return f"{operations / 1e9:.2f}"


def _range(cost: CompensationCost) -> str:
    return f"{_giga(cost.least)}–{_giga(cost.most)}"
