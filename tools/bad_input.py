"""Runs the command on every kind of bad input, and writes what happened to docs/bad-input.md.

    python tools/bad_input.py

A case is a way to spoil a folder of good pairs, a command, and what is expected: the exit code, a part of the message,
and the files that may be new. The tests run the same cases. In every case the files that were there must stay as they
are, and nothing may be left half-written.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from fuseloop.cli import main as fuseloop

PAGE = Path(__file__).parents[1] / "docs" / "bad-input.md"
HEIGHT, WIDTH = 24, 32
FILE = "fuse --infrared ir.png --visible vis.png --out fused.png"
FOLDER = "fuse --infrared thermal --visible colour --out fused"
SCORE = "score --infrared thermal --visible colour --fused mine --metrics en,mse --json s.json"
DATA = "data check folder ."
EVALUATE = "evaluate --fuser visible --fuser mine --task-network yolov5n --dataset folder:. --json s.json"
PREDICT = "predict --images colour --task-network yolov5n --out seen"
VIDEO = "fuse --infrared ir.mp4 --visible vis.mp4 --out fused.mp4"


class Case(NamedTuple):
    """One bad input.

    Attributes:
        title: What is bad.
        spoil: Makes it so in the folder of good pairs, which is the working directory.
        command: The command, without the name of the program.
        says: A part of the message.
        code: The exit code.
        new: The files that the command may leave.
    """

    title: str
    spoil: Callable[[], object]
    command: str
    says: str
    code: int = 2
    new: tuple[str, ...] = ()


class Ran(NamedTuple):
    """How a command ended.

    Attributes:
        code: Exit code.
        output: Standard output.
        errors: Standard error.
        lost: Files that are gone or changed.
        new: Files that were not there before.
    """

    code: int
    output: str
    errors: str
    lost: list[str]
    new: list[str]


def make_good_pairs() -> None:
    """Fills the working directory with what every case starts from."""
    rng = np.random.default_rng(0)
    thermal = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    colour = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for folder in ("thermal", "colour"):
        Path(folder).mkdir()
    for name in ("ir", "thermal/a", "thermal/b", "thermal/c"):
        Image.fromarray(thermal).save(f"{name}.png")
    for name in ("vis", "colour/a", "colour/b", "colour/c"):
        Image.fromarray(colour).save(f"{name}.png")


def truncate(path: str) -> None:
    """Cuts a file in half."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def save(path: str, pixels: np.ndarray, **options: object) -> None:
    Path(path).unlink(missing_ok=True)
    if path.endswith(".tiff"):
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path, **options)


