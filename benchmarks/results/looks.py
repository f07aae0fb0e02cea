"""Every look of every task network at every image, once, in this run and in later ones.

Of a look only what the scores of any set need is kept, in memory and in a folder, a file for each frame. There it goes
by the hash of all that it depends on: pixels and labels of the frame, weights of what made the image and of what looked
at it, and the code. So a run that is stopped is continued, and a section that is written anew looks at nothing twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fuseloop
from benchmarks.results.images import PREVIOUS, Image, Makers
from fuseloop.datasets.labelled import LabelledPair, LabelledPairs
from fuseloop.evaluation.classes import match_classes
from fuseloop.evaluation.evaluate import predict
from fuseloop.metrics import Evaluation, score_methods
from fuseloop.metrics.evaluate import Score
from fuseloop.metrics.task_scores import DetectionFrame, SaliencyFrame, SegmentationFrame, TaskScores
from fuseloop.networks.modes import looking
from fuseloop.pairs.atomic import written_aside
from fuseloop.tasks.protocol import Task, TaskNetwork

BATCH = 4
QUALITY = ("mi", "qabf", "qcb", "qcv", "qc", "cc", "scd", "vif", "ssim")
CONVENTION = "default"
CODE = ("datasets", "engines", "fusers", "metrics", "networks", "pairs", "tasks")
"""What figures depend on of the package."""

FRAMES: dict[Task, Any] = {"detection": DetectionFrame, "segmentation": SegmentationFrame, "saliency": SaliencyFrame}
"""What is kept of a look."""

Arrays = dict[str, NDArray[Any]]


class Look(NamedTuple):
    """A look of a task network at an image.

    Attributes:
        image: The image.
        network: Name of the network that looks; another one than the image was made for, maybe.
    """

    image: Image
    network: str


class Store:
    """Arrays of frames on disk.

    Args:
        folder: The folder; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, frame: str) -> dict[str, Arrays]:
        """Everything of a frame, by what it is of."""
        path = self._path(frame)
        found: dict[str, Arrays] = defaultdict(dict)
        if path is not None and path.exists():
            with np.load(path, allow_pickle=False) as archive:
                for name in archive.files:
                    of, _, part = name.partition("/")
                    found[of][part] = archive[name]
        return found

    def write(self, frame: str, content: Mapping[str, Arrays]) -> None:
        """Replaces everything of a frame."""
        path = self._path(frame)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path, overwrite=True) as aside, aside.open("wb") as file:
            named: dict[str, Any] = {
                f"{of}/{part}": one for of, parts in content.items() for part, one in parts.items()
            }
            np.savez(file, **named)

    def _path(self, frame: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{frame}.npz"


class Looks:
    """What task networks make of images of a data set.

    Args:
        pairs: The data set, of which every frame has to be sound.
        networks: Task networks by their names.
        makers: Makes the images.
        store: Keeps what was seen.
    """

    def __init__(
        self, pairs: LabelledPairs, networks: Mapping[str, TaskNetwork], makers: Makers, store: Store | None = None
    ) -> None:
        self.pairs, self.networks, self.makers = pairs, networks, makers
        self._matches = {name: match_classes(network, pairs, name=name) for name, network in networks.items()}
        self._store = store or Store(None)
        self._kept: dict[Look | Image, list[Arrays]] = {}
        self.frames: list[str] = []
        self.scores = cache(self._score)

    def gather(self, wanted: Iterable[Look | Image], say: Callable[[str], None] | None = None) -> None:
        """Has everything looked at, or scored for its fusion quality, that is wanted and was not yet.

        Args:
            wanted: Looks; and images whose fusion quality is wanted.
            say: Told how far it is, and how long it takes.
        """
        new = [one for one in dict.fromkeys(wanted) if one not in self._kept]
        if not new:
            return
        names, gathered = [], {one: list[Arrays]() for one in new}
        plan = _Plan(self, new)
        with looking(self.networks[one.network] for one in new if isinstance(one, Look)):
            for index in _timed(len(self.pairs), f"{len(new)} looks and scores a frame", say):
                pair = self.pairs[index]
                names.append(pair.name)
                for one, found in self._of_frame(pair, plan).items():
                    gathered[one].append(found)
        self.frames, self._kept = names, self._kept | gathered

    def _of_frame(self, pair: LabelledPair, plan: _Plan) -> dict[Look | Image, Arrays]:
        frame = frame_hash(pair)
        content = self._store.read(frame)
        stored = plan.stored(content)
        found = self._find(pair, [one for one in plan.new if one not in stored])
        if new := plan.keyed(found):
            self._store.write(frame, content | new)
        return stored | found

    def _find(self, pair: LabelledPair, missing: Sequence[Look | Image]) -> dict[Look | Image, Arrays]:
        images = {image: self.makers.image(image, pair) for image in dict.fromkeys(map(_image, missing))}
        self.makers.forget()
        found: dict[Look | Image, Arrays] = {}
        scored = [one for one in missing if isinstance(one, Image)]
        quality = {str(number): images[image] for number, image in enumerate(scored)}
        rows = score_methods(pair.infrared, pair.visible, quality, metrics=QUALITY, convention=CONVENTION)
        for image, row in zip(scored, rows.values(), strict=True):
            found[image] = {key: np.array(one.value) for key, one in row.items()}
        for name, network in self.networks.items():
            looks = [one for one in missing if isinstance(one, Look) and one.network == name]
            target = self._matches[name].target(pair) if looks else None
            for start in range(0, len(looks), BATCH):
                batch = looks[start : start + BATCH]
                said = predict(network, [images[look.image] for look in batch])
                for look, prediction in zip(batch, said, strict=True):
                    assert target is not None
                    found[look] = _packed(network.keep(pair.name, prediction, target))
        return found

    def _score(self, look: Look) -> TaskScores:
        """The scores of what was gathered."""
        network = self.networks[look.network]
        kept = [
            FRAMES[network.task](name, **{part: value if value.ndim else value.item() for part, value in one.items()})
            for name, one in zip(self.frames, self._kept[look], strict=True)
        ]
        return network.score(kept)

    def quality(self, image: Image) -> Evaluation:
        """The fusion quality of what was gathered."""
        rows = {
            name: {key: Score(float(one[key]), CONVENTION) for key in QUALITY}
            for name, one in zip(self.frames, self._kept[image], strict=True)
        }
        return Evaluation.of(rows)


class _Plan:
    """What is to be gathered, and by which keys it is stored.

    Attributes:
        new: What is to be gathered.
    """

    def __init__(self, looks: Looks, new: Sequence[Look | Image]) -> None:
        self.new = new
        self._keys: dict[Look | Image, str] = {}
        for one in new:
            identity = looks.makers.identity(_image(one))
            if isinstance(one, Look):
                identity["looks"] = looks.makers.network_identity(one.network)
            if _image(one).feedback != PREVIOUS:  # these depend on all frames before, so they are not stored
                self._keys[one] = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]

    def stored(self, content: Mapping[str, Arrays]) -> dict[Look | Image, Arrays]:
        """What is there already of a frame."""
        return {one: content[key] for one, key in self._keys.items() if key in content}

    def keyed(self, found: Mapping[Look | Image, Arrays]) -> dict[str, Arrays]:
        """What was found, as it is stored."""
        return {self._keys[one]: arrays for one, arrays in found.items() if one in self._keys}


