"""What reading refuses: every message names the file, says what is wrong and what to do."""

import os
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from fuseloop.errors import ImageError
from fuseloop.pairs.images import Picture, read_image, write_image

RNG_SHAPE = (40, 50)


def noise(dtype="uint8", channels=3):
    generator = np.random.default_rng(0)
    shape = (*RNG_SHAPE, channels) if channels > 1 else RNG_SHAPE
    if dtype == "float32":
        return generator.random(shape, np.float32)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def refused(path, *parts, **options):
    """Checks that reading fails with one line that names the file and holds all parts."""
    with pytest.raises(ImageError) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_a_missing_file(tmp_path):
    refused(tmp_path / "x.png", "does not exist", "check the path")


def test_a_folder(tmp_path):
    refused(tmp_path, "is a folder; give an image file")


def test_a_path_through_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / "x.png", "does not exist")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    refused(tmp_path / "x.png", "is a device; give an image file")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission(tmp_path):
    (tmp_path / "x.png").touch(mode=0)
    refused(tmp_path / "x.png", "cannot be read (Permission denied)", "permissions")


def test_an_empty_file(tmp_path):
    (tmp_path / "x.png").touch()
    refused(tmp_path / "x.png", "is empty (0 bytes)", "get the file again")


def test_a_text_named_png(tmp_path):
    (tmp_path / "x.png").write_text("this is a letter, not a picture")
    refused(tmp_path / "x.png", "not a PNG, JPEG, BMP, TIFF or WebP image", "convert")


@pytest.mark.parametrize("format_", ["JPEG2000", "PPM", "TGA", "ICO"])
def test_an_unsupported_format_even_under_a_known_name(tmp_path, format_):
    Image.fromarray(noise()).save(tmp_path / "x.png", format_)
    refused(tmp_path / "x.png", "not a PNG, JPEG, BMP, TIFF or WebP image")


def test_the_name_does_not_matter(tmp_path):
    write_image(tmp_path / "x.png", Picture(noise()))
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg").pixels, noise())


