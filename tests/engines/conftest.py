"""Networks and pairs that engines are tried with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fuseloop.networks.vfn import VFN


@pytest.fixture(scope="session")
def make_network() -> Callable[..., VFN]:
    """Makes a network of random weights, whose batch norms have statistics of their own."""

    def make(depth: int = 2, seed: int = 0) -> VFN:
        generator = torch.Generator().manual_seed(seed)
        network = VFN(depth).eval().requires_grad_(False)
        for value in network.state_dict().values():
            if value.ndim > 1:  # so that the signal neither dies nor explodes
                value.normal_(generator=generator).mul_((2 / value[0].numel()) ** 0.5)
            elif value.is_floating_point():
                value.uniform_(-0.3, 0.3, generator=generator)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_var.uniform_(0.3, 2, generator=generator)
                norm.weight.uniform_(0.5, 1.5, generator=generator)
        return network

    return make


@pytest.fixture(scope="session")
def network(make_network: Callable[..., VFN]) -> VFN:
    return make_network()


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., tuple[Tensor, Tensor]]:
    """Makes random images B×1×H×W in [0, 1], smooth and with noise."""

    def make(batch: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(2, batch, 1, height, width, generator=generator)
        slope = torch.linspace(0, 1, width).expand(batch, 1, height, width)
        return 0.3 * noise[0] + 0.7 * slope, 0.3 * noise[1] + 0.7 * slope.flip(-1)

    return make
