"""How fast pairs are fused, and in how much memory.

A 640×480 pair goes from arrays to arrays: uint8 infrared and RGB in, uint8 RGB out. The plain side is the network as
an eager fp32 PyTorch module between the colour conversions; the other sides are `Fuser` with each engine and precision.
All sides take turns in one process, with all cores: two calls, of which the second counts, since the threads of the
side before still spin in the first one. Times are medians. The allocator is tuned on all sides, or, where the name says
so, on none. Each measurement runs in a process of its own.

An engine counts as exact when no pixel of four scenes is more than 1e-4 from what the plain module makes, and as fast
when none is more than 2/255. The differences on real frames are given by `precision`.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuseloop.datasets.synthetic import generate
from fuseloop.engines.allocator import tune_allocator
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.videos import fuse_video
from fuseloop.fusers.weights import find_weights, read_weights
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.pairs.images import Picture
from fuseloop.pairs.video import VideoReader, VideoWriter

HEIGHT, WIDTH = 480, 640
ROUNDS = 15
FRAMES = 120
SCENES = 4
SIDE = 10_000
CHOICES = [("torch", "fp32"), ("torch", "bf16"), ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]

KEYS = {
    "fuse.exact_speedup": "fastest exact engine: times as fast as the plain module",
    "fuse.fast_speedup": "fastest engine within 2/255: times as fast as the plain module",
    "fuse.exact_speedup_default_allocator": "the same with the allocator of the system as it is",
    "fuse.fast_speedup_default_allocator": "the same with the allocator of the system as it is",
    "fuse.ms_plain": "milliseconds a pair, plain eager module",
    "fuse.ms_plain_default_allocator": "the same with the allocator as it is",
    **{
        key: meaning
        for engine, precision in CHOICES
        for key, meaning in {
            f"fuse.ms_{engine}_{precision}": f"milliseconds a pair, {engine} in {precision}",
            f"fuse.ms_{engine}_{precision}_default_allocator": "the same with the allocator as it is",
            f"fuse.error_{engine}_{precision}": "largest difference of the luma to the plain module, in 1/255",
        }.items()
    },
    "fuse.video_fps": "frames a second of a 640×480 video pair, decoded, fused and encoded; openvino in fp32",
    "fuse.video_fps_bf16": "the same in bf16",
    "fuse.peak_mb_100mp": "largest resident memory in MiB while a 10,000×10,000 colour pair is fused; openvino in fp32",
    "fuse.seconds_100mp": "seconds for that pair",
}


def run() -> dict[str, float]:
    """All figures of `KEYS`."""
    tuned, default = _child("speed", "tuned"), _child("speed", "default")
    figures = {f"fuse.{key}": value for key, value in tuned.items()}
    figures |= {f"fuse.{key}_default_allocator": value for key, value in default.items() if "error" not in key}
    for measurement in ("video", "large"):
        figures |= {f"fuse.{key}": value for key, value in _child(measurement, "tuned").items()}
    return {key: figures[key] for key in KEYS}


def _child(measurement: str, allocator: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_fuse", measurement, allocator]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def measure_speed() -> dict[str, float]:
    """Milliseconds, errors and speed-ups of all sides."""
    network = read_weights(find_weights("vfn")).eval()
    scene = generate(0, HEIGHT, WIDTH)
    sides: dict[str, Callable[[], object]] = {"plain": partial(fuse_plainly, network, scene.infrared, scene.visible)}
    errors: dict[str, float] = {}
    for engine, precision in CHOICES:
        fuser = Fuser(network, engine=engine, precision=precision)  # type: ignore[arg-type]
        side = f"{engine}_{precision}"
        sides[side] = partial(fuser, scene.infrared, scene.visible)
        errors[side] = largest_error(network, fuser)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(1 + ROUNDS):
        for side, fuse in sides.items():
            fuse()  # the threads of the side before still spin, and its data fill the cache
            start = time.perf_counter()
            fuse()
            seconds[side].append(time.perf_counter() - start)
    median = {side: statistics.median(values[1:]) for side, values in seconds.items()}

    def speedup(tolerance: float) -> float:
        return median["plain"] / min(median[side] for side, error in errors.items() if error < tolerance)

    return {
        "exact_speedup": speedup(1e-4),
        "fast_speedup": speedup(2 / 255),
        **{f"ms_{side}": 1000 * value for side, value in median.items()},
        **{f"error_{side}": 255 * value for side, value in errors.items()},
    }


@torch.inference_mode()
def largest_error(network: VFN, fuser: Fuser) -> float:
    """The largest difference to the module of all pixels of the first scenes."""
    scenes = [generate(seed, HEIGHT, WIDTH) for seed in range(SCENES)]
    pairs = [unit_pair(scene.infrared, scene.visible) for scene in scenes]
    return max(float((fuser.engine.fuse(*pair) - network(*pair)).abs().max()) for pair in pairs)


def unit_pair(infrared: NDArray[np.uint8], visible: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """Infrared and luma as 1×1×H×W in [0, 1]."""
    colour = torch.from_numpy(visible).movedim(-1, 0)[None].float() / 255
    return torch.from_numpy(infrared)[None, None].float() / 255, rgb_to_ycbcr(colour)[:, :1]


@torch.inference_mode()
def fuse_plainly(network: VFN, infrared: NDArray[np.uint8], visible: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What one writes with the module at hand."""
    colour = torch.from_numpy(visible).movedim(-1, 0)[None].float() / 255
    ycbcr = rgb_to_ycbcr(colour)
    luma = network(torch.from_numpy(infrared)[None, None].float() / 255, ycbcr[:, :1])
    fused = ycbcr_to_rgb(torch.cat([luma, ycbcr[:, 1:]], dim=1))
    pixels: NDArray[np.uint8] = (fused * 255).round().clamp(0, 255).byte()[0].movedim(0, -1).numpy()
    return pixels


