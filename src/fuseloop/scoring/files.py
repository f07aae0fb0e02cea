"""Scores files on all cores: one bad image does not stop the others, and memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fuseloop.errors import ConfigurationError, ImageError, PairError
from fuseloop.metrics.evaluate import Evaluation, PairScorer, Score
from fuseloop.metrics.grey import Pixels
from fuseloop.metrics.table import conventions_used
from fuseloop.pairs.images import Picture, read_image
from fuseloop.pairs.levels import Levels, Limits, from_unit, to_unit
from fuseloop.scoring.plan import Job, Plan, usable_cores

INTERRUPTED = "not scored, because of an interruption"


class Mapping8(NamedTuple):
    """How images that are not 8-bit become so, as rules of `fuseloop.pairs.levels`; None refuses them.

    Attributes:
        infrared: The rule for infrared images.
        visible: The rule for visible images.
        fused: The rule for fused images.
    """

    infrared: str | None = None
    visible: str | None = None
    fused: str | None = None

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Mapping8:
        """Reads "RULE", which is for all images, or "infrared=RULE", "visible=RULE", "fused=RULE".

        Raises:
            ConfigurationError: A rule is unknown, or there are two for one image.
        """
        rules: dict[str, str] = {}
        for text in texts:
            name, equals, rule = text.partition("=")
            if not equals:
                name, rule = "", text
            elif name not in cls._fields:
                raise ConfigurationError(
                    f"--levels {text} is for no known image; give RULE, or {'=RULE, '.join(cls._fields)}=RULE"
                )
            Levels.parse(rule)
            for key in [name] if name else cls._fields:
                if key in rules:
                    raise ConfigurationError(f"--levels has two rules for the {key} images: {rules[key]} and {rule}")
                rules[key] = rule
        return cls(**rules)


class Failure(NamedTuple):
    """What could not be scored.

    Attributes:
        frame: Name of the frame.
        method: Name of the method; None when the sources are to blame, so that no method could be scored.
        reason: Why.
    """

    frame: str
    method: str | None
    reason: str


class Outcome(NamedTuple):
    """What became of a frame: the scores of each method that could be scored, and what went wrong with the others."""

    job: Job
    scores: dict[str, dict[str, Score]]
    failures: list[Failure]


@dataclass(frozen=True)
class Scores:
    """Scores of many frames.

    Attributes:
        convention: The convention asked for.
        levels: How images that are not 8-bit were mapped.
        methods: All methods, in the order given.
        evaluations: The scores of each method that has any.
        failures: What could not be scored.
    """

    convention: str
    levels: Mapping8
    methods: tuple[str, ...]
    evaluations: dict[str, Evaluation]
    failures: list[Failure]

    @classmethod
    def of(cls, plan: Plan, outcomes: Sequence[Outcome], convention: str, levels: Mapping8) -> Scores:
        """Collects outcomes in the order of the plan; what has no outcome was interrupted."""
        known = {outcome.job.name: outcome for outcome in outcomes}
        scores: dict[str, dict[str, dict[str, Score]]] = {method: {} for method in plan.methods}
        failures: list[Failure] = []
        for job in plan.jobs:
            if job.name not in known:
                failures.append(Failure(job.name, None, INTERRUPTED))
                continue
            failures += known[job.name].failures
            for method, row in known[job.name].scores.items():
                scores[method][job.name] = row
        evaluations = {method: Evaluation.of(rows) for method, rows in scores.items() if rows}
        return cls(convention, levels, plan.methods, evaluations, failures)


def score_job(
    job: Job,
    *,
    metrics: Sequence[str] | None = None,
    convention: str = "default",
    levels: Mapping8 = Mapping8(),  # noqa: B008
    read: Callable[[Path], Picture] = read_image,
) -> Outcome:
    """Scores one frame.

    Args:
        job: The frame.
        metrics: See `fuseloop.metrics.score_frame`.
        convention: See `fuseloop.metrics.score_frame`.
        levels: How images that are not 8-bit become so.
        read: Reads an image file.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under other conventions.
    """
    try:
        infrared = _levels_of(read(job.infrared), job.infrared, "infrared", levels)
        visible = _levels_of(read(job.visible), job.visible, "visible", levels)
        pair = PairScorer(infrared, visible, metrics=metrics, convention=convention)
    except (ImageError, PairError) as error:
        return Outcome(job, {}, [Failure(job.name, None, str(error))])
    outcome = Outcome(job, {}, [])
    for method, path in job.fused.items():
        try:
            outcome.scores[method] = pair.score(_levels_of(read(path), path, "fused", levels), method)
        except (ImageError, PairError) as error:  # noqa: PERF203
            outcome.failures.append(Failure(job.name, method, str(error)))
    return outcome


def _levels_of(picture: Picture, path: Path, kind: str, levels: Mapping8) -> Pixels:
    """The 8-bit pixels that are scored; opacity does not count."""
    pixels = picture.pixels
    if pixels.dtype == np.uint8:
        return pixels
    rule = getattr(levels, kind)
    if rule is None:
        depth = "16-bit" if pixels.dtype == np.uint16 else "float"
        raise ImageError(
            f"{path}: is a {depth} image, and scores are taken from 8 bits; say what is black and white, such as "
            f"--levels {kind}=full or --levels {kind}=range:LOW,HIGH"
        )
    try:
        unit = to_unit(pixels, Levels.parse(rule).limits(pixels))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    mapped: Pixels = from_unit(unit, np.uint8, Limits(0, 255))
    return mapped


def score_files(
    plan: Plan,
    report: Callable[[Outcome], None] = lambda outcome: None,
    *,
    metrics: Sequence[str] | None = None,
    convention: str = "default",
    levels: Mapping8 = Mapping8(),  # noqa: B008
    read: Callable[[Path], Picture] = read_image,
    workers: int | None = None,
) -> Scores:
    """Scores all frames of a plan, several at a time.

    Each worker is a thread that has one frame in memory. PyTorch has threads of its own, and one of these a worker is
    the fastest: set OMP_NUM_THREADS=1 before it is imported.

    Args:
        plan: What to score.
        report: Called with the outcome of each frame soon after it ended. After Ctrl-C it is still called for the
            frames that were being scored, before KeyboardInterrupt goes on.
        metrics: See `fuseloop.metrics.score_frame`.
        convention: See `fuseloop.metrics.score_frame`.
        levels: How images that are not 8-bit become so.
        read: Reads an image file.
        workers: How many frames are scored at a time; by default the cores divided by PyTorch's threads.

    Returns:
        What could be scored.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under other conventions.
    """
    conventions_used(metrics, convention)  # a mistake there would fail every frame
    count = workers or max(1, usable_cores() // torch.get_num_threads())
    score = partial(score_job, metrics=metrics, convention=convention, levels=levels, read=read)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(max_workers=count) as threads:
        running: set[Future[Outcome]] = set()

        def collect(futures: Iterable[Future[Outcome]]) -> None:
            for future in futures:
                outcomes.append(future.result())
                running.discard(future)
                report(outcomes[-1])

        try:
            running.update(threads.submit(score, job) for job in plan.jobs)
            collect(as_completed(list(running)))
        except KeyboardInterrupt:
            threads.shutdown(cancel_futures=True)
            collect([future for future in running if not future.cancelled()])
            raise
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return Scores.of(plan, outcomes, convention, levels)
