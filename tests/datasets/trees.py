"""Tiny synthetic copies of every data set as it lies on disk, so that no test needs a download.

The places are written out here as their owners publish them, not taken from the table that they test.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fuseloop.datasets.labelled import LabelledPair

HEIGHT, WIDTH = 36, 48
PEOPLE = ("people", "car", "bus", "motorcycle", "lamp", "truck")
OWN_CLASSES = "boxes: [person, dog]\nsegmentation: {0: background, 1: person, 2: dog}\n"


@dataclass(frozen=True)
class Form:
    """A data set as it lies on disk.

    Attributes:
        spec: How it is opened, with the root and without a split.
        files: Where the file of a frame lies, by what it is; with its name and the folder of its split.
        frames: The names of the frames in each folder of a split; under "" where there are no such folders.
        opened: Which of them each split opens, as "split/name"; under "" what opens without one.
        boxes: Names of the classes of boxes.
        ids: How many segmentation ids there are.
        beside: Further files, by their place.
    """

    spec: str
    files: dict[str, str]
    frames: dict[str, tuple[str, ...]]
    opened: dict[str, tuple[str, ...]]
    boxes: tuple[str, ...] = ()
    ids: int = 0
    beside: dict[str, str] = field(default_factory=dict)


BY_SPLIT = {"train": ("00001", "00002", "00010"), "test": ("00003", "00004")}
OPENED_BY_SPLIT = {
    "train": ("train/00001", "train/00002", "train/00010"),
    "test": ("test/00003", "test/00004"),
    "train+test": ("train/00001", "train/00002", "train/00010", "test/00003", "test/00004"),
    "train[::2]": ("train/00001", "train/00010"),
}
PLAIN = {"": ("1", "2", "10")}
OPENED_PLAIN = {"": ("/1", "/2", "/10"), "[1:]": ("/2", "/10")}

FORMS = {
    "m3fd official": Form(
        spec="m3fd:{root}",
        files={"infrared": "Ir/{name}.png", "visible": "Vis/{name}.png", "boxes": "Annotation/{name}.xml"},
        frames={"": ("00000", "00100", "00149", "00150", "04199")},
        opened={
            "": ("/00000", "/00100", "/00149", "/00150", "/04199"),
            "train": ("/00000",),
            "val": ("/00100", "/00149", "/04199"),
            "test": ("/00150",),
            "train+val": ("/00000", "/00100", "/00149", "/04199"),
        },
        boxes=PEOPLE,
    ),
    "m3fd yolo": Form(
        spec="m3fd:{root}",
        files={
            "infrared": "ir/{split}/{name}.png",
            "visible": "vi/{split}/{name}.png",
            "boxes": "labels/{split}/{name}.txt",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
        boxes=PEOPLE,
    ),
    "fmb": Form(
        spec="fmb:{root}",
        files={
            "infrared": "{split}/Infrared/{name}.png",
            "visible": "{split}/Visible/{name}.png",
            "segmentation": "{split}/Label/{name}.png",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
        ids=15,
    ),
    "vt5000": Form(
        spec="vt5000:{root}",
        files={
            "infrared": "{Split}/T/{name}.jpg",
            "visible": "{Split}/RGB/{name}.jpg",
            "saliency": "{Split}/GT/{name}.png",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
    ),
    "vt5000 with edges": Form(
        spec="vt5000:{root}",
        files={
            "infrared": "{Split}/T_GRAY/{name}.jpg",
            "visible": "{Split}/RGB/{name}.jpg",
            "saliency": "{Split}/GT/{name}.png",
            "edges": "{Split}/Edge/{name}.png",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
    ),
    "vt1000": Form(
        spec="vt1000:{root}",
        files={"infrared": "T/{name}.jpg", "visible": "RGB/{name}.jpg", "saliency": "GT/{name}.png"},
        frames=PLAIN,
        opened=OPENED_PLAIN,
    ),
    "vt821": Form(
        spec="vt821:{root}",
        files={"infrared": "T/{name}.jpg", "visible": "RGB/{name}.jpg", "saliency": "GT/{name}.png"},
        frames=PLAIN,
        opened=OPENED_PLAIN,
    ),
    "msrs official": Form(
        spec="msrs:{root}",
        files={
            "infrared": "{split}/ir/{name}.png",
            "visible": "{split}/vi/{name}.png",
            "segmentation": "{split}/Segmentation_labels/{name}.png",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
        ids=9,
    ),
    "msrs of the kit": Form(
        spec="msrs:{root}",
        files={
            "infrared": "{split}/ir/{name}.png",
            "visible": "{split}/vi/{name}.jpg",
            "boxes": "{split}/labels/{name}.txt",
            "segmentation": "{split}/Segmentation_labels/{name}.png",
            "saliency": "{split}/saliency/{name}.png",
        },
        frames={**BY_SPLIT, "odd_ones": ("7",)},
        opened={**OPENED_BY_SPLIT, "odd_ones": ("odd_ones/7",)},
        boxes=("person", "bicycle", "car"),
        ids=9,
    ),
    "llvip": Form(
        spec="llvip:{root}",
        files={
            "infrared": "infrared/{split}/{name}.jpg",
            "visible": "visible/{split}/{name}.jpg",
            "boxes": "Annotations/{name}.xml",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
        boxes=("person",),
    ),
    "roadscene": Form(
        spec="roadscene:{root}",
        files={"infrared": "cropinfrared/{name}.jpg", "visible": "crop_LR_visible/{name}.jpg"},
        frames=PLAIN,
        opened=OPENED_PLAIN,
    ),
    "roadscene of the kit": Form(
        spec="roadscene:{root}",
        files={"infrared": "ir/{name}.jpg", "visible": "vi/{name}.jpg"},
        frames=PLAIN,
        opened=OPENED_PLAIN,
    ),
    "tno": Form(
        spec="tno:{root}",
        files={"infrared": "ir/{name}.png", "visible": "vi/{name}.png"},
        frames=PLAIN,
        opened=OPENED_PLAIN,
    ),
    "tno with masks": Form(
        spec="tno_salient:{root}",
        files={"infrared": "ir/{name}.png", "visible": "vi/{name}.png", "saliency": "mask/{name}.png"},
        frames=PLAIN,
        opened=OPENED_PLAIN,
    ),
    "a folder": Form(
        spec="{root}",
        files={
            "infrared": "thermal/{name}.png",
            "visible": "RGB/{name}.png",
            "boxes": "labels/{name}.txt",
            "segmentation": "segmentation/{name}.png",
            "saliency": "mask/{name}.png",
        },
        frames=PLAIN,
        opened=OPENED_PLAIN,
        boxes=("person", "dog"),
        ids=3,
        beside={"classes.yaml": OWN_CLASSES, "labels/classes.txt": "person\ndog\n"},
    ),
    "a folder with splits": Form(
        spec="folder:{root}",
        files={
            "infrared": "{split}/ir/{name}.png",
            "visible": "{split}/vis/{name}.png",
            "boxes": "{split}/annotations/{name}.xml",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
        boxes=("person", "dog"),
        beside={"classes.yaml": OWN_CLASSES},
    ),
    "a folder with splits inside": Form(
        spec="{root}",
        files={
            "infrared": "ir/{split}/{name}.png",
            "visible": "vi/{split}/{name}.png",
            "segmentation": "labels/{split}/{name}.png",
        },
        frames=BY_SPLIT,
        opened=OPENED_BY_SPLIT,
        ids=3,
        beside={"classes.yaml": OWN_CLASSES},
    ),
    "a manifest": Form(
        spec="csv:{root}/pairs.csv",
        files={
            "infrared": "a/{name}_t.png",
            "visible": "b/{name}_v.png",
            "boxes": "c/{name}.xml",
            "segmentation": "d/{name}.png",
            "saliency": "e/{name}.png",
        },
        frames=PLAIN,
        opened=OPENED_PLAIN,
        boxes=("person", "dog"),
        ids=3,
        beside={
            "classes.yaml": OWN_CLASSES,
            "pairs.csv": "name,infrared,visible,boxes,segmentation,saliency\n"
            + "".join(f"{n},a/{n}_t.png,b/{n}_v.png,c/{n}.xml,d/{n}.png,e/{n}.png\n" for n in ("1", "2", "10")),
        },
    ),
}
"""Every form by a name for the reader."""


def grow(form: Form, root: Path, height: int = HEIGHT, width: int = WIDTH) -> str:
    """Writes a form below a root; returns the specification without a split."""
    for split, names in form.frames.items():
        for name in names:
            pair = draw(form, split, name, height, width)
            for part, place in form.files.items():
                path = root / place.format(split=split, Split=split.title(), name=name)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, part, pair, form.boxes)
    for place, text in form.beside.items():
        (root / place).write_text(text)
    return form.spec.format(root=root)


def draw(form: Form, split: str, name: str, height: int = HEIGHT, width: int = WIDTH) -> LabelledPair:
    """A pair of noise with labels in random places, the same for the same frame."""
    rng = np.random.default_rng(zlib.crc32(f"{split}/{name}".encode()))
    corners = np.sort(rng.integers(0, (width // 4, height // 4), (rng.integers(1, 4), 2, 2)) * 4, axis=1)
    corners[:, 1] += 4  # no box is without area
    ids = np.kron(rng.integers(0, max(1, form.ids), (height // 4, width // 4)), np.ones((4, 4))).astype(np.uint8)
    salient = np.kron(rng.integers(0, 2, (height // 4, width // 4)), np.ones((4, 4))).astype(bool)
    return LabelledPair(
        infrared=rng.integers(0, 256, (height, width), np.uint8),
        visible=rng.integers(0, 256, (height, width, 3), np.uint8),
        boxes=corners.reshape(-1, 4).astype(np.float32) if "boxes" in form.files else None,
        classes=rng.integers(0, len(form.boxes), len(corners)) if "boxes" in form.files else None,
        segmentation=ids if "segmentation" in form.files else None,
        saliency=np.where(salient, np.uint8(255), np.uint8(0)) if "saliency" in form.files else None,
        edges=np.where(salient, np.uint8(0), np.uint8(255)) if "edges" in form.files else None,
        name=name,
    )


def write(path: Path, part: str, pair: LabelledPair, names: tuple[str, ...]) -> None:
    """Writes one part of a pair to a file."""
    if part != "boxes":
        Image.fromarray(getattr(pair, part)).save(path)
    elif path.suffix == ".xml":
        path.write_text(voc(pair, names))
    else:
        path.write_text(yolo(pair))


def voc(pair: LabelledPair, names: tuple[str, ...]) -> str:
    """VOC XML as labelling tools write it."""
    height, width = pair.infrared.shape
    objects = "".join(
        f"""
    <object>
        <name>{names[kind].title()}</name>
        <pose>Unspecified</pose>
        <difficult>0</difficult>
        <bndbox><xmin>{x1:.0f}</xmin><ymin>{y1:.0f}</ymin><xmax>{x2:.0f}</xmax><ymax>{y2:.0f}</ymax></bndbox>
    </object>"""
        for kind, (x1, y1, x2, y2) in zip(pair.classes, pair.boxes, strict=True)
    )
    return f"""<annotation>
    <folder>images</folder>
    <filename>{pair.name}.png</filename>
    <size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}
</annotation>
"""


def yolo(pair: LabelledPair) -> str:
    """YOLO text."""
    height, width = pair.infrared.shape
    lines = []
    for kind, (x1, y1, x2, y2) in zip(pair.classes, pair.boxes, strict=True):
        numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(f"{kind} {' '.join(f'{number:.6f}' for number in numbers)}\n")
    return "".join(lines)
