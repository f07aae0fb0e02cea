"""How task networks see images, how their losses are reduced, and how a feature is caught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.tasks.kinds import SaliencyNetwork
from fuseloop.tasks.protocol import Outputs, Prediction, Target, View, first_tensor, hooked, labels

# Two at least: where an image is one pixel wide, PyTorch resizes it wrongly when it smooths.
sides = st.integers(2, 300)
quickly = settings(deadline=None, max_examples=50)


@st.composite
def views(draw: st.DrawFn) -> View:
    height, width = draw(sides), draw(sides)
    stride = draw(st.sampled_from([1, 8, 32]))
    if draw(st.booleans()):
        return View.to_multiple(height, width, stride)
    view = View.letterboxed(height, width, side=draw(st.integers(2, 320)), stride=stride)
    assume(min(view.shown_height, view.shown_width) > 1)
    return view


def ramps(height: int, width: int) -> Tensor:
    """Two maps that say of every pixel where it is, from 0 to 1 across the image: 1×2×H×W."""
    rows, columns = (torch.arange(length) + 0.5 for length in (height, width))
    return torch.stack(torch.meshgrid(rows / height, columns / width, indexing="ij"))[None]


class TestView:
    @quickly
    @given(views())
    def test_the_shown_part_lies_in_the_input(self, view):
        assert 0 <= view.top <= view.top + view.shown_height <= view.input_height
        assert 0 <= view.left <= view.left + view.shown_width <= view.input_width

    @quickly
    @given(sides, sides, st.sampled_from([1, 8, 32]))
    def test_stretched_up_to_a_multiple_grows_by_less_than_it(self, height, width, stride):
        view = View.to_multiple(height, width, stride)
        for before, after in ((height, view.input_height), (width, view.input_width)):
            assert after % stride == 0
            assert before <= after < before + stride

    @quickly
    @given(sides, sides, st.integers(1, 640), st.sampled_from([1, 8, 32]))
    def test_letterboxed_keeps_the_aspect_and_centres(self, height, width, side, stride):
        view = View.letterboxed(height, width, side=side, stride=stride)
        assert max(view.shown_height, view.shown_width) == side
        scale = side / max(height, width)
        assert abs(view.shown_height - height * scale) <= 1
        assert abs(view.shown_width - width * scale) <= 1
        for whole, shown, before in (
            (view.input_height, view.shown_height, view.top),
            (view.input_width, view.shown_width, view.left),
        ):
            assert whole % stride == 0
            assert whole - shown < stride
            assert abs(whole - shown - 2 * before) <= 1

    @quickly
    @given(views(), st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5))
    def test_boxes_come_back(self, view, corners):
        boxes = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
        boxes *= torch.tensor([view.width, view.height] * 2)
        shown = view.boxes_to_input(boxes)
        torch.testing.assert_close(view.boxes_to_image(shown), boxes)
        first = boxes.new_tensor([view.left, view.top] * 2)
        size = boxes.new_tensor([view.shown_width, view.shown_height] * 2)
        assert ((shown >= first - 1e-9) & (shown <= first + size + 1e-9)).all()

    @quickly
    @given(views())
    def test_boxes_beyond_the_image_are_clipped(self, view):
        boxes = view.boxes_to_image(torch.tensor([[-1e3, -1e3, 1e4, 1e4]]))
        assert boxes.tolist() == [[0, 0, view.width, view.height]]

    @quickly
    @given(views())
    def test_images_and_maps_agree_with_the_boxes(self, view):
        """What lies at a place of the image lies at the place of the input that a box around it is moved to."""
        shown = view.show(ramps(view.height, view.width), fill=-1)
        assert shown.shape == (1, 2, view.input_height, view.input_width)
        places = ramps(view.input_height, view.input_width)[0]
        at = torch.stack([places[1] * view.input_width, places[0] * view.input_height], dim=-1).reshape(-1, 2)
        inside = (shown[0, 0] >= 0).flatten()
        assert int(inside.sum()) == view.shown_height * view.shown_width
        there = view.boxes_to_image(torch.cat([at, at], dim=1))[inside]
        expected = shown[0].flatten(1).T.flip(1)[inside] * torch.tensor([view.width, view.height])
        # Near the border of an image that is resized, the value is that of the outermost pixel's centre.
        slack = 0.5 + max(view.height / view.shown_height, view.width / view.shown_width)
        assert (there[:, :2] - expected).abs().max() <= slack

    @quickly
    @given(views(), st.integers(1, 4))
    def test_maps_come_back_at_any_resolution(self, view, coarser):
        whole = ramps(view.height, view.width)
        maps = view.show(whole)
        smaller = [max(1, side // coarser) for side in maps.shape[-2:]]
        back = view.maps_to_image(F.interpolate(maps, smaller, mode="area"))
        assert back.shape == whole.shape
        flat = view.maps_to_image(torch.full((2, 3, *smaller), 0.7))
        torch.testing.assert_close(flat, torch.full((2, 3, view.height, view.width), 0.7))
        if coarser == 1 and min(view.shown_height / view.height, view.shown_width / view.width) >= 1:
            tolerance = 1 / torch.tensor([view.height, view.width]).view(2, 1, 1)
            assert ((back - whole).abs() <= tolerance).all()

    def test_an_image_that_fits_is_shown_as_it_is(self):
        images = torch.rand(2, 3, 64, 96)
        assert View.to_multiple(64, 96, 32).show(images) is images

    def test_stretching_up_is_plainly_bilinear(self):
        images = torch.rand(2, 3, 33, 50)
        expected = F.interpolate(images, (64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(View.to_multiple(33, 50, 32).show(images), expected)

    def test_the_border_of_a_letterbox_is_filled(self):
        view = View.letterboxed(40, 64, side=64, stride=32)
        shown = view.show(torch.ones(1, 3, 40, 64), fill=0.25)
        assert (view.top, view.left) == (12, 0)
        assert (shown[:, :, 12:52] == 1).all()
        assert (shown[:, :, :12] == 0.25).all()
        assert (shown[:, :, 52:] == 0.25).all()

    @pytest.mark.parametrize("view", [View.to_multiple(37, 50, 32), View.letterboxed(37, 50, side=32, stride=32)])
    def test_every_pixel_of_the_image_gets_a_gradient(self, view):
        images = torch.rand(1, 3, 37, 50, requires_grad=True)
        view.show(images).square().sum().backward()
        assert (images.grad != 0).all()


class Brightness(SaliencyNetwork):
    """The least task network: says how bright the middle is, wants the saliency's mean there."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 1, 1)

    def view(self, height: int, width: int) -> View:
        return View.to_multiple(height, width, 4)

    def prepare(self, images: Tensor, view: View) -> Tensor:
        return view.show(images)

    def run(self, prepared: Tensor) -> tuple[Any, Tensor]:
        feature = self.scale(prepared)
        return feature.sigmoid(), feature

    def sample_losses(self, outputs: Outputs, targets: Sequence[Target]) -> Tensor:
        wanted = torch.stack(labels(targets, "saliency")).mean(dim=(1, 2))
        return (outputs.raw.mean(dim=(1, 2, 3)) - wanted).square()

    def predict(self, outputs: Outputs) -> list[Prediction]:
        return [Prediction(saliency=found[0]) for found in outputs.view.maps_to_image(outputs.raw)]