def measure_video() -> dict[str, float]:
    """Frames a second from two files to one."""
    scenes = [generate(seed, HEIGHT, WIDTH) for seed in range(8)]
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("infrared.mp4", "visible.mp4", "fused.mp4")]
        for path, modality in zip(paths, ("infrared", "visible"), strict=False):
            with VideoWriter(path, 25, WIDTH, HEIGHT) as writer:
                for index in range(FRAMES):
                    writer.write(getattr(scenes[index % len(scenes)], modality))
        for key, precision in (("video_fps", "fp32"), ("video_fps_bf16", "bf16")):
            fuser = Fuser(read_weights(find_weights("vfn")), engine="openvino", precision=precision)  # type: ignore[arg-type]
            fuser(scenes[0].infrared, scenes[0].visible)
            start = time.perf_counter()
            fuse_video(VideoReader(paths[0]), VideoReader(paths[1]), paths[2], fuser.fuse_picture, overwrite=True)
            figures[key] = FRAMES / (time.perf_counter() - start)
    return figures


def measure_large() -> dict[str, float]:
    """Memory and time of 100 megapixels."""
    scene = generate(0, 1000, 1000)
    infrared, visible = (
        np.tile(image, (10, 10) + (1,) * (image.ndim - 2)) for image in (scene.infrared, scene.visible)
    )
    assert visible.shape == (SIDE, SIDE, 3)
    fuser = Fuser(read_weights(find_weights("vfn")), engine="openvino")
    start = time.perf_counter()
    fuser.fuse_picture(Picture(infrared), Picture(visible))
    seconds = time.perf_counter() - start
    return {
        "peak_mb_100mp": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds_100mp": seconds,
    }


MEASUREMENTS: dict[str, Any] = {"speed": measure_speed, "video": measure_video, "large": measure_large}

if __name__ == "__main__":
    if sys.argv[2:] == ["tuned"]:
        tune_allocator()
    print(json.dumps(MEASUREMENTS[sys.argv[1]]()))
