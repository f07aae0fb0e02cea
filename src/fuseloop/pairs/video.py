"""Reading and writing videos frame by frame, in memory that does not grow with their length.

Frames are arrays as images are: grey H×W or RGB H×W×3, 8-bit; grey video of more than 8 bits, as thermal cameras record
it, gives 16-bit frames. Sound is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from fuseloop.errors import ImageError, PairError
from fuseloop.pairs.atomic import written_aside

# What can be written, by extension; more can be read.
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
_READABLE = {*_CONTAINERS, ".webm", ".mpg", ".mpeg", ".ts", ".wmv"}
# Visually lossless, and fast enough to keep up with the fusion.
_H264 = {"crf": "17", "preset": "veryfast"}
# Infrared and visible rates may differ by rounding (30 and 29.97), not by more.
_RATE_TOLERANCE = 0.01


def is_video(path: Path) -> bool:
    """Whether a file counts as a video by its extension."""
    return path.suffix.lower() in _READABLE


class VideoReader:
    """The frames of a video file, decoded one after the other each time that it is iterated.

    Attributes:
        path: The file.
        rate: Frames per second.
        frames: How many frames the file says it has, or None when it does not say.
        height: Height of the frames as they are shown, in pixels.
        width: Width of the frames as they are shown, in pixels.

    Raises:
        ImageError: The file is missing, is no video, or breaks off; also while iterating.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ImageError(f"{path}: is not a file; check the path")
        with self._opened() as container:
            stream = container.streams.video[0]
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self.frames: int | None = stream.frames or None
            first = next((_pixels(frame) for frame in container.decode(stream)), None)
        if first is None:
            raise ImageError(f"{path}: holds no frame; get the file again")
        self.height, self.width = first.shape[:2]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yields every frame, H×W or H×W×3; uint8, or uint16 for grey of more than 8 bits."""
        with self._opened() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield _pixels(frame)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise ImageError(f"{self.path}: holds no video; check the path")
                yield container
        except FFmpegError as problem:
            raise ImageError(f"{self.path}: is no video, or is broken ({problem.strerror}); get it again") from problem


def read_video_pairs(infrared: VideoReader, visible: VideoReader) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yields the frames of two videos pair by pair, one pair at a time.

    Raises:
        PairError: The videos have other rates or other numbers of frames, so that their frames do not belong together;
            before the first pair when the files say so themselves, else at the end.
    """
    if abs(infrared.rate - visible.rate) > _RATE_TOLERANCE * visible.rate:
        raise PairError(
            f"{infrared.path} has {float(infrared.rate):g} frames a second and {visible.path} has "
            f"{float(visible.rate):g}; bring both to one rate first"
        )
    if infrared.frames and visible.frames and infrared.frames != visible.frames:
        raise _other_length(infrared, infrared.frames, visible, visible.frames)
    return _paired(infrared, visible)


def _paired(infrared: VideoReader, visible: VideoReader) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for pairs, (infrared_frame, visible_frame) in enumerate(zip_longest(infrared, visible)):
        if infrared_frame is None:
            raise _other_length(infrared, pairs, visible, f"more than {pairs}")
        if visible_frame is None:
            raise _other_length(infrared, f"more than {pairs}", visible, pairs)
        yield infrared_frame, visible_frame


def _other_length(
    infrared: VideoReader, infrared_frames: int | str, visible: VideoReader, visible_frames: int | str
) -> PairError:
    return PairError(
        f"{infrared.path} has {infrared_frames} frames and {visible.path} has {visible_frames}; "
        "cut both to the same moments first"
    )


class VideoWriter:
    """Writes frames to a video file, which appears under its name only when it is complete.

    H.264 in MP4, M4V, MOV, MKV or AVI by the extension, visually lossless. Colour has half the resolution of
    brightness, as all players expect; with an odd height or width it has the full one (4:4:4), which some players
    cannot show, so that no row or column is lost.

    Args:
        path: The file to write; its folder must exist.
        rate: Frames per second.
        width: Width of every frame in pixels.
        height: Height of every frame in pixels.
        overwrite: Replace a file that exists.

    Raises:
        ImageError: The extension is unknown, the file exists and `overwrite` is not set, or writing failed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: Fraction | int,
        width: int,
        height: int,
        *,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.rate = Fraction(rate)
        self.width = width
        self.height = height
        self.overwrite = overwrite
        if self.path.suffix.lower() not in _CONTAINERS:
            raise ImageError(f"{path}: videos are written as {', '.join(_CONTAINERS)}; choose one of these")

    def __enter__(self) -> VideoWriter:
        with ExitStack() as opened:
            aside = opened.enter_context(written_aside(self.path, overwrite=self.overwrite))
            opened.enter_context(self._errors())
            container = opened.enter_context(av.open(str(aside), "w", format=_CONTAINERS[self.path.suffix.lower()]))
            stream = container.add_stream("libx264", rate=self.rate, options=_H264)
            stream.width, stream.height = self.width, self.height
            stream.pix_fmt = "yuv420p" if self.width % 2 == self.height % 2 == 0 else "yuv444p"
            # Players guess the colours of a file that does not name them.
            coder = stream.codec_context
            coder.colorspace, coder.color_range = Colorspace.ITU709, ColorRange.MPEG
            coder.color_primaries, coder.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            container.start_encoding()  # what cannot be written shows before the first frame
            self._container, self._stream = container, stream
            self._opened = opened.pop_all()
        return self

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Adds a frame, H×W (grey) or H×W×3 (RGB), uint8.

        Raises:
            ImageError: The frame has another type or size, or the disk is full.
        """
        if frame.dtype != np.uint8 or frame.shape[:2] != (self.height, self.width) or frame.shape[2:] not in ((), (3,)):
            raise ImageError(
                f"{self.path}: a frame of shape {frame.shape} and type {frame.dtype} does not fit a video of "
                f"{self.width}x{self.height} pixels, grey or RGB, uint8"
            )
        # Grey goes in as RGB: converted directly it would come out several steps too dark.
        rgb = frame if frame.ndim == 3 else np.dstack([frame] * 3)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24").reformat(
            format=self._stream.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        with self._errors():
            self._container.mux(self._stream.encode(picture))

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if problem is not None:
            self._opened.__exit__(kind, problem, traceback)
            return
        with self._opened:
            self._container.mux(self._stream.encode())  # what the encoder still holds back

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as problem:
            raise ImageError(f"{self.path}: cannot be written ({problem.strerror})") from problem


def _pixels(frame: Any) -> NDArray[Any]:
    """The values of a decoded frame, upright."""
    grey = frame.format.name.startswith("gray")
    kind = "rgb24" if not grey else "gray" if frame.format.components[0].bits == 8 else "gray16le"
    return np.rot90(frame.to_ndarray(format=kind), frame.rotation // 90)
