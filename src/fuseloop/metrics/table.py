"""The table of all metrics: the one place that says what each is called, how to read it and where it comes from.

What is printed about metrics and conventions is made from here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseloop.errors import ConfigurationError
from fuseloop.metrics import functional as of
from fuseloop.metrics.functional.frame import MetricFunction

Direction = Literal["higher", "lower", "zero"]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: What tables print.
        function: Computes it; see `fuseloop.metrics.functional`.
        direction: Which values are better; "zero" is those near 0.
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
    def conventions(self) -> Mapping[str, str]:
        """The conventions that it knows, and in a few words what each changes."""
        return self.function.conventions

    @property
    def summary(self) -> str:
        """One sentence about the default definition."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def convention(self, wanted: str) -> str:
        """The convention to use when `wanted` is asked for: that one, or "default" where it lacks this metric.

        Raises:
            ConfigurationError: It lacks this metric, and there is no default definition.
        """
        if wanted in self.conventions:
            return wanted
        if "default" in self.conventions:
            return "default"
        raise ConfigurationError(
            f"{self.name} has no definition under {wanted!r}; choose the convention {' or '.join(self.conventions)}"
        )

    @property
    def arrow(self) -> str:
        """Points to the values that are better."""
        return {"higher": "↑", "lower": "↓", "zero": "→0"}[self.direction]

    def merit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values turned so that larger is better."""
        return values if self.direction == "higher" else -values if self.direction == "lower" else -np.abs(values)


METRICS: dict[str, Metric] = {
    "en": Metric("EN", of.en, "higher", (0, 8), "Shannon entropy", differentiable=False),
    "sd": Metric("SD", of.sd, "higher", (0, 127.5), "standard deviation"),
    "sf": Metric("SF", of.sf, "higher", (0, 255 * math.sqrt(2)), "Eskicioglu & Fisher 1995"),
    "ag": Metric("AG", of.ag, "higher", (0, 255), "Cui et al. 2015"),
    "ei": Metric("EI", of.ei, "higher", (0, 1020 * math.sqrt(2)), "mean Sobel gradient"),
    "ce": Metric("CE", of.ce, "lower", (-math.log2(math.e) / math.e, math.inf), "cross-entropy", differentiable=False),
    "te": Metric("TE", of.te, "higher", (-8, 16), "IVIF_ZOO", differentiable=False),
    "mi": Metric("MI", of.mi, "higher", (0, 16), "Qu et al. 2002", differentiable=False),
    "nmi": Metric("NMI", of.nmi, "higher", (0, 2), "Hossny et al. 2008", differentiable=False),
    "fmi_pixel": Metric("FMI pixel", of.fmi_pixel, "higher", (0, 1), "Haghighat et al. 2011", differentiable=False),
    "fmi_gradient": Metric(
        "FMI gradient", of.fmi_gradient, "higher", (0, 1), "Haghighat et al. 2011", differentiable=False
    ),
    "fmi_dct": Metric("FMI DCT", of.fmi_dct, "higher", (0, 1), "Haghighat & Razian 2014", differentiable=False),
    "cc": Metric("CC", of.cc, "higher", (-1, 1), "Pearson correlation"),
    "scd": Metric("SCD", of.scd, "higher", (-2, 2), "Aslantas & Bendes 2015"),
    "mse": Metric("MSE", of.mse, "lower", (0, 255**2), "mean squared error"),
    "rmse": Metric("RMSE", of.rmse, "lower", (0, 255), "VIFB"),
    "psnr": Metric("PSNR", of.psnr, "higher", (0, math.inf), "peak signal-to-noise ratio"),
    "vif": Metric("VIF", of.vif, "higher", (0, math.inf), "Sheikh & Bovik 2006"),
    "viff": Metric("VIFF", of.viff, "higher", (0, math.inf), "Han et al. 2013"),
    "qabf": Metric("Qabf", of.qabf, "higher", (0, 0.9747937), "Xydeas & Petrovic 2000"),
    "nabf": Metric("Nabf", of.nabf, "lower", (0, 1), "Kumar 2013"),
    "ssim": Metric("SSIM", of.ssim, "higher", (-1, 1), "Wang et al. 2004"),
    "ms_ssim": Metric("MS-SSIM", of.ms_ssim, "higher", (0, 1), "Wang et al. 2003"),
    "mef_ssim": Metric("MEF-SSIM", of.mef_ssim, "higher", (0, 1), "Ma et al. 2015"),
    "qcb": Metric("Qcb", of.qcb, "higher", (0, 1), "Chen & Blum 2009"),
    "qcv": Metric("Qcv", of.qcv, "lower", (0, math.inf), "Chen & Varshney 2007"),
    "qncie": Metric("Qncie", of.qncie, "higher", (1 - math.log2(3) / 8, 1), "Wang et al. 2008", differentiable=False),
    "qm": Metric("Qm", of.qm, "higher", (0, 3), "Wang & Liu 2008"),
    "qp": Metric("Qp", of.qp, "higher", (-1, 1), "Zhao et al. 2007", differentiable=False),
    "qy": Metric("Qy", of.qy, "higher", (-1, 1), "Yang et al. 2008"),
    "qs": Metric("Qs", of.qs, "higher", (-1, 1), "Piella & Heijmans 2003"),
    "qw": Metric("Qw", of.qw, "higher", (-1, 1), "Piella & Heijmans 2003"),
    "qe": Metric("Qe", of.qe, "higher", (-1, 1), "Piella & Heijmans 2003"),
    "qc": Metric("Qc", of.qc, "higher", (-1, 1), "Cvejic et al. 2005"),
    "qsf": Metric("Qsf", of.qsf, "zero", (-1, math.inf), "Zheng et al. 2007"),
    "qte": Metric("Qte", of.qte, "higher", (0, math.inf), "Nava et al. 2007", differentiable=False),
    "qte_cvejic": Metric(
        "Qte (Cvejic)", of.qte_cvejic, "higher", (0, math.inf), "Cvejic et al. 2006", differentiable=False
    ),
}


SLOW = ("fmi_pixel", "fmi_gradient", "fmi_dct", "qp")
"""These take most of the time of scoring all."""


_KEY_OF = {row.name.lower(): key for key, row in METRICS.items()}


class Convention(NamedTuple):
    """One row of the conventions.

    Attributes:
        implementation: What it reproduces.
        tables: Where its values are published.
    """

    implementation: str
    tables: str


CONVENTIONS: dict[str, Convention] = {
    "default": Convention("the definitions of the papers, both sources averaged", "fuseloop"),
    "cddfuse": Convention(
        "CDDFuse's Python evaluation, quirks included", "CDDFuse; probably EMMA, DDFM, ReFusion (not verified)"
    ),
    "tdfusion": Convention("TDFusion's Python evaluation", "TDFusion"),
    "tang": Convention(
        "Tang's MATLAB evaluation, bugs included", "SeAFusion, PIAFusion, PSFusion, SwinFusion, ControlFusion"
    ),
    "ivif_zoo": Convention(
        "the Python evaluation of the IVIF_ZOO survey, bugs included", "the IVIF_ZOO survey, SAGE, DCEvo"
    ),
    "vifb": Convention(
        "the VIFB benchmark in MATLAB", "VIFB, BSAFusion; probably T-OAR (IDF-TDDT) and CLDyN (not verified)"
    ),
    "zheng": Convention(
        "Zheng's MATLAB metrics, bugs included", "Q_CB, Q_CV, Q_NCIE, Q_Y, Q_P, Q_M, Q_W, Q_C in most papers"
    ),
    "yuliu": Convention("Yu Liu's correction of Zheng's MATLAB metrics", "work on multi-focus fusion"),
}


def class_name(key: str) -> str:
    """What the class of a metric is called: "MsSsim" for "ms_ssim"."""
    return "".join(word.capitalize() for word in key.split("_"))


def metrics_of(convention: str) -> tuple[str, ...]:
    """Keys of all metrics that can be scored under a convention: those with a default definition, and its own.

    Raises:
        ConfigurationError: There is no such convention.
    """
    check_convention(convention)
    return tuple(key for key, row in METRICS.items() if {"default", convention} & row.conventions.keys())


def conventions_used(metrics: Iterable[str] | None, convention: str) -> dict[str, str]:
    """For each metric the convention that it is really scored by.

    Args:
        metrics: Keys of the table, or text as `parse_metrics` reads it; by default those of `metrics_of`.
        convention: The convention asked for.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the metric exists only under other conventions.
    """
    known = metrics_of(convention)
    if isinstance(metrics, str):  # else it would be read letter by letter
        metrics = parse_metrics(metrics, convention)
    return {key: find_metric(key).convention(convention) for key in (known if metrics is None else metrics)}


def parse_metrics(text: str, convention: str) -> tuple[str, ...]:
    """Reads a list of metrics from text such as "en,mi".

    Args:
        text: Keys or printed names, in any case; "all" for all of `metrics_of`, "fast" for these but `SLOW`,
            or names of conventions for the metrics that their implementations have, separated by commas.
        convention: The convention to score by.

    Raises:
        ConfigurationError: A metric or the convention is unknown, or the text names none.
    """
    keys: dict[str, None] = {}
    for word in filter(None, map(str.strip, text.lower().split(","))):
        if word in ("all", "fast"):
            keys |= dict.fromkeys(key for key in metrics_of(convention) if word == "all" or key not in SLOW)
        elif word in CONVENTIONS:
            keys |= dict.fromkeys(key for key, row in METRICS.items() if word in row.conventions)
        else:
            key = _KEY_OF.get(word, word)
            find_metric(key)
            keys[key] = None
    if not keys:
        raise ConfigurationError(f"no metric is named; known are all, fast, {', '.join(METRICS)}")
    return tuple(keys)


def implied_convention(text: str) -> str:
    """The convention that a list of metrics asks for where none is named.

    Args:
        text: See `parse_metrics`.

    Returns:
        The convention that the text consists of, such as "vifb"; else "default".
    """
    word = text.strip().lower()
    return word if word in CONVENTIONS else "default"


def find_metric(key: str) -> Metric:
    """The row of a metric.

    Raises:
        ConfigurationError: There is no such metric; the message lists those that are, the closest first.
    """
    if key in METRICS:
        return METRICS[key]
    raise ConfigurationError(_unknown("metric", key, METRICS))


def check_convention(name: str) -> None:
    """Refuses a convention that does not exist.

    Raises:
        ConfigurationError: The message lists the known ones, the closest first.
    """
    if name not in CONVENTIONS:
        raise ConfigurationError(_unknown("convention", name, CONVENTIONS))


def _unknown(kind: str, name: str, known: Collection[str]) -> str:
    close = get_close_matches(name.lower(), list(known), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no {kind} {name!r}; {hint}known are {', '.join(known)}"
