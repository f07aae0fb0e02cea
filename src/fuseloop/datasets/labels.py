"""Label files: boxes as VOC XML or YOLO text, masks of ids and of saliency.

The readers of boxes report all that is wrong, each with its line, and give what is right; those of masks raise
`ImageError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.findings import Finding
from fuseloop.datasets.labelled import IGNORED
from fuseloop.datasets.pixels import read_8bit, rgb_to_luma
from fuseloop.errors import ImageError
from fuseloop.pairs.images import read_image

BOX_ENDINGS = (".txt", ".xml")
OVERHANG = 1.0
"""Pixels by which a box may leave its image: tools round, and some count pixels from 1."""

_PNG_MAGIC, _PALETTE = b"\x89PNG", 3

Corners = tuple[float, float, float, float]


class Boxes(NamedTuple):
    """Boxes of a frame: N×4 float32 absolute (x1, y1, x2, y2), and their classes, N int64."""

    corners: NDArray[np.float32]
    classes: NDArray[np.int64]


class _Object(NamedTuple):
    """An object of a label file: its line, its class, and x1, y1, x2, y2."""

    line: int
    kind: int
    corners: Corners


def read_boxes(path: Path, names: ClassNames, size: tuple[int, int] | None) -> tuple[Boxes, list[Finding]]:
    """Reads the boxes of a frame from VOC XML (".xml") or YOLO text.

    VOC: ``object/name`` and ``object/bndbox`` with xmin, ymin, xmax, ymax in pixels, taken as they stand. YOLO: lines
    ``class cx cy w h``, normalised; an empty file says that nothing is there.

    Args:
        path: The file.
        names: The classes.
        size: Height and width of the images; None where they are not known, and nothing is said about places then.

    Returns:
        The boxes that are right, clipped to the image; and what is wrong or worth knowing.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        return _boxes([]), [Finding("unreadable label", path, f"cannot be read ({problem.strerror})")]
    if path.suffix.lower() == ".xml":
        objects, findings = _read_voc(path, content, names, size)
    else:
        objects, findings = _read_yolo(path, content, names, size)
    kept: list[_Object] = []
    seen: set[tuple[int, Corners]] = set()
    for item in objects:
        finding = _judge(path, item, size)
        if finding is not None:
            findings.append(finding)
        if finding is None or not finding.broken:
            kept.append(item)
        if (item.kind, item.corners) in seen:
            findings.append(Finding("repeated", path, "the same box of the same class again", item.line))
        seen.add((item.kind, item.corners))
    if not objects and not any(finding.broken for finding in findings):
        findings.append(Finding("no objects", path, "has no boxes: nothing is there"))
    return _boxes(kept, size), sorted(findings, key=lambda finding: finding.line or 0)


def _judge(path: Path, item: _Object, size: tuple[int, int] | None) -> Finding | None:
    """What is wrong with the place of a box."""
    x1, y1, x2, y2 = item.corners
    shown = f"({x1:.1f}, {y1:.1f}, {x2:.1f}, {y2:.1f})"
    if x2 <= x1 or y2 <= y1:
        return Finding("degenerate", path, f"the box {shown} has no area; x2 must exceed x1, and y2 y1", item.line)
    if size is None:
        return None
    height, width = size
    overhang = max(-x1, -y1, x2 - width, y2 - height)
    clipped_away = min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0)
    if overhang > OVERHANG or clipped_away:
        reason = f"the box {shown} leaves the image of {width}x{height} by {overhang:.1f} pixels; clip or mend it"
        return Finding("outside", path, reason, item.line)
    if overhang > 0.01:  # less is rounding
        return Finding("clipped", path, f"the box {shown} leaves the image of {width}x{height} a little", item.line)
    return None


def _boxes(objects: Sequence[_Object], size: tuple[int, int] | None = None) -> Boxes:
    corners = np.array([item.corners for item in objects], np.float64).reshape(-1, 4)
    if size is not None:
        height, width = size
        corners = corners.clip(0, [width, height, width, height])
    return Boxes(corners.astype(np.float32), np.array([item.kind for item in objects], np.int64))


# ---------------------------------------------------------------------------------------------------------------- YOLO


