"""What a network costs: its parameters, and its multiply-accumulates for given inputs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fuseloop.networks.semantic_compensation import SemanticCompensation, SemanticInjection
from fuseloop.networks.vfn import CHANNELS


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, whether they are trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_accumulates(module: Callable[..., Any], *inputs: Any) -> int:
    """Multiply-accumulates of one forward pass: those of convolutions, matrix products and attention.

    They are counted where PyTorch runs them, so that products inside functions count too, which hooks on layers would
    not see. Bias, normalisation, activation, pooling and interpolation are left out, as is usual. On the meta device
    nothing is computed, which makes a count at any size free.

    Args:
        module: The network, run in the mode that it is in, or a method of one.
        inputs: What it is called with.
    """
    # The fused attention of the CPU is not known to the counter; the plain one is two products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2


class CompensationCost(NamedTuple):
    """Multiply-accumulates of a semantic compensation for one frame.

    Attributes:
        least: When every branch of every block has chosen 1×1 kernels, where it can.
        most: When every branch has chosen 3×3 kernels.
    """

    least: int
    most: int


def compensation_cost(
    compensation: SemanticCompensation, height: int, width: int, feature: tuple[int, ...]
) -> CompensationCost:
    """What a semantic compensation costs for a frame, which depends on the kernels that it chooses.

    Args:
        compensation: The network.
        height: Of the frame.
        width: Of the frame.
        feature: Shape of the feature of the task network, the batch of 1 first.
    """
    ours = deepcopy(compensation).to("meta").eval()
    features = torch.empty(1, CHANNELS, height, width, device="meta")
    requirement = ours.describe(torch.empty(feature, device="meta"))
    blocks = [block for block in ours.modules() if isinstance(block, SemanticInjection)]
    decided = sum(multiply_accumulates(block.adapt, features, requirement, ours.bank) for block in blocks)
    kernel = CHANNELS * CHANNELS * height * width
    fixed = decided + len(blocks) * kernel  # the zero-conv
    branches = len(blocks) * compensation.branches * kernel
    taps = [1 if configuration == 0 else 9 for configuration in blocks[0].possible]
    return CompensationCost(fixed + min(taps) * branches, fixed + max(taps) * branches)
