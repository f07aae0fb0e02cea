"""Predictions for files: what a task network says of each image, written so that a run can be continued.

A folder of predictions holds

* `predictions.json`: which network, its classes, the images, and for detectors all boxes, in COCO's form,
* `overlays/NAME.png`: the prediction over its image, for people,
* `boxes/NAME.json`, `masks/NAME.png` (class ids) or `saliency/NAME.png` (0 to 255): what was predicted. It is written
  last, so an image that has one is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.pixels import read_infrared, read_visible
from fuseloop.errors import ConfigurationError, FuseloopError, ImageError, PairError
from fuseloop.evaluation.evaluate import predict
from fuseloop.evaluation.results import weights_hash
from fuseloop.evaluation.sources import ImageSource
from fuseloop.fusers.files import make_folder
from fuseloop.networks.modes import looking
from fuseloop.pairs.atomic import written_aside
from fuseloop.pairs.folders import list_images, pair_folders
from fuseloop.pairs.images import Picture, read_size, write_image
from fuseloop.tasks.protocol import Prediction, Task, TaskNetwork

Pixels = NDArray[np.uint8]
INDEX = "predictions.json"
OVERLAYS = "overlays"
RESULTS: dict[Task, tuple[str, str]] = {
    "detection": ("boxes", ".json"),
    "segmentation": ("masks", ".png"),
    "saliency": ("saliency", ".png"),
}
"""Folder and ending of what is predicted."""

Draw = Callable[[Pixels, Prediction, tuple[str, ...]], Pixels]


class Job(NamedTuple):
    """One image to look at.

    Attributes:
        name: What its outputs are called.
        files: The image alone, or the infrared and the visible image that it is fused from.
    """

    name: str
    files: tuple[Path, ...]


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
        job: The job.
        status: "predicted"; "kept" when it was there already; "failed".
        error: Why it failed, else None.
    """

    job: Job
    status: Literal["predicted", "kept", "failed"]
    error: FuseloopError | None = None


def plan_images(images: Path) -> list[Job]:
    """The image, or the images of a folder.

    Raises:
        PairError: The folder holds no images, or two of one name.
    """
    return _once([Job(path.stem, (path,)) for path in (list_images(images) if images.is_dir() else [images])])


def plan_pairs(infrared: Path, visible: Path, *, suffixes: tuple[str, str] = ("", "")) -> tuple[list[Job], list[Path]]:
    """A pair, or the pairs of two folders, and the images without a partner.

    Raises:
        PairError: The folders have no name in common, or one has a name twice.
    """
    if not infrared.is_dir():
        return [Job(visible.stem, (infrared, visible))], []
    pairing = pair_folders(infrared, visible, infrared_suffix=suffixes[0], visible_suffix=suffixes[1])
    return _once([Job(pair.visible.stem, (pair.infrared, pair.visible)) for pair in pairing.pairs]), pairing.unpaired


