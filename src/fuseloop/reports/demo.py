"""The demo: labelled synthetic scenes, fused, scored, and shown on a page that opens without a server.

Two rules that need no network, the mean and the maximum of every pixel, stand beside the fuser in every table: whoever
does not beat them has no reason to exist.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from fuseloop.datasets.synthetic import BOX_NAMES, Scene, generate, scene_seed
from fuseloop.errors import ConfigurationError
from fuseloop.fusers.files import make_folder
from fuseloop.fusers.fuser import Fuser
from fuseloop.metrics.evaluate import Evaluation, Score, score_methods
from fuseloop.metrics.grey import Pixels, to_grey
from fuseloop.metrics.table import METRICS
from fuseloop.pairs.atomic import written_aside
from fuseloop.pairs.images import Picture, write_image

WIDTH, HEIGHT = 480, 360
SHOWN_METRICS = ("qabf", "scd", "vif", "qcv", "en")
PLAIN = 20
"""Grey levels by which an object must differ from its surroundings to count as plain to see."""

PLACES = {"infrared": "infrared only", "visible": "visible only", "both": "both", "neither": "neither"}
MARK = '<meta name="generator" content="fuseloop demo">'


class Found(NamedTuple):
    """An object of a scene, and where it is plain to see.

    Attributes:
        name: Its class.
        box: Absolute x1, y1, x2, y2.
        plain: For each image of the scene, whether the object is plain in it.
    """

    name: str
    box: tuple[float, ...]
    plain: dict[str, bool]

    @property
    def only_in(self) -> str:
        """The modality that alone shows it: "infrared", "visible", or "both" or "neither" when that is none."""
        seen = [name for name in ("infrared", "visible") if self.plain[name]]
        return seen[0] if len(seen) == 1 else "both" if seen else "neither"


@dataclass(frozen=True)
class Shown:
    """One scene of the demo.

    Attributes:
        name: Stem of its files.
        night: Whether it is at night.
        images: The pair and what each method made of it, uint8.
        scores: Scores of each method.
        objects: The labelled objects.
    """

    name: str
    night: bool
    images: dict[str, Pixels]
    scores: dict[str, dict[str, Score]]
    objects: list[Found]

    def plain(self, kind: str) -> int:
        """How many objects are plain in an image."""
        return sum(one.plain[kind] for one in self.objects)

    @property
    def summary(self) -> str:
        """What is in the scene, and where it is plain, in a few words."""
        where = Counter(one.only_in for one in self.objects)
        parts = [f"{where[name]} plain in {text}" for name, text in PLACES.items() if where[name]]
        return f"{len(self.objects)} labelled: {', '.join(parts)}" if parts else "nothing labelled"


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        page: The page.
        scenes: The scenes.
    """

    page: Path
    scenes: list[Shown]

    @property
    def header(self) -> list[str]:
        """The heads of the columns; arrows point to what is better."""
        return [
            "",
            "objects plain ↑",
            *(f"{METRICS[key].name} {METRICS[key].arrow}" for key in SHOWN_METRICS),
        ]

    def plain(self, kind: str) -> int:
        """How many objects of all scenes are plain in an image."""
        return sum(scene.plain(kind) for scene in self.scenes)

    @property
    def objects(self) -> int:
        """How many objects all scenes have."""
        return sum(len(scene.objects) for scene in self.scenes)

    def share(self, kind: str) -> float:
        """The share of the objects that are plain in an image, in percent."""
        return 100 * self.plain(kind) / max(1, self.objects)

    def rows(self) -> list[list[str]]:
        """A row for each image of the scenes: its name, the objects plain in it, and mean scores over the scenes."""
        rows = []
        for method in self.scenes[0].images:
            evaluation = Evaluation.of({scene.name: scene.scores[method] for scene in self.scenes})
            means = [evaluation.summary(key).mean for key in SHOWN_METRICS]
            rows.append([method, f"{self.plain(method)} of {self.objects}", *map(_number, means)])
        return rows


