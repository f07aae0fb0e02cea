"""The fuser of the closed loop, with networks that are not trained but do something."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fuseloop.datasets.synthetic import BOX_NAMES, generate
from fuseloop.engines import ENGINES
from fuseloop.errors import ConfigurationError, ImageError, PairError, WeightsError
from fuseloop.fusers.closed_loop import ClosedLoopFuser
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.loop_weights import Loop, write_loop
from fuseloop.fusers.requirement import Profile, ProfileMaker, read_profile, write_profile
from fuseloop.networks.semantic_compensation import ABLATIONS, SemanticCompensation, SemanticInjection
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.pairs.images import Picture
from fuseloop.tasks.detection.yolov5 import Size, YOLOv5
from fuseloop.tasks.protocol import TaskNetwork
from fuseloop.tasks.saliency.ctdnet import CTDNet
from fuseloop.tasks.wrapping import wrap

HEIGHT, WIDTH = 48, 64


def loop_of(depth: int = 2, *, asleep: bool = False, **options: Any) -> Loop:
    """A loop whose compensation changes the image visibly, unless it is asleep as one is before training."""
    torch.manual_seed(depth)
    network = VFN(depth)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one pass settles the statistics
    with torch.no_grad():
        network.frb2.res[3].weight.mul_(3)
        network(*torch.rand(2, 2, 1, 40, 40))
    compensation = SemanticCompensation(depth, width=64, vectors=8, **options)
    for block in compensation.modules():
        if isinstance(block, SemanticInjection) and not asleep:
            nn.init.normal_(block.zc.weight, std=0.5)
    return Loop(network.eval(), compensation.eval(), ("segmentation",))


class Seer(nn.Sequential):
    """The least network with maps of logits, which counts its looks and remembers the last."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.LeakyReLU(0.2), nn.Conv2d(8, outputs, 1))
        self.looks: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.looks.append(images)
        return super().forward(images)


def seer(feature: str = "1", **options: Any) -> TaskNetwork:
    torch.manual_seed(1)
    classes = ("background", "car")
    return wrap(Seer(), task="segmentation", classes=classes, feature=feature, stride=4, **options).eval()


def pair(seed: int = 3, height: int = HEIGHT, width: int = WIDTH) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = generate(seed, height, width)
    return scene.infrared, scene.visible


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).max())


@pytest.fixture(scope="module")
def loop() -> Loop:
    return loop_of()


@pytest.fixture
def fuser(loop: Loop) -> ClosedLoopFuser:
    return ClosedLoopFuser(loop, seer())


# ---------------------------------------------------------------------------------------------------------- the loop


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("compat", [False, True], ids=["mended", "published"])
def test_the_image_is_that_of_the_loop_as_it_is_described(depth: int, compat: bool):
    loop, network = loop_of(depth, reference_compat=compat), seer()
    infrared, visible = (torch.from_numpy(part).float() / 255 for part in pair())
    infrared, visible = infrared[None, None], visible.movedim(-1, 0)[None]
    ycbcr = rgb_to_ycbcr(visible)
    with torch.no_grad():
        neutral = loop.network(infrared, ycbcr[:, :1])
        feature = network(ycbcr_to_rgb(torch.cat([neutral, ycbcr[:, 1:]], dim=1))).feature
        requirement = loop.compensation.describe(feature)
        first = loop.network.encode_first(infrared, ycbcr[:, :1])
        compensate = partial(loop.compensation, requirement=requirement)
        customised = loop.network.decode(loop.network.encode_rest(*first, compensate))
        expected = ycbcr_to_rgb(torch.cat([customised, ycbcr[:, 1:]], dim=1)).clamp(0, 1)[0].movedim(0, -1).numpy()
    found = ClosedLoopFuser(loop, network)(infrared[0, 0].numpy(), visible[0].movedim(0, -1).numpy())
    assert (customised - neutral).abs().max() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)  # the colour constants are rounded


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_makes_the_same_image(loop: Loop, engine: str):
    expected = ClosedLoopFuser(loop, seer())(*pair())
    assert difference(ClosedLoopFuser(loop, seer(), engine=engine)(*pair()), expected) <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_the_open_loop_and_strength_0_are_the_plain_fuser_bit_for_bit(loop: Loop, engine: str):
    plain = Fuser(loop.network, engine=engine)(*pair())
    fuser = ClosedLoopFuser(loop, seer(), engine=engine)
    assert np.array_equal(fuser.open_loop(*pair()), plain)
    assert difference(fuser(*pair()), plain) > 5
    fuser.strength = 0
    looks = len(fuser.task_network.module.looks)
    assert np.array_equal(fuser(*pair()), plain)
    assert len(fuser.task_network.module.looks) == looks