def _once(jobs: list[Job]) -> list[Job]:
    by_name: dict[str, Job] = {}
    for job in jobs:
        other = by_name.setdefault(job.name, job)
        if other is not job:
            raise PairError(f"{other.files[-1]} and {job.files[-1]} have the same name; keep one of them")
    return jobs


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions.

    Args:
        folder: The folder.
        network: What is predicted with.
        threshold: Boxes with lower scores are left out.
        made: What else tells two runs apart, such as the fuser.
    """

    folder: Path
    network: TaskNetwork
    threshold: float
    made: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, *, overwrite: bool) -> None:
        """Checks that predictions may be written here, and begins the index.

        Raises:
            ImageError: The folder holds something else, or predictions of another network, threshold or fuser and
                `overwrite` is not set; or it cannot be written.
            ConfigurationError: The threshold is not in [0, 1].
        """
        if not 0 <= self.threshold <= 1:
            raise ConfigurationError(f"a threshold of scores is in [0, 1], not {self.threshold:g}")
        make_folder(self.folder)
        earlier = self._earlier()
        changed = earlier is not None and {**earlier["info"], "fuseloop": ""} != {**self._info(), "fuseloop": ""}
        if earlier is None and any(self.folder.iterdir()):
            raise ImageError(f"{self.folder}: holds other files, which were kept; choose a new or empty folder")
        if earlier is not None and changed:
            if not overwrite:
                raise ImageError(
                    f"{self.folder}: holds predictions of another network, threshold or fuser, which were kept; use "
                    "--overwrite to replace them, or another folder"
                )
            self._remove(earlier)
        for name in (OVERLAYS, RESULTS[self.network.task][0]):
            make_folder(self.folder / name)
        if earlier is None or changed:
            write_json(self.folder / INDEX, self._index({}))

    def _earlier(self) -> Any:
        """The index of an earlier run, None where there is none."""
        index = self.folder / INDEX
        if not index.exists():
            return None
        content = _read_json(index)
        if not (isinstance(content, dict) and {"info", "images"} <= {*content} and "fuseloop" in content["info"]):
            raise ImageError(f"{index}: is not of fuseloop and was kept; choose another folder")
        return content

    def _remove(self, earlier: Any) -> None:
        """Removes what an earlier run predicted, so that no run with other settings takes it for its own."""
        for image in earlier["images"]:
            name = Path(image["prediction"]).stem
            for folder, ending in (*RESULTS.values(), (OVERLAYS, ".png")):
                (self.folder / folder / f"{name}{ending}").unlink(missing_ok=True)

    def result(self, job: Job) -> Path:
        """Where the prediction of an image goes."""
        folder, ending = RESULTS[self.network.task]
        return self.folder / folder / f"{job.name}{ending}"

    def write(self, job: Job, image: Pixels, prediction: Prediction, draw: Draw) -> None:
        """Writes what was predicted of an image.

        Raises:
            ImageError: The system refused to write.
        """
        overlay = draw(image, prediction, self.network.classes)
        write_image(self.folder / OVERLAYS / f"{job.name}.png", Picture(overlay), overwrite=True)
        path = self.result(job)
        if prediction.boxes is not None:
            write_json(path, {"width": image.shape[1], "height": image.shape[0], "boxes": self._boxes(prediction)})
        elif prediction.segmentation is not None:
            write_image(path, Picture(prediction.segmentation.numpy().astype(np.uint8)), overwrite=True)
        else:
            assert prediction.saliency is not None
            levels = (prediction.saliency.float().clamp(0, 1) * 255).round().byte().numpy()
            write_image(path, Picture(levels), overwrite=True)

    def _boxes(self, prediction: Prediction) -> list[dict[str, Any]]:
        """Boxes as COCO has them in results, but for the image that they are of."""
        assert prediction.boxes is not None
        assert prediction.classes is not None
        assert prediction.scores is not None
        boxes = []
        for box, kind, score in zip(prediction.boxes, prediction.classes, prediction.scores, strict=True):
            if float(score) >= self.threshold:
                x1, y1, x2, y2 = (round(float(value), 2) for value in box)
                corner_and_size = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
                boxes.append({"category_id": int(kind), "bbox": corner_and_size, "score": round(float(score), 5)})
        return boxes

    def write_index(self, jobs: Sequence[Job]) -> None:
        """Writes the index of what was predicted of these images and earlier.

        Raises:
            ImageError: A prediction cannot be read, or the system refused to write.
        """
        earlier = self._earlier() or {"images": []}
        files = {self.folder / image["prediction"]: image["file_name"] for image in earlier["images"]}
        files |= {self.result(job): job.files[-1].name for job in jobs}
        write_json(self.folder / INDEX, self._index({path: file for path, file in files.items() if path.exists()}))

    def _index(self, files: Mapping[Path, str]) -> dict[str, Any]:
        """The index from predictions and the names of their images."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (path, file) in enumerate(files.items(), start=1):
            if self.network.task == "detection":
                content = _read_json(path)
                height, width = content["height"], content["width"]
                for box in content["boxes"]:
                    area = round(box["bbox"][2] * box["bbox"][3], 2)
                    ids = {"id": len(annotations) + 1, "image_id": number}
                    annotations.append({**ids, **box, "area": area, "iscrowd": 0})
            else:
                height, width = read_size(path)
            own = {"file_name": file, "prediction": path.relative_to(self.folder).as_posix()}
            images.append({"id": number, **own, "width": width, "height": height})
        categories = [{"id": number, "name": name} for number, name in enumerate(self.network.classes)]
        index = {"info": self._info(), "images": images, "categories": categories}
        return index | ({"annotations": annotations} if self.network.task == "detection" else {})

    def _info(self) -> dict[str, Any]:
        network = {"task": self.network.task, "kind": type(self.network).__name__}
        network["weights_sha256"] = weights_hash(self.network)
        threshold = {"threshold": self.threshold} if self.network.task == "detection" else {}
        return {"fuseloop": version("fuseloop"), "network": network, **threshold, **self.made}


def predict_files(
    jobs: Sequence[Job],
    predictions: Predictions,
    draw: Draw,
    report: Callable[[Outcome], None],
    *,
    fuser: ImageSource | None = None,
    overwrite: bool = False,
) -> None:
    """Looks at images one after the other; what was predicted before is kept.

    The index is written at the end, also after an interruption, with all that is there.

    Args:
        jobs: The images.
        predictions: Where they go; `prepare` was called.
        draw: Draws a prediction over its image.
        report: Called with the outcome of every job soon after it ended.
        fuser: Makes the images of pairs.
        overwrite: Predict again what was predicted.
    """
    try:
        for job in jobs:
            if predictions.result(job).exists() and not overwrite:
                report(Outcome(job, "kept"))
                continue
            try:
                image = read_image(job, fuser)
                with looking([predictions.network]):
                    (found,) = predict(predictions.network, [image])
                predictions.write(job, image, found, draw)
            except FuseloopError as error:
                report(Outcome(job, "failed", error))
            else:
                report(Outcome(job, "predicted"))
    finally:
        predictions.write_index(jobs)


def read_image(job: Job, fuser: ImageSource | None) -> Pixels:
    """The image of a job, H×W×3 uint8.

    Raises:
        ImageError: A file cannot be read.
        PairError: The images of a pair differ in size.
    """
    if len(job.files) == 1:
        return read_visible(job.files[0])
    assert fuser is not None
    infrared, visible = read_infrared(job.files[0]), read_visible(job.files[1])
    if infrared.shape != visible.shape[:2]:
        sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (infrared, visible)]
        raise PairError(
            f"{job.files[0]} is {sizes[0]} and {job.files[1]} is {sizes[1]}; register them first, or fuse them with "
            "`fuseloop fuse --align resize` when they show exactly the same view"
        )
    return fuser.image(LabelledPair(infrared, visible, name=job.name))


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in place of what is there, whole or not at all.

    Raises:
        ImageError: The system refused to write.
    """
    with written_aside(path, overwrite=True) as aside:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ImageError(f"{path}: cannot be read as JSON ({problem}); remove it") from problem
