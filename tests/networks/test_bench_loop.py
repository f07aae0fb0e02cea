"""The benchmark of the closed loop measures what it says, beside a plain side that costs what the publication costs."""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_loop as bench
from fuseloop.networks.cost import multiply_accumulates
from fuseloop.networks.semantic_compensation import PublishedA2SI


def test_every_figure_is_there_and_both_sides_agree(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "HEIGHT", 64)
    monkeypatch.setattr(bench, "WIDTH", 96)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "_child", lambda allocator: bench.measure())
    figures = bench.run()
    assert {*figures} == {*bench.KEYS}
    assert all(value > 0 for value in figures.values())
    assert figures["rsc.error_compat"] < 1e-5


@pytest.mark.parametrize(("channels", "stride"), [(512, 32), (64, 4)], ids=["detection", "saliency"])
def test_the_plain_side_computes_what_is_published(channels, stride):
    """A pixel costs 78,976 multiply-accumulates and 64 to 576 for each branch, an element of the feature 24,876."""

    class Plain(torch.nn.Module):
        def forward(self, features: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
            return bench.plain_block(block, features, feature, torch.rand(4, 32, 256))

    torch.manual_seed(0)
    block = PublishedA2SI().eval()
    height, width = 96, 128
    feature = torch.rand(1, channels, height // stride, width // stride)
    cost = multiply_accumulates(Plain(), torch.rand(1, 8, height, width), feature)
    once = cost - (78_336 + 576 + 64) * height * width - 24_876 * feature.numel()
    assert 4 * 64 <= once / (height * width) <= 4 * 576 + 50
