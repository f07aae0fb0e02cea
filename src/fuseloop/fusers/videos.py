"""Fuses videos frame by frame, in memory that does not grow with their length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuseloop.pairs.images import Picture
from fuseloop.pairs.video import VideoReader, VideoWriter, read_video_pairs


def fuse_video(
    infrared: VideoReader,
    visible: VideoReader,
    out: Path,
    fuse: Callable[[Picture, Picture], Picture],
    *,
    report: Callable[[], None] = lambda: None,
    overwrite: bool = False,
) -> int:
    """Fuses two videos; the output appears under its name only when it is complete.

    Args:
        infrared: The infrared video.
        visible: The visible video, of the same rate and length.
        out: The video to write, with the rate and size of the visible one.
        fuse: Fuses an infrared and a visible frame into an 8-bit one.
        report: Called after every frame.
        overwrite: Replace a video that exists.

    Returns:
        The number of frames.

    Raises:
        PairError: The videos differ in rate or length, or frames cannot be fused with each other.
        ImageError: A video breaks off, or the output cannot be written.
    """
    pairs = read_video_pairs(infrared, visible)
    frames = 0
    with VideoWriter(out, visible.rate, visible.width, visible.height, overwrite=overwrite) as writer:
        for infrared_frame, visible_frame in pairs:
            writer.write(fuse(Picture(infrared_frame), Picture(visible_frame)).pixels)
            frames += 1
            report()
    return frames
