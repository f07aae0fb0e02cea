from __future__ import annotations

import torch

from fuseloop.networks.vfn import VFN
from fuseloop.training.norms import SharedBatchNorm, calibrate, freeze, norms, share_statistics


def pairs(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.rand(2, 2, 1, 16, 16, generator=generator)) for _ in range(count)]


def statistics(network):
    return {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}


def test_frozen_norms_keep_their_statistics_and_train_their_scales():
    network = VFN().train()
    freeze(network)
    before = statistics(network)
    network(*pairs(1)[0]).sum().backward()
    for name, value in statistics(network).items():
        assert torch.equal(value, before[name])
    assert all(norm.weight.grad is not None for norm in norms(network))


def test_calibration_averages_the_statistics_of_its_batches():
    network = VFN()
    batches = pairs(3)
    stem = network.ir_feb.bfe
    with torch.no_grad():
        means = [stem[0](infrared).mean(dim=(0, 2, 3)) for infrared, _ in batches]
    calibrate(network, batches)
    torch.testing.assert_close(stem[1].running_mean, torch.stack(means).mean(dim=0))


def test_calibration_forgets_what_was_before_and_keeps_the_momentum():
    network = VFN()
    calibrate(network, pairs(2, seed=1))
    calibrate(network, pairs(2))
    fresh = VFN()
    fresh.load_state_dict(network.state_dict())
    calibrate(fresh, pairs(2))
    for name, value in statistics(fresh).items():
        assert torch.equal(value, statistics(network)[name])
    assert {norm.momentum for norm in norms(network)} == {0.1}


def test_sharing_keeps_keys_and_values():
    network = VFN()
    keys = list(network.state_dict())
    before = network.eval()(*pairs(1)[0])
    share_statistics(network)
    assert list(network.state_dict()) == keys
    assert all(isinstance(norm, SharedBatchNorm) for norm in norms(network))
    assert torch.equal(network.eval()(*pairs(1)[0]), before)
