"""The score report: a folder of pages that compares methods and shows every frame, and opens without a server.

    index.html                    the methods beside each other
    frames/0001.html              a frame: its pair, the image of every method, its values
    images/0001/infrared.png      what the pages show; visible.png, method-01.png, ...
    thumbnails/0001/infrared.jpg  the same, small
    assets/                       style, scripts, and the numbers that plots are drawn from

Names of frames and methods appear as text only: files have names of their own, so that any name will do.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray
from PIL import Image

from fuseloop import __version__
from fuseloop.errors import ImageError
from fuseloop.metrics.evaluate import Evaluation
from fuseloop.metrics.table import METRICS
from fuseloop.pairs.atomic import check_target_folder, folder_written_aside
from fuseloop.pairs.images import Picture, read_image, write_image
from fuseloop.pairs.levels import INFRARED_DEFAULT, VISIBLE_DEFAULT, Levels, Limits, from_unit, to_unit
from fuseloop.reports.score_numbers import (
    Numbers,
    absent_rows,
    data,
    frame_rows,
    method_rows,
    metric_rows,
    printable,
    undefined_rows,
)

MARK = '<meta name="generator" content="fuseloop score">'
PARTS = {"index.html", "frames", "images", "thumbnails", "assets"}
ASSETS = ("report.css", "index.css", "index.js", "frame.css", "frame.js")
THUMBNAIL_WIDTH = 320
_GREY_OR_RGB = (0, 2)  # colour types of PNG
INFRARED, VISIBLE = "infrared (source)", "visible (source)"


@dataclass(frozen=True)
class ScoredImages:
    """The files that were scored.

    Attributes:
        infrared: The infrared file of each frame; the order is that of the pages.
        visible: The visible file of each frame.
        fused: For each method the fused file of each frame that it has.
    """

    infrared: Mapping[str, Path]
    visible: Mapping[str, Path]
    fused: Mapping[str, Mapping[str, Path]]


class Panel(NamedTuple):
    """An image on the page of a frame.

    Attributes:
        slot: Name of its file, without extension.
        name: What it is called.
        there: Whether there is one.
        note: How its values were mapped for display, if they were.
    """

    slot: str
    name: str
    there: bool = True
    note: str = ""


def check_score_report(out: Path, *, overwrite: bool = False) -> None:
    """Checks that a report may be written to a folder, before any work is done for it.

    Raises:
        ImageError: `out` is no folder, holds other files than a report, or holds one and `overwrite` is not set.
    """
    check_target_folder(out, ours=_is_report, overwrite=overwrite)


def write_score_report(
    out: Path,
    evaluations: Mapping[str, Evaluation],
    images: ScoredImages,
    *,
    convention: str,
    baseline: str | None = None,
    levels: Mapping[str, str | None] | None = None,
    overwrite: bool = False,
    report: Callable[[], None] = lambda: None,
) -> Path:
    """Writes the report: `index.html`, and beside it a page for each frame and copies of the images.

    Args:
        out: Folder to write, as a whole or not at all; it may hold an earlier report, if `overwrite` is set.
        evaluations: The scores of each method, all of the same metrics and conventions.
        images: Where the images of every scored frame are.
        convention: The convention asked for.
        baseline: The method that the others are first compared to; by default the first.
        levels: How images that are not 8-bit are shown, a rule of `fuseloop.pairs.levels` for "infrared", "visible" and
            "fused"; by default infrared "auto", the others "full", and "percentile" for float values beyond [0, 1].
        overwrite: Replace an earlier report.
        report: Called after every frame.

    Returns:
        The first page.

    Raises:
        ImageError: `out` is no folder, holds something that must be kept, or cannot be written; or an image cannot be
            read.
        ValueError: There is no method or no such baseline, the methods were scored by different metrics or conventions,
            or `images` lacks a scored frame.
    """
    check_score_report(out, overwrite=overwrite)
    numbers = Numbers.of(evaluations, convention, order=tuple(images.infrared))
    _check_images(numbers, images)
    if baseline is not None and baseline not in numbers.methods:
        raise ValueError(f"there is no method {baseline!r} to compare to")
    first = numbers.methods.index(baseline) if baseline is not None else 0
    with folder_written_aside(out, ours=_is_report, overwrite=overwrite) as aside:
        _write(aside, numbers, images, first, dict(levels or {}), report)
    return out / "index.html"


def _is_report(folder: Path) -> bool:
    page = folder / "index.html"
    return {path.name for path in folder.iterdir()} <= PARTS and page.is_file() and MARK in page.read_text("utf-8")


def _check_images(numbers: Numbers, images: ScoredImages) -> None:
    for kind, paths in (("infrared", images.infrared), ("visible", images.visible)):
        if missing := [name for name in numbers.frames if name not in paths]:
            raise ValueError(f"there is no {kind} file for the frame {missing[0]!r}")
    for method, evaluation in numbers.evaluations.items():
        if missing := [name for name in evaluation.frames if name not in images.fused.get(method, {})]:
            raise ValueError(f"there is no file of {method!r} for the frame {missing[0]!r}")


def _write(
    folder: Path,
    numbers: Numbers,
    images: ScoredImages,
    baseline: int,
    levels: dict[str, str | None],
    report: Callable[[], None],
) -> None:
    templates = files("fuseloop.reports") / "templates" / "score"
    (folder / "assets").mkdir()
    for name in ASSETS:
        (folder / "assets" / name).write_text((templates / name).read_text("utf-8"), encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("fuseloop.reports", "templates/score"), autoescape=True, trim_blocks=True
    )
    pages = [f"{index + 1:04d}" for index in range(len(numbers.frames))]
    slots = [f"method-{index + 1:02d}" for index in range(len(numbers.methods))]

    (folder / "frames").mkdir()
    template = environment.get_template("frame.html")
    places, decimals = numbers.places(), numbers.decimals()
    shape = (0, 0)
    with closing(_copied(folder, numbers, images, levels, pages, slots)) as copied:
        for index, (size, panels) in enumerate(copied):
            shape = size if index == 0 else shape
            html = template.render(
                name=printable(numbers.frames[index]),
                number=pages[index],
                place=index + 1,
                frames=len(pages),
                previous=pages[index - 1] if index else None,
                next=pages[index + 1] if index + 1 < len(pages) else None,
                width=size[1],
                height=size[0],
                panels=panels,
                methods=[printable(name) for name in numbers.methods],
                rows=frame_rows(numbers, index, places, decimals),
            )
            (folder / "frames" / f"{pages[index]}.html").write_text(html, encoding="utf-8")
            report()

    found = data(numbers, pages, slots) | {"baseline": baseline}
    # ASCII, so that no encoding and no line separator of a name can break the script.
    script = f"window.REPORT = {json.dumps(found, separators=(',', ':'), allow_nan=False)};\n"
    (folder / "assets" / "data.js").write_text(script, encoding="ascii")
    metrics = metric_rows(numbers)
    html = environment.get_template("index.html").render(
        numbers=numbers,
        methods=found["methods"],
        mark=MARK,
        version=__version__,
        ratio=f"{shape[1]} / {shape[0]}",
        convention=numbers.convention,
        compared=bool(numbers.comparisons),
        ranked_of=numbers.comparisons[0].ranked_of if numbers.comparisons else "",
        common=len(numbers.comparisons[0].frames) if numbers.comparisons else 0,
        metrics=metrics,
        fallbacks=any(metric["fallback"] for metric in metrics),
        zero=any(metric["arrow"] == "→0" for metric in metrics),
        rows=method_rows(numbers, found),
        strip=_strip(numbers, pages, slots),
        pages=list(zip(pages, found["frames"], strict=True)),
        undefined=undefined_rows(numbers, pages),
        absent=absent_rows(numbers, pages),
    )
    (folder / "index.html").write_text(html, encoding="utf-8")


def _strip(numbers: Numbers, pages: list[str], slots: list[str]) -> dict[str, Any]:
    """The frame that the first page shows: the one on which the methods differ most."""
    first = numbers.comparisons[0] if numbers.comparisons else None
    if first and first.disagreements:
        most = first.disagreements[0]
        name, best, worst = most.frame, printable(most.best), printable(most.worst)
        head = "Where the methods differ most"
        text = f"{printable(name)}, most of all in {METRICS[most.metric].name}: {best} is best there, {worst} worst."
    else:
        name = numbers.frames[0]
        head, text = "One of the frames", printable(name)
    frame = numbers.frames.index(name)
    panels: list[tuple[str, str, int | None]] = [("infrared", INFRARED, None), ("visible", VISIBLE, None)]
    panels += [
        (slot, printable(method), index)
        for index, (slot, method) in enumerate(zip(slots, numbers.methods, strict=True))
        if numbers.scored[index, frame]
    ]
    return {"frame": pages[frame], "head": head, "text": text, "panels": panels}


# Images.


def _copied(
    folder: Path,
    numbers: Numbers,
    images: ScoredImages,
    levels: dict[str, str | None],
    pages: list[str],
    slots: list[str],
) -> Generator[tuple[tuple[int, int], list[Panel]]]:
    """Copies the images of all frames, several frames at a time; gives the size and the panels of each in order."""

    def copy(frame: int) -> tuple[tuple[int, int], list[Panel]]:
        name = numbers.frames[frame]
        places = [folder / "images" / pages[frame], folder / "thumbnails" / pages[frame]]
        for place in places:
            place.mkdir(parents=True)
        sources: list[tuple[str, str, str, Path | None]] = [
            ("infrared", INFRARED, "infrared", images.infrared[name]),
            ("visible", VISIBLE, "visible", images.visible[name]),
        ]
        sources += [
            # What could not be scored may be broken: it is not even read.
            (slot, method, "fused", images.fused[method][name] if numbers.scored[index, frame] else None)
            for index, (slot, method) in enumerate(zip(slots, numbers.methods, strict=True))
        ]
        panels, size = [], (0, 0)
        for slot, title, kind, path in sources:
            if path is None:
                panels.append(Panel(slot, printable(title), there=False))
                continue
            pixels, note = shown(read_image(path, max_pixels=None), path, kind, levels.get(kind))
            copy = places[0] / f"{slot}.png"
            content = path.read_bytes()
            if not note and is_plain_png(content):
                copy.write_bytes(content)
            else:
                write_image(copy, Picture(pixels))
            Image.fromarray(thumbnail(pixels)).save(places[1] / f"{slot}.jpg", "JPEG", quality=82)
            panels.append(Panel(slot, printable(title), note=note))
            size = pixels.shape[:2] if kind == "infrared" else size
        return size, panels

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        try:
            yield from threads.map(copy, range(len(numbers.frames)))
        finally:
            threads.shutdown(cancel_futures=True)


def shown(picture: Picture, path: Path, kind: str, rule: str | None = None) -> tuple[NDArray[np.uint8], str]:
    """The 8-bit pixels that show an image, and how they were mapped, if they were; opacity is left out.

    Args:
        picture: The image.
        path: Its file, for messages.
        kind: "infrared", "visible" or "fused".
        rule: How to map what is not 8-bit, see `write_score_report`.

    Raises:
        ImageError: The rule does not fit the values.
    """
    pixels = picture.pixels
    if pixels.dtype == np.uint8:
        return pixels, ""
    if rule is None:
        rule = INFRARED_DEFAULT if kind == "infrared" else VISIBLE_DEFAULT
        if pixels.dtype.kind == "f" and (pixels.min() < 0 or pixels.max() > 1):
            rule = "percentile"
    try:
        limits = Levels.parse(rule).limits(pixels)
    except ImageError as problem:
        raise ImageError(f"{path}: {problem}") from problem
    depth = "16-bit" if pixels.dtype == np.uint16 else "float"
    note = f"{depth}, shown from {limits.low:g} (black) to {limits.high:g} (white)"
    return from_unit(to_unit(pixels, limits), np.uint8, Limits(0, 255)), note


def is_plain_png(content: bytes) -> bool:
    """Whether a file is an 8-bit PNG, grey or RGB, with pixels and nothing else, so that a browser shows its levels.

    Such a file is copied byte by byte, which takes a fifth of the time of writing it anew.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 33:
        return False
    kinds, start = set(), 8
    while start + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        kinds.add(kind)
        start += length + 12
    depth, colour = content[24], content[25]
    return kinds == {b"IHDR", b"IDAT", b"IEND"} and depth == 8 and colour in _GREY_OR_RGB


def thumbnail(pixels: NDArray[np.uint8], width: int = THUMBNAIL_WIDTH) -> NDArray[np.uint8]:
    """A small copy of an image; one that is small already stays."""
    if pixels.shape[1] <= width:
        return pixels
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
