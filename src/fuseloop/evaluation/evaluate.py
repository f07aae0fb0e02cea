"""Scores of frozen task networks on what several fusers make of a labelled data set.

Every figure is of the same frames: one that cannot be fused or scored by all is left out for all, and reported. Of a
frame only what the scores need is kept, so memory does not grow with the size of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuseloop.datasets.labelled import LabelledPair, LabelledPairs
from fuseloop.errors import ConfigurationError, FuseloopError, LabelError
from fuseloop.evaluation.classes import ClassMatch, check_same, match_classes
from fuseloop.evaluation.sources import LoopSource, Source
from fuseloop.metrics.task_scores import Interval, TaskScores, differences, intervals
from fuseloop.networks.modes import looking
from fuseloop.tasks.protocol import Prediction, Target, TaskNetwork

Networks: TypeAlias = "Mapping[str, TaskNetwork | Mapping[str, TaskNetwork]]"
"""Task networks by their names; where one was trained for each fuser, these by the names of the fusers."""

Pixels = NDArray[np.uint8]


class Failure(NamedTuple):
    """A frame that is in no score.

    Attributes:
        frame: Its name; empty where it could not be read.
        reason: Why, and of whom.
    """

    frame: str
    reason: str


class Look(NamedTuple):
    """One look of a task network at an image.

    Attributes:
        frame: Name of the frame.
        fuser: Name of what made the image.
        network: Name of the task network.
        image: H×W×3 uint8.
        prediction: What the network says, on the CPU.
        target: What is labelled, in the classes of the network.
        classes: The classes of the network.
    """

    frame: str
    fuser: str
    network: str
    image: Pixels
    prediction: Prediction
    target: Target
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a data set.

    Attributes:
        frames: Names of the frames that all scores are of.
        fusers: Names of what made the images.
        scores: By task network and fuser.
        matches: How the classes were matched, for each task network.
        images: SHA-256 of all pixels that were looked at, for each fuser: equal images have equal scores.
        failures: Frames that are in no score.
    """

    frames: tuple[str, ...]
    fusers: tuple[str, ...]
    scores: dict[str, dict[str, TaskScores]]
    matches: dict[str, ClassMatch]
    images: dict[str, str]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Uncertainty:
    """Bootstrap 95 % intervals of an evaluation.

    Attributes:
        baseline: The fuser that the others are compared to.
        resamples: How many sets of frames were drawn.
        seed: Of the drawing.
        intervals: Of every score, by task network and fuser.
        differences: Of every score to that of the baseline on the same frames, by task network and other fuser.
    """

    baseline: str
    resamples: int
    seed: int
    intervals: dict[str, dict[str, dict[str, Interval]]]
    differences: dict[str, dict[str, dict[str, Interval]]]


