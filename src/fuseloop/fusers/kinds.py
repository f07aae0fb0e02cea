"""The kinds of images that a user may hold, and their way to pictures and back.

`open_images` is the one place that knows them. Each kind is a function that is registered there, and gives its images
as `Opened`: pictures that are made one at a time, and a function that makes the kind again from as many fused ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fuseloop.errors import ImageError
from fuseloop.pairs.images import Picture, read_image

One: TypeAlias = "NDArray[Any] | Tensor | Image.Image | Picture | str | os.PathLike[str]"
Images: TypeAlias = "One | Sequence[One]"
"""An array or tensor of one image or a batch, a PIL image, a picture, a path, or a list of these."""

_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "F")
_CONVERTED = {"1": ("L", "LA"), "P": ("RGB", "RGBA"), "PA": ("RGB", "RGBA")}  # without and with transparency


@dataclass(frozen=True)
class Opened:
    """Images of one kind.

    Attributes:
        count: Number of images.
        pictures: The images, each made when it is asked for.
        rebuild: Takes `count` fused pictures from an iterator and makes the same kind of them.
    """

    count: int
    pictures: Iterator[Picture]
    rebuild: Callable[[Iterator[Picture]], Any]


@singledispatch
def open_images(images: Any, max_pixels: int | None) -> Opened:
    """Opens images of any kind.

    Args:
        images: See `Images`.
        max_pixels: The largest image that is read from a path; None for no limit.

    Raises:
        ImageError: The kind, type or shape is not supported. Reading from a path raises only when it is its turn.
    """
    raise ImageError(
        f"cannot fuse a {type(images).__name__}; give a NumPy array, a PIL image, a tensor, a path, or a list of these"
    )


@open_images.register(list)
@open_images.register(tuple)
def _open_several(images: Sequence[One], max_pixels: int | None) -> Opened:
    parts = [open_images(image, max_pixels) for image in images]
    return Opened(
        sum(part.count for part in parts),
        chain.from_iterable(part.pictures for part in parts),
        lambda fused: [part.rebuild(fused) for part in parts],
    )


@open_images.register(str)
@open_images.register(os.PathLike)
def _open_path(path: str | os.PathLike[str], max_pixels: int | None) -> Opened:
    pictures = (read_image(path, max_pixels=max_pixels) for path in [path])
    return Opened(1, pictures, lambda fused: _to_array(next(fused)))


@open_images.register
def _open_picture(picture: Picture, max_pixels: int | None) -> Opened:
    return Opened(1, iter([picture]), next)


@open_images.register
def _open_pil(image: Image.Image, max_pixels: int | None) -> Opened:
    if image.mode in _CONVERTED:
        image = image.convert(_CONVERTED[image.mode][image.has_transparency_data])
    if image.mode not in _MODES:
        known = ", ".join([*_MODES, *_CONVERTED])
        raise ImageError(
            f"PIL images of mode {image.mode} are not supported, only {known}; "
            "convert it first, for example by image.convert('RGB')"
        )
    try:
        array = np.asarray(image)
    except OSError as error:
        raise ImageError(f"the PIL image cannot be decoded: {error}") from error
    return Opened(1, iter([_to_picture(array)]), lambda fused: Image.fromarray(_to_array(next(fused))))


@open_images.register(np.ndarray)
def _open_array(array: NDArray[Any], max_pixels: int | None) -> Opened:
    # No image is as narrow as it has channels, so H×W×C and B×H×W cannot be confused.
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= 4):
        return Opened(1, iter([_to_picture(array)]), lambda fused: _like(array, next(fused)))
    if array.ndim not in (3, 4):
        raise ImageError(f"an array of shape {array.shape} is none of H×W, H×W×C, B×H×W and B×H×W×C")

    def rebuild(fused: Iterator[Picture]) -> NDArray[Any]:
        batch = np.empty_like(array)
        for index, picture in enumerate(islice(fused, len(array))):
            batch[index] = _like(array[index], picture)
        return batch

    return Opened(len(array), map(_to_picture, array), rebuild)


@open_images.register
def _open_tensor(tensor: Tensor, max_pixels: int | None) -> Opened:
    if tensor.ndim not in (2, 3, 4):
        raise ImageError(f"a tensor of shape {tuple(tensor.shape)} is none of H×W, C×H×W and B×C×H×W")
    if tensor.ndim > 2 and tensor.shape[-3] > 4:
        raise ImageError(
            f"a tensor of shape {tuple(tensor.shape)} has {tensor.shape[-3]} channels, where C×H×W or B×C×H×W with "
            "1 to 4 are expected; give a batch of grey images as B×1×H×W"
        )
    values = tensor.detach().cpu()
    if values.dtype == torch.bfloat16:  # NumPy has none
        values = values.float()
    array = values.numpy() if values.ndim == 2 else np.moveaxis(values.numpy(), -3, -1)
    opened = _open_array(array, max_pixels)

    def rebuild(fused: Iterator[Picture]) -> Tensor:
        result = torch.from_numpy(opened.rebuild(fused))
        if result.ndim > 2:
            result = result.movedim(-1, -3).contiguous()
        return result.to(tensor.device, tensor.dtype)

    return replace(opened, rebuild=rebuild)


def _to_picture(array: NDArray[Any]) -> Picture:
    """H×W or H×W×C to a picture, whose values are views where the type allows."""
    channels = 1 if array.ndim == 2 else array.shape[2]
    if channels not in (1, 2, 3, 4):
        raise ImageError(f"an image of shape {array.shape} has {channels} channels; give 1 to 4 of them, last")
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    planes = array.reshape(*array.shape[:2], channels)
    pixels = planes[..., :3] if channels >= 3 else planes[..., 0]
    return Picture(pixels, planes[..., -1] if channels in (2, 4) else None)


def _to_array(picture: Picture) -> NDArray[Any]:
    """H×W or H×W×C; alpha becomes the last channel."""
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def _like(array: NDArray[Any], picture: Picture) -> NDArray[Any]:
    """The picture in the shape and type of the array that it was made from."""
    return _to_array(picture).reshape(array.shape).astype(array.dtype, copy=False)
