"""The table of all metrics: the one place that says what each is called, how to read it and where it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from fuseloop.errors import ConfigurationError
from fuseloop.metrics import functional as of
from fuseloop.metrics.functional.frame import MetricFunction

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: What tables print.
        function: Computes it; see `fuseloop.metrics.functional`.
        direction: Which values are better.
        range: Smallest and largest value of the default definition.
        reference: Who defined it.
        differentiable: Whether it can be a training term (with `quantize=False`).
    """

    name: str
    function: MetricFunction
    direction: Direction
    range: tuple[float, float]
    reference: str
    differentiable: bool = True

    @property
    def conventions(self) -> tuple[str, ...]:
        """The conventions that it knows, "default" first."""
        return self.function.conventions

    def convention(self, wanted: str) -> str:
        """The convention to use when `wanted` is asked for: that one, or "default" where it lacks this metric."""
        return wanted if wanted in self.conventions else "default"


METRICS: dict[str, Metric] = {
    "en": Metric("EN", of.en, "higher", (0, 8), "Shannon entropy", differentiable=False),
    "sd": Metric("SD", of.sd, "higher", (0, 127.5), "standard deviation"),
    "sf": Metric("SF", of.sf, "higher", (0, 255 * math.sqrt(2)), "Eskicioglu & Fisher 1995"),
    "ag": Metric("AG", of.ag, "higher", (0, 255), "Cui et al. 2015"),
    "mi": Metric("MI", of.mi, "higher", (0, 16), "Qu et al. 2002", differentiable=False),
    "cc": Metric("CC", of.cc, "higher", (-1, 1), "Pearson correlation"),
    "scd": Metric("SCD", of.scd, "higher", (-2, 2), "Aslantas & Bendes 2015"),
    "mse": Metric("MSE", of.mse, "lower", (0, 255**2), "mean squared error"),
    "psnr": Metric("PSNR", of.psnr, "higher", (0, math.inf), "peak signal-to-noise ratio"),
    "vif": Metric("VIF", of.vif, "higher", (0, math.inf), "Sheikh & Bovik 2006"),
    "qabf": Metric("Qabf", of.qabf, "higher", (0, 0.9747937), "Xydeas & Petrovic 2000"),
    "ssim": Metric("SSIM", of.ssim, "higher", (-1, 1), "Wang et al. 2004"),
    "qcb": Metric("Qcb", of.qcb, "higher", (0, 1), "Chen & Blum 2009"),
    "qcv": Metric("Qcv", of.qcv, "lower", (0, math.inf), "Chen & Varshney 2007"),
}

CONVENTIONS: tuple[str, ...] = tuple(dict.fromkeys(name for row in METRICS.values() for name in row.conventions))


def find_metric(key: str) -> Metric:
    """The row of a metric.

    Raises:
        ConfigurationError: There is no such metric; the message lists those that are, the closest first.
    """
    if key in METRICS:
        return METRICS[key]
    raise ConfigurationError(_unknown("metric", key, tuple(METRICS)))


def check_convention(name: str) -> None:
    """Refuses a convention that no metric knows.

    Raises:
        ConfigurationError: The message lists the known ones, the closest first.
    """
    if name not in CONVENTIONS:
        raise ConfigurationError(_unknown("convention", name, CONVENTIONS))


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no {kind} {name!r}; {hint}known are {', '.join(known)}"
