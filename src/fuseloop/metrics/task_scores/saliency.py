"""Saliency: the measures of salient object detection, computed by pysodmetrics.

Every prediction is stretched to its full range first, for the mean absolute error too, as papers do. Frames with an
empty mask are left out of all means: F is 0 there whatever is predicted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.metrics.task_scores.sets import Counts, Floats, Interval, TaskScores, as_array, cell, names_of

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = {
    "MAE": "MAE ↓",
    "MAE/unstretched": "MAE ↓, predictions as they are",
    "S": "S",
    "E/adaptive": "E adaptive",
    "E/mean": "E mean",
    "E/max": "E max",
    "F/adaptive": "F adaptive",
    "F/mean": "F mean",
    "F/max": "F max",
    "F/weighted": "F weighted",
    "MAE/empty": "MAE ↓ of empty masks",
    "MAE/empty/unstretched": "MAE ↓ of empty masks, predictions as they are",
}
_WITHOUT_STRUCTURE = "the centre of the mask lies in the last row or column"


@dataclass(frozen=True, eq=False)
class SaliencyFrame:
    """What is kept of one frame. Of one with an empty mask only the two errors are used.

    Attributes:
        name: Of the frame.
        empty: Whether the mask has no foreground.
        error: Mean absolute error of the stretched prediction.
        error_unstretched: Mean absolute error of the prediction as it is.
        structure: S, α = .5; NaN where pysodmetrics gives none, which is where the centre of the mask, rounded, lies in
            the last row or column.
        alignment: E, at the adaptive threshold.
        alignments: E at 256 thresholds.
        overlap: F, β² = .3, at the adaptive threshold.
        overlaps: F at 256 thresholds.
        weighted_overlap: Weighted F, β² = 1.
    """

    name: str
    empty: bool
    error: float
    error_unstretched: float
    structure: float
    alignment: float
    alignments: Floats
    overlap: float
    overlaps: Floats
    weighted_overlap: float


def saliency_frame(name: str, predicted: ArrayLike, mask: ArrayLike) -> SaliencyFrame:
    """Measures one frame.

    Args:
        name: Of the frame; errors tell it.
        predicted: H×W at the size of the mask: levels 0 to 255 as uint8, or floating point in [0, 1], which is rounded
            to levels, as saving does.
        mask: H×W: bool, or uint8 of which more than 128 is foreground, or floating point in [0, 1].

    Raises:
        LabelError: The two differ in size, are empty, of another type, out of range or not finite.
        ConfigurationError: pysodmetrics is not installed, as on Python 3.14.
    """
    sod = _pysodmetrics()
    levels, truth = _levels(name, "the prediction", as_array(predicted)), _mask(name, as_array(mask))
    if levels.shape != truth.shape:
        sizes = [f"{image.shape[1]}×{image.shape[0]}" for image in (levels, truth)]
        raise LabelError(f"frame {name}: the prediction is {sizes[0]}, the mask {sizes[1]}; resize it to the mask")

    def measured(measure: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # on the way to an S that is NaN
            measure.step(levels, truth)
        return measure.get_results()

    unstretched = sod.MAE()
    unstretched.step(levels / 255, truth > 128, normalize=False)
    alignment = measured(sod.Emeasure())["em"]
    handler = sod.FmeasureHandler(with_adaptive=True, with_dynamic=True, beta=0.3)
    overlap = measured(sod.FmeasureV2({"f": handler}))["f"]
    return SaliencyFrame(
        name,
        empty=not (truth > 128).any(),
        error=float(measured(sod.MAE())["mae"]),
        error_unstretched=float(unstretched.get_results()["mae"]),
        structure=float(measured(sod.Smeasure(alpha=0.5))["sm"]),
        alignment=float(alignment["adp"]),
        alignments=np.asarray(alignment["curve"], np.float64),
        overlap=float(overlap["adaptive"]),
        overlaps=np.asarray(overlap["dynamic"], np.float64),
        weighted_overlap=float(measured(sod.WeightedFmeasure(beta=1))["wfm"]),
    )


def score_saliency(frames: Sequence[SaliencyFrame]) -> SaliencyScores:
    """Scores a set of frames.

    Args:
        frames: What `saliency_frame` kept of each.

    Raises:
        LabelError: There is no frame, or two have one name.
    """
    return SaliencyScores(names_of(frames), tuple(frames))


@dataclass(frozen=True, eq=False)
class SaliencyScores(TaskScores):
    """Scores of a set of frames; means over the frames whose mask is not empty.

    The keys are `MAE`, `MAE/unstretched`, `S`, `F/weighted`, and `E/` and `F/` each with `adaptive`, `mean` and `max`:
    the latter two are of the curve over the thresholds *after* it was averaged over the frames. `MAE/empty` and
    `MAE/empty/unstretched` belong to the frames with an empty mask. Which of the three a paper prints as its E and F is
    often not said. A frame without an S (see `SaliencyFrame`) is left out of the mean of S alone.

    A perfect prediction has a mean F of about .997, since at threshold 0 all is marked, and E up to MN/(MN-1).

    Attributes:
        frames: Names of the frames.
        kept: What was kept of each.
    """

    task = "saliency"
    frames: tuple[str, ...]
    kept: tuple[SaliencyFrame, ...]

    @property
    def values(self) -> dict[str, float]:
        """Every score by its key; NaN where it is undefined."""
        scored = self.resample(np.ones((1, len(self.frames)), np.int64))
        return {key: float(found[0]) for key, found in scored.items()}

    @property
    def undefined(self) -> dict[str, str]:
        """Keys of undefined scores, and why."""
        return {
            key: "no mask of the set is empty" if "empty" in key else "every mask of the set is empty"
            for key, value in self.values.items()
            if np.isnan(value)
        } | ({"S": _WITHOUT_STRUCTURE} if np.isnan(self.values["S"]) and self.without_structure else {})

    @property
    def empty(self) -> tuple[str, ...]:
        """Frames with an empty mask."""
        return tuple(frame.name for frame in self.kept if frame.empty)

    @property
    def without_structure(self) -> tuple[str, ...]:
        """Frames whose mask is not empty, but which have no S."""
        return tuple(frame.name for frame in self.kept if not frame.empty and np.isnan(frame.structure))

    @property
    def settings(self) -> dict[str, Any]:
        """Who computed the measures, and their constants."""
        return {"evaluator": f"pysodmetrics {version('pysodmetrics')}", "alpha_S": 0.5, "beta2_F": 0.3, "beta2_Fw": 1}

    def to_json(self, intervals: Mapping[str, Interval] | None = None) -> dict[str, Any]:
        """See `TaskScores.to_json`; adds the frames with an empty mask, and those without an S."""
        left_out = {"empty": list(self.empty), "without_S": list(self.without_structure)}
        return super().to_json(intervals) | left_out

    @cached_property
    def _kept_columns(self) -> dict[str, Floats]:
        """What was kept, one row a frame."""
        columns = ("error", "error_unstretched", "structure", "alignment", "overlap", "weighted_overlap")
        gathered = {name: np.array([[getattr(frame, name)] for frame in self.kept]) for name in columns}
        return gathered | {name: np.stack([getattr(f, name) for f in self.kept]) for name in ("alignments", "overlaps")}

    def resample(self, counts: Counts) -> dict[str, Floats]:
        """See `TaskScores.resample`."""
        empty = np.array([frame.empty for frame in self.kept])

        def mean(name: str, wanted: NDArray[np.bool_] = ~empty) -> Floats:
            column = self._kept_columns[name]
            wanted = wanted & ~np.isnan(column).any(axis=1)
            number = counts[:, wanted].sum(axis=1, keepdims=True)
            total = counts[:, wanted] @ column[wanted]
            means: Floats = np.where(number > 0, total / np.maximum(number, 1), np.nan)
            return means

        alignments, overlaps = mean("alignments"), mean("overlaps")
        return {
            "MAE": mean("error")[:, 0],
            "MAE/unstretched": mean("error_unstretched")[:, 0],
            "S": mean("structure")[:, 0],
            "E/adaptive": mean("alignment")[:, 0],
            "E/mean": alignments.mean(axis=1),
            "E/max": alignments.max(axis=1),
            "F/adaptive": mean("overlap")[:, 0],
            "F/mean": overlaps.mean(axis=1),
            "F/max": overlaps.max(axis=1),
            "F/weighted": mean("weighted_overlap")[:, 0],
            "MAE/empty": mean("error", empty)[:, 0],
            "MAE/empty/unstretched": mean("error_unstretched", empty)[:, 0],
        }

    def table(self, intervals: Mapping[str, Interval] | None = None) -> Table:
        """See `TaskScores.table`."""
        from rich.table import Table

        values = self.values
        caption = [
            f"{self.settings['evaluator']}; predictions stretched to their full range, unless it says otherwise."
        ]
        if self.empty:
            caption += [f"Left out, their mask is empty: {len(self.empty)} of {len(self.frames)} frames."]
        if self.without_structure:
            caption += [
                f"Left out of S, {_WITHOUT_STRUCTURE}: {len(self.without_structure)} of {len(self.frames)} frames."
            ]
        scored = len(self.frames) - len(self.empty)
        table = Table(title=f"Saliency, {scored} frames", caption="\n".join(caption), caption_justify="left")
        table.add_column("measure")
        table.add_column("score", justify="right")
        for key, label in _ROWS.items():
            if self.empty or "empty" not in key:
                table.add_row(label, cell(values, key, intervals))
        return table


def _pysodmetrics() -> Any:
    try:
        import py_sod_metrics
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "saliency scores need pysodmetrics, which comes with fuseloop up to Python 3.13; use such a Python, or try "
            "`pip install pysodmetrics`"
        ) from error
    return py_sod_metrics


def _levels(name: str, what: str, image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.ndim != 2 or image.size == 0:
        raise LabelError(f"frame {name}: {what} has the shape {image.shape}; give one value for each pixel, H×W")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise LabelError(f"frame {name}: {what} is {image.dtype}; give uint8 levels, or floating point in [0, 1]")
    if not np.isfinite(image).all():
        raise LabelError(f"frame {name}: {what} has NaN or infinite pixels; look at the network that made it")
    if image.min() < 0 or image.max() > 1:
        raise LabelError(
            f"frame {name}: {what} reaches from {image.min():.3g} to {image.max():.3g}; floating point is in [0, 1]: "
            "take the sigmoid of logits, divide levels by 255"
        )
    levels: NDArray[np.uint8] = np.floor(image.astype(np.float64) * 255 + 0.5).astype(np.uint8)
    return levels


def _mask(name: str, image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype == np.uint8 and image.size and image.max() == 1:
        raise LabelError(
            f"frame {name}: the mask holds 0 and 1 as uint8, which is all background; give bool or 0 and 255"
        )
    return _levels(name, "the mask", image * np.uint8(255) if image.dtype == bool else image)