def test_before_training_the_closed_loop_is_the_open_loop_bit_for_bit():
    loop = loop_of(asleep=True)
    floats = [part.astype(np.float32) / 255 for part in pair()]
    assert np.array_equal(ClosedLoopFuser(loop, seer())(*floats), Fuser(loop.network)(*floats))


def test_strength_is_continuous(fuser: ClosedLoopFuser):
    floats = [part.astype(np.float32) / 255 for part in pair()]
    neutral = fuser.open_loop(*floats)
    distances = []
    for fuser.strength in (1e-3, 0.1, 0.5, 1.0):
        distances.append(float(np.abs(fuser(*floats) - neutral).mean()))
    assert 0 < distances[0] < 1e-3
    assert distances == sorted(distances)


def test_any_task_network_gets_an_image_and_not_all_get_the_same(loop: Loop):
    images = [
        ClosedLoopFuser(loop, network)(*pair())
        for network in (seer(), YOLOv5(BOX_NAMES, Size(depth=1 / 3, width=1 / 8)).eval(), CTDNet(width=1 / 8).eval())
    ]
    assert all(image.shape == (HEIGHT, WIDTH, 3) for image in images)
    # Kernels are chosen, so that before training two networks may get the same.
    assert max(difference(images[0], image) for image in images) > 5


def test_the_same_twice_is_the_same_whatever_was_between(fuser: ClosedLoopFuser):
    first = fuser(*pair())
    fuser(*pair(4))
    assert np.array_equal(fuser(*pair()), first)


