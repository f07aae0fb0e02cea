from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError, ImageError, PairError
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.weights import load
from fuseloop.networks.vfn import VFN, Pooled
from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.pairs.images import Picture, write_image

HEIGHT, WIDTH = 48, 64
SMALL_TILES = {1: 70**2, 2: 80**2, 3: 90**2, 4: 110**2}  # by depth: little more than two halos a side


class StubEngine:
    """An engine whose result is a function of the luma, and that remembers the range and shape of the infrared."""

    name, precision = "stub", "fp32"

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda luma: luma) -> None:
        self.change = change
        self.seen: list[tuple[float, float, torch.Size]] = []

    def fuse(self, infrared: Tensor, luma: Tensor) -> Tensor:
        self.seen.append((infrared.min().item(), infrared.max().item(), infrared.shape))
        return self.change(luma)

    def pool(self, infrared: Tensor, luma: Tensor, interior: Tensor) -> Pooled:
        return Pooled(torch.zeros(len(luma), 16), torch.zeros(len(luma), 16))

    def fuse_tile(self, infrared: Tensor, luma: Tensor, pooled: Pooled) -> Tensor:
        return self.fuse(infrared, luma)


def lively_network(depth: int) -> VFN:
    """An untrained network whose result varies strongly with its input, locally and through its attention."""
    torch.manual_seed(depth)
    network = VFN(depth)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one pass settles the statistics
    with torch.no_grad():
        network.frb2.res[3].weight.mul_(3)
        for parameter in network.frb1.parameters():
            parameter.mul_(2)
        network(*torch.rand(2, 2, 1, 40, 40))
    return network.eval()


@pytest.fixture(scope="module")
def fuser() -> Fuser:
    return Fuser(lively_network(2))


def stubbed(change: Callable[[Tensor], Tensor] = lambda luma: luma, **options: Any) -> Fuser:
    fuser = Fuser(VFN(2), **options)
    fuser.engine = StubEngine(change)
    return fuser


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> NDArray[Any]:
    generator = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def scene(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A pair that is flat on the left and lively on the right, so that no tile has the statistics of the frame."""
    generator = torch.Generator().manual_seed(height * width)
    infrared, luma = torch.rand(2, 1, 1, height, width, generator=generator)
    slope = torch.linspace(0, 1, width) ** 3
    return infrared * slope, 0.5 + (luma - 0.5) * slope.flip(0)


# ------------------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize(
    ("depth", "height", "width"),
    [(1, 81, 141), (2, 96, 160), (2, 157, 203), (2, 11, 1201), (2, 700, 19), (3, 160, 170), (4, 190, 200)],
)
def test_tiles_equal_the_full_frame(depth: int, height: int, width: int) -> None:
    network = lively_network(depth)
    infrared, luma = scene(height, width)
    with torch.no_grad():
        whole = network(infrared, luma)
    tiled = Fuser(network, tile_pixels=min(SMALL_TILES[depth], (height * width - 1) // 3)).fuse_luma(infrared, luma)
    assert whole.std() > 0.1
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_tiles_need_the_statistics_of_the_whole_frame() -> None:
    """Shows that the comparison above could fail: without the first pass over the tiles it does."""
    network = lively_network(2)
    infrared, luma = scene(157, 203)
    fuser = Fuser(network, tile_pixels=SMALL_TILES[2])
    with torch.no_grad():
        whole = network(infrared, luma)
    fuse = fuser.engine.fuse
    fuser.engine.fuse_tile = lambda infrared, luma, pooled: fuse(infrared, luma)  # type: ignore[method-assign]
    assert (fuser.fuse_luma(infrared, luma) - whole).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(157, 203), (157, 203, 3)], ids=["grey", "RGB"])
def test_tiles_of_pictures_equal_the_full_frame(shape: tuple[int, ...]) -> None:
    network = lively_network(2)
    infrared, visible = noise(157, 203, dtype=np.float32), noise(*shape, dtype=np.float32, seed=1)
    whole = Fuser(network)(infrared, visible)
    tiled = Fuser(network, tile_pixels=SMALL_TILES[2])(infrared, visible)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)


def test_levels_are_those_of_the_whole_picture_in_every_tile() -> None:
    fuser = stubbed(tile_pixels=SMALL_TILES[2])
    infrared = np.linspace(7000, 9000, 200 * 150).reshape(150, 200).astype(np.uint16)
    fuser(infrared, noise(150, 200), infrared_levels="range:7000,9000")
    engine = fuser.engine
    assert isinstance(engine, StubEngine)
    assert len(engine.seen) > 4
    lows, highs, shapes = zip(*engine.seen, strict=True)
    assert min(lows) == 0
    assert max(highs) == 1
    assert max(lows) > 0.4 > 0.6 - min(highs)  # so no tile was stretched by itself
    assert len(set(shapes)) == 1


def test_tiles_smaller_than_two_halos_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 2601 tile_pixels"):
        Fuser(VFN(2), tile_pixels=2600)


def test_memory_beyond_the_images_does_not_grow_with_their_size() -> None:
    """13 megapixels of RGB would be 156 MB as float32; the result itself is 39 MB."""
    program = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_fuser import stubbed
fuser = stubbed(tile_pixels=512**2)
fuser(np.zeros((600, 600), np.uint8), np.zeros((600, 600, 3), np.uint8))
infrared, visible = np.full((3600, 3600), 7, np.uint8), np.full((3600, 3600, 3), 9, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fused = fuser(infrared, visible)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
assert (fused == visible).all()
"""
    finished = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    growth = float(finished.stdout) * (1 if sys.platform == "linux" else 1 / 1024)
    assert growth < 39 + 80


# ------------------------------------------------------------------------------------------------------------ colour


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.uint8, (HEIGHT, WIDTH, 3), elements=st.integers(0, 255)))
def test_unchanged_luma_gives_back_every_8_bit_colour(visible: NDArray[np.uint8]) -> None:
    assert (stubbed()(visible[..., 0], visible) == visible).all()


