"""The check finds every kind of breakage with its file and line, and counts what is there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuseloop.datasets.check import check, read_some, sources
from fuseloop.datasets.findings import BROKEN, NOTED
from fuseloop.datasets.spec import parse_spec
from fuseloop.errors import ConfigurationError
from tests.datasets.trees import FORMS, HEIGHT, WIDTH, draw, grow


def checked(spec: str):
    """The check of the only source of a specification."""
    (source,) = sources(parse_spec(spec))
    return check(source, workers=2)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def with_id(path: Path, number: int) -> None:
    ids = np.array(Image.open(path))
    ids[5, 7] = number
    save(path, ids)


VOC = "<annotation>\n<object>\n<name>{}</name><bndbox>{}</bndbox></object>\n</annotation>"
BOX = "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>"

# What is spoilt in which form; the kind that must be found, its place, and a part of the reason.
BREAKAGES = {
    "an infrared image alone": (
        "msrs of the kit",
        lambda root: (root / "train/vi/00002.jpg").unlink(),
        ("no partner", "ir/00002.png", "has no partner in the other modality"),
    ),
    "a visible image alone": (
        "msrs of the kit",
        lambda root: (root / "train/ir/00002.png").unlink(),
        ("no partner", "vi/00002.jpg", "has no partner"),
    ),
    "a pair without boxes": (
        "msrs of the kit",
        lambda root: (root / "train/labels/00002.txt").unlink(),
        ("no label", "labels", "has no file for 00002; an empty file says that nothing is there"),
    ),
    "boxes without a pair": (
        "msrs of the kit",
        lambda root: (root / "train/labels/77.txt").write_text(""),
        ("no images", "labels/77.txt", "has no images of its name"),
    ),
    "a mask without a pair": (
        "fmb",
        lambda root: save(root / "train/Label/77.png", np.zeros((HEIGHT, WIDTH), np.uint8)),
        ("no images", "Label/77.png", "has no images of its name"),
    ),
    "an empty image": (
        "msrs of the kit",
        lambda root: (root / "train/ir/00002.png").write_bytes(b""),
        ("unreadable image", "ir/00002.png", "is empty (0 bytes)"),
    ),
    "a truncated image": (
        "msrs of the kit",
        lambda root: cut(root / "train/ir/00002.png", 900),
        ("unreadable image", "ir/00002.png", "is broken or truncated"),
    ),
    "text named .jpg": (
        "msrs of the kit",
        lambda root: (root / "train/vi/00002.jpg").write_text("hello"),
        ("unreadable image", "vi/00002.jpg", "is not a PNG, JPEG"),
    ),
    "two sizes in a pair": (
        "msrs of the kit",
        lambda root: save(root / "train/ir/00002.png", np.zeros((HEIGHT, WIDTH + 4), np.uint8)),
        ("size", "ir/00002.png", "is 52x36, "),
    ),
    "a class that is no number": (
        "msrs of the kit",
        lambda root: (root / "train/labels/00002.txt").write_text("0 .5 .5 .1 .1\ncar .5 .5 .1 .1\n"),
        ("malformed", "labels/00002.txt:2", "'car .5 .5 .1 .1'; a line is class cx cy w h"),
    ),
    "an unknown class number": (
        "msrs of the kit",
        lambda root: (root / "train/labels/00002.txt").write_text("0 .5 .5 .1 .1\n\n3 .5 .5 .1 .1\n"),
        ("class", "labels/00002.txt:3", "class 3 is unknown; known are 0 person, 1 bicycle, 2 car"),
    ),
    "a box outside": (
        "msrs of the kit",
        lambda root: (root / "train/labels/00002.txt").write_text("0 .9 .5 .3 .1\n"),
        ("outside", "labels/00002.txt:1", "leaves the image of 48x36 by 2.4 pixels"),
    ),
    "a box without area": (
        "msrs of the kit",
        lambda root: (root / "train/labels/00002.txt").write_text("0 .5 .5 .3 0\n"),
        ("degenerate", "labels/00002.txt:1", "has no area"),
    ),
    "labels that are no text": (
        "msrs of the kit",
        lambda root: (root / "train/labels/00002.txt").write_bytes(b"\xff\xfe\xfd"),
        ("unreadable label", "labels/00002.txt", "is no text"),
    ),
    "an unknown class name": (
        "llvip",
        lambda root: (root / "Annotations/00002.xml").write_text(VOC.format("cow", BOX)),
        ("class", "Annotations/00002.xml:2", "class 'cow' is unknown; known are person"),
    ),
    "an object without a box": (
        "llvip",
        lambda root: (root / "Annotations/00002.xml").write_text(VOC.format("person", "")),
        ("malformed", "Annotations/00002.xml:2", "has no bndbox"),
    ),
    "broken XML": (
        "llvip",
        lambda root: cut(root / "Annotations/00002.xml", 150),
        ("unreadable label", "Annotations/00002.xml:5", "is no XML that can be read"),
    ),
    "an unknown id": (
        "fmb",
        lambda root: with_id(root / "train/Label/00002.png", 15),
        (
            "mask id",
            "Label/00002.png",
            "holds the id 15, first in row 5, column 7; ids are 0 to 14, and 255",
        ),
    ),
    "a mask of another size": (
        "fmb",
        lambda root: save(root / "train/Label/00002.png", np.zeros((HEIGHT // 2, WIDTH), np.uint8)),
        ("mask size", "Label/00002.png", "is 48x18, its images are 48x36"),
    ),
    "a broken mask": (
        "fmb",
        lambda root: cut(root / "train/Label/00002.png", 80),
        ("unreadable label", "Label/00002.png", "is broken or truncated"),
    ),
    "a colour mask": (
        "fmb",
        lambda root: save(root / "train/Label/00002.png", np.array(Image.open(root / "train/Visible/00002.png"))),
        ("unreadable label", "Label/00002.png", "is a colour picture"),
    ),
    "a saliency mask of another size": (
        "vt5000",
        lambda root: save(root / "Train/GT/00002.png", np.zeros((HEIGHT, WIDTH + 1), np.uint8)),
        ("mask size", "GT/00002.png", "is 49x36"),
    ),
    "an edge map of another size": (
        "vt5000 with edges",
        lambda root: save(root / "Train/Edge/00002.png", np.zeros((HEIGHT, WIDTH + 1), np.uint8)),
        ("mask size", "Edge/00002.png", "is 49x36"),
    ),
}


@pytest.mark.parametrize("title", BREAKAGES)
def test_what_is_broken_is_named_by_file_and_line_and_the_others_are_counted(tmp_path, title) -> None:
    name, break_, (kind, place, reason) = BREAKAGES[title]
    form = FORMS[name]
    spec = grow(form, tmp_path)
    break_(tmp_path)
    made = checked(f"{spec}:train")
    assert {finding.kind for finding in made.broken} == {kind}
    finding = made.broken[0]
    shown = str(finding.file.relative_to(tmp_path)) + (f":{finding.line}" if finding.line else "")
    assert shown.lower().removeprefix("train/") == place.lower()
    assert reason in finding.reason
    assert str(finding) == f"{tmp_path}/{shown}: {finding.reason}"
    lone = "77" in place
    assert made.usable == (("00001", "00002", "00010") if lone else ("00001", "00010"))
    assert made.frames == len(made.usable) + 1
    assert sum(made.sizes.values()) == len(made.usable)


def test_every_kind_of_breakage_is_among_them() -> None:
    assert {finding[0] for _, _, finding in BREAKAGES.values()} == {*BROKEN}


NOTES = {
    "no objects": ("msrs of the kit", lambda root: (root / "train/labels/00002.txt").write_text("")),
    "nothing salient": (
        "vt5000",
        lambda root: save(root / "Train/GT/00002.png", np.zeros((HEIGHT, WIDTH), np.uint8)),
    ),
    "clipped": ("msrs of the kit", lambda root: (root / "train/labels/00002.txt").write_text("0 .1 .5 .22 .2\n")),
    "repeated": ("msrs of the kit", lambda root: (root / "train/labels/00002.txt").write_text("0 .5 .5 .2 .2\n" * 2)),
    "noted size": (
        "llvip",
        lambda root: [
            path.write_text(path.read_text().replace("<width>48", "<width>640"))
            for path in root.glob("Annotations/00002.xml")
        ],
    ),
    "not labelled": ("msrs official", lambda root: None),
    "other split": ("m3fd official", lambda root: None),
    "unused": ("llvip", lambda root: (root / "Annotations/99.xml").write_text("<annotation/>")),
}


@pytest.mark.parametrize("kind", NOTED)
def test_what_is_legal_is_noted_and_used(tmp_path, kind) -> None:
    name, change = NOTES[kind]
    spec = grow(FORMS[name], tmp_path)
    change(tmp_path)
    made = checked(f"{spec}:train")
    assert (made.broken, [*made.notes]) == ([], [kind])
    assert made.frames == len(made.usable) == len(FORMS[name].opened["train"])


class TestCounts:
    def test_boxes_pixels_and_salience_are_counted_as_they_were_drawn(self, tmp_path) -> None:
        form = FORMS["msrs of the kit"]
        made = checked(f"{grow(form, tmp_path)}:train")
        pairs = [draw(form, "train", name) for name in form.frames["train"]]
        for number, one in enumerate(made.boxes):
            counts = [int((pair.classes == number).sum()) for pair in pairs]
            assert (one.name, one.count) == (form.boxes[number], sum(counts))
            assert one.frames == sum(count > 0 for count in counts)
        for number, one in enumerate(made.pixels):
            counts = [int((pair.segmentation == number).sum()) for pair in pairs]
            assert (one.count, one.frames) == (sum(counts), sum(count > 0 for count in counts))
        assert made.salient_frames == 3
        assert made.salient_share == pytest.approx(np.mean([pair.saliency > 0 for pair in pairs]))
        assert made.sizes == {(WIDTH, HEIGHT): 3}

    def test_broken_frames_do_not_count(self, tmp_path) -> None:
        spec = grow(FORMS["msrs of the kit"], tmp_path)
        for name in ("00002", "00010"):
            (tmp_path / f"train/labels/{name}.txt").write_text("7 .5 .5 .1 .1\n0 .5 .5 .1 .1\n")
        made = checked(f"{spec}:train")
        assert sum(one.count for one in made.boxes) == len(draw(FORMS["msrs of the kit"], "train", "00001").boxes)
        assert sum(one.count for one in made.pixels) == HEIGHT * WIDTH

    def test_ignored_pixels_have_a_row_of_their_own(self, tmp_path) -> None:
        spec = grow(FORMS["fmb"], tmp_path)
        with_id(tmp_path / "train/Label/00002.png", 255)
        assert checked(f"{spec}:train").pixels[-1].name == "ignored"
        assert checked(f"{spec}:train").pixels[-1].count == 1
        assert len(checked(f"{spec}:test").pixels) == 15

    def test_nothing_usable_counts_as_nothing(self, tmp_path) -> None:
        spec = grow(FORMS["fmb"], tmp_path)
        for path in (tmp_path / "train/Label").iterdir():
            path.write_bytes(b"")
        made = checked(f"{spec}:train")
        assert (made.usable, made.sizes, made.pixels, made.frames) == ((), {}, (), 3)

    def test_every_frame_is_reported_once(self, tmp_path) -> None:
        (source,) = sources(parse_spec(f"{grow(FORMS['fmb'], tmp_path)}:train"))
        calls: list[None] = []
        check(source, report=lambda: calls.append(None))
        assert len(calls) == 3


class TestSources:
    def test_every_split_by_itself_where_none_is_named(self, tmp_path) -> None:
        titles = [source.title for source in sources(parse_spec(grow(FORMS["msrs of the kit"], tmp_path)))]
        assert [re.findall(r"msrs (\w+) in", title)[0] for title in titles] == ["train", "test", "odd_ones"]

    def test_a_data_set_without_folders_for_splits_is_one(self, tmp_path) -> None:
        assert len(sources(parse_spec(grow(FORMS["m3fd official"], tmp_path)))) == 1

    def test_splits_of_a_manifest(self, tmp_path) -> None:
        grow(FORMS["tno"], tmp_path)
        text = "infrared,visible,split\n" + "".join(f"ir/{n}.png,vi/{n}.png,s{n}\n" for n in (1, 2, 10))
        (tmp_path / "pairs.csv").write_text(text)
        assert [len(source.frames) for source in sources(parse_spec(f"csv:{tmp_path}/pairs.csv"))] == [1, 1, 1]

    def test_synthetic_scenes_are_whole(self) -> None:
        made = checked("synthetic:2:3")
        assert (made.frames, len(made.usable), made.findings) == (2, 2, ())
        assert made.labels == ("boxes", "segmentation", "saliency")


class TestReadSome:
    def test_they_are_spread_over_the_usable_frames(self, tmp_path) -> None:
        form = FORMS["tno"]
        spec = grow(form, tmp_path)
        (tmp_path / "ir/2.png").write_bytes(b"")
        (source,) = sources(parse_spec(spec))
        made = check(source)
        assert [pair.name for pair in read_some(source, made, 5)] == ["1", "10"]
        assert [pair.name for pair in read_some(source, made, 1)] == ["1"]

    def test_none_makes_no_sense(self) -> None:
        (source,) = sources(parse_spec("synthetic:1"))
        with pytest.raises(ConfigurationError, match="at least one frame"):
            read_some(source, check(source), 0)
