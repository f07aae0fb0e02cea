"""Which files make a frame: an infrared and a visible image, and the fused image of each method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fuseloop.errors import ConfigurationError, PairError
from fuseloop.pairs.folders import list_images, pair_folders, some_names


class Job(NamedTuple):
    """One frame to score.

    Attributes:
        name: What the names of its files have in common.
        infrared: The infrared file.
        visible: The visible file.
        fused: The fused file of each method that has one.
    """

    name: str
    infrared: Path
    visible: Path
    fused: dict[str, Path]


class Plan(NamedTuple):
    """What there is to score.

    Attributes:
        methods: Names of the methods.
        jobs: The frames in natural order.
        unmatched: Images without a partner, and frames that a method lacks: a line for each.
    """

    methods: tuple[str, ...]
    jobs: list[Job]
    unmatched: list[str]


def name_methods(texts: Sequence[str]) -> dict[str, Path]:
    """The methods of "NAME=PATH" or "PATH", which is named by its folder or by the stem of its file.

    Raises:
        ConfigurationError: Two methods have the same name, a name is empty, or there is no method.
    """
    methods: dict[str, Path] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        path = Path(place)
        if not equals or os.path.exists(text):
            path = Path(text)
            # Not the target of a link: the name is the one that was typed.
            name = Path(os.path.abspath(path)).name if path.is_dir() else path.stem
        if not name or not str(place if equals else text):
            raise ConfigurationError(f"--fused {text} is not of the form PATH or NAME=PATH")
        if name in methods:
            raise ConfigurationError(
                f"{methods[name]} and {path} are both called {name!r}; tell them apart: --fused NAME={path}"
            )
        methods[name] = path
    if not methods:
        raise ConfigurationError("there is nothing to score; give --fused PATH or --fused NAME=PATH")
    return methods


def plan_file(infrared: Path, visible: Path, fused: Mapping[str, Path]) -> Plan:
    """Plans one frame; it is named by the stem of the visible file."""
    return Plan(tuple(fused), [Job(visible.stem, infrared, visible, dict(fused))], [])


def plan_folders(
    infrared: Path,
    visible: Path,
    fused: Mapping[str, Path],
    *,
    suffixes: tuple[str, str] = ("", ""),
    fused_suffix: str | None = None,
) -> Plan:
    """Plans the frames of folders by the stems of their files, whatever the endings.

    Args:
        infrared: Folder of the infrared images.
        visible: Folder of the visible images.
        fused: Folder of each method.
        suffixes: Ends of the infrared and of the visible stems that do not count, such as ("_ir", "_vis").
        fused_suffix: End of the fused stems that does not count. By default a fused image has the stem of the visible
            image, as `fuseloop fuse` writes it, or the name without suffix.

    Raises:
        PairError: A folder of the sources is missing or empty or has a name twice, both are the same without suffixes
            that tell the images apart, they have no name in common, or no method has an image of any pair.
    """
    if suffixes[0] == suffixes[1] and infrared.is_dir() and visible.is_dir() and infrared.samefile(visible):
        raise PairError(
            f"the infrared and the visible folder are the same: {infrared}; give two folders, or say by --suffix how "
            "the names of the infrared and of the visible images end"
        )
    pairing = pair_folders(infrared, visible, infrared_suffix=suffixes[0], visible_suffix=suffixes[1])
    jobs = [Job(pair.name, pair.infrared, pair.visible, {}) for pair in pairing.pairs]
    problems: dict[str, PairError] = {}  # of methods that have no frame at all
    idle = dict.fromkeys(pairing.unpaired)  # a dictionary keeps the order
    for method, folder in fused.items():
        try:
            files = _by_stem(list_images(folder))
        except PairError as problem:
            problems[method] = problem
            continue
        idle |= dict.fromkeys(files.values())
        for job in jobs:
            stems = (job.visible.stem, job.name) if fused_suffix is None else (job.name + fused_suffix,)
            found = next((files[stem] for stem in stems if stem in files), None)
            if found is not None:
                job.fused[method] = found
        if not any(method in job.fused for job in jobs):
            problems[method] = PairError(
                f"no image of {folder} has the same name as a pair of {infrared} and {visible}: "
                f"{some_names(files)} against {some_names(job.name for job in jobs)}; "
                "rename them, or say by --suffix how the names end"
            )
    if not any(job.fused for job in jobs):
        raise next(iter(problems.values()))
    used = {path.absolute() for job in jobs for path in (job.infrared, job.visible, *job.fused.values())}
    unmatched = [str(path) for path in idle if path.absolute() not in used]
    for job in jobs:
        lacking = [method for method in fused if method not in job.fused and method not in problems]
        if lacking:
            unmatched.append(f"{job.name}: there is no fused image" + (f" of {', '.join(lacking)}" * (len(fused) > 1)))
    return Plan(tuple(fused), [job for job in jobs if job.fused], [*map(str, problems.values()), *unmatched])


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in files:
        if path.stem in stems:
            raise PairError(f"{stems[path.stem]} and {path} have the same name; keep one of them")
        stems[path.stem] = path
    return stems