def frame_hash(pair: LabelledPair) -> str:
    """SHA-256 of all of a frame that figures depend on, and of the code."""
    parts = (pair.infrared, pair.visible, pair.boxes, pair.classes, pair.segmentation, pair.saliency, pair.edges)
    total = sha256(code_hash().encode())
    for part in parts:
        total.update(b"none" if part is None else repr((part.shape, part.dtype)).encode() + part.tobytes())
    return total.hexdigest()


@cache
def code_hash() -> str:
    """SHA-256 of the code that figures depend on."""
    root, total = Path(fuseloop.__file__).parent, sha256()
    for path in sorted(path for room in CODE for path in (root / room).rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _image(one: Look | Image) -> Image:
    return one.image if isinstance(one, Look) else one


def _packed(kept: Any) -> Arrays:
    return {field.name: np.asarray(getattr(kept, field.name)) for field in fields(kept) if field.name != "name"}


def _timed(count: int, what: str, say: Callable[[str], None] | None) -> Iterable[int]:
    """Numbers from 0, and now and then how long the rest will take by what the frames so far took."""
    start = last = time.monotonic()
    for index in range(count):
        yield index
        now = time.monotonic()
        if say is not None and (index in (0, count - 1) or now - last > 20):
            last, each = now, (now - start) / (index + 1)
            left = each * (count - index - 1) / 60
            say(f"{what}: frame {index + 1} of {count}, {each:.1f} s a frame, {left:.1f} minutes left")


def to_stderr(line: str) -> None:
    """Says a line beside the output."""
    print(line, file=sys.stderr, flush=True)
