"""What the benchmarks that write a page of their own share."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Iterable
from pathlib import Path

from fuseloop.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
AS_IT_IS = ("|", "* ", "#", "```", "<")


def markdown(table: Iterable[list[str]]) -> str:
    """A table in Markdown; its first row is the head."""
    head, *body = table
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def wrapped(text: str, width: int = 120) -> str:
    """Markdown whose paragraphs are filled; tables, lists, headings and code stay as they are."""
    blocks = text.split("\n\n")
    return "\n\n".join(block if block.startswith(AS_IT_IS) else _filled(block, width) for block in blocks)


def _filled(block: str, width: int) -> str:
    return textwrap.fill(" ".join(block.split()), width, break_long_words=False, break_on_hyphens=False)


def commit() -> str:
    """The commit that is checked out, in short."""
    answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


def data_folder() -> Path:
    """The folder of the real pairs.

    Raises:
        ConfigurationError: The variable is not set.
    """
    if "FUSELOOP_DATA" not in os.environ:
        raise ConfigurationError("this benchmark needs real pairs; set FUSELOOP_DATA to their folder")
    return Path(os.environ["FUSELOOP_DATA"])