def write_demo(
    out: Path,
    fuser: Fuser,
    name: str = "vfn",
    *,
    scenes: int = 6,
    seed: int = 0,
    report: Callable[[], None] = lambda: None,
) -> Demo:
    """Draws, fuses and scores scenes, and writes the page `index.html` with their images in folders beside it.

    Args:
        out: Folder to write to; it may hold an earlier demo, which is replaced.
        fuser: What fuses.
        name: What the page calls it.
        scenes: Number of scenes.
        seed: Seed of the scenes.
        report: Called after every scene.

    Raises:
        ConfigurationError: `out` holds something else, or there would be no scene.
        ImageError: The folder cannot be made or written to.
    """
    if scenes < 1:
        raise ConfigurationError(f"a demo needs at least one scene, got {scenes}")
    page = out / "index.html"
    if out.is_dir() and any(out.iterdir()) and not (page.is_file() and MARK in page.read_text("utf-8", "replace")):
        raise ConfigurationError(f"{out} holds other files than a demo; choose a new or empty folder")
    make_folder(out)
    shown = []
    for index in range(scenes):
        scene = show(f"scene_{index + 1}", generate(scene_seed(seed, index), HEIGHT, WIDTH), fuser)
        for kind, pixels in scene.images.items():
            make_folder(out / folder_of(kind))
            write_image(out / folder_of(kind) / f"{scene.name}.png", Picture(pixels), overwrite=True)
        shown.append(scene)
        report()
    demo = Demo(page, shown)
    with written_aside(page, overwrite=True) as aside:
        aside.write_text(render(demo, name, seed), encoding="utf-8")
    return demo


def show(name: str, scene: Scene, fuser: Fuser) -> Shown:
    """Fuses and scores one scene."""
    infrared, visible = scene.infrared, scene.visible
    grey = to_grey(visible)
    images = {
        "infrared": infrared,
        "visible": visible,
        "pixel mean": with_luma(visible, (infrared.astype(np.float32) + grey) / 2),
        "pixel maximum": with_luma(visible, np.maximum(infrared, grey)),
        "fused": fuser(infrared, visible),
    }
    scores = score_methods(infrared, visible, images, metrics=SHOWN_METRICS)
    objects = [
        Found(
            BOX_NAMES[kind],
            tuple(map(float, box)),
            {method: contrast(pixels, box, scene.saliency > 0) >= PLAIN for method, pixels in images.items()},
        )
        for box, kind in zip(scene.boxes, scene.box_classes, strict=True)
    ]
    return Shown(name, scene.night, images, scores, objects)


def with_luma(visible: Pixels, luma: NDArray[Any]) -> Pixels:
    """A colour image, H×W×3, with another brightness, H×W, and its own colour."""
    change = luma.astype(np.float32) - visible.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.clip(np.rint(visible + change[..., None]), 0, 255).astype(np.uint8)


def contrast(pixels: Pixels, box: NDArray[np.float32], objects: NDArray[np.bool_]) -> float:
    """How much an object differs from its surroundings.

    Args:
        pixels: H×W or H×W×3, uint8.
        box: The object, absolute (x1, y1, x2, y2).
        objects: H×W, where any object is. The others are not counted as surroundings.

    Returns:
        How far grey levels must move on average to turn the object into its surroundings (the earth mover's distance of
        the two histograms), in the channel where that is most. A shift of brightness counts as much as light and dark
        parts on a plain ground. The surroundings reach half the size of the box beyond it.
    """
    x1, y1, x2, y2 = box
    margin_x, margin_y = (x2 - x1) / 2, (y2 - y1) / 2
    rows = slice(max(0, int(y1 - margin_y)), int(np.ceil(y2 + margin_y)))
    columns = slice(max(0, int(x1 - margin_x)), int(np.ceil(x2 + margin_x)))
    inside = np.zeros(objects.shape, bool)
    inside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
    inside &= objects
    region = pixels[rows, columns].reshape(inside[rows, columns].size, -1)
    own, around = region[inside[rows, columns].ravel()], region[~objects[rows, columns].ravel()]
    if not (len(own) and len(around)):
        return 0.0
    quantiles = np.linspace(0, 1, 101)
    moves = np.quantile(own, quantiles, axis=0) - np.quantile(around, quantiles, axis=0)
    return float(np.abs(moves).mean(axis=0).max())


def folder_of(kind: str) -> str:
    """The folder of a kind of image: "pixel mean" is in "pixel_mean"."""
    return kind.replace(" ", "_")


def render(demo: Demo, name: str, seed: int) -> str:
    """The page."""
    environment = Environment(loader=PackageLoader("fuseloop.reports"), autoescape=True, trim_blocks=True)
    environment.filters["number"] = _number
    environment.filters["folder"] = folder_of
    return environment.get_template("demo.html").render(
        demo=demo,
        name=name,
        seed=seed,
        mark=MARK,
        table=METRICS,
        metrics=SHOWN_METRICS,
        width=WIDTH,
        height=HEIGHT,
        plain=PLAIN,
    )


def _number(value: float) -> str:
    """Three significant digits or so, enough to tell methods apart."""
    if math.isnan(value):
        return "undef."
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"
