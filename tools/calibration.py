"""Writes docs/calibration.md: our value beside that of every public implementation, for every golden fixture.

    python tools/calibration.py FOLDER [--check]

FOLDER is the folder `metrics` of the golden values: images, and values.json with the values that public implementations
gave for them. A golden row says which of our metrics under which convention a published value is, up to a factor, and
within which tolerance; those that no convention reproduces are listed for information, with the known reason. With
--check nothing is written. The exit code is 1 when a golden row FAILs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fuseloop
from fuseloop.metrics import METRICS, Score, score_methods

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "calibration.md"
REFERENCE = "default"
"""What values.json calls the separate program with the default definitions."""
REFERENCE_TOLERANCE = 1e-6
CROP = (slice(100, 164), slice(100, 164))
"""Where a name ends with @crop."""


class Comparison(NamedTuple):
    """What of ours a value of an implementation is compared with.

    Attributes:
        implementation: As values.json calls it.
        name: What the implementation calls the value, with @crop where a part of the images was used.
        metric: Key of ours, None where there is no counterpart.
        convention: Under which ours is taken.
        factor: Ours is to be this times the published value.
        tolerance: Relative; None for what is listed for information.
        note: Why the two may differ.
    """

    implementation: str
    name: str
    metric: str | None = None
    convention: str = "default"
    factor: float = 1.0
    tolerance: float | None = None
    note: str = "no counterpart"

    @property
    def golden(self) -> bool:
        return self.tolerance is not None

    @property
    def crop(self) -> bool:
        return self.name.endswith("@crop")

    @property
    def built(self) -> bool:
        return self.metric in METRICS and self.convention in METRICS[self.metric].conventions


_SINGLE = "the same definition, in float32"
_BORDER = "11×11 Gaussian window as in our default, but reflected border and full size"
_UNKNOWN = "deviates; the reason is not known"


def _inform(implementation: str, name: str, note: str, *compared: Any) -> Comparison:
    """For information: compared with a metric, a convention and by a factor, where there is a counterpart."""
    return Comparison(implementation, name, *compared, note=note)


INFORMATION = [
    _inform("Tang", "SSIM_uint8", "MATLAB's ssim of whole levels: replicated border, full size", "ssim"),
    _inform("ME-PMA", "MI", "the same definition", "mi"),
    _inform("ME-PMA", "CE", "the same definition", "ce"),
    _inform("ME-PMA", "VIF", f"sum of both sources; {_UNKNOWN}", "vif", "default", 0.5),
    _inform(
        "ME-PMA",
        "Qabf",
        "takes the angle over the full circle (atan2), which explains it within 1e-3",
        "qabf",
        "cddfuse",
    ),
    _inform("ME-PMA", "Qcb", "differs a little; the reason is not known", "qcb"),
    _inform("ME-PMA", "Qcv", "drops the ragged last blocks, which explains it within 2e-3", "qcv"),
    _inform("MetricsLab", "en", _SINGLE, "en"),
    _inform("MetricsLab", "mi", f"in nats; {_SINGLE}", "mi", "vifb"),
    _inform("MetricsLab", "ag", f"divided by (M-1)(N-1); {_SINGLE}", "ag", "vifb"),
    _inform("MetricsLab", "ei", _SINGLE, "ei"),
    _inform("MetricsLab", "sd", _SINGLE, "sd"),
    _inform("MetricsLab", "sf", _SINGLE, "sf"),
    _inform("MetricsLab", "rmse", "sqrt(mse)/255; our `rmse` is that of `vifb`"),
    _inform("MetricsLab", "ssim", _BORDER, "ssim"),
    _inform("MetricsLab", "q_cb", _UNKNOWN, "qcb"),
    _inform("MetricsLab", "q_cv", _UNKNOWN, "qcv"),
    _inform("MetricsLab", "q_c", _UNKNOWN, "qc", "zheng"),
    _inform("MetricsLab", "q_y", "float32: rounding noise in flat areas", "qy"),
    _inform("MetricsLab", "q_w", f"Gaussian window; {_SINGLE}", "qw", "zheng"),
    _inform("MetricsLab", "q_s", f"Gaussian window; {_SINGLE}", "qs", "zheng"),
    _inform("MetricsLab", "q_e", _UNKNOWN, "qe"),
    _inform("MetricsLab", "q_ncie", _SINGLE, "qncie"),
    _inform("MetricsLab", "nmi", _SINGLE, "nmi"),
    _inform("MetricsLab", "viff", "computed in float32; whether that is all is not known", "viff"),
    _inform("MetricsLab", "scd", _SINGLE, "scd"),
    _inform("MetricsLab", "cc", _SINGLE, "cc"),
    _inform("MetricsLab", "n_abf", _SINGLE, "nabf"),
    _inform("MetricsLab", "q_sf", _UNKNOWN, "qsf"),
    _inform("MetricsLab", "fmi", _UNKNOWN, "fmi_pixel"),
    _inform("MetricsLab", "te", "another definition than `te` of `ivif_zoo`"),
    _inform("MetricsLab", "ce", _SINGLE, "ce"),
    _inform("torchmetrics", "VIF_sum", "the same definition, sum of both sources", "vif", "default", 0.5),
    _inform("torchmetrics", "SSIM_mean_L255", _BORDER, "ssim"),
    _inform(
        "torchmetrics", "MSSSIM_mean_L255", "contrast without the border, the last SSIM with it, reflected", "ms_ssim"
    ),
    _inform("torchmetrics", "UQI_mean", "not among our metrics; without a guard it explodes in flat areas"),
]
"""Values that no convention reproduces, and the value of ours that comes closest."""


@dataclass(frozen=True)
class Row:
    """One value of an implementation for one fixture, beside ours.

    Attributes:
        comparison: What is compared.
        pair: Name of the pair.
        fusion: "mean" or "max".
        published: The value, None where the implementation gave NaN.
        ours: Our score, None while the metric is not built.
    """

    comparison: Comparison
    pair: str
    fusion: str
    published: float | None
    ours: Score | None

    @property
    def expected(self) -> float | None:
        """The published value in our units."""
        return None if self.published is None else self.comparison.factor * self.published

    @property
    def difference(self) -> float:
        """Relative to the published value; NaN where one of the two is missing or undefined."""
        if self.ours is None or self.expected is None:
            return math.nan
        return abs(self.ours.value - self.expected) / (abs(self.expected) or 1.0)

    @property
    def verdict(self) -> str:
        """PASS, FAIL, "not built", or "-" for what is listed for information."""
        tolerance = self.comparison.tolerance
        if tolerance is None:
            return "-"
        if self.ours is None:
            return "not built"
        if self.published is None:
            return "PASS" if math.isnan(self.ours.value) else "FAIL"
        return "PASS" if self.difference <= tolerance else "FAIL"


def measure(folder: Path, pairs: Collection[str] | None = None) -> list[Row]:
    """Every value of values.json with ours.

    Args:
        folder: Holds values.json and the images.
        pairs: Only these.
    """
    content = json.loads((folder / "values.json").read_text(encoding="utf-8"))
    comparisons = list(_comparisons(content))
    rows = []
    for pair, entry in content["pairs"].items():
        if pairs is None or pair in pairs:
            ours = _score(folder, pair, list(entry["values"]), comparisons)
            for fusion, implementations in entry["values"].items():
                for each in comparisons:
                    if each.name in implementations[each.implementation]:
                        published = implementations[each.implementation][each.name]
                        score = ours.get((fusion, each.metric, each.convention, each.crop))
                        rows.append(Row(each, pair, fusion, published, score))
    return rows


def _comparisons(content: Mapping[str, Any]) -> Iterator[Comparison]:
    """One or more for every value of every implementation, in the order of the file."""
    names: dict[tuple[str, str], None] = {}
    for entry in content["pairs"].values():
        for implementations in entry["values"].values():
            names |= dict.fromkeys((source, name) for source, values in implementations.items() for name in values)
    golden = defaultdict(list)
    for source, name, metric, convention, factor, tolerance in content["golden"]:
        key = metric.partition("@")[0]
        golden[source, name].append(Comparison(source, name, key, convention, factor, tolerance, ""))
    informative = {(each.implementation, each.name): each for each in INFORMATION}
    for source, name in names:
        if source == REFERENCE:
            key = name.partition("@")[0]
            yield Comparison(source, name, key, "default", 1.0, REFERENCE_TOLERANCE, "")
        else:
            yield from golden[source, name] or [informative.get((source, name), Comparison(source, name))]


def _score(
    folder: Path, pair: str, fusions: Sequence[str], comparisons: Sequence[Comparison]
) -> dict[tuple[str, str | None, str, bool], Score]:
    """Our scores of a pair as a user gets them, by fusion, metric, convention and whether of the crop."""
    images = {name: fuseloop.read_image(folder / f"{pair}_{name}.png").pixels for name in ("ir", "vi", *fusions)}
    needed: dict[tuple[str, bool], dict[str, None]] = defaultdict(dict)
    for each in comparisons:
        if each.built and each.metric is not None:
            needed[each.convention, each.crop][each.metric] = None
    found = {}
    for (convention, crop), keys in needed.items():
        seen = {name: image[CROP] if crop else image for name, image in images.items()}
        fused = {fusion: seen[fusion] for fusion in fusions}
        scored = score_methods(seen["ir"], seen["vi"], fused, metrics=list(keys), convention=convention)
        for fusion, scores in scored.items():
            found |= {(fusion, key, convention, crop): score for key, score in scores.items()}
    return found


def document(rows: Sequence[Row], implementations: Mapping[str, Mapping[str, Any]], *, date: str, commit: str) -> str:
    """The text of the document.

    Args:
        rows: What was measured.
        implementations: What values.json says of each.
        date: Of the run.
        commit: Of the run.
    """
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.comparison.implementation].append(row)
    judged = [row for row in rows if row.comparison.golden]
    counts = {verdict: sum(row.verdict == verdict for row in judged) for verdict in ("PASS", "FAIL", "not built")}
    sections = "\n".join(_section(name, found, implementations.get(name)) for name, found in grouped.items())
    summary = "\n".join(_summary(name, found, implementations.get(name)) for name, found in grouped.items())
    return f"""# Calibration

