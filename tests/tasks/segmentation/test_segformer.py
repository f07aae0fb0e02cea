"""SegFormer is the network that its publication describes, and its loss and predictions mean what they say."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from fuseloop.datasets.labelled import IGNORED
from fuseloop.datasets.synthetic import SEGMENTATION_NAMES
from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.tasks.protocol import Outputs, Target, View, hooked
from fuseloop.tasks.segmentation.segformer import SIZES, SegFormer, Size
from tests.tasks.tester import TaskNetworkTester, part

NARROW = Size(depths=(1, 1, 1, 1), widths=(16, 32, 40, 64), head=64)


class TestSegFormer(TaskNetworkTester):
    make = staticmethod(partial(SegFormer, SEGMENTATION_NAMES, NARROW, drop_path=0.0, dropout=0.0))
    variants = ({"class_weights": [1.0] + [5.0] * (len(SEGMENTATION_NAMES) - 1)}, {})
    feature_shape = staticmethod(lambda height, width: (64, height // 32, width // 32))
    overfit_steps = 300
    overfit_rate = 0.01
    # Logits are at stride 4, and the scenes hold bars two pixels wide: their true masks, averaged over 4×4 pixels and
    # magnified again, reach 0.76.
    overfit_quality = 0.7


class TestPublishedFigures:
    @pytest.mark.parametrize(
        ("size", "encoder", "head"),
        [
            ("b0", 3.4, 0.4),
            ("b1", 13.1, 0.6),
            ("b2", 24.2, 3.3),
            ("b3", 44.0, 3.3),
            ("b4", 60.8, 3.3),
            ("b5", 81.4, 3.3),
        ],
    )
    def test_millions_of_parameters_with_150_classes(self, size, encoder, head):
        with torch.device("meta"):
            network = SegFormer(tuple(map(str, range(150))), size).network
        assert parameter_count(network.segformer) / 1e6 == pytest.approx(encoder, abs=0.1)
        assert parameter_count(network.decode_head) / 1e6 == pytest.approx(head, abs=0.1)

    @pytest.mark.parametrize(("size", "billions"), [("b0", 8.4), ("b1", 15.9)])
    def test_multiply_accumulates_with_150_classes(self, size, billions):
        with torch.device("meta"):
            network, image = SegFormer(tuple(map(str, range(150))), size).eval(), torch.rand(1, 3, 512, 512)
        assert multiply_accumulates(network.network, image) / 1e9 == pytest.approx(billions, rel=0.01)

    @pytest.mark.parametrize(("size", "share"), [("b0", 0.5), ("b2", 0.4)])
    def test_its_own_way_through_the_head_takes_a_part_of_them(self, size, share):
        with torch.device("meta"):
            network, image = SegFormer(tuple(map(str, range(150))), size).eval(), torch.rand(1, 3, 512, 512)
        assert multiply_accumulates(network, image) < share * multiply_accumulates(network.network, image)

    @torch.no_grad()
    def test_that_way_gives_the_same_logits(self):
        torch.manual_seed(0)
        network, images = SegFormer(SEGMENTATION_NAMES, "b0").eval(), torch.rand(2, 3, 96, 128)
        network.network.decode_head.batch_norm.running_var.uniform_(0.5, 1.5)
        found = network(images)
        expected = network.network(network.prepare(images, found.view)).logits
        torch.testing.assert_close(found.raw, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    def test_b2_of_the_specification(self):
        with torch.device("meta"):
            assert 27.3e6 < parameter_count(SegFormer(SEGMENTATION_NAMES, "b2")) < 27.5e6

    @torch.no_grad()
    @pytest.mark.parametrize(("size", "channels"), [("b0", 256), ("b1", 512)])
    def test_the_feature_is_what_the_last_layer_norm_gives(self, size, channels):
        network = SegFormer(SEGMENTATION_NAMES, size).eval()
        with hooked(network, "network.segformer.stages.3.layer_norm") as caught:
            outputs = network(torch.rand(1, 3, 64, 96))
        assert outputs.feature.shape == (1, channels, 2, 3)
        assert torch.equal(outputs.feature.flatten(2).mT, caught.output), "the same numbers as tokens"

    def test_names_of_the_layers_are_those_of_shipped_weights(self):
        """Another release of transformers may rename them; weights would have to be renamed too."""
        names = {name.split(".", 1)[1] for name in SegFormer(SEGMENTATION_NAMES, NARROW).state_dict()}
        assert len(names) == 124
        assert names >= {
            "segformer.stages.0.patch_embeddings.proj.weight",
            "segformer.stages.1.blocks.0.attention.q_proj.weight",
            "segformer.stages.2.blocks.0.attention.sequence_reduction.sequence_reduction.weight",
            "segformer.stages.3.blocks.0.mlp.fc1.weight",
            "segformer.stages.3.layer_norm.weight",
            "decode_head.linear_projections.0.proj.weight",
            "decode_head.batch_norm.running_mean",
            "decode_head.classifier.weight",
        }

    def test_unknown_sizes_and_weights_are_refused(self):
        with pytest.raises(ConfigurationError, match="no size 'b6'; choose one of b0, b1"):
            SegFormer(SEGMENTATION_NAMES, "b6")
        for weights in ([1.0], [0.0] * len(SEGMENTATION_NAMES), [float("nan")] * len(SEGMENTATION_NAMES)):
            with pytest.raises(ConfigurationError, match=f"for each of {len(SEGMENTATION_NAMES)} classes"):
                SegFormer(SEGMENTATION_NAMES, NARROW, class_weights=weights)
        assert list(SIZES) == ["b0", "b1", "b2", "b3", "b4", "b5"]


class TestInput:
    def test_images_are_normalised_as_in_cldyn(self):
        network = SegFormer(SEGMENTATION_NAMES, NARROW)
        images = torch.rand(2, 3, 64, 64)
        mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
        expected = (images * 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        torch.testing.assert_close(network.prepare(images, network.view(64, 64)), expected)


def outputs_of(logits: torch.Tensor, view: View) -> Outputs:
    return Outputs(logits, logits, view)


class TestLoss:
    network = SegFormer(("background", "car", "person"), NARROW, class_weights=(1, 2, 4))
    plain = SegFormer(("background", "car", "person"), NARROW)

    def test_it_is_the_mean_cross_entropy_of_the_pixels_that_count(self):
        logits = torch.randn(2, 3, 8, 8, requires_grad=True)
        masks = torch.randint(0, 3, (2, 8, 8))
        masks[0, :5] = IGNORED
        targets = [Target(segmentation=mask) for mask in masks]
        outputs = outputs_of(logits, View.to_multiple(8, 8, 8))
        plain, weighted = (network.loss(outputs, targets, "none") for network in (self.plain, self.network))
        for index in range(2):
            pixels, mask = logits[index].flatten(1).T, masks[index].flatten()
            counts = mask != IGNORED
            each = F.cross_entropy(pixels[counts], mask[counts], reduction="none")
            torch.testing.assert_close(plain[index], each.mean())
            torch.testing.assert_close(weighted[index], (each * 2.0 ** mask[counts]).mean())

    def test_it_is_taken_at_the_resolution_of_the_image(self):
        logits, view = torch.randn(1, 3, 8, 8), View.to_multiple(27, 30, 32)
        mask = torch.randint(0, 3, (27, 30))
        expected = F.cross_entropy(view.maps_to_image(logits), mask[None])
        torch.testing.assert_close(self.plain.loss(outputs_of(logits, view), [Target(segmentation=mask)]), expected)

    def test_an_image_in_which_nothing_counts_has_no_loss_and_a_gradient_of_zero(self):
        images, targets = part(64, 64)
        images.requires_grad_()
        nothing = Target(segmentation=torch.full((64, 64), IGNORED))
        network = SegFormer(SEGMENTATION_NAMES, NARROW).eval()
        losses = network.loss(network(images), [targets[0], nothing, targets[2]], "none")
        assert losses[1] == 0
        losses.mean().backward()
        assert images.grad.isfinite().all()
        assert not images.grad[1].any()
        assert images.grad[0].any()

    def test_masks_that_do_not_fit_are_refused(self):
        outputs = outputs_of(torch.randn(2, 3, 8, 8), View.to_multiple(8, 8, 8))
        good = Target(segmentation=torch.zeros(8, 8, dtype=torch.long))
        with pytest.raises(LabelError, match=r"3 classes.*from 0 to 2 and 255.*got \[3, 7\]"):
            self.plain.loss(outputs, [good, Target(segmentation=torch.tensor([[3, 7] * 4] * 8))])
        with pytest.raises(LabelError, match=r"image 1 .*\(8, 8\).*\(8, 9\)"):
            self.plain.loss(outputs, [good, Target(segmentation=torch.zeros(8, 9, dtype=torch.long))])
        with pytest.raises(LabelError, match="image 0 of the batch has no segmentation"):
            self.plain.loss(outputs, [Target(), good])


class TestPrediction:
    def test_every_pixel_is_of_the_class_with_the_greatest_logit(self):
        network = SegFormer(("background", "car"), NARROW)
        logits = torch.zeros(1, 2, 8, 8)
        logits[0, 1, :, 4:] = 1
        logits[0, 0, :, :4] = 1
        (found,) = network.predict(outputs_of(logits, View.to_multiple(32, 40, 8)))
        assert (found.segmentation[:, :20] == 0).all()
        assert (found.segmentation[:, 20:] == 1).all()
