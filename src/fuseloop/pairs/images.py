"""Reading and writing images: PNG, JPEG, BMP, TIFF, WebP; grey or RGB, with or without alpha; 8-bit, 16-bit, float.

What is in a file decides how it is read, never its name. Pillow decodes PNG, JPEG, BMP and WebP; tifffile decodes TIFF.
Where they fall short another steps in: Pillow for TIFF of unusual kinds with 8 bits a sample; OpenCV for deep colour in
PNG, which Pillow would silently reduce to 8 bits, and for deep TIFF in compressions that tifffile lacks, such as LZW.
Orientation noted by the camera is applied; colour profiles are not.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fuseloop.errors import ImageError
from fuseloop.pairs.atomic import written_aside

MAX_PIXELS = 250_000_000

# What each format can hold: the channels (grey, grey and alpha, RGB, RGB and alpha) of each type.
_HOLDS: dict[str, dict[str, tuple[int, ...]]] = {
    "PNG": {"uint8": (1, 2, 3, 4), "uint16": (1, 3, 4)},
    "TIFF": {"uint8": (1, 2, 3, 4), "uint16": (1, 2, 3, 4), "float32": (1, 2, 3, 4)},
    "JPEG": {"uint8": (1, 3)},
    "BMP": {"uint8": (1, 3)},
    "WebP": {"uint8": (1, 2, 3, 4)},
}
_FORMATS = {
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WebP",
}
_KINDS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}
_DEPTHS = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}
_OPENERS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8": JpegImageFile,
    b"BM": BmpImageFile,
    b"RIFF": WebPImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,  # beyond 4 GB
    b"MM\0+": TiffImageFile,
}
_PNG_GREY, _PNG_GREY_ALPHA = 0, 4  # colour types in the header
_STRIP_PIXELS = 1 << 22
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
# Low effort: the highest one makes a PNG of 640x480 a tenth smaller and takes seven times as long.
_PILLOW_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 95, "subsampling": 0},
    "BMP": {},
    "WebP": {"lossless": True, "quality": 0, "method": 0, "exact": True},
}


@dataclass(frozen=True, eq=False)
class Picture:
    """The pixels of an image, as raw values.

    Attributes:
        pixels: H×W (grey) or H×W×3 (RGB); uint8, uint16 or float32.
        alpha: Opacity, H×W of the same type, or None.

    Raises:
        ImageError: The arrays have another shape or type.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        pixels, alpha = self.pixels, self.alpha
        if (pixels.ndim != 2 and pixels.shape[2:] != (3,)) or pixels.size == 0:
            raise ImageError(f"an image of shape {pixels.shape} is neither grey (H×W) nor RGB (H×W×3)")
        if pixels.dtype not in (np.uint8, np.uint16, np.float32):
            raise ImageError(f"an image of type {pixels.dtype} is none of uint8, uint16 and float32; convert it first")
        if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
            raise ImageError(
                f"alpha of shape {alpha.shape} and type {alpha.dtype} does not fit an image of "
                f"shape {pixels.shape} and type {pixels.dtype}"
            )


def is_image(path: Path) -> bool:
    """Whether a file counts as an image by its name: a known extension, and not hidden."""
    return path.suffix.lower() in _FORMATS and not path.name.startswith(".")


def file_format(suffix: str) -> str:
    """The format of an extension, in any case: "JPEG" for ".jpg" and ".JPEG"; an unknown one is its own."""
    return _FORMATS.get(suffix.lower(), suffix)


def default_suffix(picture: Picture) -> str:
    """The extension under which a picture is written unless the user says otherwise: PNG, or TIFF where PNG cannot."""
    return ".png" if _holds("PNG", picture) else ".tiff"


