"""Scoring of saved images: one frame, several methods on one frame, many frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fuseloop.errors import ImageError, PairError
from fuseloop.metrics.functional.frame import Frame, Grey
from fuseloop.metrics.summary import Summary, difference, summarise
from fuseloop.metrics.table import check_convention, find_metric, metrics_of

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    """One value of one metric on one frame.

    Attributes:
        value: NaN when the metric is undefined on this frame.
        convention: Whose definition was really used.
        reason: Why the value is undefined, else None.
    """

    value: float
    convention: str
    reason: str | None = None


def to_grey(pixels: Pixels) -> Pixels:
    """Grey levels of an 8-bit image: .299 R + .587 G + .114 B, rounded half up.

    Args:
        pixels: H×W or H×W×3 (RGB), uint8.

    Returns:
        H×W, uint8.
    """
    if pixels.ndim == 2:
        return pixels
    weighted = pixels.astype(np.int64) @ np.array([299, 587, 114])
    grey: Pixels = ((weighted + 500) // 1000).astype(np.uint8)
    return grey


def score_frame(
    infrared: Pixels,
    visible: Pixels,
    fused: Pixels,
    *,
    metrics: Iterable[str] | None = None,
    convention: str = "default",
) -> dict[str, Score]:
    """Scores a fused image.

    Args:
        infrared: H×W or H×W×3, uint8. Colour is scored by its grey levels.
        visible: The same size.
        fused: The same size.
        metrics: Keys of `METRICS`; by default all that the convention has or falls back for, see `metrics_of`.
        convention: Whose definitions to follow; metrics that it lacks follow "default", and each score says so.

    Returns:
        A score for each key.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under other conventions.
        ImageError: An image is not 8-bit, or is empty.
        PairError: The sizes differ.
    """
    scores = score_methods(infrared, visible, {"fused": fused}, metrics=metrics, convention=convention)
    return scores["fused"]


def score_methods(
    infrared: Pixels,
    visible: Pixels,
    fused: Mapping[str, Pixels],
    *,
    metrics: Iterable[str] | None = None,
    convention: str = "default",
) -> dict[str, dict[str, Score]]:
    """Scores what several methods made of one pair; what is derived from the sources is computed once.

    Args:
        infrared: See `score_frame`.
        visible: See `score_frame`.
        fused: A fused image for each method.
        metrics: See `score_frame`.
        convention: See `score_frame`.

    Returns:
        For each method a score for each key.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under other conventions.
        ImageError: An image is not 8-bit, or is empty.
        PairError: The sizes differ.
    """
    check_convention(convention)
    rows = {key: find_metric(key) for key in (metrics_of(convention) if metrics is None else metrics)}
    conventions = {key: row.convention(convention) for key, row in rows.items()}
    sources = _grey(infrared, "infrared"), _grey(visible, "visible")
    scores: dict[str, dict[str, Score]] = {}
    with torch.inference_mode():
        for method, pixels in fused.items():
            frame = Frame(*sources, _grey(pixels, method))
            _check_sizes(frame, method)
            scores[method] = {}
            for key, row in rows.items():
                result = row.function.of(frame, conventions[key])
                scores[method][key] = Score(float(result.values[0]), conventions[key], result.reason(0))
    return scores


def _grey(pixels: Pixels, name: str) -> Grey:
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"{name}: scores are taken from 8-bit images, this one is {pixels.dtype}; map it to 8 bits first"
        )
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ImageError(f"{name}: scores need an H×W or H×W×3 image that is not empty, this one is {pixels.shape}")
    levels = torch.from_numpy(to_grey(pixels).astype(np.float64))
    return Grey(levels[None, None], quantized=True)


def _check_sizes(frame: Frame, method: str) -> None:
    sizes = [f"{image.levels.shape[-1]}×{image.levels.shape[-2]}" for image in frame]
    if len(set(sizes)) > 1:
        raise PairError(f"infrared is {sizes[0]}, visible {sizes[1]}, {method} {sizes[2]}; scores need one size")


@dataclass(frozen=True)
class Evaluation:
    """The scores of one method on many frames.

    Attributes:
        frames: Names of the frames.
        values: For each metric one value a frame; NaN where undefined.
        conventions: For each metric the convention really used.
        reasons: For each metric the frames where it is undefined, and why.
    """

    frames: tuple[str, ...]
    values: dict[str, NDArray[np.float64]]
    conventions: dict[str, str]
    reasons: dict[str, dict[str, str]]

    @classmethod
    def of(cls, scores: Mapping[str, Mapping[str, Score]]) -> Evaluation:
        """From the scores of each frame, all of the same metrics and convention.

        Raises:
            ValueError: There is no frame.
        """
        if not scores:
            raise ValueError("an evaluation needs at least one frame")
        first = next(iter(scores.values()))
        return cls(
            frames=tuple(scores),
            values={key: np.array([frame[key].value for frame in scores.values()]) for key in first},
            conventions={key: score.convention for key, score in first.items()},
            reasons={
                key: {name: frame[key].reason or "" for name, frame in scores.items() if frame[key].reason}
                for key in first
            },
        )

    def summary(self, key: str, *, seed: int = 0) -> Summary:
        """Mean, spread and interval of a metric over the frames."""
        return summarise(self.values[key], seed=seed)

    def difference(self, baseline: Evaluation, key: str, *, seed: int = 0) -> Summary:
        """The same of the paired differences to another method.

        Raises:
            ValueError: The two were scored on different frames or by different conventions.
        """
        if self.frames != baseline.frames or self.conventions[key] != baseline.conventions[key]:
            raise ValueError(f"{key}: paired differences need the same frames and the same convention")
        return difference(self.values[key], baseline.values[key], seed=seed)


def score_frames(
    frames: Iterable[tuple[str, Pixels, Pixels, Mapping[str, Pixels]]],
    *,
    metrics: Sequence[str] | None = None,
    convention: str = "default",
) -> dict[str, Evaluation]:
    """Scores several methods on many frames.

    Args:
        frames: Name, infrared, visible, and the fused image of each method; read one at a time.
        metrics: See `score_frame`.
        convention: See `score_frame`.

    Returns:
        An evaluation for each method.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under other conventions.
        ImageError: An image is not 8-bit, or is empty; the message names the frame.
        PairError: The sizes differ; the message names the frame.
    """
    scores: dict[str, dict[str, dict[str, Score]]] = {}
    for name, infrared, visible, fused in frames:
        try:
            scored = score_methods(infrared, visible, fused, metrics=metrics, convention=convention)
        except (ImageError, PairError) as error:
            raise type(error)(f"{name}: {error}") from error
        for method, row in scored.items():
            scores.setdefault(method, {})[name] = row
    return {method: Evaluation.of(rows) for method, rows in scores.items()}