@pytest.mark.parametrize("tile_pixels", [SMALL_TILES[2], 10**6], ids=["tiles", "full frame"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_unchanged_luma_gives_back_the_visible_image(dtype: type, channels: int, tile_pixels: int) -> None:
    visible = noise(150, 200, channels, dtype=dtype)
    fused = stubbed(tile_pixels=tile_pixels)(noise(150, 200), visible)
    np.testing.assert_allclose(fused, visible, rtol=0, atol=1e-7 if dtype == np.float32 else 0)


def test_colour_keeps_its_chroma() -> None:
    visible = noise(HEIGHT, WIDTH, 3, dtype=np.float32)
    fused = stubbed(lambda luma: luma * 0.5)(noise(HEIGHT, WIDTH), visible)
    y, cb, cr = rgb_to_ycbcr(torch.from_numpy(visible).permute(2, 0, 1)[None]).unbind(dim=1)
    expected = ycbcr_to_rgb(torch.stack([y * 0.5, cb, cr], dim=1)).clamp(0, 1)[0].permute(1, 2, 0)
    np.testing.assert_allclose(fused, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("luma", "value"), [(0.0, 0), (1.0, 255), (0.5, 128), (100.4 / 255, 100), (100.6 / 255, 101)])
def test_grey_is_clamped_and_rounded_half_away_from_zero(luma: float, value: int) -> None:
    fused = stubbed(lambda y: torch.full_like(y, luma))(noise(HEIGHT, WIDTH), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert (fused == value).all()


def test_colours_that_leave_the_range_are_clamped() -> None:
    visible = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    visible[..., 0] = 255
    fused = stubbed(torch.ones_like)(noise(HEIGHT, WIDTH), visible)
    assert (fused[..., 0] == 255).all()
    assert ((fused[..., 1] == 179) & (fused[..., 2] == 179)).all()  # 0 + (1 - 0.299) * 255


def test_rgb_of_grey_content_stays_rgb(fuser: Fuser) -> None:
    grey = noise(HEIGHT, WIDTH)
    fused = fuser(noise(HEIGHT, WIDTH), np.dstack([grey] * 3))
    assert fused.shape == (HEIGHT, WIDTH, 3)
    assert (fused == fused[..., :1]).all()


def test_first_channel_of_infrared_counts(fuser: Fuser) -> None:
    infrared, visible = noise(HEIGHT, WIDTH, 4), noise(HEIGHT, WIDTH, 3, seed=1)
    assert (fuser(infrared, visible) == fuser(infrared[..., 0], visible)).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_the_visible_image_is_carried_over(fuser: Fuser, channels: int) -> None:
    visible = noise(HEIGHT, WIDTH, channels, seed=1)
    fused = fuser(noise(HEIGHT, WIDTH), visible)
    assert (fused[..., -1] == visible[..., -1]).all()
    opaque = visible[..., 0] if channels == 2 else visible[..., :3]
    assert (fused[..., :-1].reshape(opaque.shape) == fuser(noise(HEIGHT, WIDTH), opaque)).all()


# ------------------------------------------------------------------------------------------------------------ levels


def test_raw_thermal_is_mapped_by_the_chosen_rule() -> None:
    infrared = np.full((HEIGHT, WIDTH), 8000, np.uint16)
    fuser = stubbed()
    for rule in ("range:7000,9000", "full"):
        fuser(infrared, noise(HEIGHT, WIDTH), infrared_levels=rule)
    engine = fuser.engine
    assert isinstance(engine, StubEngine)
    assert [low for low, _, _ in engine.seen] == pytest.approx([0.5, 8000 / 65535])


def test_levels_of_the_visible_image_are_those_of_the_result() -> None:
    visible = noise(HEIGHT, WIDTH, dtype=np.uint16) // 16 + 100
    fused = stubbed(lambda y: 1 - y)(noise(HEIGHT, WIDTH), visible, visible_levels="range:100,4195")
    assert (fused == 4195 + 100 - visible).all()


def test_unknown_levels_are_refused(fuser: Fuser) -> None:
    with pytest.raises(ConfigurationError, match="levels 'best'"):
        fuser(noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH), infrared_levels="best")


# ------------------------------------------------------------------------------------------------------------- kinds


def kinds() -> dict[str, tuple[Any, Callable[[Any], NDArray[Any]]]]:
    """By name: the one RGB image in every kind, and how its result is read."""
    rgb = noise(HEIGHT, WIDTH, 3, seed=1)

    def channels_last(tensor: Tensor) -> NDArray[Any]:
        return tensor.movedim(-3, -1).numpy()

    return {
        "array": (rgb, np.asarray),
        "batch of arrays": (rgb[None], lambda fused: fused[0]),
        "tensor": (torch.from_numpy(rgb).movedim(-1, 0), channels_last),
        "batch of tensors": (torch.from_numpy(rgb).movedim(-1, 0)[None], lambda fused: channels_last(fused[0])),
        "PIL image": (Image.fromarray(rgb), np.asarray),
        "picture": (Picture(rgb), lambda fused: fused.pixels),
        "list": ([rgb], lambda fused: fused[0]),
        "strided array": (np.asfortranarray(rgb), np.asarray),
    }


@pytest.mark.parametrize("visible_kind", kinds())
@pytest.mark.parametrize("infrared_kind", kinds())
def test_every_kind_gives_the_same_result_in_the_kind_of_the_visible_image(
    fuser: Fuser, infrared_kind: str, visible_kind: str
) -> None:
    expected = fuser(kinds()["array"][0], kinds()["array"][0])
    infrared, (visible, to_array) = kinds()[infrared_kind][0], kinds()[visible_kind]
    fused = fuser(infrared, visible)
    assert isinstance(fused, type(visible))
    assert (to_array(fused) == expected).all()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((HEIGHT, WIDTH), np.uint8),
        ((HEIGHT, WIDTH, 1), np.uint16),
        ((HEIGHT, WIDTH, 2), np.float64),
        ((HEIGHT, WIDTH, 3), np.float16),
        ((HEIGHT, WIDTH, 4), np.float32),
        ((3, HEIGHT, WIDTH), np.uint8),
        ((2, HEIGHT, WIDTH, 1), np.float32),
        ((2, HEIGHT, WIDTH, 4), np.uint16),
    ],
)
def test_arrays_keep_shape_and_type(fuser: Fuser, shape: tuple[int, ...], dtype: type) -> None:
    visible = noise(*shape, dtype=dtype)
    infrared = noise(*(shape[:-1] if shape[-1] <= 4 else shape), seed=1)
    fused = fuser(infrared, visible)
    assert fused.shape == shape
    assert fused.dtype == dtype
    assert fused.flags.writeable
    assert not np.shares_memory(fused, visible)
    assert np.isfinite(fused).all()


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (4, HEIGHT, WIDTH), (2, 3, HEIGHT, WIDTH)])
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_tensors_keep_shape_and_type(fuser: Fuser, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    visible = torch.rand(shape) * (1 if dtype.is_floating_point else 255)
    infrared = torch.rand(shape)
    fused = fuser(infrared, visible.to(dtype))
    assert fused.shape == shape
    assert fused.dtype == dtype
    assert fused.device == visible.device
    assert fused.is_contiguous()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_stay_on_their_device(fuser: Fuser) -> None:
    infrared, visible = torch.rand(HEIGHT, WIDTH), torch.rand(3, HEIGHT, WIDTH, device="cuda")
    fused = fuser(infrared, visible)
    assert fused.device == visible.device
    torch.testing.assert_close(fused.cpu(), fuser(infrared, visible.cpu()))


def test_tensors_come_back_without_gradient(fuser: Fuser) -> None:
    visible = torch.rand(3, HEIGHT, WIDTH, requires_grad=True)
    assert not fuser(torch.rand(HEIGHT, WIDTH), visible).requires_grad


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_pil_images_keep_their_mode(fuser: Fuser, mode: str) -> None:
    channels = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode)
    dtype = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    visible = Image.fromarray(noise(HEIGHT, WIDTH, *([channels] if channels else []), dtype=dtype))
    assert visible.mode == mode
    fused = fuser(noise(HEIGHT, WIDTH), visible)
    assert fused.mode == mode
    assert fused.size == visible.size


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("as_text", [True, False])
def test_paths_give_arrays(fuser: Fuser, tmp_path: Path, suffix: str, as_text: bool) -> None:
    infrared, visible = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, 4, seed=1)
    paths = tmp_path / f"ir{suffix}", tmp_path / f"vis{suffix}"
    write_image(paths[0], Picture(infrared))
    write_image(paths[1], Picture(visible[..., :3], visible[..., 3]))
    fused = fuser(*(map(str, paths) if as_text else paths))
    assert (fused == fuser(infrared, visible)).all()