def read_image(path: str | os.PathLike[str], *, max_pixels: int | None = MAX_PIXELS) -> Picture:
    """Reads an image file.

    Grey files stay grey and RGB files stay RGB, whatever their content; palettes become RGB. Float64 becomes float32.
    A JPEG with further pictures inside (MPO) gives its first, which is the photograph.

    Args:
        path: A PNG, JPEG, BMP, TIFF or WebP file.
        max_pixels: Refuse larger images before decoding them; None for no limit.

    Raises:
        ImageError: The file is missing, unreadable, truncated, too large, animated, CMYK, holds NaN or infinity,
            or is of a format or type that is not supported. The message names the file.
    """
    with _opened(path) as file:
        return _read(file, max_pixels)


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of an image file, from its header alone.

    They are those of `read_image`, but for PNG files that note the camera's orientation behind their pixels.

    Raises:
        ImageError: The file is missing, or has no header of a supported format. The message names the file.
    """
    with _opened(path) as file:
        return _read_size(file)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file; every `ImageError` of the block gets its name in front."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "folder" if stat.S_ISDIR(mode) else "device"
            raise ImageError(f"is a {kind}; give an image file")
        with path.open("rb") as file:
            yield file
    except ImageError as problem:
        raise ImageError(f"{path}: {problem}") from problem.__cause__
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise ImageError(f"{path}: does not exist; check the path") from problem
    except OSError as problem:
        raise ImageError(f"{path}: cannot be read ({problem.strerror}); check its permissions") from problem


def write_image(path: str | os.PathLike[str], picture: Picture, *, overwrite: bool = False) -> None:
    """Writes an image file in the format of its extension, whole or not at all.

    Everything but JPEG (quality 95, full colour resolution) keeps each value exactly. WebP has no grey and stores it as
    RGB. Float TIFF with more than one channel is for tifffile: Pillow opens none.

    Args:
        path: The file to write; its folder must exist.
        picture: What to write.
        overwrite: Replace a file that exists.

    Raises:
        ImageError: The format is unknown or cannot hold the picture, the file exists and `overwrite` is not set, or
            the system refused to write. The message names the file.
    """
    path = Path(path)
    format_ = _FORMATS.get(path.suffix.lower())
    if format_ is None:
        raise ImageError(f"{path}: {path.suffix or 'no extension'} is not supported; use {', '.join(_FORMATS)}")
    if not _holds(format_, picture):
        able = " or ".join(name for name in _HOLDS if _holds(name, picture))
        kind = f"{_DEPTHS[picture.pixels.dtype.name]} {_KINDS[_channels(picture)]}"
        raise ImageError(f"{path}: {format_} cannot hold {kind}; use {able}")
    with written_aside(path, overwrite=overwrite) as aside:
        try:
            encoded = _encode(picture, format_)
        except (OSError, ValueError, cv2.error) as problem:
            raise ImageError(f"{path}: {format_} cannot hold this image ({problem}); use TIFF") from problem
        with aside.open("xb") as file:
            file.write(encoded)


def _holds(format_: str, picture: Picture) -> bool:
    return _channels(picture) in _HOLDS[format_].get(picture.pixels.dtype.name, ())


def _channels(picture: Picture) -> int:
    return (1 if picture.pixels.ndim == 2 else 3) + (picture.alpha is not None)


# The helpers of reading raise errors that do not name the file; `read_image` puts its name in front.


def _read(file: BinaryIO, max_pixels: int | None) -> Picture:
    opener = _opener_of(file)
    with _decoding():
        array = _read_tiff(file, max_pixels) if opener is TiffImageFile else _read_plain(opener, file, max_pixels)

    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
            array = array.astype(np.float32, copy=False)
        if not (np.isfinite(array.min()) and np.isfinite(array.max())):
            raise ImageError("holds NaN or infinite values; replace those pixels first")
    if array.ndim == 2 or array.shape[2] == 3:
        return Picture(np.ascontiguousarray(array))
    pixels = array[..., 0] if array.shape[2] == 2 else array[..., :3]
    return Picture(np.ascontiguousarray(pixels), np.ascontiguousarray(array[..., -1]))


def _read_size(file: BinaryIO) -> tuple[int, int]:
    opener = _opener_of(file)
    with _decoding():
        if opener is TiffImageFile:
            with tifffile.TiffFile(file) as tiff:
                page = tiff.pages.first
                height, width = page.imagelength, page.imagewidth
                orientation = page.tags.valueof(ExifTags.Base.Orientation, default=1)
        else:
            image = opener(file)
            width, height = image.size
            seen = opener is not PngImageFile or "exif" in image.info  # else Pillow would decode the pixels for it
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if seen else 1
    return (width, height) if orientation in _TURNED else (height, width)


def _opener_of(file: BinaryIO) -> type[ImageFile]:
    """What reads a file, by its content."""
    head = file.read(12)
    file.seek(0)
    if not head:
        raise ImageError("is empty (0 bytes); get the file again")
    if head.startswith(b"GIF8"):
        raise ImageError("is a GIF, a format of animations; save the frame that you mean as PNG")
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None or (opener is WebPImageFile and not head.endswith(b"WEBP")):
        raise ImageError("is not a PNG, JPEG, BMP, TIFF or WebP image by its content; convert it to one of them")
    return opener


@contextmanager
def _decoding() -> Iterator[None]:
    """Turns whatever decoders raise into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as problem:
        raise ImageError("has more pixels than can be read from this format; save it as PNG or plain TIFF") from problem
    except ImportError as problem:  # of a codec that is no part of tifffile
        raise ImageError(f"has a compression that cannot be read ({problem}); save it deflated") from problem
    except MemoryError as problem:
        raise ImageError("does not fit into memory; use a machine with more, or a smaller image") from problem
    except Exception as problem:
        # On broken data the decoders raise whatever their parsers trip over: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"is broken or truncated ({problem}); get the file again") from problem


