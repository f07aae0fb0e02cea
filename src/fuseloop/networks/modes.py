"""The mode that networks are in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def looking(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Puts networks into evaluation mode, and every part of them back."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for module in modes:
        module.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
