"""The fuser: what a user calls to fuse pairs with a fusion network.

Every kind of image goes one way: raw values to raw values, tile by tile when the frame is large. Only a tile at a time
is held as float32, so memory beyond the images themselves does not grow with their size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fuseloop.engines import Precision, load_engine
from fuseloop.errors import ConfigurationError, ImageError, PairError, WeightsError
from fuseloop.fusers.kinds import Images, open_images
from fuseloop.fusers.weights import FusionNetwork, describe, read_network, title, write_weights
from fuseloop.networks.vfn import Pooled
from fuseloop.pairs.align import check_same_size, resize_to
from fuseloop.pairs.images import MAX_PIXELS, Picture
from fuseloop.pairs.levels import INFRARED_DEFAULT, VISIBLE_DEFAULT, Levels, Limits, from_unit, to_unit
from fuseloop.pairs.tiles import TILE_PIXELS, Box, Tile, plan_tiles
from fuseloop.weights.files import SHARED

WHOLE = 3  # tiles that a frame may be worth and still be fused at once
WEIGHTS_FILE, CARD_FILE = SHARED, "README.md"

CARD = """\
# A fusion network of fuseloop

It fuses an infrared image with a visible one:

```python
from fuseloop import Fuser

fuser = Fuser.from_pretrained("FOLDER OR REPOSITORY")
fused = fuser("infrared.png", "visible.png")
```

## Terms

