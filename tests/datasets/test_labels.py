"""Label files: what is right is read exactly, and what is wrong is named with its line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.labels import read_boxes, read_ids, read_saliency
from fuseloop.datasets.pixels import read_infrared, read_visible
from fuseloop.errors import ImageError
from fuseloop.pairs.images import Picture, write_image
from tests.datasets.trees import voc, yolo

NAMES = ClassNames(("person", "traffic cone", "car"), ("background", "person", "car"))
SIZE = (60, 100)


def read(tmp_path: Path, text: str, suffix: str = ".txt", size=SIZE):
    path = tmp_path / f"x{suffix}"
    path.write_text(text)
    boxes, findings = read_boxes(path, NAMES, size)
    assert all(finding.file == path for finding in findings)
    return boxes, [(finding.kind, finding.line) for finding in findings], [finding.reason for finding in findings]


def annotation(*objects: str, more: str = "") -> str:
    return "<annotation>\n" + more + "".join(f"<object>\n{item}</object>\n" for item in objects) + "</annotation>\n"


def voc_object(name: str, *corners: object) -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>\n" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<name>{name}</name>\n<bndbox>\n{sides}</bndbox>\n"


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of few bits a pixel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    spread = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in spread)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@given(
    st.lists(
        st.tuples(st.integers(0, 2), *(st.floats(0, limit - 2) for limit in (100, 60)), *([st.floats(1, 150)] * 2)),
        max_size=6,
    ),
    st.sampled_from([".txt", ".xml"]),
)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read(tmp_path_factory, objects, suffix) -> None:
    height, width = SIZE
    boxes = np.array([(x, y, min(x + w, width), min(y + h, height)) for _, x, y, w, h in objects], np.float32)
    if suffix == ".xml":
        boxes = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1) if len(boxes) else boxes
    pair = LabelledPair(
        np.zeros(SIZE, np.uint8),
        np.zeros((*SIZE, 3), np.uint8),
        boxes=boxes.reshape(-1, 4),
        classes=np.array([item[0] for item in objects], np.int64),
    )
    text = voc(pair, NAMES.boxes) if suffix == ".xml" else yolo(pair)
    found, kinds, _ = read(tmp_path_factory.mktemp("labels"), text, suffix)
    np.testing.assert_allclose(found.corners, pair.boxes, atol=1e-3)
    assert found.classes.tolist() == pair.classes.tolist()
    assert (found.corners.dtype, found.classes.dtype) == (np.float32, np.int64)
    assert {kind for kind, _ in kinds} <= {"no objects", "repeated"}


class TestYolo:
    @pytest.mark.parametrize("text", ["", "\n", "\ufeff", "  \r\n\r\n"])
    def test_an_empty_file_says_that_nothing_is_there(self, tmp_path, text) -> None:
        boxes, kinds, _ = read(tmp_path, text)
        assert boxes.corners.shape == (0, 4)
        assert boxes.classes.shape == (0,)
        assert kinds == [("no objects", None)]

    @pytest.mark.parametrize("line", ["2 .5 .5 .2 .2", " 2.0\t.5 .5  .2 .2  ", "2 5e-1 0.5 0.20 .2\r"])
    def test_numbers_may_be_written_in_any_way(self, tmp_path, line) -> None:
        boxes, kinds, _ = read(tmp_path, f"\n{line}\n")
        np.testing.assert_allclose(boxes.corners, [[40, 24, 60, 36]], atol=1e-4)
        assert (boxes.classes.tolist(), kinds) == ([2], [])

    @pytest.mark.parametrize(
        ("line", "kind", "reason"),
        [
            ("0 .5 .5 .2", "malformed", "4 values; a line is class cx cy w h"),
            ("0 .5 .5 .2 .2 .9", "malformed", "6 values"),
            ("0 .1 .1 .2 .1 .2 .2", "malformed", "7 values"),
            ("0,.5,.5,.2,.2", "malformed", "'0,.5,.5,.2,.2'; a line is"),
            ("person .5 .5 .2 .2", "malformed", "'person .5"),
            ("0 nan .5 .2 .2", "malformed", "'0 nan"),
            ("0 .5 inf .2 .2", "malformed", "'0 .5 inf"),
            ("3 .5 .5 .2 .2", "class", "class 3 is unknown; known are 0 person, 1 traffic cone, 2 car"),
            ("-1 .5 .5 .2 .2", "class", "class -1 is unknown"),
            ("0.5 .5 .5 .2 .2", "class", "class 0.5 is unknown"),
            ("0 50 30 20 10", "malformed", "50 30 20 10 is not normalised; divide"),
            ("0 .95 .5 .2 .2", "outside", "(85.0, 24.0, 105.0, 36.0) leaves the image of 100x60 by 5.0 pixels"),
            ("0 .5 -.2 .2 .2", "outside", "by 18.0 pixels"),
            ("0 1.5 .5 .2 .2", "outside", "by 60.0 pixels"),
            ("0 .5 .5 0 .2", "degenerate", "has no area; x2 must exceed x1"),
            ("0 .5 .5 .2 -.2", "degenerate", "has no area"),
        ],
    )
    def test_a_line_that_is_wrong_is_named_and_the_others_are_read(self, tmp_path, line, kind, reason) -> None:
        boxes, kinds, reasons = read(tmp_path, f"0 .5 .5 .2 .2\n\n{line}\n1 .5 .5 .4 .4\n")
        assert kinds == [(kind, 3)]
        assert reason in reasons[0]
        assert boxes.classes.tolist() == [0, 1]

    def test_every_line_that_is_wrong_is_named(self, tmp_path) -> None:
        _, kinds, _ = read(tmp_path, "9 .5 .5 .2 .2\nx\n0 .5 .5 .2 .2\n0 .5 .5 0 0\n")
        assert kinds == [("class", 1), ("malformed", 2), ("degenerate", 4)]

    def test_a_box_out_by_a_pixel_is_clipped_and_told(self, tmp_path) -> None:
        boxes, kinds, _ = read(tmp_path, "0 .1 .5 .218 .2\n")
        np.testing.assert_allclose(boxes.corners, [[0, 24, 20.9, 36]], atol=1e-4)
        assert kinds == [("clipped", 1)]

    def test_rounding_is_not_worth_a_word(self, tmp_path) -> None:
        boxes, kinds, _ = read(tmp_path, "0 .1 .5 .2000001 .2\n")
        assert (boxes.corners.min(), kinds) == (0, [])

    def test_the_same_box_twice_is_told(self, tmp_path) -> None:
        boxes, kinds, _ = read(tmp_path, "0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n0 .5 .5 .2 .2\n")
        assert (len(boxes.classes), kinds) == (3, [("repeated", 3)])

    def test_without_a_size_nothing_is_said_about_places(self, tmp_path) -> None:
        assert read(tmp_path, "0 .95 .5 .2 .2\n7 .5 .5 .2 .2\n", size=None)[1] == [("class", 2)]

    def test_no_text_is_told(self, tmp_path) -> None:
        (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00\x01")
        assert read_boxes(tmp_path / "x.txt", NAMES, SIZE)[1][0].kind == "unreadable label"

    def test_a_missing_file_is_told(self, tmp_path) -> None:
        finding = read_boxes(tmp_path / "x.txt", NAMES, SIZE)[1][0]
        assert str(finding) == f"{tmp_path / 'x.txt'}: cannot be read (No such file or directory)"


class TestVoc:
    def test_names_count_in_any_case(self, tmp_path) -> None:
        text = annotation(voc_object(" Traffic_Cone\n", 1, 2, 30, 40), voc_object("CAR", 0, "0.5", 100, 60))
        boxes, kinds, _ = read(tmp_path, text, ".xml")
        assert boxes.classes.tolist() == [1, 2]
        assert boxes.corners.tolist() == [[1, 2, 30, 40], [0, 0.5, 100, 60]]
        assert kinds == []

    def test_parts_of_an_object_have_no_say(self, tmp_path) -> None:
        part = "<part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
        boxes, kinds, _ = read(tmp_path, annotation(part + voc_object("car", 1, 2, 30, 40)), ".xml")
        assert (boxes.corners.tolist(), boxes.classes.tolist(), kinds) == ([[1, 2, 30, 40]], [2], [])

    def test_no_objects(self, tmp_path) -> None:
        assert read(tmp_path, annotation(), ".xml")[1] == [("no objects", None)]

    @pytest.mark.parametrize(
        ("item", "kind", "reason"),
        [
            (voc_object("cow", 1, 2, 30, 40), "class", "class 'cow' is unknown; known are person, traffic cone, car"),
            ("<bndbox/>", "malformed", "the object '' has no bndbox with the numbers xmin, ymin, xmax, ymax"),
            (voc_object("car", 1, "", 30, 40), "malformed", "the object 'car' has no bndbox"),
            (voc_object("car", 1, "two", 30, 40), "malformed", "the object 'car' has no bndbox"),
            (voc_object("car", 30, 2, 30, 40), "degenerate", "has no area"),
            (voc_object("car", 30, 2, 130, 40), "outside", "by 30.0 pixels"),
            (voc_object("car", -0.5, 2, 30, 40), "clipped", "leaves the image of 100x60 a little"),
        ],
    )
    def test_an_object_that_is_wrong_is_named_by_the_line_on_which_it_begins(
        self, tmp_path, item, kind, reason
    ) -> None:
        _, kinds, reasons = read(tmp_path, annotation(voc_object("car", 1, 2, 30, 40), item), ".xml")
        assert kinds == [(kind, 11)]
        assert reason in reasons[0]

    @pytest.mark.parametrize(
        ("text", "line", "reason"),
        [
            ("", 1, "no element found"),
            ("<annotation>\n<object>\n</annotation>", 3, "mismatched tag"),
            ("0 .5 .5 .2 .2\n", 1, "syntax error"),
            ("<html></html>", 1, "is no VOC annotation: its root is 'html'"),
            ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', None, "it declares entities"),
        ],
    )
    def test_what_is_no_annotation_is_told(self, tmp_path, text, line, reason) -> None:
        boxes, kinds, reasons = read(tmp_path, text, ".xml")
        assert (len(boxes.classes), kinds) == (0, [("unreadable label", line)])
        assert reason in reasons[0]

    @pytest.mark.parametrize(("width", "height", "told"), [(100, 60, False), (0, 0, False), (640, 512, True)])
    def test_a_size_that_is_not_that_of_the_images_is_told(self, tmp_path, width, height, told) -> None:
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        _, kinds, reasons = read(tmp_path, annotation(voc_object("car", 1, 2, 30, 40), more=size), ".xml")
        assert kinds == [("noted size", None)] * told
        assert not told or "notes the size 640x512, the images are 100x60" in reasons[0]


IDS = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)


class TestMasks:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
    def test_ids_are_grey_levels(self, tmp_path, suffix) -> None:
        Image.fromarray(IDS).save(tmp_path / f"x{suffix}")
        assert np.array_equal(read_ids(tmp_path / f"x{suffix}"), IDS)

    def test_ids_are_the_numbers_of_a_palette_whatever_its_colours(self, tmp_path) -> None:
        image = Image.fromarray(IDS, "P")
        image.putpalette([200, 0, 0, 0, 0, 0, 0, 90, 0, 7, 7, 7])
        image.save(tmp_path / "x.png")
        found = read_ids(tmp_path / "x.png")
        assert np.array_equal(found, IDS)
        assert found.flags.writeable

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_ids_of_few_bits_are_not_spread(self, tmp_path, bits) -> None:
        ids = np.arange(2**bits, dtype=np.uint8)[None].repeat(3, axis=0)
        path = tmp_path / "x.png"
        if bits == 1:
            Image.fromarray(ids.astype(bool)).save(path)
        else:
            path.write_bytes(grey_png(ids, bits))
        assert np.array_equal(read_ids(path), ids)

    @pytest.mark.parametrize("kind", ["three equal channels", "16 bits", "alpha"])
    def test_ids_in_more_room_than_they_need_are_read(self, tmp_path, kind) -> None:
        pixels = {"three equal channels": np.dstack([IDS] * 3), "16 bits": IDS.astype(np.uint16), "alpha": IDS}[kind]
        write_image(tmp_path / "x.png", Picture(pixels, pixels if kind == "alpha" else None))
        found = read_ids(tmp_path / "x.png")
        assert found.dtype == np.uint8
        assert np.array_equal(found, IDS)

    @pytest.mark.parametrize(
        ("pixels", "complaint"),
        [
            (np.dstack([IDS, IDS, 2 * IDS]), "is a colour picture"),
            (IDS.astype(np.uint16) * 100, "holds uint16 values up to 300"),
            (IDS.astype(np.float32), "holds float32 values"),
        ],
    )
    def test_what_can_be_no_ids_is_refused_by_name(self, tmp_path, pixels, complaint) -> None:
        path = tmp_path / ("x.tiff" if pixels.dtype == np.float32 else "x.png")
        write_image(path, Picture(pixels))
        with pytest.raises(ImageError, match=rf"x\.\w+: {complaint}"):
            read_ids(path)

    @pytest.mark.parametrize(
        ("pixels", "expected"),
        [
            (np.array([[0, 128, 255]], np.uint8), [[0, 128, 255]]),
            (np.array([[0, 1, 1]], np.uint8), [[0, 255, 255]]),
            (np.zeros((1, 3), np.uint8), [[0, 0, 0]]),
            (np.array([[0, 32768, 65535]], np.uint16), [[0, 128, 255]]),
            (np.array([[[0] * 3, [255] * 3, [9] * 3]], np.uint8), [[0, 255, 9]]),
            (np.array([[0, 0.5, 1]], np.float32), [[0, 128, 255]]),
        ],
    )
    def test_saliency_reaches_from_0_to_255(self, tmp_path, pixels, expected) -> None:
        path = tmp_path / ("x.tiff" if pixels.dtype == np.float32 else "x.png")
        write_image(path, Picture(pixels))
        assert read_saliency(path).tolist() == expected


class TestImages:
    def test_grey_visible_images_become_three_equal_channels(self, tmp_path) -> None:
        write_image(tmp_path / "x.png", Picture(IDS))
        assert np.array_equal(read_visible(tmp_path / "x.png"), np.dstack([IDS] * 3))

    def test_colour_in_infrared_images_becomes_luma(self, tmp_path) -> None:
        write_image(tmp_path / "x.png", Picture(np.dstack([IDS] * 3)))
        assert np.array_equal(read_infrared(tmp_path / "x.png"), IDS)
