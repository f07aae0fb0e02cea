"""Runs benchmarks and keeps their figures: python -m benchmarks [NAME ...]

Figures go to outputs/benchmarks.json, and docs/benchmarks.md is made from it. Each run replaces its own figures only:
what the page says of benchmarks that were not run on this machine stays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fuseloop.errors import FuseloopError

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "outputs" / "benchmarks.json"
RUNS = ROOT / "outputs" / "benchmark_runs.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))

Figures = dict[str, float]
Runs = dict[str, dict[str, str]]


def circumstances(name: str) -> dict[str, str]:
    """Command, machine, commit and date of a run."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "command": f"python -m benchmarks {name}",
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "commit": commit.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """The model of the processor as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def document(figures: Mapping[str, float], runs: Mapping[str, Mapping[str, str]], page: str = "") -> str:
    """The text of docs/benchmarks.md.

    Args:
        figures: Of all benchmarks in `runs`.
        runs: The circumstances of each.
        page: The text so far; its sections of other benchmarks are kept.
    """
    sections = {text.split("\n", 1)[0]: text.rstrip("\n") for text in page.split("\n## ")[1:]}
    sections = {name: text for name, text in sections.items() if name in NAMES}
    sections |= {name: section(name, figures, run) for name, run in runs.items()}
    head = "# Benchmarks\n\nMade by `make bench` from outputs/benchmarks.json; do not edit by hand."
    return "\n\n## ".join([head, *(sections[name] for name in sorted(sections))]) + "\n"


def section(name: str, figures: Mapping[str, float], run: Mapping[str, str]) -> str:
    """What the page says of one benchmark, from its name on."""
    module = import_module(f"benchmarks.bench_{name}")
    meanings: Mapping[str, str] = getattr(module, "KEYS", {})
    lines = [name, "", (module.__doc__ or "").strip(), ""]
    lines += [f"* {label}: {value}" for label, value in run.items()]
    lines += ["", "| figure | value | meaning |", "|---|---|---|"]
    lines += [
        f"| `{key}` | {value:.4g} | {meanings.get(key, '')} |"
        for key, value in figures.items()
        if key in meanings or key.startswith(f"{name}.")
    ]
    return "\n".join(lines)


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def keep(name: str, measured: Figures) -> None:
    """Merges the figures of one benchmark into the files."""
    figures: Figures = {k: v for k, v in load(FIGURES).items() if not k.startswith(f"{name}.")} | measured
    runs: Runs = load(RUNS) | {name: circumstances(name)}
    FIGURES.parent.mkdir(exist_ok=True)
    DOCUMENT.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(dict(sorted(figures.items())), indent=2) + "\n")
    RUNS.write_text(json.dumps(dict(sorted(runs.items())), indent=2) + "\n")
    page = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    DOCUMENT.write_text(document(load(FIGURES), load(RUNS), page), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run, by default all: {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    failed = False
    for name in names:
        print(f"{name} ...", flush=True)
        try:
            measured = import_module(f"benchmarks.bench_{name}").run()
        except FuseloopError as error:
            print(f"  not run: {error}", file=sys.stderr)
            failed = True
            continue
        keep(name, measured)
        for key, value in measured.items():
            print(f"  {key:44s} {value:.4g}")
    print(f"wrote {FIGURES.relative_to(ROOT)} and {DOCUMENT.relative_to(ROOT)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
