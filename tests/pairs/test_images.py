"""Reading and writing image files: formats, depths, channels, orientation, and what is refused."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fuseloop.errors import ImageError
from fuseloop.pairs.images import Picture, default_suffix, is_image, read_image, read_size, write_image

HEIGHT, WIDTH = 24, 30
DTYPES = ("uint8", "uint16", "float32")
SHAPES = {"grey": (HEIGHT, WIDTH), "rgb": (HEIGHT, WIDTH, 3)}


def values(dtype, shape, seed=0):
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def picture(dtype="uint8", colour="rgb", alpha=False):
    return Picture(values(dtype, SHAPES[colour]), values(dtype, (HEIGHT, WIDTH), seed=1) if alpha else None)


def assert_same(read, expected):
    assert read.pixels.dtype == expected.pixels.dtype
    np.testing.assert_array_equal(read.pixels, expected.pixels)
    assert (read.alpha is None) == (expected.alpha is None)
    if expected.alpha is not None:
        np.testing.assert_array_equal(read.alpha, expected.alpha)


# ------------------------------------------------------------------------------------------------ writing and reading

LOSSLESS = [
    (suffix, dtype, colour, alpha)
    for suffix, dtypes in [
        (".png", ("uint8", "uint16")),
        (".tif", DTYPES),
        (".tiff", DTYPES),
        (".bmp", ("uint8",)),
        (".webp", ("uint8",)),
    ]
    for dtype in dtypes
    for colour in SHAPES
    for alpha in (False, True)
    if not (suffix == ".png" and dtype == "uint16" and colour == "grey" and alpha)
    and not (suffix == ".bmp" and alpha)
    and not (suffix == ".webp" and colour == "grey")
]


@pytest.mark.parametrize(("suffix", "dtype", "colour", "alpha"), LOSSLESS)
def test_lossless_formats_give_back_every_value(tmp_path, suffix, dtype, colour, alpha):
    written = picture(dtype, colour, alpha)
    write_image(tmp_path / f"x{suffix}", written)
    assert_same(read_image(tmp_path / f"x{suffix}"), written)


@settings(deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([(), (3,)]),
    st.booleans(),
)
def test_pictures_of_every_size_come_back_from_their_default_format(tmp_path_factory, dtype, size, channels, alpha):
    written = Picture(values(dtype, size + channels), values(dtype, size, seed=1) if alpha else None)
    path = tmp_path_factory.mktemp("size") / f"x{default_suffix(written)}"
    write_image(path, written)
    assert_same(read_image(path), written)


@pytest.mark.parametrize("colour", SHAPES)
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_stays_close_and_keeps_its_channels(tmp_path, suffix, colour):
    smooth = np.broadcast_to(np.linspace(20, 230, WIDTH).astype(np.uint8), (HEIGHT, WIDTH))
    smooth = smooth if colour == "grey" else np.stack([smooth, smooth[:, ::-1], smooth], axis=2)
    write_image(tmp_path / f"x{suffix}", Picture(smooth))
    read = read_image(tmp_path / f"x{suffix}").pixels
    assert read.shape == smooth.shape
    assert np.abs(read.astype(int) - smooth).max() <= 6


def test_webp_has_no_grey_and_stores_it_as_rgb(tmp_path):
    grey = picture(colour="grey", alpha=True)
    write_image(tmp_path / "x.webp", grey)
    assert_same(read_image(tmp_path / "x.webp"), Picture(np.dstack([grey.pixels] * 3), grey.alpha))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_an_rgb_file_with_grey_content_stays_rgb(tmp_path, suffix):
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(tmp_path / f"x{suffix}")
    assert read_image(tmp_path / f"x{suffix}").pixels.shape == (HEIGHT, WIDTH, 3)


def test_what_is_read_can_be_written_to(tmp_path):
    for suffix, dtype in [(".png", "uint8"), (".png", "uint16"), (".tif", "float32")]:
        write_image(tmp_path / f"x{suffix}", picture(dtype), overwrite=True)
        pixels = read_image(tmp_path / f"x{suffix}").pixels
        assert pixels.flags.writeable
        assert pixels.flags.c_contiguous


def test_the_default_extension_is_png_and_tiff_where_png_cannot():
    assert default_suffix(picture("uint8", "grey", alpha=True)) == ".png"
    assert default_suffix(picture("uint16", "rgb")) == ".png"
    assert default_suffix(picture("uint16", "grey", alpha=True)) == ".tiff"
    assert default_suffix(picture("float32", "grey")) == ".tiff"


@pytest.mark.parametrize(
    ("suffix", "dtype", "colour", "alpha", "able"),
    [
        (".png", "float32", "rgb", False, "float RGB; use TIFF"),
        (".png", "uint16", "grey", True, "16-bit grey with alpha; use TIFF"),
        (".jpg", "uint16", "rgb", False, "16-bit RGB; use PNG or TIFF"),
        (".jpg", "uint8", "rgb", True, "8-bit RGB with alpha; use PNG or TIFF or WebP"),
        (".bmp", "uint8", "grey", True, "8-bit grey with alpha; use PNG or TIFF or WebP"),
        (".webp", "uint16", "grey", False, "16-bit grey; use PNG or TIFF"),
    ],
)
def test_a_format_that_cannot_hold_the_picture_says_which_can(tmp_path, suffix, dtype, colour, alpha, able):
    with pytest.raises(ImageError, match=able):
        write_image(tmp_path / f"x{suffix}", picture(dtype, colour, alpha))
    assert not list(tmp_path.iterdir())


def test_a_picture_beyond_the_size_of_a_format_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"x\.webp: WebP cannot hold this image .*16383.*use TIFF"):
        write_image(tmp_path / "x.webp", Picture(np.zeros((8, 16_384), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_an_unknown_extension_is_refused_when_writing(tmp_path):
    with pytest.raises(ImageError, match=r"x\.gif: \.gif is not supported; use \.png"):
        write_image(tmp_path / "x.gif", picture())
    with pytest.raises(ImageError, match="no extension"):
        write_image(tmp_path / "x", picture())


@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [
        (np.zeros((8, 8, 4), np.uint8), None),
        (np.zeros((0, 8), np.uint8), None),
        (np.zeros(8, np.uint8), None),
        (np.zeros((8, 8), np.int32), None),
        (np.zeros((8, 8), ">u2"), None),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 7), np.uint8)),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint16)),
    ],
)
def test_a_picture_refuses_other_shapes_and_types(pixels, alpha):
    with pytest.raises(ImageError):
        Picture(pixels, alpha)


def test_images_are_told_by_their_names(tmp_path):
    assert is_image(tmp_path / "x.PNG")
    assert not is_image(tmp_path / "Thumbs.db")
    assert not is_image(tmp_path / ".hidden.png")


# -------------------------------------------------------------------------------------------- files of other programs


@pytest.mark.parametrize("mode", ["P", "PA"])
def test_palettes_become_colours(tmp_path, mode):
    source = Image.fromarray(values("uint8", (HEIGHT, WIDTH, 3))).quantize(16)
    expected = np.asarray(source.convert("RGB"))
    if mode == "PA":
        source.info["transparency"] = 3
    source.save(tmp_path / "x.png")
    read = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(read.pixels, expected)
    if mode == "PA":
        np.testing.assert_array_equal(read.alpha, np.where(np.asarray(source) == 3, 0, 255))
    else:
        assert read.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_images_are_black_and_white(tmp_path, suffix):
    bits = values("uint8", (HEIGHT, WIDTH)) > 127
    Image.fromarray(bits).save(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}").pixels, bits * np.uint8(255))


@pytest.mark.parametrize(("mode", "colour", "key"), [("L", "grey", 7), ("RGB", "rgb", (1, 2, 3))])
def test_a_transparent_colour_becomes_alpha(tmp_path, mode, colour, key):
    pixels = values("uint8", SHAPES[colour])
    pixels[:3, :4] = key
    Image.fromarray(pixels, mode).save(tmp_path / "x.png", transparency=key)
    read = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(read.pixels, pixels)
    clear = np.all(pixels.reshape(HEIGHT, WIDTH, -1) == key, axis=2)
    np.testing.assert_array_equal(read.alpha, np.where(clear, 0, 255))


def test_grey_with_alpha_of_16_bits_is_read_from_png(tmp_path):
    expected = picture("uint16", "grey", alpha=True)
    (tmp_path / "x.png").write_bytes(png(np.dstack([expected.pixels, expected.alpha]), colour=4))
    assert_same(read_image(tmp_path / "x.png"), expected)


def png(pixels, colour, *chunks):
    """A minimal PNG: for what no library here writes."""
    height, width = pixels.shape[:2]
    data = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), data], axis=1)
    header = struct.pack(">IIBBBBB", width, height, pixels.dtype.itemsize * 8, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


@pytest.mark.parametrize("layout", ["strips", "tiles", "planes", "big", "big-endian", "deflate", "lzw"])
@pytest.mark.parametrize("colour", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiff_is_read_in_every_layout(tmp_path, layout, colour, dtype):
    expected = picture(dtype, colour)
    pixels, path = expected.pixels, tmp_path / "x.tif"
    options = {
        "strips": {"rowsperstrip": 5},
        "tiles": {"tile": (16, 16)},
        "planes": {"planarconfig": "separate"} if colour == "rgb" else {},
        "big": {"bigtiff": True},
        "big-endian": {"byteorder": ">"},
        "deflate": {"compression": "zlib"},
    }
    if layout == "lzw":
        swapped = np.ascontiguousarray(pixels[..., ::-1]) if colour == "rgb" else pixels
        path.write_bytes(cv2.imencode(".tif", swapped, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1])
        with tifffile.TiffFile(path) as tiff:
            assert tiff.pages.first.compression == 5
    else:
        stored = np.moveaxis(pixels, 2, 0) if layout == "planes" and colour == "rgb" else pixels
        photometric = "rgb" if colour == "rgb" else "minisblack"
        tifffile.imwrite(path, stored, photometric=photometric, **options[layout])
    assert_same(read_image(path), expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize(("dtype", "predictor"), [("uint8", 2), ("uint16", 2), ("float32", 3)])
def test_tiff_is_read_with_every_predictor(tmp_path, compression, dtype, predictor):
    expected = picture(dtype, "grey")
    Image.fromarray(expected.pixels).save(tmp_path / "x.tif", compression=compression, tiffinfo={317: predictor})
    assert_same(read_image(tmp_path / "x.tif"), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_that_counts_from_white_is_inverted(tmp_path, dtype):
    pixels = values(dtype, (HEIGHT, WIDTH))
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif").pixels, np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize(
    ("compression", "mode"),
    [
        (kind, mode)
        for kind in ("raw", "tiff_lzw", "packbits", "tiff_deflate")
        for mode in ("L", "LA", "P", "RGB", "RGBA")
    ]
    + [("jpeg", "L"), ("jpeg", "RGB")],
)
def test_8_bit_tiff_is_read_in_every_compression(tmp_path, compression, mode):
    smooth = cv2.resize(values("uint8", (3, 4, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    source = Image.fromarray(smooth).convert(mode)
    source.save(tmp_path / "x.tif", compression=compression)
    expected = np.asarray(source.convert("RGB") if mode == "P" else source).astype(int)
    read = read_image(tmp_path / "x.tif")
    pixels = read.pixels if read.alpha is None else np.dstack([read.pixels, read.alpha])
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= (40 if compression == "jpeg" else 0)


def test_8_bit_tiff_with_multiplied_alpha_is_read_straight(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.full((8, 8, 4), (50, 25, 0, 128), np.uint8), extrasamples=["assocalpha"])
    read = read_image(tmp_path / "x.tif")
    np.testing.assert_allclose(read.pixels[0, 0].astype(int), (100, 50, 0), atol=1)
    assert (read.alpha == 128).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiff_channels_without_meaning_are_left_out(tmp_path, dtype):
    pixels = values(dtype, (HEIGHT, WIDTH, 4))
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    assert_same(read_image(tmp_path / "x.tif"), Picture(pixels[..., :3]))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_become_float32(tmp_path, dtype):
    pixels = values(dtype, (HEIGHT, WIDTH))
    tifffile.imwrite(tmp_path / "x.tif", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif").pixels, pixels.astype(np.float32))


def test_tiff_previews_do_not_count_as_pages(tmp_path):
    expected = picture("uint16")
    with tifffile.TiffWriter(tmp_path / "x.tif") as tiff:
        tiff.write(expected.pixels, photometric="rgb")
        tiff.write(expected.pixels[::2, ::2], photometric="rgb", subfiletype=1)
    assert_same(read_image(tmp_path / "x.tif"), expected)


def test_a_jpeg_with_further_pictures_gives_the_photograph(tmp_path):
    first, second = Image.new("RGB", (WIDTH, HEIGHT), (200, 200, 200)), Image.new("RGB", (8, 8))
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    assert read_image(tmp_path / "x.jpg").pixels.shape == (HEIGHT, WIDTH, 3)


# --------------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize(("suffix", "dtype", "colour", "alpha"), LOSSLESS)
def test_the_size_is_told_by_the_header(tmp_path, suffix, dtype, colour, alpha):
    path = tmp_path / f"x{suffix}"
    write_image(path, picture(dtype, colour, alpha))
    assert read_size(path) == (HEIGHT, WIDTH)


def test_the_size_needs_no_pixels(tmp_path):
    write_image(tmp_path / "x.png", Picture(values("uint8", (200, 300))))
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[:200])
    assert read_size(tmp_path / "x.png") == (200, 300)
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "does not exist"), (b"", "is empty"), (b"no picture at all", "is not a PNG"), (b"\x89PNG\r", "is broken")],
)
def test_the_size_of_what_is_no_image_is_refused_by_name(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=f"x.png: {complaint}"):
        read_size(tmp_path / "x.png")


# -------------------------------------------------------------------------------------------------------- orientation

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_orientation_is_applied(tmp_path, suffix, orientation):
    pixels = cv2.resize(values("uint8", (3, 4, 3)), (32, 24), interpolation=cv2.INTER_NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(pixels).save(tmp_path / f"x{suffix}", exif=exif, **options)
    expected = UPRIGHT[orientation](pixels).astype(int)
    read = read_image(tmp_path / f"x{suffix}").pixels
    assert read.shape == expected.shape
    assert read_size(tmp_path / f"x{suffix}") == expected.shape[:2]
    assert np.abs(read - expected).max() <= (30 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["tiff", "lzw", "grey png", "png"])
def test_orientation_of_deep_images_is_applied(tmp_path, kind, orientation):
    colour = "grey" if kind == "grey png" else "rgb"
    pixels, path = values("uint16", SHAPES[colour]), tmp_path / "x"
    if "png" in kind:
        exif = Image.Exif()
        exif[0x0112] = orientation
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        path.write_bytes(png(pixels, 0 if colour == "grey" else 2, (b"eXIf", body)))
    elif kind == "lzw":
        path.write_bytes(lzw_tiff(pixels, orientation))
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(0x0112, "H", 1, orientation, True)])
    np.testing.assert_array_equal(read_image(path).pixels, UPRIGHT[orientation](pixels))


def lzw_tiff(pixels, orientation):
    """An LZW TIFF by OpenCV, with the orientation added to its directory, which is copied to the end of the file."""
    data = cv2.imencode(".tif", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if entry[:2] != struct.pack("<H", 0x0112)]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    padding = b"\0" * (len(data) % 2)
    return data[:4] + struct.pack("<I", len(data) + len(padding)) + data[8:] + padding + directory
