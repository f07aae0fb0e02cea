"""What a network costs: its parameters, and its multiply-accumulates for given inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, whether they are trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_accumulates(module: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of one forward pass: those of convolutions, matrix products and attention.

    They are counted where PyTorch runs them, so that products inside functions count too, which hooks on layers would
    not see. Bias, normalisation, activation, pooling and interpolation are left out, as is usual. On the meta device
    nothing is computed, which makes a count at any size free.

    Args:
        module: The network, run in the mode that it is in.
        inputs: What it is called with.
    """
    # The fused attention of the CPU is not known to the counter; the plain one is two products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2