def _check_header(width: int, height: int, images: int, cmyk: bool, max_pixels: int | None) -> None:
    """Refuses what must not be decoded."""
    if images != 1:
        raise ImageError(f"is animated or has several pages ({images} images); save the one that you mean alone")
    if cmyk:
        raise ImageError("is CMYK, the colours of print; convert it to RGB")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"has {width}x{height} = {width * height:,} pixels, more than the limit of {max_pixels:,}; "
            "if you trust the file, raise the limit with --max-pixels"
        )


def _read_plain(opener: type[ImageFile], file: BinaryIO, max_pixels: int | None) -> NDArray[Any]:
    """Reads PNG, JPEG, BMP and WebP to H×W or H×W×C."""
    # The class of the format, not Image.open: that has a pixel limit of its own, below ours and global.
    image = opener(file)
    _check_header(image.width, image.height, getattr(image, "n_frames", 1), image.mode == "CMYK", max_pixels)
    image.load()  # also finds what stands behind the pixels, and that the file is whole
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    file.seek(0)
    depth, colour = file.read(26)[24:] if opener is PngImageFile else (8, 0)
    if depth < 16:
        array = _shallow(image)
    elif "transparency" in image.info:
        raise ImageError("marks one 16-bit colour as transparent; save it with an alpha channel, or without")
    elif colour == _PNG_GREY:
        array = _copied(image, np.dtype(np.uint16))
    else:
        array = _decode_by_opencv(file)
        array = array[..., [0, 3]] if colour == _PNG_GREY_ALPHA else array
    return _upright(array, orientation)


