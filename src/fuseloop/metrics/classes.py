"""Every metric as a class of torchmetrics: update, compute, plot, states that processes add up.

Importing this needs torchmetrics; `fuseloop.metrics` imports it when a class is first asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from fuseloop.metrics.table import METRICS, class_name, conventions_used


class FusionMetric(Metric):
    """Mean of a metric over all images that it is defined on; the base of a class for each metric.

        metric = Qabf(convention="cddfuse")
        for infrared, visible, fused in batches:
            metric.update(infrared, visible, fused)     # B×1×H×W in [0, 1]
        metric.compute()

    Args:
        convention: Whose definition to follow; where it lacks the metric, the default, as the attribute then says.
        quantize: Score what would be saved, see `fuseloop.metrics.functional`; False for training terms.
        options: Of `torchmetrics.Metric`, such as dist_sync_on_step.

    Attributes:
        key: Of the table.
        convention: The convention really followed.

    Raises:
        ConfigurationError: The convention is unknown, or the metric exists only under others.
    """

    key: ClassVar[str]
    full_state_update = False

    def __init__(self, convention: str = "default", *, quantize: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.convention = conventions_used([self.key], convention)[self.key]
        self.quantize = quantize
        # A MetricCollection takes metrics with equal states for the same and updates only one of them. Two metrics can
        # be equal on the first batch by chance, but never have states of the same name.
        ending = f"{self.key}_{self.convention}_{quantize}"
        self._names = [f"total_{ending}", f"defined_{ending}", f"undefined_{ending}"]
        for name, dtype in zip(self._names, (torch.float64, torch.int64, torch.int64), strict=True):
            self.add_state(name, torch.tensor(0, dtype=dtype), dist_reduce_fx="sum")

    def update(self, infrared: Tensor, visible: Tensor, fused: Tensor) -> None:
        """Takes in a batch.

        Args:
            infrared: B×1×H×W in [0, 1].
            visible: The same shape, grey.
            fused: The same shape, grey.

        Raises:
            ValueError: Shapes differ, or pixels are not finite.
        """
        function = METRICS[self.key].function
        values = function(infrared, visible, fused, convention=self.convention, quantize=self.quantize)
        known = ~values.isnan()
        for name, more in zip(self._names, (values[known].sum(), known.sum(), (~known).sum()), strict=True):
            setattr(self, name, getattr(self, name) + more)

    def compute(self) -> Tensor:
        """Mean over the images where the metric is defined, NaN without any; `undefined` counts the others."""
        mean: Tensor = self._state(0) / self._state(1)
        return mean

    @property
    def undefined(self) -> int:
        """On how many images of this process the metric was undefined."""
        return int(self._state(2))

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plots a value or several, by default that of `compute`.

        Args:
            val: What `compute` or `forward` gave, or a list of it to plot as a curve.
            ax: Axes of matplotlib to draw on.

        Returns:
            Figure and axes of matplotlib.
        """
        return self._plot(val, ax)

    def _state(self, index: int) -> Tensor:
        state: Tensor = getattr(self, self._names[index])
        return state


def fusion_metrics(
    metrics: Iterable[str] | None = None, convention: str = "default", *, quantize: bool = True, **options: Any
) -> MetricCollection:
    """A collection of metrics under their keys.

    Args:
        metrics: Keys of the table; by default all that the convention has or falls back for.
        convention: See `FusionMetric`.
        quantize: See `FusionMetric`.
        options: See `FusionMetric`.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under others.
    """
    made: dict[str, Metric | MetricCollection] = {
        key: globals()[class_name(key)](convention, quantize=quantize, **options)
        for key in conventions_used(metrics, convention)
    }
    return MetricCollection(made, compute_groups=False)


def _named(key: str) -> type[FusionMetric]:
    """The class of a row of the table."""
    row = METRICS[key]
    low, high = (None if math.isinf(bound) else bound for bound in row.range)
    text = (
        f"{row.summary}\n\nSee `FusionMetric` for its use, `fuseloop.metrics.functional.{key}` for its conventions.\n"
    )
    members = {
        "__module__": __name__,
        "__doc__": text,
        "key": key,
        "is_differentiable": row.differentiable,
        "higher_is_better": {"higher": True, "lower": False, "zero": None}[row.direction],
        "plot_lower_bound": low,
        "plot_upper_bound": high,
        "plot_legend_name": row.name,
    }
    return type(class_name(key), (FusionMetric,), members)


# At home in this module under their names, so that they can be pickled.
globals().update({class_name(key): _named(key) for key in METRICS})
