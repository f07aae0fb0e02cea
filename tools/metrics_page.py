"""Writes docs/metrics.md from the table of metrics: what each is, under which conventions, and who publishes which.

python tools/metrics_page.py
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from fuseloop.metrics import CONVENTIONS, METRICS, Metric

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
SAME = "as the default"

HEAD = """# Metrics of fusion quality

Made by `python tools/metrics_page.py` from the table in `fuseloop.metrics`. [score.md](score.md) is about the command
that computes them, [calibration.md](calibration.md) has our values beside those of public implementations.

A is the infrared, B the visible and F the fused image, M×N pixels with levels 0 to 255. Saved images are scored: whole
levels, colour by its grey. ↑ higher is better, ↓ lower is better, →0 best at zero. *Gradient* says whether the metric
can be a training term (`quantize=False`). An undefined value is never a number: it comes with a reason, and means leave
it out and count it. `help(fuseloop.metrics.functional.qabf)` tells shapes, arguments and errors.
"""

CONVENTIONS_HEAD = """## Conventions

A convention is whose definition is followed. `default` is the textbook; the others reproduce one public implementation
each, its quirks and bugs included, so that a published table can be reproduced or continued. A metric that a convention
lacks follows `default`, and every result says which convention each value really follows.
"""

PUBLISHED = """## Which convention a published table follows

Papers seldom say it, and a table is comparable with yours only where the conventions agree. Some numbers give it away:

| look at | it reads | then it is |
|---|---|---|
| SSIM | 0.4 to 0.6 | `tang`: the range of levels is taken as 1 |
| | 0.9 to 1.05 | `cddfuse` or `ivif_zoo`: the sum of both sources |
| | 1.2 to 1.7 | `vifb`: the sum of both textbook values |
| PSNR | 60 to 66 dB | `tang` or `ivif_zoo`: 48.13 dB too much |
| | 55 to 58 dB | `vifb`: the norm of the error is not squared |
| VIF | about twice another table's | the sum of both sources beside their mean; `ivif_zoo` is 9 to 27 % above the sum |
| MI | 0.6931 times another table's | nats (`cddfuse`, `vifb`) beside bits |
| "VIFF" in the tables of CDDFuse | | `vif` summed, not `viff` |
| "MS_SSIM" in the tables of `tang` | | `mef_ssim` |
| Q_C or Q_CC | | correlation (`cc`) or Cvejic's `qc`: the name alone does not tell |

A row to try it on: CDDFuse published for itself on RoadScene EN 7.44, SD 54.67, SF 16.36, MI 2.30, SCD 1.81, VIF 0.69,
Qabf 0.52, SSIM 0.98: nats, sums, `cddfuse`.

A bound to check a table with: no fused image has a CC above sqrt((1 + r(A,B)) / 2), r(A,B) being the correlation of the
two sources.
"""


def page() -> str:
    """The text of the page."""
    overview = [
        [f"[`{key}`](#{key})", row.name, row.arrow, _range(row), "yes" if row.differentiable else "no"]
        for key, row in METRICS.items()
    ]
    conventions = [
        [
            f"`{name}`",
            row.implementation,
            row.tables,
            str(sum(name in metric.conventions for metric in METRICS.values())),
        ]
        for name, row in CONVENTIONS.items()
    ]
    return "\n".join(
        [
            HEAD,
            _table(["key", "name", "better", "range of the default", "gradient"], overview),
            "## Definitions\n",
            *(_definition(key, row) for key, row in METRICS.items()),
            CONVENTIONS_HEAD,
            _table(["convention", "reproduces", "tables that follow it", "metrics"], conventions),
            *(_convention(name) for name in CONVENTIONS if name != "default"),
            PUBLISHED,
        ]
    )


def _definition(key: str, row: Metric) -> str:
    facts = [f"`{key}`", row.arrow, f"range {_range(row)}", row.reference]
    facts += ["has a gradient"] if row.differentiable else []
    changes = _changes({name: remark for name, remark in row.conventions.items() if name != "default"})
    same = [f"`{name}`" for name, remark in row.conventions.items() if remark == SAME]
    lines = [f"* {', '.join(names)}: {remark}." for remark, names in changes.items() if remark != SAME]
    if "default" not in row.conventions:
        lines = ["* There is no default definition.", *lines]
    elif same:
        lines += [f"* {', '.join(same)}: {SAME}."]
    body = "\n".join(lines)
    return f'<a id="{key}"></a>\n### {row.name}\n\n{row.summary}\n\n{" · ".join(facts)}\n' + (
        f"\n{body}\n" if body else ""
    )


def _convention(name: str) -> str:
    remarks = {key: row.conventions[name] for key, row in METRICS.items() if name in row.conventions}
    lines = [f"* {', '.join(keys)}: {remark}." for remark, keys in _changes(remarks).items() if remark != SAME]
    same = [f"`{key}`" for key, remark in remarks.items() if remark == SAME]
    lines += [f"* {', '.join(same)}: {SAME}."] if same else []
    row = CONVENTIONS[name]
    return f"### `{name}`\n\nReproduces {row.implementation}. Tables: {row.tables}.\n\n" + "\n".join(lines) + "\n"


def _changes(remarks: dict[str, str]) -> dict[str, list[str]]:
    """Names by their remark, in the order of the first of each."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for name, remark in remarks.items():
        grouped[remark].append(f"`{name}`")
    return grouped


def _range(row: Metric) -> str:
    low, high = (f"{end:.5g}" if math.isfinite(end) else "∞" for end in row.range)
    return f"{low} to {high}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