class TestTaskNetwork:
    images = torch.rand(3, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    targets = tuple(Target(saliency=torch.full((9, 14), value)) for value in (0.0, 0.5, 1.0))

    def test_outputs_say_how_the_images_were_seen(self):
        outputs = Brightness()(self.images)
        assert outputs.view == View.to_multiple(9, 14, 4)
        assert outputs.feature.shape == (3, 1, 12, 16)

    def test_the_mean_of_the_losses_of_the_images_is_the_loss(self):
        network = Brightness()
        outputs = network(self.images)
        each = network.loss(outputs, self.targets, "none")
        assert each.shape == (3,)
        assert torch.equal(each.mean(), network.loss(outputs, self.targets))

    @pytest.mark.parametrize("shape", [(3, 9, 14), (1, 1, 9, 14), (1, 4, 9, 14)])
    def test_images_of_another_shape_are_refused(self, shape):
        with pytest.raises(ValueError, match="B×3×H×W"):
            Brightness()(torch.rand(shape))

    def test_another_number_of_targets_is_refused(self):
        network = Brightness()
        with pytest.raises(ValueError, match="3 images but 2 targets"):
            network.loss(network(self.images), self.targets[:2])

    def test_a_missing_label_is_named(self):
        network = Brightness()
        targets = [self.targets[0], Target(boxes=torch.zeros(0, 4)), self.targets[2]]
        with pytest.raises(LabelError, match="image 1 of the batch has no saliency"):
            network.loss(network(self.images), targets)


class InPlace(nn.Module):
    """Changes what its first layer gave, as published networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(3)
        self.stages = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.first_norm(x))


class TestHooked:
    def test_the_output_of_a_layer_is_caught_before_it_is_changed_in_place(self):
        network, x = InPlace().eval(), torch.randn(2, 3, 4, 4)
        with hooked(network, "first_norm") as caught:
            network(x)
        torch.testing.assert_close(caught.output, network.first_norm(x))
        assert (caught.output < 0).any()

    def test_the_caught_feature_is_part_of_the_graph(self):
        network, x = InPlace().eval(), torch.randn(2, 3, 4, 4, requires_grad=True)
        with hooked(network, "first_norm") as caught:
            network(x)
        caught.output.sum().backward()
        assert x.grad.all()

    def test_nothing_stays_behind(self):
        network = InPlace()
        with pytest.raises(RuntimeError, match="stop"), hooked(network, "first_norm"):
            raise RuntimeError("stop")
        assert not network.first_norm._forward_hooks

    def test_an_unknown_layer_is_answered_by_those_that_there_are(self):
        with pytest.raises(ConfigurationError, match=r"no layer 'first_nrm'.*of its 4 layers.*first_norm, stages"):
            hooked(InPlace(), "first_nrm")
        with pytest.raises(ConfigurationError, match="no layer ''"):
            hooked(InPlace(), "")
        with pytest.raises(ConfigurationError, match=r"stages\.1"):
            hooked(InPlace(), "stages.2")

    def test_a_layer_that_did_not_run_is_named(self):
        network = InPlace()
        with hooked(network, "stages.0") as caught:
            network(torch.rand(1, 3, 4, 4))
        with pytest.raises(ConfigurationError, match=r"ran without its layer 'stages.0'"):
            _ = caught.output

    def test_the_first_tensor_is_found_in_what_layers_give(self):
        x = torch.rand(2)
        for output in (x, (x, None), [None, (x,)], {"hidden": None, "last": x}):
            assert first_tensor(output) is x
        with pytest.raises(ConfigurationError, match="no tensor"):
            first_tensor((None, None))
