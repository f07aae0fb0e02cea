"""Batch norm in training: over all processes, frozen, or with statistics estimated anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def freeze(network: nn.Module) -> None:
    """Makes all batch norms use their running statistics and keep them, until the next `network.train()`."""
    for norm in norms(network):
        norm.eval()


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> None:
    """Sets all running statistics to plain averages of the statistics of some batches.

    Args:
        network: Left in training mode.
        batches: Arguments of one forward pass each.
    """
    found = norms(network)
    momenta = [norm.momentum for norm in found]
    for norm in found:
        norm.reset_running_stats()
        norm.momentum = None  # which is PyTorch's word for a cumulative average
    network.train()
    for batch in batches:
        network(*batch)
    for norm, momentum in zip(found, momenta, strict=True):
        norm.momentum = momentum


def share_statistics(network: nn.Module) -> None:
    """Replaces every batch norm by one over the batches of all processes; the state dictionary keeps its keys."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SharedBatchNorm.of(child))


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose batch is that of all processes together, on any device.

    `torch.nn.SyncBatchNorm` does the same on GPUs only; here data-parallel training is to be the same everywhere.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> SharedBatchNorm:
        """The same norm, with the same parameters and buffers."""
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        shared.load_state_dict(norm.state_dict())
        return shared

    def forward(self, x: Tensor) -> Tensor:
        """Normalises B×C×H×W; B may differ between processes."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = _total(values.new_tensor(float(values.numel() // self.num_features)))
        mean = _total(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _total(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normal: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normal.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _total(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes, with its gradient."""
    total: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return total


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every process's loss depends on the total, and so on this process's part of it.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