def _read_yolo(
    path: Path, content: bytes, names: ClassNames, size: tuple[int, int] | None
) -> tuple[list[_Object], list[Finding]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return [], [Finding("unreadable label", path, "is no text; YOLO labels are lines of class cx cy w h")]
    height, width = size or (1, 1)
    objects: list[_Object] = []
    findings: list[Finding] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        values = _numbers(words)
        if values is None or len(values) != 5:
            found = f"{len(words)} values" if values is not None else f"{line.strip()[:40]!r}"
            findings.append(Finding("malformed", path, f"{found}; a line is class cx cy w h, five numbers", number))
            continue
        kind = names.of_number(int(values[0])) if values[0].is_integer() else None
        if kind is None:
            findings.append(Finding("class", path, f"class {words[0]} is unknown; {_known(names)}", number))
            continue
        cx, cy, w, h = values[1:]
        if max(cx, cy, w, h) > 2:
            reason = f"{' '.join(words[1:])} is not normalised; divide x and w by the width, y and h by the height"
            findings.append(Finding("malformed", path, reason, number))
            continue
        corners = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        objects.append(_Object(number, kind, corners))
    return objects, findings


def _numbers(words: Sequence[str]) -> list[float] | None:
    """Finite numbers; None where one is none."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _known(names: ClassNames) -> str:
    numbered = names.numbered or names.boxes
    return f"known are {', '.join(f'{number} {name}' for number, name in enumerate(numbered))}"


# ----------------------------------------------------------------------------------------------------------------- VOC

_SIDES = ("xmin", "ymin", "xmax", "ymax")


class _Voc:
    """Takes the objects out of a VOC file, with the lines on which they begin; expat alone tells lines."""

    def __init__(self) -> None:
        self.root = ""
        self.size: dict[str, str] = {}
        self.objects: list[tuple[int, dict[str, str]]] = []
        self._path: list[str] = []
        self._text: list[str] = []

    def parse(self, content: bytes) -> None:
        """Raises expat.ExpatError where the file is no XML, or declares entities, which no annotation needs."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = lambda name, _: self._start(name, parser.CurrentLineNumber)
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.EntityDeclHandler = _refuse_entities
        parser.Parse(content, True)

    def _start(self, name: str, line: int) -> None:
        self._path.append(name)
        self._text.clear()
        if len(self._path) == 1:
            self.root = name
        elif self._path[1:] == ["object"]:
            self.objects.append((line, {}))

    def _end(self, name: str) -> None:
        place, text = "/".join(self._path[1:]), "".join(self._text).strip()
        if place.startswith("object/"):
            self.objects[-1][1].setdefault(place.removeprefix("object/"), text)
        elif place.startswith("size/"):
            self.size[name] = text
        self._path.pop()
        self._text.clear()


def _refuse_entities(*_: object) -> None:
    raise expat.ExpatError("it declares entities")


def _read_voc(
    path: Path, content: bytes, names: ClassNames, size: tuple[int, int] | None
) -> tuple[list[_Object], list[Finding]]:
    voc = _Voc()
    try:
        voc.parse(content)
    except expat.ExpatError as problem:
        line = getattr(problem, "lineno", None)
        return [], [Finding("unreadable label", path, f"is no XML that can be read ({problem})", line)]
    if voc.root != "annotation":
        return [], [Finding("unreadable label", path, f"is no VOC annotation: its root is {voc.root!r}", 1)]
    objects: list[_Object] = []
    findings: list[Finding] = []
    for line, parts in voc.objects:
        name = parts.get("name", "")
        kind = names.of_name(name)
        corners = _numbers([parts.get(f"bndbox/{side}", "") for side in _SIDES])
        if corners is None:
            reason = f"the object {name!r} has no bndbox with the numbers {', '.join(_SIDES)}"
            findings.append(Finding("malformed", path, reason, line))
        elif kind is None:
            reason = f"class {name!r} is unknown; known are {', '.join(names.boxes)}"
            findings.append(Finding("class", path, reason, line))
        else:
            x1, y1, x2, y2 = corners
            objects.append(_Object(line, kind, (x1, y1, x2, y2)))
    noted = _numbers([voc.size.get("height", ""), voc.size.get("width", "")])
    if size is not None and noted is not None and all(noted) and tuple(noted) != size:
        reason = f"notes the size {noted[1]:.0f}x{noted[0]:.0f}, the images are {size[1]}x{size[0]}"
        findings.append(Finding("noted size", path, reason))
    return objects, findings


# --------------------------------------------------------------------------------------------------------------- masks


def read_ids(path: Path) -> NDArray[np.uint8]:
    """A mask of class ids, H×W uint8: grey levels, or the numbers of a palette whatever its colours.

    Raises:
        ImageError: It cannot be read, or is a colour picture. The message names the file.
    """
    pixels = read_image(path).pixels
    depth, colour = _png_header(path)
    if colour == _PALETTE:
        with PngImageFile(path) as image:
            return np.array(image, np.uint8)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise ImageError(f"{path}: is a colour picture; ids are grey levels, or the numbers of a palette")
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f" or pixels.max() > IGNORED:
        raise ImageError(f"{path}: holds {pixels.dtype} values up to {pixels.max()}; ids are whole numbers to 255")
    return np.asarray(pixels // (255 // (2 ** min(depth, 8) - 1)), np.uint8)  # fewer bits were spread over 0 to 255


def read_saliency(path: Path) -> NDArray[np.uint8]:
    """A saliency or edge mask, H×W uint8 from 0 to 255. One of the values 0 and 1 alone is brought to 0 and 255.

    Raises:
        ImageError: It cannot be read. The message names the file.
    """
    pixels = read_8bit(path, "full")
    grey = rgb_to_luma(pixels) if pixels.ndim == 3 else pixels
    return grey * np.uint8(255) if grey.max() == 1 else grey


def _png_header(path: Path) -> tuple[int, int]:
    """Bits of a sample and kind of colour of a PNG; those of plain grey for other formats."""
    with path.open("rb") as file:
        head = file.read(26)
    return (head[24], head[25]) if head.startswith(_PNG_MAGIC) else (8, 0)
