"""Writes LICENSES.md, the ledger of what the project rests on, from the metadata of the installed packages.

    python tools/licences.py            write LICENSES.md
    python tools/licences.py --check    fail when a dependency has a licence that is not accepted

What a package is for comes from its comment in pyproject.toml, up to a semicolon; its version from constraints.txt; its
licence from its own metadata or licence file. Run it again when a dependency comes, goes or changes its version.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging import utils
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

# Copyleft that would reach into this library, and licences that forbid a use. LGPL and MPL are accepted: they ask for
# the source of their own files alone.
REFUSED = re.compile(r"GPL|General Public|Affero|SSPL|Non-?Commercial|\bNC\b|PolyForm", re.IGNORECASE)
LESSER = re.compile(r"Lesser General Public|LGPL", re.IGNORECASE)

HEADER = """# Licences

fuseloop is Apache-2.0 (see LICENSE). This ledger is made by `python tools/licences.py`; the versions are those of
constraints.txt. No dependency is under the GPL, the AGPL or terms that forbid commercial use, and a test keeps it so.
"""

FOOTER = """
## What wheels bring along

A licence above is that of the Python package. Some wheels also contain libraries of others:

* **PyAV** (`av`) contains FFmpeg, which calls itself "LGPL version 3 or later", beside **libx264 and libx265, which are
  GPL-2.0-or-later** (or under a commercial licence of their owners) and encode H.264 and H.265. Installing and using
  the wheel is free for any purpose. Who passes it on, say inside a container image or an appliance, passes on these two
  libraries and owes what the GPL asks for them, or builds PyAV against an FFmpeg without them:
  `pip install --no-binary av av`. fuseloop imports PyAV only where videos are read or written, and contains none of it.
* **opencv-python-headless** contains FFmpeg under LGPL-2.1-or-later, without x264 and x265. fuseloop reads no video
  through it.
* **NumPy**, **SciPy**, **scikit-learn** and **opencv-python-headless** contain OpenBLAS (BSD-3-Clause) or OpenMP with
  the GCC runtime (GPL-3.0 with the runtime library exception, which lets programs of any licence use it).
* **PyTorch** from the default index comes for Linux with NVIDIA's CUDA libraries as packages of their own (`nvidia-*`):
  free to use under NVIDIA's own terms, not open source. The CPU wheels of PyTorch need none of them.

## Weights and data

* The weights in `src/fuseloop/weights/` were trained for this project and are Apache-2.0. The card beside each file
  names the data they were trained on.
* The public data sets behind them (MSRS, RoadScene, TNO, M3FD) are research data under the terms of their owners. No
  image of them is part of this project; read their terms before you train on them for a product.
* The synthetic scenes are made by the code of this project and are Apache-2.0.
* The golden values in `tests/oracles/networks/` belong to random weights and made-up inputs; they show nothing real.
"""


@dataclass(frozen=True)
class Row:
    """One package of the ledger."""

    name: str
    version: str
    licence: str
    purpose: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.version} | {self.licence} | {self.purpose} |"


def canonical(name: str) -> str:
    """`huggingface_hub` and `Huggingface-Hub` are one package."""
    return str(utils.canonicalize_name(name))


def declared() -> tuple[dict[str, str], dict[str, str]]:
    """Names of the requirements of pyproject.toml with their comments: those of users, and those of developers."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = []
    for opening in (r"^dependencies = \[", r"^dev = \["):
        block = re.search(opening + r"\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        if block is None:
            raise ValueError(f"pyproject.toml has no list {opening}")
        lines = re.findall(r'^ *"([\w.-]+)[^"]*",(?: *# *(.*))?$', block[1], re.MULTILINE)
        found.append({canonical(name): comment.split(";")[0] for name, comment in lines})
    users, developers = found
    return users, developers


def pinned() -> dict[str, str]:
    """Versions of constraints.txt; of a package with several, the one for the newest Python."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                pins[canonical(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return pins


def field(name: str, key: str) -> str:
    """One field of the metadata of an installed package, "" when it lacks it."""
    return str((distribution(name).metadata.get_all(key) or [""])[0])


def heading(name: str) -> str:
    """How the licence file of an installed package is headed, "" when it has none."""
    for file in distribution(name).files or []:
        if re.match(r"LICEN[CS]E", file.name, re.IGNORECASE):
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            number = [line.split(",")[0] for line in lines[1:2] if line.startswith("Version")]
            return " ".join([*lines[:1], *number])
    return ""


def licence_of(name: str) -> str:
    """What the metadata says: the expression, else the short text, else the classifiers, else the licence file."""
    if expression := field(name, "License-Expression"):
        return expression
    text = field(name, "License").removeprefix("OSI Approved :: ")
    if text and len(text) < 40:
        return text
    classifiers = distribution(name).metadata.get_all("Classifier") or []
    classified = ", ".join(entry.split(" :: ")[-1] for entry in classifiers if entry.startswith("License"))
    return classified or heading(name) or "not stated"


def needed_by(names: Iterable[str]) -> set[str]:
    """All installed packages that the named ones need, without themselves."""
    waiting = [Requirement(name) for name in names]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            try:
                needed = [Requirement(text) for text in distribution(name).requires or []]
            except PackageNotFoundError:  # left out of this installation, such as the GPU libraries
                continue
            seen.add((name, extra))
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen} - set(names)


def tables() -> Iterator[tuple[str, list[Row]]]:
    """Title and rows of the three tables."""
    users, developers = declared()
    pins = pinned()

    def row(name: str, purpose: str) -> Row:
        version = pins.get(name, "not pinned")
        return Row(field(name, "Name"), version, licence_of(name), purpose)

    indirect = needed_by(set(users))
    yield "Dependencies", [row(name, purpose) for name, purpose in sorted(users.items())]
    yield (
        "What these need in turn",
        [row(name, field(name, "Summary")) for name in sorted(indirect)],
    )
    yield "Only for developers", [row(name, purpose) for name, purpose in sorted(developers.items())]


def accepted(licence: str) -> bool:
    """Whether a dependency may have this licence."""
    return not REFUSED.search(LESSER.sub("", licence))


def refused() -> list[str]:
    """Packages whose stated licence is not accepted."""
    return [f"{row.name}: {row.licence}" for _, rows in tables() for row in rows if not accepted(row.licence)]


def ledger() -> str:
    """The text of LICENSES.md."""
    parts = [HEADER]
    for title, rows in tables():
        parts += [f"\n## {title}\n\n| package | version | licence | what for |\n|---|---|---|---|\n"]
        parts += [f"{row}\n" for row in rows]
    return "".join([*parts, FOOTER])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes LICENSES.md from the metadata of the installed packages.")
    parser.add_argument("--check", action="store_true", help="only look for licences that are not accepted")
    options = parser.parse_args(arguments)
    if unwanted := refused():
        print("not accepted:", *unwanted, sep="\n  ")
        return 1
    if not options.check:
        (ROOT / "LICENSES.md").write_text(ledger(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