def test_lists_may_mix_sizes_and_kinds(fuser: Fuser) -> None:
    first, second = noise(HEIGHT, WIDTH, 3), noise(20, 30, seed=1)
    batch = noise(2, 16, 24, seed=2)
    fused = fuser(
        (noise(HEIGHT, WIDTH), noise(20, 30), batch), [first, Image.fromarray(second), torch.tensor(batch)[:, None]]
    )
    assert [type(image) for image in fused] == [np.ndarray, Image.Image, torch.Tensor]
    assert (fused[0] == fuser(noise(HEIGHT, WIDTH), first)).all()
    assert (np.asarray(fused[1]) == fuser(noise(20, 30), second)).all()
    assert (fused[2][:, 0].numpy() == fuser(batch, batch)).all()


def test_pictures_of_a_batch_do_not_depend_on_each_other(fuser: Fuser) -> None:
    infrared, visible = noise(3, HEIGHT, WIDTH), noise(3, HEIGHT, WIDTH, 3, seed=1)
    together = fuser(infrared, visible)
    assert all((together[index] == fuser(infrared[index], visible[index])).all() for index in range(3))


def test_luma_of_a_batch_equals_the_network(fuser: Fuser) -> None:
    infrared, luma = torch.rand(2, 3, 1, HEIGHT, WIDTH)
    two_at_once = Fuser(fuser.network, tile_pixels=2 * HEIGHT * WIDTH)
    with torch.no_grad():
        expected = fuser.network(infrared, luma)
    torch.testing.assert_close(two_at_once.fuse_luma(infrared, luma), expected, rtol=0, atol=1e-5)


