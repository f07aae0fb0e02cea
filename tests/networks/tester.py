"""The tests that every network must pass.

A network's test class derives from `NetworkTester` and says how it is made and what it can do:

    class TestVFN(NetworkTester):
        make = VFN
        variants = ({"depth": 1}, {"depth": 2})
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


class NetworkTester:
    """Behaviour that all networks from a pair of B×1×H×W in [0, 1] to one tensor share."""

    make: ClassVar[Callable[..., nn.Module]]
    """The network's class; called with the keywords of a variant."""

    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Keywords of every variant; the first one is the default."""

    outputs: ClassVar[int] = 1
    """Channels of the output, which has the height and width of the input."""

    minimum_side: ClassVar[int] = 8
    """The smallest height and width."""

    in_unit_range: ClassVar[bool] = True
    """Whether the output stays in [0, 1]."""

    exportable: ClassVar[bool] = True
    """Whether torch.export takes it with any batch, height and width."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs what asks for a `variant` once for each."""
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", self.variants, ids=str)

    def network(self, variant: dict[str, Any] | None = None) -> nn.Module:
        """A seeded network in eval mode whose batch norms have statistics of their own, not mean 0 and variance 1."""
        torch.manual_seed(0)
        network = type(self).make(**(self.variants[0] if variant is None else variant)).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        return network

    def pair(self, batch: int = 2, height: int = 24, width: int = 32) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [torch.rand(batch, 1, height, width, generator=generator) for _ in range(2)]

    @torch.no_grad()
    def test_any_size_comes_back_in_the_same_size(self, variant):
        network = self.network(variant)
        side = self.minimum_side
        for height, width in ((side, side), (side, 61), (37, side), (side + 1, side + 2), (31, 47), (64, 80)):
            output = network(*self.pair(1, height, width))
            assert output.shape == (1, self.outputs, height, width)
            assert output.isfinite().all()

    @torch.no_grad()
    def test_output_stays_in_the_unit_range(self, variant):
        if not self.in_unit_range:
            pytest.skip("its output is not an image in [0, 1]")
        network = self.network(variant)
        zeros = torch.zeros(1, 1, 16, 16)
        for pair in (self.pair(), [zeros, zeros], [zeros, zeros + 1], [1e4 * x for x in self.pair()]):
            output = network(*pair)
            assert output.min() >= 0
            assert output.max() <= 1

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_every_parameter_gets_a_gradient(self, variant, training):
        network = self.network(variant).train(training)
        network(*self.pair()).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # In training mode a batch norm takes the bias before it out again, so nothing is left for that bias.
            assert training or parameter.grad.any(), name

    @torch.no_grad()
    def test_saved_and_loaded_it_gives_the_same_output(self, variant, tmp_path: Path):
        network = self.network(variant)
        save_model(network, str(tmp_path / "weights.safetensors"))
        torch.manual_seed(99)
        other = type(self).make(**variant).eval()
        assert not torch.equal(other(*self.pair()), network(*self.pair()))
        load_model(other, str(tmp_path / "weights.safetensors"))
        assert torch.equal(other(*self.pair()), network(*self.pair()))

    @torch.no_grad()
    def test_a_batch_equals_its_pairs_one_by_one(self, variant):
        network = self.network(variant)
        infrared, luma = self.pair(batch=3)
        together = network(infrared, luma)
        for index in range(3):
            alone = network(infrared[index : index + 1], luma[index : index + 1])
            torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_the_same_input_gives_the_same_bits(self, variant):
        network = self.network(variant)
        assert torch.equal(network(*self.pair()), network(*self.pair()))

    @torch.no_grad()
    def test_inputs_are_left_as_they_were(self):
        pair = self.pair()
        before = [x.clone() for x in pair]
        self.network()(*pair)
        assert all(torch.equal(x, y) for x, y in zip(pair, before, strict=True))

    @torch.no_grad()
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1)], ids=["fp64", "bf16"]
    )
    def test_other_precisions_and_devices_agree(self, dtype, tolerance, device):
        expected = self.network()(*self.pair())
        output = self.network().to(device, dtype)(*(x.to(device, dtype) for x in self.pair()))
        assert output.dtype == dtype
        assert output.device.type == device
        torch.testing.assert_close(output.float().cpu(), expected, rtol=0, atol=tolerance)

    def test_it_makes_no_tensor_on_a_device_of_its_own_choice(self):
        """The meta device holds shapes alone and refuses to mix with any other."""
        output = self.network().to("meta")(*(x.to("meta") for x in self.pair()))
        assert output.device.type == "meta"

    @torch.no_grad()
    def test_exported_it_takes_any_batch_and_size(self):
        if not self.exportable:
            pytest.skip("declared as not exportable")
        network = self.network()
        side = self.minimum_side
        dynamic = {
            0: torch.export.Dim("batch", min=1),
            2: torch.export.Dim("height", min=side),
            3: torch.export.Dim("width", min=side),
        }
        exported = torch.export.export(network, tuple(self.pair()), dynamic_shapes=(dynamic, dynamic)).module()
        for batch, height, width in ((1, side, side), (3, 31, 47), (2, 64, 48)):
            pair = self.pair(batch, height, width)
            torch.testing.assert_close(exported(*pair), network(*pair), rtol=0, atol=1e-5)
