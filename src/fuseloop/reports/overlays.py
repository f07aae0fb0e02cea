"""Labels and predictions drawn over images, for people to look at."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

TEXT = 11
"""Height of letters in pixels."""

GAP = 4
"""Pixels between images that stand beside each other."""

_HEAD, _LINE = TEXT + 5, TEXT + 7
_WHITE = (255, 255, 255)


def class_colours(*names: Sequence[str]) -> dict[str, Colour]:
    """A colour for every class, the same for one name wherever it stands; none is grey."""
    return {name: _colour(number) for number, name in enumerate(dict.fromkeys(chain(*names)))}


def _colour(number: int) -> Colour:
    hue = (number * 0.618034 + 0.02) % 1  # the golden section never comes back to where it was
    saturation, value = ((0.7, 1.0), (0.75, 0.95), (0.4, 1.0))[number % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def brightest(infrared: Pixels, visible: Pixels) -> Pixels:
    """The brighter of infrared (H×W) and visible (H×W×3) in each pixel, H×W×3: what either shows can be seen."""
    return np.maximum(infrared[..., None], visible)


def draw_boxes(
    image: Pixels, boxes: NDArray[np.float32], colours: Sequence[Colour], texts: Sequence[str] | None = None
) -> Pixels:
    """Boxes over an image, the large ones below.

    Args:
        image: H×W×3 uint8.
        boxes: N×4, absolute (x1, y1, x2, y2).
        colours: Of each box.
        texts: What stands over each, or below where it would leave the image; nothing by default.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for index in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable"):
        x1, y1, x2, y2 = (round(value) for value in boxes[index].tolist())
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colours[index], width=2)
        if texts is not None:
            top = y1 - TEXT - 2 if y1 >= TEXT + 2 else min(y2, image.shape[0] - TEXT - 2)
            left = min(x1, image.shape[1] - pen.textlength(texts[index], font=ImageFont.load_default(TEXT)) - 4)
            write(pen, texts[index], max(0, left), max(0, top), colours[index])
    return np.array(canvas)


def paint_ids(image: Pixels, ids: NDArray[np.integer], colours: Sequence[Colour], strength: float = 0.6) -> Pixels:
    """Segmentation ids over an image.

    Args:
        image: H×W×3 uint8.
        ids: H×W; 0 stays clear, and 255, which is ignored, becomes grey.
        colours: Of the ids from 1 on.
        strength: From 0, where nothing is seen of them, to 1, where nothing is seen of the image.
    """
    palette = np.full((256, 3), 128, np.float32)
    palette[1 : len(colours) + 1] = np.reshape(colours, (-1, 3))
    mixed = image * (1 - strength) + palette[ids] * strength
    return np.where((ids == 0)[..., None], image, mixed.round().astype(np.uint8))


def paint_saliency(image: Pixels, saliency: Pixels) -> Pixels:
    """What is salient stays, the rest turns dark, and a line runs between them."""
    weight = 0.25 + 0.75 * saliency[..., None] / np.float32(255)
    shown = np.round(image * weight).astype(np.uint8)
    outlines, _ = cv2.findContours((saliency >= 128).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(shown, outlines, -1, (255, 220, 0), 1))


def write(pen: ImageDraw.ImageDraw, text: str, left: float, top: float, ground: Colour) -> None:
    """Writes a text on a ground of its own, black or white by its brightness."""
    font = ImageFont.load_default(TEXT)
    ink = (0, 0, 0) if np.dot(ground, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    pen.rectangle((left, top, left + pen.textlength(text, font=font) + 3, top + TEXT + 1), fill=ground)
    pen.text((left + 2, top), text, fill=ink, font=font)


def titled(cell: Pixels, title: str) -> Pixels:
    """An image under its title, with a gap to the right and below."""
    canvas = Image.new("RGB", (cell.shape[1] + GAP, cell.shape[0] + _HEAD + GAP), _WHITE)
    canvas.paste(Image.fromarray(cell), (0, _HEAD))
    ImageDraw.Draw(canvas).text((1, 1), title, fill=(60, 60, 60), font=ImageFont.load_default(TEXT))
    return np.array(canvas)


def filled(image: Pixels, height: int, width: int) -> Pixels:
    """An image on white paper of at least its size."""
    paper = np.full((height, max(width, image.shape[1]), 3), 255, np.uint8)
    paper[: image.shape[0], : image.shape[1]] = image
    return paper


def legend(title: str, names: Sequence[str], colours: Mapping[str, Colour], width: int) -> Pixels:
    """The names of classes on their colours, in as many lines as they need."""
    font = ImageFont.load_default(TEXT)
    places: list[tuple[str, int, int]] = []
    left, top = round(font.getlength(f"{title}: ")) + 4, 2
    for name in names:
        wide = round(font.getlength(name)) + 10
        if left + wide > width and places:
            left, top = 4, top + _LINE
        places.append((name, left, top))
        left += wide
    canvas = Image.new("RGB", (width, top + _LINE), _WHITE)
    pen = ImageDraw.Draw(canvas)
    pen.text((2, 2), f"{title}:", fill=(60, 60, 60), font=font)
    for name, x, y in places:
        write(pen, name, x, y, colours[name])
    return np.array(canvas)