def save_bomb(path: str) -> None:
    """A PNG of a few bytes that says it has 30,000 × 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    content = zlib.compress(bytes(1000))
    Path(path).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )


def save_animation(path: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "green")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def save_float(path: str, value: float) -> None:
    pixels = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    pixels[3, 4] = value
    save(path, pixels)


def save_video(path: str, frames: int) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            pixels = np.full((48, 64, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


def save_videos(infrared: int = 3, visible: int = 3) -> None:
    save_video("ir.mp4", infrared)
    save_video("vis.mp4", visible)


def rename_all(folder: str) -> None:
    for path in Path(folder).iterdir():
        path.rename(path.with_name(f"other_{path.name}"))


def save_foreign_weights(path: str) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def text(path: str, content: str = "this is no picture\n") -> Callable[[], object]:
    return lambda: Path(path).write_text(content)


CASES = [
    Case("missing file", lambda: Path("vis.png").unlink(), FILE, "vis.png: does not exist"),
    Case("missing folder", lambda: None, FOLDER.replace("colour", "color"), "color: does not exist"),
    Case("truncated PNG", lambda: truncate("vis.png"), FILE, "vis.png: is broken or truncated"),
    Case(
        "truncated JPEG",
        lambda: (save("vis.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8)), truncate("vis.jpg")),
        FILE.replace("vis.png", "vis.jpg"),
        "vis.jpg: is broken or truncated",
    ),
    Case("zero bytes", text("ir.png", ""), FILE, "ir.png: is empty (0 bytes)"),
    Case("text named .png", text("ir.png"), FILE, "ir.png: is not a PNG, JPEG, BMP, TIFF or WebP image"),
    Case("decompression bomb", lambda: save_bomb("vis.png"), FILE, "--max-pixels"),
    Case("more pixels than --max-pixels allows", lambda: None, FILE + " --max-pixels 500", "--max-pixels"),
    Case(
        "different sizes",
        lambda: save("ir.png", np.zeros((HEIGHT, WIDTH + 8), np.uint8)),
        FILE,
        "the infrared image is 40x24 and the visible image 32x24",
    ),
    Case(
        "NaN in a float image",
        lambda: save_float("ir.tiff", np.nan),
        FILE.replace("ir.png", "ir.tiff"),
        "ir.tiff: holds NaN or infinite values",
    ),
    Case(
        "infinity in a float image",
        lambda: save_float("ir.tiff", np.inf),
        FILE.replace("ir.png", "ir.tiff"),
        "ir.tiff: holds NaN or infinite values",
    ),
    Case(
        "float values outside [0, 1] without levels",
        lambda: save_float("ir.tiff", 291.5),
        FILE.replace("ir.png", "ir.tiff"),
        "the infrared image: the float values go from 0.5 to 291.5",
    ),
    Case(
        "image under 8 pixels",
        lambda: [save(name, np.zeros((7, 40), np.uint8)) for name in ("ir.png", "vis.png")],
        FILE,
        "the network needs at least 8x8",
    ),
    Case(
        "CMYK", lambda: Image.new("CMYK", (WIDTH, HEIGHT)).save("vis.jpg"), FILE.replace("vis.png", "vis.jpg"), "CMYK"
    ),
    Case("animated PNG", lambda: save_animation("vis.png"), FILE, "animat"),
    Case("animated WebP", lambda: save_animation("vis.webp"), FILE.replace("vis.png", "vis.webp"), "animat"),
    Case("animated GIF", lambda: save_animation("vis.gif"), FILE.replace("vis.png", "vis.gif"), "animat"),
    Case("a folder and a file", lambda: None, FILE.replace("ir.png", "thermal"), "give two of a kind"),
    Case("folders with no common stem", lambda: rename_all("thermal"), FOLDER, "other_a, other_b, other_c"),
    Case("folder without images", lambda: Path("empty").mkdir(), FOLDER.replace("thermal", "empty"), "holds no images"),
    Case(
        "two files of one stem in a folder",
        lambda: save("colour/a.bmp", np.zeros((HEIGHT, WIDTH), np.uint8)),
        FOLDER,
        "have the same name",
    ),
    Case(
        "one bad pair in a folder",
        lambda: truncate("thermal/b.png"),
        FOLDER,
        "b: thermal/b.png: is broken or truncated",
        code=1,
        new=("fused/a.png", "fused/c.png"),
    ),
    Case(
        "an image without a partner",
        lambda: Path("colour/b.png").unlink(),
        FOLDER,
        "no partner: thermal/b.png",
        code=0,
        new=("fused/a.png", "fused/c.png"),
    ),
    Case(
        "nothing but bad pairs in a folder",
        lambda: [truncate(f"thermal/{name}.png") for name in "abc"],
        FOLDER,
        "thermal/c.png: is broken or truncated",
    ),
    Case("a file in the place of the output folder", text("fused"), FOLDER, "cannot make the folder fused"),
    Case(
        "a file in the place of a folder above the output",
        text("results"),
        FILE.replace("fused.png", "results/fused.png"),
        "cannot make the folder results",
    ),
    Case("an output that exists", text("fused.png"), FILE, "fused.png: exists already and was kept; use --overwrite"),
    Case(
        "outputs that exist in a folder",
        lambda: (Path("fused").mkdir(), Path("fused/b.png").write_text("mine")),
        FOLDER,
        "kept 1 that were there",
        code=0,
        new=("fused/a.png", "fused/c.png"),
    ),
    Case(
        "an output that is an input", lambda: None, FILE.replace("fused.png", "vis.png --overwrite"), "one of the two"
    ),
    Case(
        "an output folder that is an input",
        lambda: None,
        FOLDER.replace("fused", "colour --overwrite"),
        "one of the two",
    ),
    Case("an output without an ending", lambda: None, FILE.replace("fused.png", "fused"), "has no ending"),
    Case("an unknown format", lambda: None, FILE.replace("fused.png", "fused.gif"), "fused.gif: .gif is not supported"),
    Case("a device as output", lambda: None, FILE.replace("fused.png", "/dev/full"), "/dev/full"),
    Case(
        "unknown weights", lambda: None, FILE + " --fuser vfm", "unknown weights 'vfm'. Did you mean 'vfn'? Give one of"
    ),
    Case(
        "missing weight file", lambda: None, FILE + " --fuser my.safetensors", "there is no weight file my.safetensors"
    ),
    Case("corrupt weight file", text("my.safetensors"), FILE + " --fuser my.safetensors", "my.safetensors is corrupt"),
    Case(
        "foreign weight file",
        lambda: save_foreign_weights("my.safetensors"),
        FILE + " --fuser my.safetensors",
        "was not written by fuseloop",
    ),
    Case(
        "pickled weight file",
        lambda: torch.save({"weight": torch.zeros(3)}, "my.pth"),
        FILE + " --fuser my.pth",
        "convert it once with: fuseloop convert",
    ),
    Case("text named .mp4", lambda: (save_videos(), text("ir.mp4")()), VIDEO, "ir.mp4: is no video"),
    Case("videos of different lengths", lambda: save_videos(3, 5), VIDEO, "has 3 frames"),
    Case("an output video that exists", lambda: (save_videos(), text("fused.mp4")()), VIDEO, "use --overwrite"),
    Case("unknown levels", lambda: None, FILE + " --infrared-levels best", "levels 'best' are unknown"),
    Case("unknown engine", lambda: None, FILE + " --engine abacus", "abacus"),
    Case("unknown option", lambda: None, FILE + " --sharpen", "--sharpen"),
    Case("missing option", lambda: None, "fuse --infrared ir.png --visible vis.png", "--out"),
]


def fused(spoil: Callable[[], object] = lambda: None) -> Callable[[], object]:
    """What two methods made of the good pairs, before something is spoilt."""

    def act() -> None:
        for method in ("mine", "theirs"):
            shutil.copytree("colour", method)
        spoil()

    return act


SCORE_CASES = [
    Case(
        "folders that do not match",
        fused(lambda: rename_all("mine")),
        SCORE,
        "no image of mine has the same name as a pair of thermal and colour: other_a, other_b, other_c against a, b, c",
    ),
    Case(
        "sources that do not match",
        fused(lambda: rename_all("thermal")),
        SCORE,
        "no image of thermal has the same name as one of colour: other_a, other_b, other_c against a, b, c",
    ),
    Case(
        "some images without a partner",
        fused(lambda: (Path("mine/b.png").rename("mine/d.png"), Path("thermal/c.png").unlink())),
        SCORE,
        "no partner: mine/d.png",
        code=1,
        new=("s.json",),
    ),
    Case(
        "one of two methods lacks a frame",
        fused(lambda: Path("theirs/b.png").unlink()),
        SCORE + " --fused theirs",
        "no partner: b: there is no fused image of theirs",
        code=1,
        new=("s.json",),
    ),
    Case(
        "a fused image that cannot be read",
        fused(lambda: truncate("mine/b.png")),
        SCORE,
        "failed: b: mine/b.png: is broken or truncated",
        code=1,
        new=("s.json",),
    ),
    Case(
        "a source that cannot be read",
        fused(text("thermal/b.png")),
        SCORE + " --fused theirs",
        "failed: b: thermal/b.png: is not a PNG",
        code=1,
        new=("s.json",),
    ),
    Case(
        "no image that can be read",
        fused(lambda: [truncate(f"mine/{name}.png") for name in "abc"]),
        SCORE,
        "failed: c: mine/c.png: is broken",
    ),
    Case(
        "different sizes",
        fused(lambda: save("mine/a.png", np.zeros((HEIGHT, WIDTH + 8), np.uint8))),
        SCORE,
        "failed: a: infrared is 32×24, visible is 32×24, mine is 40×24; scores need one size",
        code=1,
        new=("s.json",),
    ),
    Case(
        "a 16-bit image without levels",
        fused(lambda: save("thermal/a.png", np.full((HEIGHT, WIDTH), 7000, np.uint16))),
        SCORE,
        "failed: a: thermal/a.png: is a 16-bit image",
        code=1,
        new=("s.json",),
    ),
    Case("unknown levels", fused(), SCORE + " --levels best", "levels 'best' are unknown"),
    Case("unknown convention", fused(), SCORE + " --convention cdfuse", "did you mean 'cddfuse'?"),
    Case("unknown metric", fused(), SCORE.replace("mse", "qapf"), "did you mean 'qabf'?"),
    Case("unknown baseline", fused(), SCORE + " --baseline vfn", "--baseline vfn is none of the methods mine"),
    Case("a missing folder", lambda: None, SCORE, "mine: does not exist"),
    Case("an empty folder", lambda: Path("mine").mkdir(), SCORE, "mine: holds no images"),
    Case(
        "an empty folder of one of two methods",
        fused(lambda: shutil.rmtree("mine") or Path("mine").mkdir()),
        SCORE + " --fused theirs",
        "no partner: mine: holds no images",
        code=1,
        new=("s.json",),
    ),
    Case(
        "two methods of one name",
        lambda: shutil.copytree("colour", "other/mine"),
        SCORE + " --fused other/mine",
        "NAME=other/mine",
    ),
    Case("a folder and a file", fused(), SCORE.replace("colour", "vis.png"), "give two of a kind"),
    Case("videos", save_videos, "score --infrared ir.mp4 --visible vis.mp4 --fused vis.mp4", "ir.mp4 is a video"),
    Case("an output that exists", fused(text("s.json")), SCORE, "s.json: exists already and was kept"),
    Case(
        "pages in a folder that holds other files",
        fused(),
        SCORE + " --html thermal --overwrite",
        "thermal: holds other files, which were kept",
    ),
    Case("an output in a folder that is missing", fused(), SCORE.replace("s.json", "new/s.json"), "make it first"),
    Case("one file for two outputs", fused(), SCORE + " --csv s.json", "give each its own file"),
]


def labelled(spoil: Callable[[], object] = lambda: None) -> Callable[[], object]:
    """Labels of the good pairs, before something is spoilt."""

    def act() -> None:
        Path("classes.yaml").write_text("boxes: [person, car]\nsegmentation: [background, person, car]\n")
        for folder in ("labels", "segmentation"):
            Path(folder).mkdir()
        for name in "abc":
            Path(f"labels/{name}.txt").write_text("0 .5 .5 .2 .4\n1 .25 .5 .2 .4\n")
            save(f"segmentation/{name}.png", np.ones((HEIGHT, WIDTH), np.uint8))
        spoil()

    return act


DATA_CASES = [
    Case(
        "an image without a partner",
        labelled(lambda: Path("colour/b.png").unlink()),
        DATA,
        "thermal/b.png: has no partner in the other modality",
        code=1,
    ),
    Case(
        "a broken image",
        labelled(lambda: truncate("thermal/b.png")),
        DATA,
        "thermal/b.png: is broken or truncated",
        code=1,
    ),
    Case(
        "different sizes",
        labelled(lambda: save("thermal/b.png", np.zeros((HEIGHT, WIDTH + 8), np.uint8))),
        DATA,
        "thermal/b.png: is 40x24, colour/b.png is 32x24",
        code=1,
    ),
    Case(
        "a label without images",
        labelled(text("labels/d.txt", "")),
        DATA,
        "labels/d.txt: has no images of its name",
        code=1,
    ),
    Case(
        "a pair without a label",
        labelled(lambda: Path("labels/b.txt").unlink()),
        DATA,
        "labels: has no file for b",
        code=1,
    ),
    Case("an empty label file", labelled(text("labels/b.txt", "")), DATA, "labels/b.txt: has no boxes", code=0),
    Case(
        "a line that is no box",
        labelled(text("labels/b.txt", "0 .5 .5 .2 .4\nperson\n")),
        DATA,
        "labels/b.txt:2: 'person'; a line is class cx cy w h, five numbers",
        code=1,
    ),
    Case(
        "a class that does not exist",
        labelled(text("labels/b.txt", "0 .5 .5 .2 .4\n2 .5 .5 .2 .4\n")),
        DATA,
        "labels/b.txt:2: class 2 is unknown; known are 0 person, 1 car",
        code=1,
    ),
    Case(
        "a box outside the image",
        labelled(text("labels/b.txt", "0 .9 .5 .6 .4\n")),
        DATA,
        "labels/b.txt:1: the box (19.2, 7.2, 38.4, 16.8) leaves the image of 32x24 by 6.4 pixels",
        code=1,
    ),
    Case(
        "a box without area",
        labelled(text("labels/b.txt", "0 .5 .5 0 .4\n")),
        DATA,
        "labels/b.txt:1: the box (16.0, 7.2, 16.0, 16.8) has no area",
        code=1,
    ),
    Case(
        "boxes in pixels",
        labelled(text("labels/b.txt", "0 16 12 6 9\n")),
        DATA,
        "labels/b.txt:1: 16 12 6 9 is not normalised",
        code=1,
    ),
    Case(
        "a mask with an unknown id",
        labelled(lambda: save("segmentation/b.png", np.full((HEIGHT, WIDTH), 7, np.uint8))),
        DATA,
        "segmentation/b.png: holds the id 7, first in row 0, column 0; ids are 0 to 2",
        code=1,
    ),
    Case(
        "a mask of another size",
        labelled(lambda: save("segmentation/b.png", np.zeros((HEIGHT, WIDTH - 8), np.uint8))),
        DATA,
        "segmentation/b.png: is 24x24, its images are 32x24",
        code=1,
    ),
    Case(
        "a mask in colour",
        labelled(lambda: shutil.copy("colour/b.png", "segmentation/b.png")),
        DATA,
        "segmentation/b.png: is a colour picture",
        code=1,
    ),
    Case(
        "nothing that can be used",
        labelled(lambda: [Path(f"labels/{name}.txt").write_text("person\n") for name in "abc"]),
        DATA,
        "labels/c.txt:1: 'person'",
    ),
    Case("classes without names", labelled(Path("classes.yaml").unlink), DATA, "whose classes are not named"),
    Case(
        "a malformed file of class names",
        labelled(text("classes.yaml", "person\ncar\n")),
        DATA,
        "classes.yaml: expected the keys boxes and segmentation",
    ),
    Case("a missing folder", labelled(), "data check folder nowhere", "nowhere is not a folder"),
    Case("another layout", labelled(), "data check fmb .", "no FMB found in ., which holds colour, labels"),
    Case("an unknown layout", labelled(), "data check fbm .", "did you mean 'fmb'?"),
    Case(
        "a split that is not there",
        labelled(),
        DATA + " --split train",
        "no pairs of split 'train' found in ., which holds colour",
    ),
    Case(
        "a malformed manifest",
        labelled(text("pairs.csv", "infrared,visible\nthermal/a.png,\n")),
        "data check csv pairs.csv",
        "pairs.csv:2: the cell visible is empty",
    ),
    Case(
        "a manifest with a missing file",
        labelled(text("pairs.csv", "infrared,visible\nthermal/a.png,colour/a.png\nthermal/d.png,colour/b.png\n")),
        "data check csv pairs.csv",
        "thermal/d.png: does not exist",
        code=1,
    ),
    Case("a sheet that exists", labelled(text("s.png")), DATA + " --sheet s.png", "s.png: exists already and was kept"),
]


def seen_first(command: str, then: Callable[[], object] = lambda: None) -> Callable[[], object]:
    """Runs a command on the good pairs before something is spoilt."""
    return lambda: (run_here(command), then())


TASK_CASES = [
    Case(
        "a broken image in a data set to evaluate on",
        labelled(fused(lambda: truncate("thermal/b.png"))),
        EVALUATE,
        "failed: thermal/b.png: is broken or truncated",
        code=1,
        new=("s.json",),
    ),
    Case(
        "a broken label in a data set to evaluate on",
        labelled(fused(text("labels/b.txt", "7 .5 .5 .2 .4\n"))),
        EVALUATE,
        "broken: labels/b.txt:1: class 7 is unknown",
        code=1,
        new=("s.json",),
    ),
    Case("a data set without labels", fused(), EVALUATE, "yolov5n is scored with boxes, but there are no labels"),
    Case(
        "a data set with labels of another task",
        labelled(fused(lambda: shutil.rmtree("labels"))),
        EVALUATE,
        "yolov5n is scored with boxes, but there are segmentation alone",
    ),
    Case(
        "classes without a common name",
        labelled(fused(text("classes.yaml", "boxes: [dog, cat]\nsegmentation: [nothing, dog, cat]\n"))),
        EVALUATE,
        "no class of one name; say which are the same, such as --same dog=person",
    ),
    Case(
        "a fused image that is missing",
        labelled(fused(lambda: Path("mine/b.png").unlink())),
        EVALUATE,
        "failed: b: mine: mine: holds no image of the frame b",
        code=1,
        new=("s.json",),
    ),
    Case(
        "a fused image of another size",
        labelled(fused(lambda: save("mine/b.png", np.zeros((HEIGHT, WIDTH + 8, 3), np.uint8)))),
        EVALUATE,
        "mine/b.png: is 40x24, its pair 32x24",
        code=1,
        new=("s.json",),
    ),
    Case(
        "fused images of other frames",
        labelled(fused(lambda: rename_all("mine"))),
        EVALUATE,
        "could be scored, the first because: mine: mine: holds no image of the frame a",
    ),
    Case("an unknown fuser", labelled(), EVALUATE.replace("mine", "vnf"), "did you mean 'vfn'?"),
    Case("an unknown task network", labelled(fused()), EVALUATE.replace("yolov5n", "yolo5"), "unknown task network"),
    Case(
        "foreign weights of a task network",
        labelled(fused(lambda: save_foreign_weights("x.safetensors"))),
        EVALUATE.replace("yolov5n", "x.safetensors"),
        "x.safetensors holds no task network",
    ),
    Case("a file of scores that exists", labelled(fused(text("s.json"))), EVALUATE, "s.json: exists already"),
    Case(
        "a broken image to predict",
        lambda: (truncate("colour/b.png"), Path("colour/c.png").unlink()),
        PREDICT,
        "failed: b: colour/b.png: is broken or truncated",
        code=1,
        new=("seen/boxes/a.json", "seen/overlays/a.png", "seen/predictions.json"),
    ),
    Case(
        "a folder without images to predict",
        lambda: Path("empty").mkdir(),
        PREDICT.replace("colour", "empty"),
        "holds no",
    ),
    Case(
        "predictions into a folder with other files",
        lambda: None,
        PREDICT.replace("seen", "thermal") + " --overwrite",
        "thermal: holds other files, which were kept",
    ),
    Case(
        "predictions of another threshold",
        seen_first(PREDICT),
        PREDICT + " --threshold .5",
        "seen: holds predictions of another network, threshold or fuser",
    ),
    Case(
        "a threshold above 1", lambda: None, PREDICT + " --threshold 25", "a threshold of scores is in [0, 1], not 25"
    ),
]


def run(case: Case) -> Ran:
    """Spoils the good pairs in the working directory, which must be empty, and runs the command there."""
    make_good_pairs()
    case.spoil()
    return watch(lambda: run_here(case.command))


def run_here(command: str) -> tuple[int, str, str]:
    """Runs the command in this process; returns exit code, output and errors."""
    output, errors = io.StringIO(), io.StringIO()
    arguments = command.split()
    if "--engine" not in arguments and "--out" in arguments:
        arguments += ["--engine", "torch"]  # the quickest to start
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = fuseloop(arguments)
    return code, output.getvalue(), errors.getvalue()


def run_on_full_disk() -> Ran:
    """Fuses eight pairs into a disk with room for some; needs the right to mount a tmpfs."""
    make_good_pairs()
    rng = np.random.default_rng(0)
    for name in "abcdefgh":
        save(f"thermal/{name}.png", rng.integers(0, 256, (64, 64), np.uint8))
        save(f"colour/{name}.png", rng.integers(0, 256, (64, 64, 3), np.uint8))
    Path("disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", "disk"], check=True, capture_output=True)
    try:
        return watch(lambda: run_here(FOLDER.replace("fused", "disk/fused")))
    finally:
        subprocess.run(["umount", "disk"], check=True)


def run_interrupted() -> Ran:
    """Sends the command what Ctrl-C sends, after some of many images are there."""
    make_good_pairs()
    for index in range(150):
        shutil.copy("thermal/a.png", f"thermal/{index}.png")
        shutil.copy("colour/a.png", f"colour/{index}.png")

    def interrupt() -> tuple[int, str, str]:
        command = [Path(sys.executable).with_name("fuseloop"), *FOLDER.split(), "--engine", "torch"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:
            while process.poll() is None and len(list(Path("fused").glob("*.png"))) < 3:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    return watch(interrupt)


def run_score_interrupted() -> Ran:
    """Sends a command that scores what Ctrl-C sends, after it has complained about one of many frames."""
    make_good_pairs()
    rng = np.random.default_rng(0)
    for folder in ("thermal", "colour", "mine"):
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir()
        for index in range(200):
            save(f"{folder}/{index}.png", rng.integers(0, 256, (96, 128), np.uint8))
    truncate("mine/5.png")

    def interrupt() -> tuple[int, str, str]:
        command = [Path(sys.executable).with_name("fuseloop"), *SCORE.replace("en,mse", "vif,qabf,mi").split()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:
            complaint = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        return process.returncode, output, complaint + errors

    return watch(interrupt)


def watch(act: Callable[[], tuple[int, str, str]]) -> Ran:
    """Says how a command ended, and what it did to the files below the working directory."""
    before = contents()
    code, output, errors = act()
    after = contents()
    lost = [path for path, content in before.items() if after.get(path) != content]
    return Ran(code, output, errors, lost, sorted(after.keys() - before.keys()))


def contents() -> dict[str, bytes]:
    """All files below the working directory."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@contextlib.contextmanager