WHOLE = {
    "png": lambda path: write_image(path.with_suffix(".png"), Picture(noise())),
    "deep png": lambda path: write_image(path.with_suffix(".png"), Picture(noise("uint16"))),
    "deep grey png": lambda path: write_image(path.with_suffix(".png"), Picture(noise("uint16", 1))),
    "jpg": lambda path: write_image(path.with_suffix(".jpg"), Picture(noise())),
    "progressive jpg": lambda path: Image.fromarray(noise()).save(path.with_suffix(".jpg"), progressive=True),
    "bmp": lambda path: write_image(path.with_suffix(".bmp"), Picture(noise())),
    "webp": lambda path: write_image(path.with_suffix(".webp"), Picture(noise())),
    "lossy webp": lambda path: Image.fromarray(noise()).save(path.with_suffix(".webp")),
    "tif": lambda path: write_image(path.with_suffix(".tif"), Picture(noise())),
    "lzw tif": lambda path: Image.fromarray(noise()).save(path.with_suffix(".tif"), compression="tiff_lzw"),
    "deep tif": lambda path: write_image(path.with_suffix(".tif"), Picture(noise("uint16"))),
    "deflated tif": lambda path: tifffile.imwrite(path.with_suffix(".tif"), noise("uint16"), compression="zlib"),
    "deep lzw tif": lambda path: path.with_suffix(".tif").write_bytes(cv2.imencode(".tif", noise("uint16"))[1]),
    "float tif": lambda path: write_image(path.with_suffix(".tif"), Picture(noise("float32"))),
}


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_never_a_half_grey_picture(tmp_path, kind):
    WHOLE[kind](tmp_path / "whole")
    (whole,) = tmp_path.iterdir()
    data, pixels = whole.read_bytes(), read_image(whole).pixels
    cut = tmp_path / f"cut{whole.suffix}"
    refusals = 0
    for length in {*np.linspace(1, len(data) - 1, 25).astype(int), len(data) - 20}:
        cut.write_bytes(data[:length])
        try:
            read = read_image(cut).pixels
        except ImageError as problem:
            assert str(cut) in str(problem)  # noqa: PT017  # nothing else may be raised, and what is must name the file
            refusals += 1
        else:
            np.testing.assert_array_equal(read, pixels)  # only what stands behind the pixels was lost
    assert refusals >= 24


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WHOLE)
def test_damaged_bytes_raise_nothing_but_image_errors(tmp_path, kind):
    WHOLE[kind](tmp_path / "whole")
    (whole,) = tmp_path.iterdir()
    data = whole.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in generator.integers(4, min(len(data), 400), 3):
            damaged[position] = generator.integers(256)
        whole.write_bytes(damaged)
        try:
            read_image(whole, max_pixels=1_000_000)
        except ImageError as problem:
            assert str(whole) in str(problem)  # noqa: PT017


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bomb(path, width=100_000, height=100_000):
    """A PNG of a few bytes that claims to be huge."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    bomb(tmp_path / "x.png")
    refused(tmp_path / "x.png", "100000x100000", "10,000,000,000 pixels", "250,000,000", "--max-pixels")


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(suffix, "uint8") for suffix in (".png", ".jpg", ".bmp", ".webp", ".tif")]
    + [(".png", "uint16"), (".tif", "uint16"), (".tif", "float32")],
)
def test_every_format_has_the_pixel_limit(tmp_path, suffix, dtype):
    path = tmp_path / f"x{suffix}"
    write_image(path, Picture(noise(dtype)))
    refused(path, "50x40", "2,000 pixels", "1,999", "--max-pixels", max_pixels=1999)
    assert read_image(path, max_pixels=2000).pixels.shape == (40, 50, 3)
    assert read_image(path, max_pixels=None).pixels.shape == (40, 50, 3)


def test_the_limit_is_ours_and_not_a_lower_one_of_pillow(tmp_path):
    bomb(tmp_path / "x.png", 15_000, 15_000)  # below our limit, above the one at which Pillow raises
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / "x.png", "broken or truncated")


def test_large_tiff_meets_no_limit_of_pillow_but_where_pillow_decodes_it(tmp_path, monkeypatch):
    write_image(tmp_path / "x.tif", Picture(noise()))
    Image.fromarray(noise()).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif").pixels, noise())
    refused(tmp_path / "lzw.tif", "more pixels than can be read from this format", "plain TIFF")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_nan_and_infinity(tmp_path, bad, channels):
    pixels = noise("float32", channels)
    pixels[5, 7] = bad
    write_image(tmp_path / "x.tif", Picture(pixels))
    refused(tmp_path / "x.tif", "NaN or infinite", "replace")


def test_float64_beyond_float32(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.full((8, 8), 1e300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / "x.tif", "infinite")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    Image.fromarray(noise()).convert("CMYK").save(tmp_path / f"x{suffix}")
    refused(tmp_path / f"x{suffix}", "CMYK", "convert it to RGB")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_animations_and_several_pages(tmp_path, suffix):
    frames = [Image.fromarray(np.roll(noise(), step, axis=0)) for step in range(3)]
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:])
    refused(tmp_path / f"x{suffix}", "GIF" if suffix == ".gif" else "animated or has several pages (3 images)", "save")


def test_a_still_gif(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "x.gif")
    refused(tmp_path / "x.gif", "is a GIF", "PNG")


@pytest.mark.parametrize("dtype", ["int16", "uint32", "int8"])
def test_other_types(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros(RNG_SHAPE, dtype))
    refused(tmp_path / "x.tif", f"values of type {dtype}", "uint8, uint16 or float32")


def test_a_compression_that_cannot_be_read(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", noise("uint16"), compression="zlib")
    data = (tmp_path / "x.tif").read_bytes()
    deflate, lerc = (struct.pack("<HHII", 259, 3, 1, code) for code in (8, 34887))
    assert data.count(deflate) == 1
    (tmp_path / "x.tif").write_bytes(data.replace(deflate, lerc))
    refused(tmp_path / "x.tif", "compress", "save it deflated")


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.zeros((8, 8, 5), np.uint16), {"photometric": "rgb", "planarconfig": "contig"}),
        (noise("uint16", 4), {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (noise("float32", 1), {"photometric": "miniswhite"}),
        (noise("uint16"), {"photometric": "cielab"}),
    ],
)
def test_deep_tiff_of_unusual_kinds(tmp_path, pixels, options):
    tifffile.imwrite(tmp_path / "x.tif", pixels, **options)
    refused(tmp_path / "x.tif", "unusual kind", f"{pixels.dtype.itemsize * 8} bits", "save it as grey or RGB")


def test_other_colour_models(tmp_path):
    Image.fromarray(noise()).convert("LAB").save(tmp_path / "x.tif")
    refused(tmp_path / "x.tif", "colour model LAB", "grey or RGB")


def test_a_transparent_colour_of_16_bits(tmp_path):
    write_image(tmp_path / "x.png", Picture(noise("uint16", 1)))
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[:33] + chunk(b"tRNS", b"\0\7") + data[33:])
    refused(tmp_path / "x.png", "transparent", "alpha channel")
