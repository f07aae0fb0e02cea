"""Finds the frames of a specification: in the folders of a layout, or in a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from natsort import natsorted

from fuseloop.datasets.classes import ClassNames, read_names
from fuseloop.datasets.findings import Finding
from fuseloop.datasets.found import Found, Frame
from fuseloop.datasets.manifest import read_manifest
from fuseloop.datasets.places import Place, expected, find_place, folders_of, is_box_file, splits_of, written
from fuseloop.datasets.spec import MANIFEST, Spec
from fuseloop.datasets.table import GENERIC, LABEL_PARTS, SPLIT, DataSet
from fuseloop.errors import PairError
from fuseloop.pairs.folders import Pairing, PairPaths, list_images, some_names


def find_pairs(spec: Spec) -> Pairing:
    """The pairs of a specification, whatever their labels.

    Raises:
        PairError: There are none; the message says what was expected where.
        ConfigurationError: The split, the slice or the manifest makes no sense.
    """
    if spec.name == MANIFEST:
        frames = read_manifest(Path(spec.path), spec.split)
        return Pairing(spec.choose([PairPaths(frame.name, frame.infrared, frame.visible) for frame in frames]), [])
    places = _places(spec)
    pairs = [pair._replace(name=place.prefix + pair.name) for place in places for pair in place.pairs]
    return Pairing(spec.choose(pairs), [path for place in places for path in place.unpaired])


def find_frames(spec: Spec) -> Found:
    """The frames of a specification with their labels.

    Raises:
        PairError: There are none; the message says what was expected where.
        ConfigurationError: The split, the slice or the manifest makes no sense, or classes are not named that must be.
    """
    frames: list[Frame] = []
    findings: list[Finding] = []
    if spec.name == MANIFEST:
        path = Path(spec.path)
        frames = read_manifest(path, spec.split)
        labels = {part: path for part in LABEL_PARTS if any(getattr(frame, part) for frame in frames)}
        names = read_names(GENERIC, path.parent, labels)
    else:
        places = _places(spec)
        names = read_names(spec.row, Path(spec.path), places[0].labels)
        for place in places:
            frames += _frames_of(place, spec.row, findings)
            findings += _not_labelled(place, names)
    return Found(spec.title, tuple(spec.choose(frames)), names, tuple(findings))


def _places(spec: Spec) -> list[Place]:
    """Where the splits of a specification lie."""
    root, row = Path(spec.path), spec.row
    if not root.is_dir():
        raise PairError(f"{root} is not a folder; {expected(row)}")
    splits = spec.split.split("+") if spec.split else [""]
    places = [find_place(row, root, split) for split in splits]
    if len(places) > 1:  # folders may number their frames alike
        places = [place if place.listed else place._replace(prefix=f"{place.split}/") for place in places]
    return places


def _frames_of(place: Place, row: DataSet, findings: list[Finding]) -> list[Frame]:
    """The frames of one place; what is wrong with its files as such goes into `findings`."""
    findings += [
        Finding("no partner", path, "has no partner in the other modality", frame=place.prefix + path.stem)
        for path in place.unpaired
    ]
    labels = {part: _label_files(folder, part, place.prefix, findings) for part, folder in place.labels.items()}
    frames = []
    for pair in place.pairs:
        name = place.prefix + pair.name
        missing = [part for part in labels if pair.name not in labels[part]]
        findings += [
            Finding("no label", place.labels[part], f"has no file for {pair.name}; {_advice(part)}", frame=name)
            for part in missing
        ]
        if not missing:
            own = {part: labels[part][pair.name] for part in labels}
            frames.append(Frame(name, pair.infrared, pair.visible, **own))
    images = {pair.name for pair in place.pairs} | {path.stem for path in place.unpaired}
    for part, by_stem in labels.items():
        findings += _orphans(place, row, part, {stem: by_stem[stem] for stem in by_stem.keys() - images})
    findings += _missing_of_list(place)
    return frames


def _advice(part: str) -> str:
    return "an empty file says that nothing is there" if part == "boxes" else "a mask of 0 says that nothing is there"


def _label_files(folder: Path, part: str, prefix: str, findings: list[Finding]) -> dict[str, Path]:
    """The label files of a folder by their stems."""
    paths = natsorted(filter(is_box_file, folder.iterdir()), key=str) if part == "boxes" else list_images(folder)
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            reason = f"and {by_stem[path.stem].name} are both labels of {path.stem}; keep one of them"
            findings.append(Finding("unreadable label", path, reason, frame=prefix + path.stem))
        by_stem.setdefault(path.stem, path)
    return by_stem


def _orphans(place: Place, row: DataSet, part: str, files: Mapping[str, Path]) -> list[Finding]:
    """Label files without a pair."""
    if place.listed is not None:
        files = {stem: path for stem, path in files.items() if stem in place.listed}
    if place.split and SPLIT in place.layout.infrared and SPLIT not in place.layout.labels[part]:
        shared = {
            pair.name for split in splits_of(row, place.root) for pair in find_place(row, place.root, split).pairs
        }
        unused = natsorted(files.keys() - shared)
        if not unused:
            return []
        reason = f"{len(unused)} label files belong to no pair of any split: {some_names(unused)}"
        return [Finding("unused", place.labels[part], reason)]
    return [
        Finding("no images", files[stem], "has no images of its name", frame=place.prefix + stem)
        for stem in natsorted(files)
    ]


def _not_labelled(place: Place, names: ClassNames) -> list[Finding]:
    """Labels that one would expect and that are not there."""
    notes = []
    for part, name in place.layout.labels.items():
        if part in place.labels:
            continue
        held = set(place.labels.values())
        folders = [folder for folder in folders_of(place.root, name, place.split) if folder not in held]
        notes += [Finding("not labelled", folder, f"holds no files with {part}") for folder in folders]
        if not folders and {"boxes": names.boxes, "segmentation": names.segmentation}.get(part):
            expected = written(name, place.split)
            notes.append(Finding("not labelled", place.root, f"has classes of {part}, but no folder {expected}"))
    return notes


def _missing_of_list(place: Place) -> list[Finding]:
    """Frames that the list of splits names and that are not there."""
    missing = natsorted((place.listed or frozenset()) - {pair.name for pair in place.pairs})
    if not missing:
        return []
    reason = f"{len(missing)} frames of the split {place.split!r} are not there: {some_names(missing)}"
    return [Finding("other split", place.root, reason)]
