"""Makes the picture of a score report for the documents: synthetic scenes, fused, scored, and seen in a browser.

python -m tools.report_figure docs/figures/report.jpg
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import fuseloop
from fuseloop.datasets.synthetic import generate
from fuseloop.metrics import score_frames, to_grey
from fuseloop.pairs.images import Picture, write_image
from fuseloop.reports.demo import with_luma
from fuseloop.reports.score import ScoredImages, write_score_report
from tools.browser import Page, open_browser

SEEDS = range(300, 312)
HEIGHT, WIDTH = 360, 480
METRICS = ("qabf", "scd", "vif", "ssim", "en", "sd", "ag", "mi", "cc", "psnr", "qcb", "qcv")
METHODS = ("pixel mean", "pixel maximum", "vfn")
SCREEN, SCALE, GAP = (1280, 1560), 0.7, 20
LOAD = """Promise.all([...document.images].map((image) => { image.loading = "eager"; return image.decode(); }))
  .then(() => 0)"""
QUALITY = 86  # holds the file under 400 kB


def write_report(folder: Path) -> Path:
    """The report of some rules and the shipped weights, in a folder below; returns its first page."""
    fuser = fuseloop.load("vfn")
    paths: dict[str, dict[str, Path]] = {kind: {} for kind in ("infrared", "visible", *METHODS)}

    def frames() -> Iterator[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
        for number, seed in enumerate(SEEDS, start=1):
            scene, name = generate(seed, HEIGHT, WIDTH), f"street {number}"
            grey = to_grey(scene.visible)
            mean = (scene.infrared.astype(np.float32) + grey) / 2
            fused = {
                "pixel mean": with_luma(scene.visible, mean),
                "pixel maximum": with_luma(scene.visible, np.maximum(scene.infrared, grey)),
                "vfn": fuser(scene.infrared, scene.visible),
            }
            for kind, pixels in {"infrared": scene.infrared, "visible": scene.visible, **fused}.items():
                paths[kind][name] = folder / kind / f"{number}.png"
                paths[kind][name].parent.mkdir(exist_ok=True)
                write_image(paths[kind][name], Picture(pixels))
            yield name, scene.infrared, scene.visible, fused

    evaluations = score_frames(frames(), metrics=METRICS)
    images = ScoredImages(paths["infrared"], paths["visible"], {method: paths[method] for method in METHODS})
    return write_score_report(folder / "report", evaluations, images, convention="default")


def seen(page: Page, address: str, target: Path, scheme: str, prepare: str = "0") -> Image.Image:
    """A picture of a page, at the scale of the figure."""
    page.resize(*SCREEN, scale=SCALE)
    page.prefer(prefers_color_scheme=scheme)
    page.open(address)
    page.run(prepare)
    page.run(LOAD)
    page.picture(target)
    with Image.open(target) as picture:
        return picture.convert("RGB")


def main(path: Path) -> None:
    with TemporaryDirectory() as folder, open_browser(Path(folder) / "profile") as page:
        root = Path(folder)
        index = write_report(root)
        frame = index.parent / "frames" / f"{len(SEEDS) // 2:04d}.html"
        pictures = [
            seen(page, index.as_uri(), root / "index.png", "light"),
            seen(page, frame.as_uri(), root / "frame.png", "dark", "change({ left: 1, right: 4 })"),
        ]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (2 * width + GAP, height), "white")
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place * (width + GAP), 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=QUALITY, subsampling=0, optimize=True)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