def test_nothing_of_the_input_is_changed(fuser: Fuser) -> None:
    infrared, visible = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, 4, seed=1)
    copies = infrared.copy(), visible.copy()
    fuser(infrared, visible)
    assert (infrared == copies[0]).all()
    assert (visible == copies[1]).all()


# ------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize("size", [(7, 64), (64, 7), (1, 1)])
def test_images_below_the_minimum_are_refused_with_it_and_their_size(fuser: Fuser, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"infrared image is {size[1]}x{size[0]} pixels.*at least 8x8"):
        fuser(noise(*size), noise(*size))


def test_the_smallest_image_fuses(fuser: Fuser) -> None:
    assert fuser(noise(8, 8), noise(8, 8, 3)).shape == (8, 8, 3)


def test_images_above_the_limit_are_refused_with_the_way_to_raise_it() -> None:
    large = np.broadcast_to(np.uint8(0), (20_000, 13_000))
    with pytest.raises(ImageError, match=r"13000x20000, 260 megapixels, and the limit is 250.*--max-pixels"):
        stubbed()(large, large)
    with pytest.raises(ImageError, match="visible"):
        stubbed(max_pixels=100)(noise(8, 8), noise(16, 16))


def test_the_limit_can_be_lifted() -> None:
    assert stubbed(max_pixels=None)(noise(20, 20), noise(20, 20)).shape == (20, 20)
    with pytest.raises(ImageError, match="limit"):
        stubbed(max_pixels=399)(noise(20, 20), noise(20, 20))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["infrared", "visible"])