def test_the_task_network_is_left_as_it_was(loop: Loop):
    network = seer().train()
    network.module[1].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    ClosedLoopFuser(loop, network)(*pair())
    assert [module.training for module in network.module] == [True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_first_look_is_at_the_neutral_image(fuser: ClosedLoopFuser):
    fuser(*pair())
    (seen,) = fuser.task_network.module.looks
    neutral = fuser.open_loop(*(part.astype(np.float32) / 255 for part in pair()))
    np.testing.assert_allclose(seen[0].movedim(0, -1).clamp(0, 1).numpy(), neutral, rtol=0, atol=1e-6)
    assert fuser.seen.feature.shape == (1, 8, HEIGHT // 4, WIDTH // 4)


def test_the_first_block_is_computed_once(fuser: ClosedLoopFuser, monkeypatch: pytest.MonkeyPatch):
    engine, parts = fuser.neutral.engine, []
    run = engine._run
    monkeypatch.setattr(engine, "_run", lambda part, *inputs: parts.append(part) or run(part, *inputs))
    fuser(*pair())
    assert parts == ["first", "last", "last"]


def test_a_smaller_first_look_sees_a_smaller_image_and_changes_little(loop: Loop):
    network = seer()
    whole, half = ClosedLoopFuser(loop, network), ClosedLoopFuser(loop, network, first_look=0.5)
    one, other = whole(*pair()), half(*pair())
    assert [look.shape[2:] for look in network.module.looks] == [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2)]
    assert other.shape == one.shape
    assert difference(other, half.open_loop(*pair())) > 5
    small = network.module.looks[1][0].mean(dim=(1, 2))
    torch.testing.assert_close(small, network.module.looks[0][0].mean(dim=(1, 2)), rtol=0, atol=0.05)


@pytest.mark.parametrize("size", [(8, 8), (9, 31)])
@pytest.mark.parametrize("first_look", [1.0, 0.1])
def test_the_smallest_frames_go_round_the_loop(loop: Loop, size: tuple[int, int], first_look: float):
    infrared, visible = (part[: size[0], : size[1]] for part in pair())
    assert ClosedLoopFuser(loop, seer(), first_look=first_look)(infrared, visible).shape == (*size, 3)


# --------------------------------------------------------------------------------------------------------- the videos


def test_with_the_previous_frame_the_network_looks_once_at_what_was_made(loop: Loop):
    fuser = ClosedLoopFuser(loop, seer(), feedback="previous")
    frames = [[part.astype(np.float32) / 255 for part in pair(seed)] for seed in (3, 4, 5)]
    made = [fuser(*frame) for frame in frames]
    looks = fuser.task_network.module.looks
    assert len(looks) == 3
    for look, image in zip(looks, made, strict=True):
        np.testing.assert_allclose(look[0].movedim(0, -1).clamp(0, 1).numpy(), image, rtol=0, atol=1e-6)
    assert np.array_equal(made[0], fuser.open_loop(*frames[0]))
    assert difference(made[1], fuser.open_loop(*frames[1])) > 0.02


def test_on_a_still_scene_the_second_frame_is_that_of_the_loop(loop: Loop):
    previous = ClosedLoopFuser(loop, seer(), feedback="previous")
    previous(*pair())
    assert np.array_equal(previous(*pair()), ClosedLoopFuser(loop, seer())(*pair()))


def test_reset_begins_another_video(loop: Loop):
    fuser = ClosedLoopFuser(loop, seer(), feedback="previous")
    first, second = fuser(*pair()), fuser(*pair())
    assert not np.array_equal(first, second)
    fuser.reset()
    assert fuser.seen is None
    assert np.array_equal(fuser(*pair()), first)


def test_a_batch_is_a_video(loop: Loop):
    infrared, visible = (np.stack([part, part]) for part in pair())
    batch = ClosedLoopFuser(loop, seer(), feedback="previous")(infrared, visible)
    assert not np.array_equal(batch[0], batch[1])


# ------------------------------------------------------------------------------------------------------- the profiles


def profile_of(loop: Loop, network: nn.Module, *seeds: int) -> Profile:
    maker = ProfileMaker(Fuser(loop.network), network)
    for seed in seeds:
        maker.add(*map(Picture, pair(seed)))
    return maker.profile("for tests")


def test_the_profile_of_a_frame_is_its_requirement_and_needs_no_network(loop: Loop):
    profile = profile_of(loop, seer(), 3)
    found = ClosedLoopFuser(loop, feedback=profile)(*pair())
    assert difference(found, ClosedLoopFuser(loop, seer())(*pair())) <= 1  # but for the rounding of another mean


def test_a_profile_is_the_mean_of_requirements(loop: Loop):
    network = seer()
    alone = [profile_of(loop, network, seed).requirement for seed in (3, 4)]
    both = profile_of(loop, network, 3, 4)
    assert both.frames == 2
    mean = sum(alone) / 2
    torch.testing.assert_close(both.requirement, mean / mean.square().mean().sqrt())


def test_a_profile_survives_writing_and_reading(loop: Loop, tmp_path: Path):
    profile, path = profile_of(loop, seer(), 3), tmp_path / "profile.safetensors"
    write_profile(path, profile)
    read = read_profile(path)
    assert torch.equal(read.requirement, profile.requirement)
    assert (read.frames, read.described) == (1, "for tests")
    one = ClosedLoopFuser(loop, feedback=f"profile:{path}")(*pair())
    assert np.array_equal(one, ClosedLoopFuser(loop, feedback=profile)(*pair()))


def test_what_is_no_profile_is_refused(loop: Loop, tmp_path: Path):
    write_loop(tmp_path / "loop.safetensors", loop.network, loop.compensation)
    with pytest.raises(WeightsError, match=r"holds no profile; make one with `fuseloop profile` .* ClosedLoop"):
        read_profile(tmp_path / "loop.safetensors")
    write_profile(tmp_path / "flat.safetensors", Profile(torch.ones(1, 8, 2, 2), 1))
    with pytest.raises(WeightsError, match=r"shape \[1, 8, 2, 2\] instead of 1×C×4×4"):
        read_profile(tmp_path / "flat.safetensors")
    with pytest.raises(WeightsError, match="cannot read"):
        ClosedLoopFuser(loop, feedback="profile:none.safetensors")
    with pytest.raises(ConfigurationError, match="a pair at least"):
        ProfileMaker(Fuser(loop.network), seer()).profile()


@pytest.mark.parametrize("options", [{"reference_compat": True}, {"without": ["descriptor"]}], ids=str)
def test_a_form_that_reads_features_as_they_are_has_no_profiles(options: dict[str, Any]):
    loop = loop_of(**options)
    with pytest.raises(ConfigurationError, match="published form"):
        ClosedLoopFuser(loop, feedback=Profile(torch.ones(1, 8, 4, 4), 1))


@pytest.mark.parametrize("part", ABLATIONS)
def test_loops_without_a_part_fuse_in_every_way_that_they_can(part: str):
    loop = loop_of(without=[part])
    neutral = Fuser(loop.network)(*pair())
    for options in ({}, {"first_look": 0.5}):
        assert difference(ClosedLoopFuser(loop, seer(), **options)(*pair()), neutral) > 1
    fuser = ClosedLoopFuser(loop, seer(), feedback="previous")
    assert np.array_equal(fuser(*pair()), neutral)
    assert difference(fuser(*pair()), neutral) > 1


# ------------------------------------------------------------------------------------------------------ kinds of images


def test_the_result_is_of_the_kind_of_the_visible_image(fuser: ClosedLoopFuser):
    infrared, visible = pair()
    expected = fuser(infrared, visible)
    pil = fuser(Image.fromarray(infrared), Image.fromarray(visible))
    assert isinstance(pil, Image.Image)
    assert np.array_equal(np.asarray(pil), expected)
    tensor = fuser(torch.from_numpy(infrared), torch.from_numpy(visible).movedim(-1, 0))
    assert np.array_equal(tensor.movedim(0, -1).numpy(), expected)
    (listed,) = fuser([infrared], [visible])
    assert np.array_equal(listed, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_shape_type_and_alpha_are_those_of_the_visible_image(fuser: ClosedLoopFuser, channels: int, dtype: type):
    infrared, colour = pair()
    visible = np.dstack([colour, infrared])[..., :channels] if channels > 2 else np.dstack([infrared] * channels)
    scale = {np.uint8: 1.0, np.uint16: 257.0, np.float32: 1 / 255}[dtype]
    fused = fuser(infrared, (visible * scale).astype(dtype))
    assert fused.shape == visible.shape
    assert fused.dtype == dtype
    if channels in (2, 4):
        assert np.array_equal(fused[..., -1], (visible[..., -1] * scale).astype(dtype))


# -------------------------------------------------------------------------------------------------------- wrong input


def test_frames_above_the_limit_are_refused_with_it_and_the_way_out(loop: Loop):
    fuser = ClosedLoopFuser(loop, seer(), tile_pixels=4900)
    fuser(*pair(height=100, width=147))
    with pytest.raises(ConfigurationError, match=r"148x100, 14,800 pixels, .* at most 14,700.*smaller.*tile_pixels"):
        fuser(*pair(height=100, width=148))
    fuser.strength = 0
    assert fuser(*pair(height=100, width=148)).shape == (100, 148, 3)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(fuser: ClosedLoopFuser, loop: Loop, strength: float):
    with pytest.raises(ConfigurationError, match="from 0 to 1, not"):
        ClosedLoopFuser(loop, seer(), strength=strength)
    with pytest.raises(ConfigurationError, match="from 0 to 1, not"):
        fuser.strength = strength
    assert fuser.strength == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": "previos"}, r"unknown feedback 'previos'; did you mean 'previous'\? Give one of frame, previous"),
        ({"first_look": 0.0}, "above 0 and at most 1"),
        ({"first_look": 1.5}, "above 0 and at most 1"),
        ({"first_look": 0.5, "feedback": "previous"}, "smaller first look is for feedback 'frame'"),
        ({"engine": "abacus"}, "unknown engine"),
        ({"task_network": None}, "needs a task network"),
        ({"task_network": "yolov5s"}, "needs a task network, such as fuseloop.tasks.load .* got 'yolov5s'"),
    ],
)
def test_unknown_options_are_refused(loop: Loop, options: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        ClosedLoopFuser(loop, **{"task_network": seer(), **options})


def test_a_layer_that_is_not_there_is_answered_by_those_that_are():
    with pytest.raises(ConfigurationError, match=r"no layer 'neck' to take the feature from; .* try one of 0, 1, 2"):
        seer("neck")


class Gives(nn.Module):
    """Gives a feature of one's choice, whatever it sees."""

    def __init__(self, feature: Any) -> None:
        super().__init__()
        self.feature = feature

    def forward(self, images: Tensor) -> Any:
        return self


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (torch.ones(1, 8), r"a map B×C×h×w or tokens B×N×C, got a feature of shape \(1, 8\).*another layer"),
        (torch.ones(1, 8, 2, 2, 2), r"got a feature of shape \(1, 8, 2, 2, 2\)"),
        (torch.ones(4, 8, 2, 2), r"Gives gave a feature of shape \(4, 8, 2, 2\) for 1 image"),
        (torch.full((1, 8, 2, 2), torch.nan), "Gives gave a feature with NaN or infinite values"),
        (torch.full((1, 8, 2, 2), torch.inf), "Gives gave a feature with NaN or infinite values"),
        (None, "Gives gives no feature that could be fed back; put it behind the task protocol"),
    ],
    ids=["rank 2", "rank 5", "batch", "nan", "inf", "none"],
)
def test_features_that_cannot_be_fed_back_are_refused(loop: Loop, feature: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        ClosedLoopFuser(loop, Gives(feature))(*pair())


@pytest.mark.parametrize("feature", [torch.ones(1, 20, 512), torch.ones(1, 3, 1, 1), torch.zeros(1, 5, 7, 9).half()])
def test_features_of_any_size_can_be_fed_back(loop: Loop, feature: Tensor):
    assert np.isfinite(ClosedLoopFuser(loop, Gives(feature))(*pair())).all()


def test_channels_that_change_with_the_size_have_no_mean(loop: Loop):
    maker = ProfileMaker(Fuser(loop.network), Gives(torch.ones(1, 8, 4, 4)))
    maker.add(*map(Picture, pair()))
    maker.task_network.feature = torch.ones(1, 9, 4, 4)
    with pytest.raises(ConfigurationError, match="9 channels here and had 8 before"):
        maker.add(*map(Picture, pair()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda ir, vis: (ir[:7], vis[:7]), ImageError, "at least 8x8"),
        (lambda ir, vis: (ir[:20], vis), PairError, "64x20"),
        (lambda ir, vis: ([ir], [vis, vis]), PairError, "in pairs"),
    ],
)
def test_pairs_are_checked_as_the_plain_fuser_does(fuser: ClosedLoopFuser, make: Callable, error: type, message: str):
    with pytest.raises(error, match=message):
        fuser(*make(*pair()))


def test_a_weight_file_is_loaded(loop: Loop, tmp_path: Path):
    write_loop(tmp_path / "loop.safetensors", loop.network, loop.compensation, loop.tasks)
    fuser = ClosedLoopFuser(tmp_path / "loop.safetensors", seer())
    assert fuser.tasks == ("segmentation",)
    assert np.array_equal(fuser(*pair()), ClosedLoopFuser(loop, seer())(*pair()))
    assert "for WrappedSegmenter, strength=1.0, feedback='frame'" in repr(fuser)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_task_network_may_be_on_a_gpu(loop: Loop):
    expected = ClosedLoopFuser(loop, seer())(*pair())
    assert difference(ClosedLoopFuser(loop, seer().to("cuda"))(*pair()), expected) <= 1