def empty_working_directory() -> Iterator[None]:
    """A new working directory that is removed in the end."""
    previous = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(previous)


HEAD = """# Bad input

Made by `python tools/bad_input.py`; the tests run the same cases. In every one, the files that were there before are
untouched, and nothing is left half-written.
"""
COLUMNS = """
| what is bad | what the command says | exit code | what it leaves |
|---|---|---|---|
"""


def row(title: str, ran: Ran) -> str:
    """A line of the page. Times are left out, because they differ from run to run, and so are tables of scores."""
    said = [
        line
        for line in (ran.errors + ran.output).splitlines()
        if line and not re.match(r"[┏┃┡│├└]|yolov5n, |Convention |Mean ranks |Frames on", line)
    ]
    message = re.sub(r"[\d.]+ (s|a second)\b", r"… \1", "<br>".join(said)).replace("|", "\\|")
    leaves = "nothing" if not ran.new else ", ".join(ran.new) if len(ran.new) < 5 else f"{len(ran.new)} whole images"
    return f"| {title} | {message} | {ran.code} | {leaves} |\n"


def main() -> None:
    trials = [(case.title, partial(run, case)) for case in CASES]
    trials += [("full disk", run_on_full_disk), ("Ctrl-C in the middle of a folder", run_interrupted)]
    score_trials = [(case.title, partial(run, case)) for case in SCORE_CASES]
    score_trials.append(("Ctrl-C in the middle of a folder", run_score_interrupted))
    data_trials = [(case.title, partial(run, case)) for case in DATA_CASES]
    page = HEAD + "\n## Fusing\n" + table(trials) + "\n## Scoring\n" + table(score_trials)
    page += "\n## Labelled data\n" + table(data_trials)
    page += "\n## Task networks\n" + table([(case.title, partial(run, case)) for case in TASK_CASES])
    PAGE.write_text(page, encoding="utf-8")


def table(trials: list[tuple[str, Callable[[], Ran]]]) -> str:
    """Runs every trial in a working directory of its own."""
    lines = []
    for title, trial in trials:
        with empty_working_directory():
            lines.append(row(title, trial()))
    return COLUMNS + "".join(lines)


if __name__ == "__main__":
    main()
