"""Videos, frame by frame."""

import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from fuseloop.errors import ImageError, PairError
from fuseloop.pairs.video import VideoReader, VideoWriter, is_video, read_video_pairs


def scene(index, height=48, width=64):
    """A smooth coloured frame that differs from its neighbours."""
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    return (np.stack([100 * x, 100 * y, 0 * x], axis=2) + 20 + 6 * index).astype(np.uint8)


def write(path, frames, rate=25, **options):
    frames = list(frames)
    with VideoWriter(path, rate, frames[0].shape[1], frames[0].shape[0], **options) as video:
        for frame in frames:
            video.write(frame)
    return path


def write_raw(path, frames, pixels):
    """A lossless video in a pixel format that the writer does not make."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, pixels)))
        container.mux(stream.encode())
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------ writing and reading


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".avi", ".MP4"])
@pytest.mark.parametrize("size", [(48, 64), (49, 65), (48, 65), (9, 8)])
def test_frames_come_back_whole_and_in_order(tmp_path, suffix, size):
    frames = [scene(index, *size) for index in range(12)]
    video = VideoReader(write(tmp_path / f"x{suffix}", frames, Fraction(30_000, 1001)))
    assert (video.height, video.width, video.rate) == (*size, Fraction(30_000, 1001))
    assert video.frames in (12, None)
    read = list(video)
    assert len(read) == 12
    for index, frame in enumerate(read):
        assert frame.dtype == np.uint8
        assert frame.shape == (*size, 3)
        errors = [np.abs(frame.astype(int) - other).mean() for other in frames]
        assert np.argmin(errors) == index
        assert errors[index] < 5


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 30, 90)])
def test_colours_come_back(tmp_path, colour):
    video = VideoReader(write(tmp_path / "x.mp4", [np.full((32, 64, 3), colour, np.uint8)] * 3))
    for frame in video:
        np.testing.assert_allclose(frame.astype(int), np.broadcast_to(colour, frame.shape), atol=2)


def test_the_file_names_its_colours(tmp_path):
    with av.open(str(write(tmp_path / "x.mp4", [scene(0)]))) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)


def test_grey_frames_are_written_in_their_brightness(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (32, 1))
    for frame in VideoReader(write(tmp_path / "x.mp4", [ramp] * 3)):
        np.testing.assert_allclose(frame[..., 0].astype(int), ramp, atol=3)
        assert np.ptp(frame.astype(int), axis=2).max() <= 1


@pytest.mark.parametrize(("pixels", "dtype"), [("gray", np.uint8), ("gray16le", np.uint16), ("rgb24", np.uint8)])
def test_lossless_videos_give_every_value(tmp_path, pixels, dtype):
    shape = (48, 64, 3) if pixels == "rgb24" else (48, 64)
    frames = list(np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (3, *shape), dtype))
    if pixels == "rgb24":
        frames = [np.dstack([frame, np.full(shape[:2], 255, np.uint8)]) for frame in frames]
        pixels = "bgra"
    read = list(VideoReader(write_raw(tmp_path / "x.mkv", frames, pixels)))
    if pixels == "bgra":
        frames = [frame[..., 2::-1] for frame in frames]
    np.testing.assert_array_equal(read, frames)


def test_a_video_can_be_read_again(tmp_path):
    video = VideoReader(write(tmp_path / "x.mp4", map(scene, range(4))))
    np.testing.assert_array_equal(list(video), list(video))


def test_frames_are_turned_upright(tmp_path):
    path = write(tmp_path / "x.mp4", [scene(0)] * 2)
    upright = np.rot90(scene(0), -1)  # a camera held so that the picture needs a quarter turn clockwise
    data = bytearray(path.read_bytes())
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = quarter
    path.write_bytes(data)
    video = VideoReader(path)
    assert (video.height, video.width) == (64, 48)
    for frame in video:
        assert np.abs(frame.astype(int) - upright).mean() < 5


def test_videos_are_told_by_their_names(tmp_path):
    assert is_video(tmp_path / "x.MP4")
    assert not is_video(tmp_path / "x.png")
    assert not is_video(tmp_path)


def test_frames_are_decoded_one_at_a_time(tmp_path):
    frame = np.zeros((240, 320, 3), np.uint8)
    path = write(tmp_path / "x.mp4", [frame] * 60)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_video_pairs(VideoReader(path), VideoReader(path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 60
    assert peak < 8 * frame.nbytes  # of the 120 frames, the pair at hand and the one before


def test_the_first_frames_arrive_before_the_last_are_looked_at(tmp_path):
    path = write(
        tmp_path / "x.mkv", [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(90)]
    )
    frames = iter(VideoReader(path))
    next(frames)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    assert 10 < sum(1 for _ in frames) < 80


# --------------------------------------------------------------------------------------------------------------- pairs


def test_pairs_come_frame_by_frame(tmp_path):
    infrared = VideoReader(write(tmp_path / "ir.mp4", [frame[..., 0] for frame in map(scene, range(5))]))
    visible = VideoReader(write(tmp_path / "vi.mkv", map(scene, range(5))))
    pairs = list(read_video_pairs(infrared, visible))
    assert len(pairs) == 5
    for (infrared_frame, visible_frame), one, other in zip(pairs, infrared, visible, strict=True):
        np.testing.assert_array_equal(infrared_frame, one)
        np.testing.assert_array_equal(visible_frame, other)


def test_other_numbers_of_frames_are_an_error_before_any_work(tmp_path):
    infrared = VideoReader(write(tmp_path / "ir.mp4", map(scene, range(5))))
    visible = VideoReader(write(tmp_path / "vi.mp4", map(scene, range(4))))
    with pytest.raises(PairError, match=r"ir\.mp4 has 5 frames and .*vi\.mp4 has 4; cut both"):
        read_video_pairs(infrared, visible)


@pytest.mark.parametrize(("infrared", "visible"), [(5, 4), (4, 5)])
def test_other_numbers_of_frames_are_an_error_even_if_the_files_do_not_tell(tmp_path, infrared, visible):
    pairs = read_video_pairs(
        VideoReader(write(tmp_path / "ir.mkv", map(scene, range(infrared)))),
        VideoReader(write(tmp_path / "vi.mkv", map(scene, range(visible)))),
    )
    for _ in range(4):
        next(pairs)
    with pytest.raises(PairError, match="more than 4"):
        next(pairs)


def test_other_rates_are_an_error_that_names_both(tmp_path):
    infrared = VideoReader(write(tmp_path / "ir.mp4", map(scene, range(5)), 9))
    visible = VideoReader(write(tmp_path / "vi.mp4", map(scene, range(5)), 30))
    with pytest.raises(PairError, match=r"ir\.mp4 has 9 frames a second and .*vi\.mp4 has 30; bring both"):
        read_video_pairs(infrared, visible)


def test_rates_may_differ_by_rounding(tmp_path):
    infrared = VideoReader(write(tmp_path / "ir.mp4", map(scene, range(3)), 30))
    visible = VideoReader(write(tmp_path / "vi.mp4", map(scene, range(3)), Fraction(30_000, 1001)))
    assert len(list(read_video_pairs(infrared, visible))) == 3


# --------------------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "is no video"), (b"hello " * 100, "is no video"), (None, "is not a file; check the path")],
)
def test_what_is_no_video(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(ImageError, match=rf"x\.mp4: {complaint}"):
        VideoReader(tmp_path / "x.mp4")


def test_a_folder_is_no_video(tmp_path):
    with pytest.raises(ImageError, match="is not a file"):
        VideoReader(tmp_path)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 16_000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(ImageError, match=r"x\.mp4: holds no video"):
        VideoReader(tmp_path / "x.mp4")


@pytest.mark.parametrize("part", [0.02, 0.5, 0.8])
def test_an_unfinished_recording_is_an_error(tmp_path, part):
    path = write(tmp_path / "x.mp4", map(scene, range(20)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ImageError, match=r"x\.mp4: (is no video, or is broken|holds no)"):
        list(VideoReader(path))


def test_an_unknown_extension_is_refused_when_writing(tmp_path):
    with pytest.raises(ImageError, match=r"x\.webm: videos are written as \.mp4, .*; choose"):
        VideoWriter(tmp_path / "x.webm", 25, 64, 48)


def test_an_existing_video_is_kept_before_any_work(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"old")
    with pytest.raises(ImageError, match="exists already and was kept"):
        VideoWriter(tmp_path / "x.mp4", 25, 64, 48).__enter__()
    assert (tmp_path / "x.mp4").read_bytes() == b"old"
    assert len(list(VideoReader(write(tmp_path / "x.mp4", [scene(0)], overwrite=True)))) == 1


@pytest.mark.parametrize(
    "frame",
    [np.zeros((48, 60, 3), np.uint8), np.zeros((48, 64, 4), np.uint8), np.zeros((48, 64, 3), np.uint16)],
)
def test_a_frame_that_does_not_fit_is_refused(tmp_path, frame):
    with pytest.raises(ImageError, match=r"x\.mp4: a frame of shape .* does not fit a video of 64x48"):
        write_frames(tmp_path / "x.mp4", [scene(0), frame])
    assert not names(tmp_path)


def write_frames(path, frames):
    with VideoWriter(path, 25, 64, 48, overwrite=True) as video:
        for frame in frames:
            video.write(frame)


@pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit, PairError])
def test_whatever_stops_the_writing_leaves_nothing_behind(tmp_path, problem):
    def frames():
        yield from map(scene, range(3))
        assert len(names(tmp_path)) == 2  # the old one, and the one aside
        raise problem

    (tmp_path / "x.mp4").write_bytes(b"old")
    with pytest.raises(problem):
        write_frames(tmp_path / "x.mp4", frames())
    assert (tmp_path / "x.mp4").read_bytes() == b"old"
    assert names(tmp_path) == ["x.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize(("frames", "size"), [(1, (480, 640)), (20, (120, 160))])
def test_a_disk_that_is_really_full(tiny_disk, suffix, frames, size):
    noise = np.random.default_rng(0)
    with pytest.raises(ImageError, match=r"cannot be written \(No space left on device\)"):
        write(tiny_disk / f"x{suffix}", [noise.integers(0, 256, (*size, 3), np.uint8) for _ in range(frames)])
    assert not names(tiny_disk)