def evaluate(
    networks: Networks,
    fusers: Mapping[str, Source],
    pairs: LabelledPairs,
    *,
    batch: int = 1,
    same: Mapping[str, str] | None = None,
    report: Callable[[Failure | None], None] = lambda failure: None,
    look: Callable[[Look], None] | None = None,
) -> Evaluation:
    """Fuses, lets the task networks look, and scores what they say.

    The networks stay where they are and as they are; they look in evaluation mode.

    Args:
        networks: The task networks.
        fusers: What makes the images, by name. A closed loop makes one for each task network.
        pairs: The labelled pairs. Frames that are broken are in `left_out` already, or raise when they are read.
        batch: How many images of one size a network sees at a time.
        same: Classes of the data set that the networks have under other names, see `match_classes`.
        report: Called after every pair, with what went wrong with it where it could not be scored.
        look: Called with every single look, for pictures of them.

    Raises:
        LabelError: The data set has no labels for a task, or no frame could be scored.
        ConfigurationError: There is no network or no fuser, or no class of a network is in the data set.
        ValueError: `batch` is less than 1.
    """
    if not networks or not fusers:
        raise ConfigurationError("an evaluation needs a task network and a fuser at least")
    if batch < 1:
        raise ValueError(f"a batch holds 1 image at least, not {batch}")
    by_fuser = {
        name: dict(network) if isinstance(network, Mapping) else dict.fromkeys(fusers, network)
        for name, network in networks.items()
    }
    first = {name: next(iter(of_fuser.values())) for name, of_fuser in by_fuser.items()}
    check_same(same or {}, first, pairs)
    matches = {name: match_classes(network, pairs, same=same, name=name) for name, network in first.items()}
    run = _Run(by_fuser, fusers, matches, look)
    left_out = {finding.frame: Failure(finding.frame or "", str(finding)) for finding in reversed(pairs.left_out)}
    failures = list(reversed(left_out.values()))  # the first finding of each frame
    with looking(network for of_fuser in by_fuser.values() for network in of_fuser.values()):
        for chunk in _read(pairs, batch):
            failed = run.add([pair for pair, _ in chunk if pair is not None])
            for pair, problem in chunk:
                failure = Failure("", str(problem)) if pair is None else failed.get(pair.name)
                failures += [failure] if failure else []
                report(failure)
    if not run.frames:
        raise LabelError(f"no frame of {pairs.describe()} could be scored, the first because: {failures[0].reason}")
    scores = {
        name: {fuser: network.score(run.kept[name, fuser]) for fuser, network in of_fuser.items()}
        for name, of_fuser in by_fuser.items()
    }
    images = {name: pixels.hexdigest() for name, pixels in run.pixels.items()}
    return Evaluation(tuple(run.frames), tuple(fusers), scores, matches, images, tuple(failures))


def uncertainty(
    evaluation: Evaluation, *, baseline: str | None = None, resamples: int = 1000, seed: int = 0
) -> Uncertainty:
    """Draws the frames of an evaluation again, see `fuseloop.metrics.task_scores`.

    Args:
        evaluation: The evaluation.
        baseline: The fuser that the others are compared to, by default the first.
        resamples: How many sets of frames are drawn.
        seed: Of the drawing.

    Raises:
        ConfigurationError: There is no such baseline.
    """
    first = evaluation.fusers[0] if baseline is None else baseline
    if first not in evaluation.fusers:
        raise ConfigurationError(f"there is no fuser {first!r} to compare to; there are {', '.join(evaluation.fusers)}")
    drawn = {"resamples": resamples, "seed": seed}
    return Uncertainty(
        first,
        resamples,
        seed,
        {
            name: {fuser: intervals(scores, **drawn) for fuser, scores in of_fuser.items()}
            for name, of_fuser in evaluation.scores.items()
        },
        {
            name: {
                fuser: differences(scores, of_fuser[first], **drawn)
                for fuser, scores in of_fuser.items()
                if fuser != first
            }
            for name, of_fuser in evaluation.scores.items()
        },
    )


