"""Networks of one's own, and those of transformers in a local folder, are task networks."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES
from fuseloop.errors import ConfigurationError, LabelError, WeightsError
from fuseloop.tasks.protocol import Prediction, Target, TaskNetwork, hooked
from fuseloop.tasks.wrapping import wrap, wrap_transformers
from tests.tasks.tester import TaskNetworkTester, part

CLASSES = len(SEGMENTATION_NAMES)


def pixels(outputs: int) -> nn.Sequential:
    """The least network with maps of logits."""
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.Tanh(), nn.Conv2d(8, outputs, 1))


class LearnsElsewhere(TaskNetworkTester):
    """What is wrapped need not be able to learn the scenes."""

    def test_it_learns_a_handful_of_scenes_by_heart(self):
        pytest.skip("the network is the user's own")


class TestSegmenterOfOnesOwn(LearnsElsewhere):
    make = staticmethod(
        lambda **keywords: wrap(
            pixels(CLASSES), task="segmentation", classes=SEGMENTATION_NAMES, feature="1", **keywords
        )
    )
    variants = ({}, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "stride": 8})
    feature_shape = staticmethod(lambda height, width: (8, height // 4, width // 4))


class TestSaliencyNetworkOfOnesOwn(LearnsElsewhere):
    make = staticmethod(lambda **keywords: wrap(pixels(1), task="saliency", feature="1", **keywords))
    variants = ({}, {"size": (64, 96)})
    feature_shape = staticmethod(lambda height, width: (8, height // 4, width // 4))


class TestWrap:
    images, targets = part(64, 96)

    def test_the_usual_losses_are_means_over_the_pixels_of_an_image(self):
        for task, classes, maps in (("segmentation", SEGMENTATION_NAMES, CLASSES), ("saliency", (), 1)):
            network = wrap(pixels(maps), task=task, classes=classes, feature="0").eval()
            outputs = network(self.images)
            full = F.interpolate(network.module(self.images), (64, 96), mode="bilinear")
            losses = network.loss(outputs, self.targets, "none")
            for index, target in enumerate(self.targets):
                expected = (
                    F.cross_entropy(full[index][None], target.segmentation[None])
                    if task == "segmentation"
                    else F.binary_cross_entropy_with_logits(full[index, 0], target.saliency)
                )
                torch.testing.assert_close(losses[index], expected)

    def test_a_detector_says_how_its_output_becomes_a_loss_and_boxes(self):
        def loss(raw: torch.Tensor, targets: Any, view: Any) -> torch.Tensor:
            return torch.stack(
                [(one - len(target.boxes)).square().mean() for one, target in zip(raw, targets, strict=True)]
            )

        def predict(raw: torch.Tensor, view: Any) -> list[Prediction]:
            box = view.boxes_to_image(torch.tensor([[0.0, 0.0, view.input_width, view.input_height]]))
            return [Prediction(boxes=box, classes=torch.tensor([1]), scores=torch.tensor([0.5])) for _ in raw]

        network = wrap(
            pixels(1),
            task="detection",
            classes=BOX_NAMES,
            feature="0",
            loss=loss,
            predict=predict,
            score_threshold=0.25,
            nms_iou=0.5,
        )
        outputs = network(self.images[..., :50, :70])
        assert network.loss(outputs, self.targets, "none").shape == (3,)
        found = network.predict(outputs)
        assert found[2].boxes.tolist() == [[0, 0, 70, 50]]
        scores = network.score(
            [network.keep(str(i), *pair) for i, pair in enumerate(zip(found, self.targets, strict=True))]
        )
        assert "mAP50" in scores.values
        assert (network.score_threshold, network.nms_iou) == (0.25, 0.5)

    def test_loss_and_prediction_of_ones_own_take_precedence(self):
        network = wrap(
            pixels(1),
            task="saliency",
            feature="0",
            loss=lambda raw, targets, view: raw.flatten(1).sum(dim=1),
            predict=lambda raw, view: [Prediction(saliency=torch.ones(view.height, view.width)) for _ in raw],
        )
        outputs = network(self.images)
        torch.testing.assert_close(network.loss(outputs, self.targets, "none"), outputs.raw.flatten(1).sum(dim=1))
        assert network.predict(outputs)[0].saliency.min() == 1
        broken = wrap(pixels(1), task="saliency", feature="0", loss=lambda raw, targets, view: raw.mean())
        with pytest.raises(ConfigurationError, match=r"one value an image, \(3,\), got \(\)"):
            broken.loss(broken(self.images), self.targets)

    def test_what_is_missing_is_named(self):
        with pytest.raises(ConfigurationError, match=r"no layer 'second'.*0, 1, 2"):
            wrap(pixels(1), task="saliency", feature="second")
        with pytest.raises(ConfigurationError, match="needs feature"):
            wrap(pixels(1), task="saliency")
        with pytest.raises(ConfigurationError, match="needs classes"):
            wrap(pixels(1), task="segmentation", feature="0")
        with pytest.raises(ConfigurationError, match="not 'depth'"):
            wrap(pixels(1), task="depth", classes=("a",), feature="0")
        with pytest.raises(ConfigurationError, match="loss and predict for a detector"):
            wrap(pixels(1), task="detection", classes=BOX_NAMES, feature="0")

    def test_maps_and_masks_that_do_not_fit_are_refused(self):
        network = wrap(pixels(4), task="segmentation", classes=SEGMENTATION_NAMES, feature="0")
        with pytest.raises(ConfigurationError, match=rf"B×{CLASSES}×h×w here, but Sequential gave \(3, 4, 16, 24\)"):
            network.predict(network(self.images))
        salient = wrap(pixels(1), task="saliency", feature="0")
        with pytest.raises(LabelError, match=r"image 0 .*\(64, 96\).*\(9, 9\)"):
            salient.loss(salient(self.images[:1]), [Target(saliency=torch.zeros(9, 9))])


def segformer() -> Any:
    config = transformers.SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 16, 20, 24],
        num_attention_heads=[1, 2, 5, 8],
        decoder_hidden_size=16,
        id2label=dict(enumerate(SEGMENTATION_NAMES)),
    )
    return transformers.SegformerForSemanticSegmentation(config)


def mobile_net() -> Any:
    config = transformers.MobileNetV2Config(
        depth_multiplier=0.35, image_size=64, id2label=dict(enumerate(SEGMENTATION_NAMES))
    )
    module = transformers.MobileNetV2ForSemanticSegmentation(config)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):  # its own random weights are so small that nothing comes through
            nn.init.kaiming_normal_(layer.weight)
    return module


SMALL = {
    "d_model": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 10,
    "id2label": dict(enumerate(BOX_NAMES)),
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4, "layer_type": "basic"}


def detr() -> Any:
    backbone = transformers.ResNetConfig(**RESNET, out_features=["stage4"])
    return transformers.DetrForObjectDetection(transformers.DetrConfig(backbone_config=backbone, **SMALL))


def rt_detr() -> Any:
    backbone = transformers.RTDetrResNetConfig(**RESNET, out_indices=[2, 3, 4])
    channels = {"encoder_in_channels": [8] * 3, "decoder_in_channels": [16] * 3, "encoder_hidden_dim": 16}
    config = transformers.RTDetrConfig(backbone_config=backbone, num_denoising=0, **channels, **SMALL)
    return transformers.RTDetrForObjectDetection(config)


def yolos() -> Any:
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 96],
        num_detection_tokens=10,
        id2label=dict(enumerate(BOX_NAMES)),
    )
    return transformers.YolosForObjectDetection(config)


def saved(folder: Path, module: Any, preprocessor: dict[str, Any] | None = None) -> Path:
    module.save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def through_a_folder(module: Any) -> TaskNetwork:
    with TemporaryDirectory() as folder:
        return wrap(saved(Path(folder), module()))


@cache
def network_of(module: Any) -> TaskNetwork:
    torch.manual_seed(0)
    return through_a_folder(module)


class TestSegFormerFromAFolder(LearnsElsewhere):
    make = staticmethod(partial(through_a_folder, segformer))
    feature_shape = staticmethod(lambda height, width: (24, height // 32, width // 32))


class TestFolder:
    images, targets = part(64, 96)

    @torch.no_grad()
    def test_what_was_saved_is_what_runs(self, tmp_path):
        torch.manual_seed(0)
        module = segformer().eval()
        network = wrap_transformers(saved(tmp_path, module))
        assert network.classes == SEGMENTATION_NAMES
        assert not network.training
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        prepared = (self.images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        torch.testing.assert_close(network(self.images).raw, module(prepared).logits)

    @pytest.mark.parametrize("module", [segformer, mobile_net, detr, rt_detr, yolos])
    def test_every_kind_has_a_feature_a_loss_and_predictions(self, module):
        network, images = network_of(module), self.images.clone().requires_grad_()
        outputs = network(images)
        losses = network.loss(outputs, self.targets, "none")
        assert losses.shape == (3,)
        (gradient,) = torch.autograd.grad(losses[1], images, retain_graph=True)
        assert gradient[1].isfinite().all()
        assert gradient[1].any()
        assert not gradient[[0, 2]].any()
        (gradient,) = torch.autograd.grad((outputs.feature * torch.randn_like(outputs.feature)).sum(), images)
        assert gradient.flatten(1).any(dim=1).all()
        found = network.predict(outputs)
        kept = [network.keep(str(index), *pair) for index, pair in enumerate(zip(found, self.targets, strict=True))]
        assert network.score(kept).values

    @torch.no_grad()
    @pytest.mark.parametrize(
        ("module", "shape"),
        [
            (segformer, (24, 2, 3)),
            (mobile_net, (112, 2, 3)),
            (detr, (16, 2, 3)),
            (rt_detr, (16, 2, 3)),
            (yolos, (16, 35)),
        ],
    )
    def test_the_feature_is_the_last_hidden_state_of_the_encoder_channels_first(self, module, shape):
        assert network_of(module)(self.images).feature.shape == (3, *shape)

    @torch.no_grad()
    def test_another_layer_can_be_fed_back(self, tmp_path):
        layer = "model.encoder.layers.0"
        network = wrap(saved(tmp_path, detr()), feature=layer)
        with hooked(network.module, layer) as caught:
            outputs = network(self.images)
        assert torch.equal(outputs.feature, caught.output)
        with pytest.raises(ConfigurationError, match=r"no layer 'model.encoder.layers.7'.*model\.encoder\.layers\.0"):
            wrap(tmp_path, feature="model.encoder.layers.7")

    @torch.no_grad()
    @pytest.mark.parametrize("module", [detr, rt_detr, yolos])
    def test_boxes_of_a_detector_are_those_of_its_own_post_processing(self, module):
        network = network_of(module)
        outputs = network(self.images)
        logits, boxes = outputs.raw
        exclusive = logits.shape[-1] == len(BOX_NAMES) + 1
        assert exclusive == (module is not rt_detr)
        for found, scores, box in zip(network.predict(outputs), logits, boxes, strict=True):
            best = (scores.softmax(-1)[:, :-1] if exclusive else scores.sigmoid()).flatten().max()
            torch.testing.assert_close(found.scores[0], best)
            centre, size = box[:, :2], box[:, 2:]
            corners = torch.cat([centre - size / 2, centre + size / 2], dim=1) * torch.tensor([96.0, 64, 96, 64])
            corners = torch.minimum(corners.clamp(min=0), torch.tensor([96.0, 64, 96, 64]))
            assert torch.cdist(found.boxes, corners).min(dim=1).values.max() < 1e-3

    def test_a_detector_learns_by_its_loss(self):
        torch.manual_seed(0)
        network = through_a_folder(detr)
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        losses = []
        for _ in range(60):
            optimiser.zero_grad()
            losses.append(network.loss(network(self.images), self.targets))
            losses[-1].backward()
            optimiser.step()
        assert losses[-1] < 0.7 * losses[0]


class TestPreprocessor:
    def of(self, folder: Path, **said: Any) -> Any:
        return wrap(saved(folder, segformer(), said)).look

    def test_mean_and_deviation_are_those_of_the_file(self, tmp_path):
        look = self.of(tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
        assert look.mean == pytest.approx((0.1, 0.2, 0.3))
        assert look.std == pytest.approx((0.4, 0.5, 0.6))
        look = self.of(tmp_path, image_mean=[127.5] * 3, image_std=[51.0] * 3, do_rescale=False)
        assert look.mean == pytest.approx((0.5, 0.5, 0.5))
        assert look.std == pytest.approx((0.2, 0.2, 0.2))
        assert self.of(tmp_path, do_normalize=False).mean == (0, 0, 0)

    def test_bgr_is_reversed(self, tmp_path):
        look = self.of(tmp_path, do_normalize=False, do_flip_channel_order=True)
        image = torch.rand(1, 3, 32, 32)
        assert torch.equal(look.prepare(image, look.view(32, 32)), image.flip(1))

    @pytest.mark.parametrize(
        ("size", "input_size"),
        [
            ({"height": 64, "width": 128}, (64, 128)),
            ({"shortest_edge": 96}, (96, 128)),
            ({"shortest_edge": 96, "longest_edge": 100}, (96, 128)),
            ({"shortest_edge": 96, "longest_edge": 60}, (64, 64)),
            (None, (64, 64)),
        ],
    )
    def test_the_size_is_that_of_the_file_up_to_multiples_of_32(self, tmp_path, size, input_size):
        view = self.of(tmp_path, size=size).view(48, 64)
        assert (view.input_height, view.input_width) == input_size
        assert (view.height, view.width) == (48, 64)

    def test_arguments_override_the_file(self, tmp_path):
        folder = saved(
            tmp_path, segformer(), {"image_mean": [0.1] * 3, "image_std": [0.4] * 3, "size": {"shortest_edge": 96}}
        )
        look = wrap(folder, mean=(0.0, 0.0, 0.5), std=(1.0, 1.0, 2.0), size=(32, 64)).look
        assert (look.mean, look.std, look.size) == ((0.0, 0.0, 0.5), (1.0, 1.0, 2.0), (32, 64))

    def test_a_file_that_makes_no_sense_is_named(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"preprocessor_config.json does not say"):
            self.of(tmp_path, image_mean=[0.1], image_std=[0.1])


class TestFoldersThatCannotBeUsed:
    def test_without_a_configuration(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"no config\.json; save the network there with save_pretrained"):
            wrap(tmp_path)

    def test_with_a_configuration_of_another_kind(self, tmp_path):
        saved(tmp_path, transformers.SegformerForImageClassification(segformer().config))
        with pytest.raises(ConfigurationError, match=r"'SegformerForImageClassification'.*SegformerForSemanticSegm"):
            wrap(tmp_path)
        (tmp_path / "config.json").write_text('{"architectures": ["MyOwn"], "auto_map": {"AutoConfig": "mine.Config"}}')
        with pytest.raises(ConfigurationError, match="'MyOwn'"):
            wrap(tmp_path)
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ConfigurationError, match="no configuration of transformers"):
            wrap(tmp_path)

    def test_without_weights_or_with_pickled_ones_alone(self, tmp_path):
        module = segformer()
        saved(tmp_path, module)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(WeightsError, match="cannot be read"):
            wrap(tmp_path)
        torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="safetensors"):
            wrap(tmp_path)

    def test_with_weights_that_are_incomplete(self, tmp_path):
        module = segformer()
        state = {key: value for key, value in module.state_dict().items() if "classifier" not in key}
        module.save_pretrained(tmp_path, state_dict=state)
        with pytest.raises(WeightsError, match=r"2 are missing, such as decode_head\.classifier\.bias"):
            wrap(tmp_path)