The code and the weight file are under Apache-2.0. The data sets that the network was trained on have terms of their
own; most are research data, given for research only. Ask their owners before any other use.
"""

Align = Literal["none", "resize"]
Kind = TypeVar("Kind", NDArray[Any], Tensor, Image.Image, Picture)
Read = Callable[[Box], tuple[Tensor, Tensor]]
"""Makes the infrared image and the luma of a box, B×1×h×w each."""
FusedBox = tuple[Box, Tensor, Tensor]
"""A box of a frame, its luma and its fused luma, B×1×h×w."""


@dataclass(frozen=True, eq=False)
class UnitPair:
    """A pair of pictures whose raw values are read as [0, 1], box by box.

    Attributes:
        thermal: Raw infrared values, H×W.
        pixels: Raw visible values, H×W or H×W×3.
        thermal_limits: Which raw infrared values are 0 and 1.
        limits: The same of the visible ones.
    """

    thermal: NDArray[Any]
    pixels: NDArray[Any]
    thermal_limits: Limits
    limits: Limits

    def read(self, box: Box) -> tuple[Tensor, Tensor]:
        """The infrared image and the luma of a box, 1×1×h×w each."""
        luma = _luma(to_unit(self.pixels[box.slices], self.limits))
        return _as_tensor(to_unit(self.thermal[box.slices], self.thermal_limits)), _as_tensor(luma)

    def recoloured(self, box: Box, before: Tensor, after: Tensor) -> NDArray[np.float32]:
        """A box with another luma and the same chroma, h×w or h×w×3; it may leave [0, 1].

        Args:
            box: The box.
            before: Its luma, 1×1×h×w.
            after: The other luma.
        """
        # A new Y with the old Cb and Cr adds the change of Y to each of R, G and B.
        change = after[0, 0].numpy() - before[0, 0].numpy()
        recoloured = to_unit(self.pixels[box.slices], self.limits)
        recoloured += change.reshape(change.shape + (1,) * (self.pixels.ndim - 2))
        return recoloured

    def raw(self, image: NDArray[np.float32]) -> NDArray[Any]:
        """Values in [0, 1] as raw ones of the visible picture."""
        return from_unit(image, self.pixels.dtype, self.limits)

    def paint(self, boxes: Iterable[FusedBox]) -> NDArray[Any]:
        """The fused image in raw values, of boxes that partition it."""
        fused = np.empty_like(self.pixels, order="C")
        for box, before, after in boxes:
            fused[box.slices] = self.raw(self.recoloured(box, before, after))
        return fused


def fuse_images(
    fuse: Callable[..., Picture],
    infrared: Images,
    visible: Images,
    max_pixels: int | None,
    instructions: Sequence[Any] | None = None,
) -> Any:
    """Fuses images of any kind one after the other, to the kind of the visible ones.

    Args:
        fuse: Fuses an infrared and a visible picture, and takes the instruction behind them where there are some.
        infrared: The infrared images.
        visible: The visible images, as many.
        max_pixels: The largest image that is read from a path; None for no limit.
        instructions: As many; None where there are none.

    Raises:
        ImageError: An image is of an unsupported kind.
        PairError: There are not as many of one as of the other.
    """
    thermal, colour = open_images(infrared, max_pixels), open_images(visible, max_pixels)
    if thermal.count != colour.count:
        raise PairError(f"got {thermal.count} infrared and {colour.count} visible images; give them in pairs")
    if instructions is None:
        return colour.rebuild(map(fuse, thermal.pictures, colour.pictures))
    if len(instructions) != colour.count:
        raise PairError(
            f"got {len(instructions)} instructions for {colour.count} pairs; give one for each, or a single one for all"
        )
    return colour.rebuild(map(fuse, thermal.pictures, colour.pictures, instructions))


def fuse_tiles(
    pool: Callable[[Tensor, Tensor, Tensor], Pooled],
    fuse_tile: Callable[[Tensor, Tensor, Pooled], Tensor],
    tiles: list[Tile],
    pixels: int,
    read: Read,
) -> Iterator[FusedBox]:
    """Fuses a frame in two passes over its tiles.

    Args:
        pool: What a tile adds to the statistics of the frame, see `Engine.pool`.
        fuse_tile: Fuses a tile, see `Engine.fuse_tile`.
        tiles: The tiles.
        pixels: Pixels of the frame.
        read: Reads a box of it.

    Yields:
        The inner boxes of the tiles.
    """
    total, peak = torch.zeros(1, dtype=torch.float64), torch.zeros(1)  # gradients are never below 0
    for tile in tiles:
        infrared, luma = read(tile.outer)
        interior = torch.zeros_like(luma)
        crop(interior, tile.inner.within(tile.outer)).fill_(1)
        part = pool(infrared, luma, interior)
        total, peak = total + part.mean, torch.maximum(peak, part.peak)
    pooled = Pooled((total / pixels).float(), peak)
    for tile in tiles:
        infrared, luma = read(tile.outer)
        inner = tile.inner.within(tile.outer)
        yield tile.inner, crop(luma, inner), crop(fuse_tile(infrared, luma, pooled), inner)


def check_tile_pixels(tile_pixels: int, halo: int) -> None:
    """Refuses tiles that are too small for a network that looks at `halo` pixels around them.

    Raises:
        ConfigurationError: They are.
    """
    if tile_pixels < (2 * halo + 1) ** 2:
        raise ConfigurationError(
            f"tiles of {tile_pixels} pixels leave nothing between two halos of {halo}; "
            f"give at least {(2 * halo + 1) ** 2} tile_pixels"
        )


class Fuser(
    ModelHubMixin,
    library_name="fuseloop",
    license="apache-2.0",
    pipeline_tag="image-to-image",
    tags=["image-fusion", "infrared", "thermal"],
):
    """Fuses infrared with visible images.

    >>> import numpy as np
    >>> from fuseloop import Fuser
    >>> from fuseloop.networks.vfn import VFN
    >>> fuser = Fuser(VFN(depth=2))
    >>> thermal, colour = np.zeros((48, 64), np.uint16), np.zeros((48, 64, 3), np.uint8)
    >>> fused = fuser(thermal, colour)
    >>> fused.shape, fused.dtype
    ((48, 64, 3), dtype('uint8'))

    A fuser is not safe to share between threads.

    Args:
        network: The fusion network; its weights are taken as they are now.
        engine: What runs it: "torch" on the device of the network; "onnxruntime" or "openvino" on the processor.
        precision: "fp32", or "bf16" where speed matters more than the last two grey levels.
        tile_pixels: Largest tile. Frames of up to three tiles are fused whole, which is faster; larger ones in tiles,
            with the same result within 1e-5. Engines need 0.5 to 1.8 kB a pixel of a tile. A network whose attention
            sees the whole frame has no tiles, and larger frames are refused.
        max_pixels: Larger images are refused; None for no limit.
        card: What is known of the weights, in Markdown; it goes with them when they are shared.

    Raises:
        ConfigurationError: The engine or the precision is unknown, or `tile_pixels` is too small for the network.
    """

    def __init__(
        self,
        network: FusionNetwork,
        *,
        engine: str = "torch",
        precision: Precision = "fp32",
        tile_pixels: int = TILE_PIXELS,
        max_pixels: int | None = MAX_PIXELS,
        card: str = "",
    ) -> None:
        if network.halo is not None:
            check_tile_pixels(tile_pixels, network.halo)
        self.network = network
        self.engine = load_engine(engine, network, precision=precision)
        self.tile_pixels = tile_pixels
        self.max_pixels = max_pixels
        self.card = card
        # What the hub shows. The mixin would put the arguments above there, which are choices of this machine.
        self._hub_mixin_config = dict(describe(network))

    def __repr__(self) -> str:
        engine = self.engine
        return f"Fuser({title(self.network)}, engine={engine.name!r}, precision={engine.precision!r})"

    @overload
    def __call__(
        self,
        infrared: Images,
        visible: Kind,
        *,
        infrared_levels: str = ...,
        visible_levels: str = ...,
        align: Align = ...,
    ) -> Kind: ...
    @overload
    def __call__(
        self,
        infrared: Images,
        visible: str | os.PathLike[str],
        *,
        infrared_levels: str = ...,
        visible_levels: str = ...,
        align: Align = ...,
    ) -> NDArray[Any]: ...
    @overload
    def __call__(
        self,
        infrared: Images,
        visible: list[Kind] | tuple[Kind, ...],
        *,
        infrared_levels: str = ...,
        visible_levels: str = ...,
        align: Align = ...,
    ) -> list[Kind]: ...
    @overload
    def __call__(
        self,
        infrared: Images,
        visible: Images,
        *,
        infrared_levels: str = ...,
        visible_levels: str = ...,
        align: Align = ...,
    ) -> Any: ...

    def __call__(
        self,
        infrared: Images,
        visible: Images,
        *,
        infrared_levels: str = INFRARED_DEFAULT,
        visible_levels: str = VISIBLE_DEFAULT,
        align: Align = "none",
    ) -> Any:
        """Fuses one pair or several.

        Args:
            infrared: The infrared images; of several channels the first counts. Each argument may be

                * a NumPy array: H×W, H×W×C, B×H×W or B×H×W×C, with C of 1 (grey), 2 (grey, alpha), 3 (RGB) or
                  4 (RGBA); uint8, uint16 or float,
                * a tensor on any device: H×W, C×H×W or B×C×H×W of the same types,
                * a PIL image of mode L, LA, RGB, RGBA, I;16 or F; 1 becomes L, and P becomes RGB or RGBA,
                * a `Picture`, or the path of an image file,
                * a list or tuple of these, whose images may differ in size.
            visible: The visible images, as many, of the same or of another kind.
            infrared_levels: Which raw values become 0 and 1, see `fuseloop.pairs.levels`.
            visible_levels: The same for the visible images.
            align: "none" refuses pairs of different sizes; "resize" brings the infrared image to the size of the
                visible one.

        Returns:
            The fused images in the kind of `visible`: the same container, shape, type, range, device and alpha. Paths
            give NumPy arrays, a tuple gives a list. Gradients do not flow through.

        Raises:
            ImageError: An image is of an unsupported kind, unreadable, too small, too large, or not finite.
            PairError: The two differ in number or, with `align="none"`, in size.
            ConfigurationError: An option is unknown.
        """
        fuse = partial(self.fuse_picture, infrared_levels=infrared_levels, visible_levels=visible_levels, align=align)
        return fuse_images(fuse, infrared, visible, self.max_pixels)

    def fuse_picture(
        self,
        infrared: Picture,
        visible: Picture,
        *,
        infrared_levels: str = INFRARED_DEFAULT,
        visible_levels: str = VISIBLE_DEFAULT,
        align: Align = "none",
    ) -> Picture:
        """Fuses one pair of pictures. All kinds of images come through here.

        Args:
            infrared: The infrared picture; of RGB the first channel counts, its alpha does not.
            visible: The visible picture, H×W or H×W×3.
            infrared_levels: See `__call__`.
            visible_levels: See `__call__`.
            align: See `__call__`.

        Returns:
            The fused picture: shape, type, range and alpha are those of the visible one. Colours keep their chroma (Cb
            and Cr); what leaves the range is clipped, integers are rounded, halves upwards.

        Raises:
            ImageError: A picture is too small, too large, or not finite.
            PairError: The sizes differ and `align` is "none".
            ConfigurationError: An option is unknown.
        """
        pair = self.open_pair(
            infrared, visible, infrared_levels=infrared_levels, visible_levels=visible_levels, align=align
        )
        height, width = visible.pixels.shape[:2]
        return Picture(pair.paint(self._fuse_boxes(height, width, pair.read)), visible.alpha)

    def open_pair(
        self,
        infrared: Picture,
        visible: Picture,
        *,
        infrared_levels: str = INFRARED_DEFAULT,
        visible_levels: str = VISIBLE_DEFAULT,
        align: Align = "none",
    ) -> UnitPair:
        """Checks a pair of pictures and finds its levels; arguments and errors are those of `fuse_picture`."""
        thermal = infrared.pixels if infrared.pixels.ndim == 2 else infrared.pixels[..., 0]
        pixels = visible.pixels
        self._check_size(thermal, "infrared")
        self._check_size(pixels, "visible")
        if align not in ("none", "resize"):
            raise ConfigurationError(f"unknown align {align!r}; choose none or resize")
        if align == "resize":
            thermal = resize_to(thermal, *pixels.shape[:2])
        check_same_size(thermal, pixels)
        with _naming("infrared"):
            thermal_limits = Levels.parse(infrared_levels).limits(thermal)
        with _naming("visible"):
            limits = Levels.parse(visible_levels).limits(pixels)
        return UnitPair(thermal, pixels, thermal_limits, limits)

    def fuse_luma(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Fuses tensors that are in [0, 1] already, in tiles where the frames are large.

        Args:
            infrared: B×1×H×W float32 in [0, 1] on the CPU, H and W at least 8.
            luma: Y of the visible images, the same shape.

        Returns:
            The fused luma, B×1×H×W in [0, 1].

        Raises:
            PairError: The shapes differ.
            ImageError: The frames are too small or too large.
        """
        if infrared.shape != luma.shape or luma.ndim != 4 or luma.shape[1] != 1:
            raise PairError(
                f"infrared is {tuple(infrared.shape)} and luma {tuple(luma.shape)}; give both as the same B×1×H×W"
            )
        height, width = luma.shape[2:]
        self._check_size(luma[0, 0], "visible")
        fused = torch.empty_like(luma)
        at_once = max(1, self.tile_pixels // (height * width))
        for start in range(0, len(luma), at_once):
            items = slice(start, start + at_once)
            read = partial(_crop_both, infrared[items], luma[items])
            for box, _, piece in self._fuse_boxes(height, width, read):
                crop(fused[items], box).copy_(piece)
        return fused

    def _fuse_boxes(self, height: int, width: int, read: Read) -> Iterator[FusedBox]:
        """Fuses a frame of some height and width box by box."""
        if height * width <= WHOLE * self.tile_pixels:
            frame = Box(0, 0, height, width)
            infrared, luma = read(frame)
            yield frame, luma, self.engine.fuse(infrared, luma)
            return
        assert self.network.halo is not None  # such frames were refused
        tiles = plan_tiles(height, width, isqrt(self.tile_pixels), self.network.halo)
        yield from fuse_tiles(self.engine.pool, self.engine.fuse_tile, tiles, height * width, read)

    def _check_size(self, pixels: NDArray[Any] | Tensor, which: str) -> None:
        height, width = pixels.shape[:2]
        minimum = self.network.minimum_side
        if min(height, width) < minimum:
            raise ImageError(
                f"the {which} image is {width}x{height} pixels; the network needs at least {minimum}x{minimum}"
            )
        if self.max_pixels is not None and height * width > self.max_pixels:
            raise ImageError(
                f"the {which} image is {width}x{height}, {height * width / 1e6:.0f} megapixels, and the limit is "
                f"{self.max_pixels / 1e6:.0f}; raise it with --max-pixels (max_pixels) if you trust the image"
            )
        if self.network.halo is None and height * width > WHOLE * self.tile_pixels:
            raise ImageError(
                f"the {which} image is {width}x{height}, {height * width / 1e6:.1f} megapixels; a "
                f"{title(self.network)} sees whole frames and cannot work in tiles, and the limit is "
                f"{WHOLE * self.tile_pixels / 1e6:.1f}: make the pair smaller, or raise tile_pixels of the Fuser if "
                "there is memory for it (about 3 kB a pixel)"
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Fuser:
        """Makes a fuser from what `save_pretrained` or `push_to_hub` wrote.

        Args:
            pretrained_model_name_or_path: A folder, or the name of a repository on the Hugging Face hub.
            options: Arguments of `Fuser` such as `engine`, and of the hub, such as `revision` and `token`.

        Raises:
            WeightsError: There is no such folder or repository, or its weight file is missing, corrupt or foreign.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise WeightsError(
                f"{pretrained_model_name_or_path} is no folder here and cannot be had from the hub: {error}"
            ) from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: Any,
    ) -> Fuser:
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=[WEIGHTS_FILE, CARD_FILE],
                )
            )
        network = read_network(folder / WEIGHTS_FILE)
        card = folder / CARD_FILE
        return cls(network, card=ModelCard.load(card).text.lstrip() if card.is_file() else "", **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_weights(save_directory / WEIGHTS_FILE, self.network, overwrite=True)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that goes with shared weights: what is known of them, and whose terms apply."""
        return ModelCard(f"---\n{self._hub_mixin_info.model_card_data.to_yaml()}\n---\n\n{self.card or CARD}")


@contextmanager
def _naming(which: str) -> Iterator[None]:
    """Says in errors about an image which of the two it is."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"the {which} image: {error}") from error


def _luma(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Y of H×W or H×W×3 as `rgb_to_ycbcr` has it.

    In NumPy: the threads that PyTorch wakes for such small work spin on for a while, and would slow the engine.
    """
    if image.ndim == 2:
        return image
    r, g, b = (image[..., channel] for channel in range(3))
    luma: NDArray[np.float32] = r * np.float32(0.299)
    luma += g * np.float32(0.587)
    luma += b * np.float32(0.114)
    return luma


def _as_tensor(image: NDArray[np.float32]) -> Tensor:
    """H×W as 1×1×H×W."""
    return torch.from_numpy(np.ascontiguousarray(image))[None, None]


def crop(image: Tensor, box: Box) -> Tensor:
    """A view of the box of an image, whose last axes are H×W."""
    return image[..., box.top : box.bottom, box.left : box.right]


def _crop_both(infrared: Tensor, luma: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    return crop(infrared, box).contiguous(), crop(luma, box).contiguous()