class _Run:
    """What was gathered so far."""

    def __init__(
        self,
        networks: Mapping[str, Mapping[str, TaskNetwork]],
        fusers: Mapping[str, Source],
        matches: Mapping[str, ClassMatch],
        look: Callable[[Look], None] | None,
    ) -> None:
        self.networks, self.matches, self.look = networks, matches, look
        self.makers = {
            fuser: {name: source.bound(networks[name][fuser]) for name in networks}
            if isinstance(source, LoopSource)
            else {"": source}
            for fuser, source in fusers.items()
        }
        self.frames: list[str] = []
        self.kept: dict[tuple[str, str], list[Any]] = {(n, fuser): [] for n in networks for fuser in fusers}
        self.pixels = {name: sha256() for name in fusers}

    def add(self, pairs: Sequence[LabelledPair]) -> dict[str, Failure]:
        """Scores frames, and gives those that could not be scored by all."""
        failed: dict[str, Failure] = {}
        images: dict[str, dict[tuple[str, str], Pixels]] = {pair.name: {} for pair in pairs}
        targets: dict[str, dict[str, Target]] = {}
        kept: dict[str, dict[tuple[str, str], Any]] = {pair.name: {} for pair in pairs}
        for pair in pairs:
            with _noting(failed, [pair.name]):
                targets[pair.name] = {name: match.target(pair) for name, match in self.matches.items()}
            for fuser, makers in self.makers.items():
                for name, source in makers.items():
                    with _noting(failed, [pair.name], *([name] if name else []), fuser):
                        images[pair.name][fuser, name] = source.image(pair)
        for name, fuser in self.kept:
            key = (fuser, name if name in self.makers[fuser] else "")
            sound = {pair.name: images[pair.name][key] for pair in pairs if pair.name not in failed}
            network = self.networks[name][fuser]
            for frames in _of_one_size(sound):
                found: list[Prediction] = []
                with _noting(failed, frames, name, fuser):
                    found = predict(network, [sound[frame] for frame in frames])
                for frame, prediction in zip(frames, found, strict=False):  # nothing was found where it failed
                    target = targets[frame][name]
                    with _noting(failed, [frame], name, fuser):
                        kept[frame][name, fuser] = network.keep(frame, prediction, target)
                        if self.look is not None:
                            self.look(Look(frame, fuser, name, sound[frame], prediction, target, network.classes))
        for frame in [pair.name for pair in pairs if pair.name not in failed]:
            self.frames.append(frame)
            for (fuser, _), pixels in images[frame].items():
                self.pixels[fuser].update(np.ascontiguousarray(pixels).data)
            for looked, one in kept[frame].items():
                self.kept[looked].append(one)
        return failed


@torch.no_grad()
def predict(network: TaskNetwork, images: Sequence[Pixels]) -> list[Prediction]:
    """What a network says of images of one size.

    Args:
        network: On any device.
        images: H×W×3 uint8 each.

    Returns:
        The predictions, on the CPU.
    """
    device = next(chain(network.parameters(), network.buffers()), torch.empty(0)).device
    batch = torch.from_numpy(np.stack(images)).to(device).movedim(-1, 1).float() / 255
    return [_on_cpu(prediction) for prediction in network.predict(network(batch))]


def _on_cpu(prediction: Prediction) -> Prediction:
    parts = {name: part.cpu() if isinstance(part, Tensor) else part for name, part in vars(prediction).items()}
    return Prediction(**parts)


def _read(pairs: LabelledPairs, batch: int) -> Iterator[list[tuple[LabelledPair | None, FuseloopError | None]]]:
    """Pairs in chunks, or why they cannot be read; the next chunk is read while one is worked on."""

    def read(index: int) -> tuple[LabelledPair | None, FuseloopError | None]:
        try:
            pair = pairs[index]
        except FuseloopError as error:
            return None, error
        return (pair if pair.name else replace(pair, name=f"{index:05d}")), None

    def read_chunk(start: int) -> list[tuple[LabelledPair | None, FuseloopError | None]]:
        return [read(index) for index in range(start, min(start + batch, len(pairs)))]

    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(read_chunk, 0)
        for start in range(0, len(pairs), batch):
            chunk = coming.result()
            coming = thread.submit(read_chunk, start + batch)
            yield chunk


def _of_one_size(images: Mapping[str, Pixels]) -> Iterator[list[str]]:
    """Frames that follow each other and whose images have one size."""
    for _, group in groupby(images, key=lambda frame: images[frame].shape):
        yield list(group)


@contextmanager
def _noting(failed: dict[str, Failure], frames: Sequence[str], *whose: str) -> Iterator[None]:
    """Notes of frames what goes wrong with them, and whose image or prediction it is about; the first counts."""
    try:
        yield
    except FuseloopError as error:
        for frame in frames:
            failed.setdefault(frame, Failure(frame, ": ".join([*whose, str(error)])))