def test_values_that_are_not_finite_are_refused_by_name(fuser: Fuser, which: str, value: float) -> None:
    pair = {name: noise(HEIGHT, WIDTH, 3, dtype=np.float32) for name in ("infrared", "visible")}
    pair[which][5, 7] = value
    with pytest.raises(ImageError, match=f"the {which} image: .*NaN"):
        fuser(**pair)


def test_floats_outside_the_unit_range_are_refused_with_the_way_out(fuser: Fuser) -> None:
    with pytest.raises(ImageError, match=r"the infrared image: .*percentile"):
        fuser(noise(HEIGHT, WIDTH, dtype=np.float32) * 300, noise(HEIGHT, WIDTH))


def test_pairs_of_different_sizes_are_refused_with_both(fuser: Fuser) -> None:
    with pytest.raises(PairError, match=r"32x24.*64x48"):
        fuser(noise(24, 32), noise(HEIGHT, WIDTH))


def test_align_resize_is_the_way_out(fuser: Fuser) -> None:
    infrared, visible = np.full((24, 32, 3), 90, np.uint8), noise(HEIGHT, WIDTH, 3)
    expected = fuser(np.full((HEIGHT, WIDTH), 90, np.uint8), visible)
    assert (fuser(infrared, visible, align="resize") == expected).all()


def test_unknown_align_is_refused(fuser: Fuser) -> None:
    with pytest.raises(ConfigurationError, match="none or resize"):
        fuser(noise(8, 8), noise(8, 8), align="crop")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("infrared", "visible"),
    [(noise(2, 16, 16), noise(16, 16)), ([noise(16, 16)], [noise(16, 16)] * 2), ([], [noise(16, 16)])],
)
def test_unequal_numbers_of_images_are_refused(fuser: Fuser, infrared: Any, visible: Any) -> None:
    with pytest.raises(PairError, match=r"infrared and .* visible images"):
        fuser(infrared, visible)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "cannot fuse a NoneType"),
        (3.5, "cannot fuse a float"),
        (np.zeros(64), "none of H×W"),
        (np.zeros((1, 1, 8, 8, 3)), "none of H×W"),
        (np.zeros((16, 16), np.int64), "type int64"),
        (np.zeros((16, 16), bool), "type bool"),
        (np.zeros((1, 16, 16, 5), np.uint8), "5 channels"),
        (np.zeros((16, 16, 0), np.uint8), "0 channels"),
        (torch.zeros(64), "none of H×W"),
        (torch.zeros(16, 16, 3), r"16 channels.*B×1×H×W"),
        (torch.zeros(16, 16, dtype=torch.int32), "type int32"),
        (Image.new("CMYK", (16, 16)), "mode CMYK.*convert"),
        ("missing.png", "missing.png"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_refused(fuser: Fuser, image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        fuser(noise(16, 16), image)


@pytest.mark.parametrize(
    ("infrared", "luma"),
    [
        ((1, 1, 16, 16), (1, 1, 16, 17)),
        ((16, 16), (16, 16)),
        ((1, 3, 16, 16), (1, 3, 16, 16)),
        ((1, 1, 9, 9), (2, 1, 9, 9)),
    ],
)
def test_luma_of_other_shapes_is_refused(fuser: Fuser, infrared: tuple[int, ...], luma: tuple[int, ...]) -> None:
    with pytest.raises(PairError, match="same B×1×H×W"):
        fuser.fuse_luma(torch.rand(infrared), torch.rand(luma))


def test_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="torch"):
        Fuser(VFN(1), engine="abacus")


@pytest.mark.parametrize(("mode", "given"), [("1", "L"), ("P", "RGB")])
def test_pil_images_with_few_colours_become_full_ones(mode: str, given: str):
    ramp = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (24, 1)))
    fused = load("vfn")(ramp, ramp.convert(mode))
    assert (fused.mode, fused.size) == (given, (32, 24))


def test_a_fuser_says_what_it_is():
    assert repr(load("vfn")) == "Fuser(VFN of depth 2, engine='torch', precision='fp32')"
