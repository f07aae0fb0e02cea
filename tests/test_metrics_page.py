"""docs/metrics.md is the one that the table makes, and tells everything that the table knows."""

import re

from fuseloop.metrics import CONVENTIONS, METRICS
from tools import metrics_page

PAGE = metrics_page.PAGE.read_text(encoding="utf-8")


def test_the_page_is_made_from_the_table_as_it_is():
    assert metrics_page.page() == PAGE, "run `python tools/metrics_page.py`"


def test_every_metric_has_its_line_and_what_each_convention_changes():
    sections = dict(re.findall(r'<a id="(\w+)"></a>\n(.*?)(?=\n<a id|\n## )', PAGE, re.DOTALL))
    assert list(sections) == list(METRICS)
    for key, section in sections.items():
        row = METRICS[key]
        assert row.name in section
        assert row.summary in section
        assert row.reference in section
        assert ("has a gradient" in section) == row.differentiable
        for name, remark in row.conventions.items():
            if name != "default":
                assert re.search(rf"^\* .*`{name}`.*: {re.escape(remark)}\.$", section, re.MULTILINE), (key, name)
        assert ("no default definition" in section) == ("default" not in row.conventions)


def test_every_convention_says_what_it_reproduces_and_who_publishes_it():
    for name, row in CONVENTIONS.items():
        assert f"| `{name}` | {row.implementation} | {row.tables} |" in PAGE
    sections = dict(re.findall(r"\n### `(\w+)`\n(.*?)(?=\n##)", PAGE, re.DOTALL))
    for name, section in sections.items():
        told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\* (.*?):", section, re.MULTILINE))))
        assert told == {key for key, row in METRICS.items() if name in row.conventions}, name


def test_what_the_page_advises_exists():
    """Conventions and metrics named in the prose are those of the table."""
    prose = metrics_page.PUBLISHED + metrics_page.CONVENTIONS_HEAD
    assert set(re.findall(r"`(\w+)`", prose)) <= {*METRICS, *CONVENTIONS}