* made by `python tools/calibration.py $FUSELOOP_FIXTURES/metrics` on {date}
* commit {commit}

Which script computed a published number? For two public pairs and two fusions of each (the mean and the maximum of the
pixels) this page has the value of every public implementation that was run beside ours. A golden value has a tolerance
and a verdict: our metric under the named convention reproduces the implementation, or does not. Values that no
convention reproduces are listed with the reason, as far as it is known.

**{counts["PASS"]} of {len(judged)} golden values pass, {counts["FAIL"]} fail, {counts["not built"]} are not built.**

| implementation | convention | golden values | pass | fail | not built | most of a tolerance used | for information |
|---|---|---|---|---|---|---|---|
{summary}

In the tables the published value is multiplied by the factor that its row names, the difference is relative to it, and
`undefined` is what the implementation gave as NaN and we give with a reason. The tolerance is 1e-5, more where the
implementation computes in float32 or its value is rounding noise in part, and 1e-6 for the reference program.

{sections}"""


def _title(name: str) -> str:
    return "Reference program" if name == REFERENCE else name


def _summary(name: str, rows: Sequence[Row], about: Mapping[str, Any] | None) -> str:
    judged = [row for row in rows if row.comparison.golden]
    count = {verdict: sum(row.verdict == verdict for row in judged) for verdict in ("PASS", "FAIL", "not built")}
    shares = [
        (row.difference / row.comparison.tolerance, row.comparison.metric)
        for row in judged
        if row.comparison.tolerance and not math.isnan(row.difference)
    ]
    share, metric = max(shares, default=(math.nan, ""))
    profile = REFERENCE if name == REFERENCE else (about or {}).get("profile")
    cells = [
        f"[{_title(name)}](#{_title(name).lower().replace(' ', '-')})",
        f"`{profile}`" if profile else "none",
        str(len(judged)),
        *(str(count[verdict]) for verdict in ("PASS", "FAIL", "not built")),
        f"{100 * share:.2g} % (`{metric}`)" if shares else "",
        str(len(rows) - len(judged)),
    ]
    return f"| {' | '.join(cells)} |"


def _section(name: str, rows: Sequence[Row], about: Mapping[str, Any] | None) -> str:
    if name == REFERENCE:
        head = ["A separate float64 program with the default definitions; for some it is the only reference there is."]
    elif about is not None:
        head = [f"{about['source']}; {about['language']}; run with {about['environment']}."]
    else:
        head = []
    # The fixtures of a value keep their order.
    ordered = sorted(rows, key=lambda row: (row.comparison.name.lower(), row.comparison.convention))
    judged = [row for row in ordered if row.comparison.golden]
    listed = [row for row in ordered if not row.comparison.golden]
    parts = [f"## {_title(name)}", "", *head, ""]
    if judged:
        parts += ["| value | ours | fixture | published | our value | difference | tolerance | verdict |"]
        parts += ["|---|---|---|---|---|---|---|---|"]
        parts += [f"| {' | '.join([*_cells(row), f'{row.comparison.tolerance:.0e}', row.verdict])} |" for row in judged]
        parts += [""]
    if listed:
        parts += ["For information:", ""] if judged else []
        parts += [
            "| value | ours | fixture | published | our value | difference | why |",
            "|---|---|---|---|---|---|---|",
        ]
        parts += [f"| {' | '.join([*_cells(row), row.comparison.note])} |" for row in listed]
        parts += [""]
    return "\n".join(parts)


def _cells(row: Row) -> list[str]:
    compared = row.comparison
    factor = "" if compared.factor == 1 else f"{compared.factor:g} × "
    return [
        f"{factor}{compared.name.removesuffix('@crop')}",
        f"`{compared.metric}` {compared.convention}" if compared.metric else "-",
        f"{row.pair} {row.fusion}{', crop' if compared.crop else ''}",
        "undefined" if row.expected is None else f"{row.expected:.8g}",
        "-" if row.ours is None else "undefined" if math.isnan(row.ours.value) else f"{row.ours.value:.8g}",
        "-" if math.isnan(row.difference) else f"{row.difference:.1e}",
    ]


def _commit() -> str:
    answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes docs/calibration.md from golden values of fusion metrics.")
    parser.add_argument("folder", type=Path, help="values.json and the images")
    parser.add_argument("--check", action="store_true", help="print the verdicts and write nothing")
    options = parser.parse_args(arguments)
    if not (options.folder / "values.json").is_file():
        parser.error(f"{options.folder} holds no values.json")
    about = json.loads((options.folder / "values.json").read_text(encoding="utf-8"))["implementations"]
    rows = measure(options.folder)
    text = document(rows, about, date=datetime.date.today().isoformat(), commit=_commit())
    for row in rows:
        if row.verdict == "FAIL":
            print("FAIL", *_cells(row), f"{row.comparison.tolerance:.0e}")
    print(next(line for line in text.splitlines() if line.startswith("**")).strip("*"))
    if not options.check:
        DOCUMENT.write_text(text, encoding="utf-8")
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return int(any(row.verdict == "FAIL" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