def _read_tiff(file: BinaryIO, max_pixels: int | None) -> NDArray[Any]:
    """Reads TIFF to H×W or H×W×C."""
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        images = sum(not page.is_reduced for page in tiff.pages)  # reduced pages are previews of another
        photometric = tifffile.PHOTOMETRIC(page.photometric)
        _check_header(page.imagewidth, page.imagelength, images, photometric.name == "SEPARATED", max_pixels)
        if page.is_reduced:
            raise ImageError("starts with a preview; save the image alone")
        if page.dtype not in (np.bool_, np.uint8, np.uint16) and (page.dtype is None or page.dtype.kind != "f"):
            raise ImageError(f"has values of type {page.dtype}; save it as uint8, uint16 or float32")

        alpha = page.samplesperpixel - (3 if photometric.name == "RGB" else 1)
        meaning = tifffile.EXTRASAMPLE(page.extrasamples[0]).name if page.extrasamples else "UNASSALPHA"
        usual = (
            photometric.name in ("RGB", "MINISBLACK", "MINISWHITE")
            and page.bitspersample == page.dtype.itemsize * 8
            and (alpha == 0 or (alpha == 1 and meaning != "ASSOCALPHA"))
            and not (photometric.name == "MINISWHITE" and page.dtype.kind == "f")
        )
        planes = page.samplesperpixel > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        known = page.compression in tifffile.TIFF.DECOMPRESSORS and page.predictor in tifffile.TIFF.UNPREDICTORS
        if usual and known:
            array = page.asarray(squeeze=False)[:, 0]  # planes × H × W × samples in a plane
            array = np.moveaxis(array[..., 0], 0, -1) if planes else array[0]
            array = _upright(array, page.tags.valueof(ExifTags.Base.Orientation, default=1))
        elif page.dtype in (np.bool_, np.uint8):
            file.seek(0)
            image = TiffImageFile(file)
            image.load()  # applies the orientation
            return _shallow(image)
        elif usual and not planes and page.samplesperpixel != 2:
            array = _decode_by_opencv(file)  # applies the orientation of TIFF, though not that of PNG
            array = array.reshape(*array.shape[:2], -1)
        else:
            compression = tifffile.COMPRESSION(page.compression).name
            raise ImageError(
                f"is TIFF of an unusual kind ({page.samplesperpixel} channels of {page.bitspersample} bits, "
                f"{photometric.name}, {compression}); save it as grey or RGB, with straight alpha at most, and deflated"
            )
    if photometric.name == "MINISWHITE":
        array = np.iinfo(array.dtype).max - array
    if alpha and meaning == "UNSPECIFIED":
        array = array[..., :-1]
    return array[..., 0] if array.shape[2] == 1 else array


def _shallow(image: Image.Image) -> NDArray[Any]:
    """The 8-bit values of a loaded image, H×W (grey) or H×W×C (grey and alpha, RGB, RGB and alpha)."""
    if image.mode in ("1", "L", "LA"):
        mode = "LA" if image.has_transparency_data else "L"
    elif image.mode in ("P", "PA", "RGB", "RGBX", "RGBA"):
        mode = "RGBA" if image.has_transparency_data else "RGB"
    else:
        raise ImageError(f"has the colour model {image.mode}; save it as grey or RGB")
    return _copied(image if image.mode == mode else image.convert(mode), np.dtype(np.uint8))


def _copied(image: Image.Image, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of an image in an array of their own, copied strip by strip to keep the peak of memory low."""
    width, height = image.size
    channels = len(image.getbands())
    array = np.empty((height, width, channels) if channels > 1 else (height, width), dtype)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        array[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return array


def _decode_by_opencv(file: BinaryIO) -> NDArray[Any]:
    """Decodes values deeper than 8 bits to H×W or H×W×C, colour in the order RGB."""
    file.seek(0)
    array = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ImageError("is broken, truncated or compressed in an unusual way; get it again, or save it deflated")
    return np.asarray(_swapped(array))


def _swapped(array: NDArray[Any]) -> NDArray[Any]:
    """RGB to OpenCV's BGR, or back; grey stays."""
    if array.ndim == 2:
        return array
    code = cv2.COLOR_BGR2RGB if array.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(array, code))


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns an image as its EXIF orientation (1 to 8) asks."""
    if orientation in _TURNED:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _encode(picture: Picture, format_: str) -> memoryview | bytes:
    """The bytes of a file."""
    array = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    buffer = io.BytesIO()
    if format_ == "TIFF":
        photometric = "minisblack" if picture.pixels.ndim == 2 else "rgb"
        extra = None if picture.alpha is None else ["unassalpha"]
        tifffile.imwrite(
            buffer, array, photometric=photometric, planarconfig="contig", extrasamples=extra, metadata=None
        )
    elif array.dtype == np.uint16 and array.ndim == 3:
        _, encoded = cv2.imencode(".png", _swapped(array), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return encoded.tobytes()
    else:
        Image.fromarray(array).save(buffer, format_, **_PILLOW_OPTIONS[format_])
    return buffer.getbuffer()
