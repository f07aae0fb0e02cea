"""Each section shows what it says, of the figures that an evaluation finds."""

from __future__ import annotations

import pytest

from benchmarks.results.page import write
from benchmarks.results.sections import SECTIONS


def test_show(study):
    study.looks.gather([one for s in SECTIONS.values() for one in s.needs(study)], print)
    for s in SECTIONS.values():
        print("## " + write(study, s, "cmd"))
