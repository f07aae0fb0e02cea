"""The document: sections that were written now, and those of earlier runs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from benchmarks.pages import commit, wrapped
from benchmarks.results.figures import RESAMPLES, SEED
from benchmarks.results.sections import SECTIONS, Section
from benchmarks.results.study import Study

HEAD = """# Results

Made by `python -m benchmarks.bench_results`; do not edit by hand. Each section says by which command and from which
weights it was made; `--only SECTION` makes one anew and keeps the others."""


def write(study: Study, section: Section, command: str) -> str:
    """The text of a section from its title on, once all it needs was gathered."""
    weights = "\n".join(f"* {line}" for line in study.weights(section.needs(study)))
    chosen = ", on which nothing was trained or chosen" if study.split == "test" else ""
    return f"""{section.title}

* made by `{command}` on {datetime.date.today().isoformat()}, commit {commit()}
* {len(study.looks.frames)} frames of MSRS/{study.split}{chosen}
* 95 % intervals by bootstrap of the frames: {RESAMPLES:,} resamples, seed {SEED}

{wrapped(section.text(study))}

<details><summary>SHA-256 of the weights</summary>

{weights}

</details>"""


def document(written: Mapping[str, str], page: str = "") -> str:
    """The text of docs/results.md.

    Args:
        written: Texts of sections by their names, from their titles on.
        page: The text so far; its other sections are kept.
    """
    earlier = {text.split("\n", 1)[0]: text.rstrip("\n") for text in page.split("\n## ")[1:]}
    texts = [
        written[name] if name in written else earlier[section.title]
        for name, section in SECTIONS.items()
        if name in written or section.title in earlier
    ]
    return "\n\n## ".join([HEAD, *texts]) + "\n"
