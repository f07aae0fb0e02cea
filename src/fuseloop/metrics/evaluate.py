"""Scoring of saved images: one frame, several methods on one frame, many frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fuseloop.errors import ImageError, PairError
from fuseloop.metrics.functional.frame import Frame, Grey
from fuseloop.metrics.grey import Pixels, to_grey
from fuseloop.metrics.summary import Summary, difference, summarise, summarise_columns
from fuseloop.metrics.table import METRICS, conventions_used


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
    pair = PairScorer(infrared, visible, metrics=metrics, convention=convention)
    return {method: pair.score(pixels, method) for method, pixels in fused.items()}


class PairScorer:
    """Scores fused images of one pair; what is derived from the sources is computed once.

    Colour is scored by the grey levels that the convention reads (see `to_grey`), a metric that falls back to "default"
    by those of the default. Only "vifb" scores the channels of a colour image, and gives their mean.

    Args:
        infrared: See `score_frame`.
        visible: See `score_frame`.
        metrics: See `score_frame`.
        convention: See `score_frame`.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under other conventions.
        ImageError: A source is not 8-bit, or is empty.
        PairError: The sources differ in size.
    """

    def __init__(
        self, infrared: Pixels, visible: Pixels, *, metrics: Iterable[str] | None = None, convention: str = "default"
    ) -> None:
        self.conventions = conventions_used(metrics, convention)
        self._sources = _checked(infrared, "infrared"), _checked(visible, "visible")
        _check_sizes({"infrared": infrared, "visible": visible})
        self._read: dict[_Reading, tuple[Grey, Grey]] = {}

    def score(self, fused: Pixels, name: str = "fused") -> dict[str, Score]:
        """A score for each metric.

        Args:
            fused: See `score_frame`.
            name: What errors call it.

        Raises:
            ImageError: The image is not 8-bit, or is empty.
            PairError: The sizes differ.
        """
        _checked(fused, name)
        _check_sizes({"infrared": self._sources[0], "visible": self._sources[1], name: fused})
        frames: dict[_Reading, Frame] = {}
        scores: dict[str, Score] = {}
        with torch.inference_mode():
            for key, used in self.conventions.items():
                reading = _Reading.of(key, used, fused)
                if reading not in frames:
                    frames[reading] = self._frame(reading, fused)
                result = METRICS[key].function.of(frames[reading], used)
                values = result.values
                reasons = filter(None, map(result.reason, range(len(values))))
                scores[key] = Score(float(values.mean()), used, next(reasons, None))
        return scores

    def _frame(self, reading: _Reading, fused: Pixels) -> Frame:
        if reading not in self._read:
            infrared, visible = self._sources
            self._read[reading] = reading.levels(to_grey(infrared, reading.weights)), reading.levels(visible)
        return Frame(*self._read[reading], reading.levels(fused))


class _Reading(NamedTuple):
    """How the levels are read from images: the weights of grey, or the channels as a batch, or as one wide image."""

    weights: str
    channels: Literal["mixed", "batch", "wide"] = "mixed"

    @classmethod
    def of(cls, key: str, convention: str, fused: Pixels) -> _Reading:
        """The reading for a metric under the convention that it really uses."""
        if convention == "vifb" and fused.ndim == 3:
            return cls("default", "wide" if key == "sf" else "batch")
        return cls(convention if convention in ("tang", "ivif_zoo") else "default")

    def levels(self, pixels: Pixels) -> Grey:
        """1×1×H×W; 3×1×H×W as a batch; 1×1×H×3W when wide. A grey image is the same in all channels."""
        if self.channels == "mixed":
            planes = to_grey(pixels, self.weights)[None]
        else:
            colour = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
            planes = np.moveaxis(colour, 2, 0)
            if self.channels == "wide":
                planes = np.concatenate(planes, axis=1)[None]
        return Grey(torch.from_numpy(planes.astype(np.float64))[:, None], quantized=True)


def _check_sizes(images: Mapping[str, Pixels]) -> None:
    sizes = {name: f"{pixels.shape[1]}×{pixels.shape[0]}" for name, pixels in images.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} is {size}" for name, size in sizes.items())
        raise PairError(f"{said}; scores need one size")


def _checked(pixels: Pixels, name: str) -> Pixels:
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"{name}: scores are taken from 8-bit images, this one is {pixels.dtype}; map it to 8 bits first"
        )
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ImageError(f"{name}: scores need an H×W or H×W×3 image that is not empty, this one is {pixels.shape}")
    return pixels


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

    def only(self, frames: Sequence[str]) -> Evaluation:
        """The same of some of its frames.

        Raises:
            ValueError: It lacks one of them.
        """
        places = {name: index for index, name in enumerate(self.frames)}
        if missing := [name for name in frames if name not in places]:
            raise ValueError(f"there is no frame {', '.join(missing)}")
        chosen = [places[name] for name in frames]
        return Evaluation(
            frames=tuple(frames),
            values={key: values[chosen] for key, values in self.values.items()},
            conventions=self.conventions,
            reasons={key: {name: why[name] for name in frames if name in why} for key, why in self.reasons.items()},
        )

    def summaries(self, *, seed: int = 0) -> dict[str, Summary]:
        """The summary of every metric."""
        columns = np.stack(list(self.values.values()), axis=1)
        return dict(zip(self.values, summarise_columns(columns, seed=seed), strict=True))

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
