"""A small encoder that is not trained."""

from __future__ import annotations

import pytest
import torch

from fuseloop.instructions import HashedEncoder


@pytest.fixture
def small() -> HashedEncoder:
    """It knows two words, and would take anything for something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = HashedEncoder(["detect", "行人"], ["the"], buckets=64, width=8, hidden=8, dim=16)
        encoder.purpose.bias.data[-1] = -10
    return encoder.eval()
