"""What task networks see in single images, in fused ones, and in those that a closed loop makes for them.

    python -m benchmarks.bench_results                                     # what is shipped
    python -m benchmarks.bench_results --loops runs/seeds --ablations runs/ablations --rivals runs/rivals \\
        --unseen segformer-b1=runs/segformer-b1/best.safetensors           # everything
    python -m benchmarks.bench_results --only swap --loops runs/seeds      # one section anew
    python -m benchmarks.bench_results --split val --limit 8 --network yolov5s=runs/a/best.safetensors   # a quick look

--loops holds trainings of one loop by several seeds, a run folder each; --ablations variants of it, `main` among them;
--rivals what `tools/train_rivals.py` wrote. What was looked at is kept in outputs/results, so that an interrupted run
is continued, and nothing is looked at twice. docs/results.md is written for all frames of MSRS/test, else what would be
written is printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.pages import ROOT, data_folder
from benchmarks.results import networks as networks_section
from benchmarks.results.looks import Store, to_stderr
from benchmarks.results.page import document, write
from benchmarks.results.sections import SECTIONS
from benchmarks.results.study import Study, rivals_in, runs_in
from fuseloop.engines.allocator import tune_allocator
from fuseloop.errors import ConfigurationError, FuseloopError
from fuseloop.evaluation.naming import named
from fuseloop.tasks.protocol import TaskNetwork
from fuseloop.tasks.weights import SHIPPED, load

DOCUMENT = ROOT / "docs" / "results.md"
STORE = ROOT / "outputs" / "results"
COMMAND = "python -m benchmarks.bench_results"


def shipped() -> dict[str, TaskNetwork]:
    """The task networks whose weights are shipped.

    Raises:
        ConfigurationError: There are none.
    """
    if not SHIPPED:
        raise ConfigurationError("no weights of task networks are shipped; give --network NAME=FILE")
    return {name: load(name) for name in SHIPPED}


def run(data: Path | None = None) -> dict[str, float]:
    """Measures what is shipped on MSRS/test, writes its section of docs/results.md, and returns the figures."""
    study = Study(shipped(), data=data or data_folder(), store=Store(STORE))
    publish(make(study, ["networks"], f"{COMMAND} --only networks"))
    return networks_section.figures_of(study.figures, study.networks)


def make(study: Study, names: Sequence[str], command: str) -> dict[str, str]:
    """The texts of sections by their names; what they need is gathered first, for all of them at once."""
    study.looks.gather([one for name in names for one in SECTIONS[name].needs(study)], to_stderr)
    return {name: write(study, SECTIONS[name], command) for name in names}


def publish(written: Mapping[str, str]) -> None:
    """Puts sections into the document."""
    page = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    DOCUMENT.write_text(document(written, page), encoding="utf-8")


def possible(study: Study, asked: Sequence[str] | None) -> list[str]:
    """The sections that are asked for, by default all for which there is what they need.

    Raises:
        ConfigurationError: Something is missing for one that is asked for.
    """
    lacking = {
        name: why
        for name, section in SECTIONS.items()
        if (not asked or name in asked) and (why := section.lacks(study))
    }
    if asked:
        for name, why in lacking.items():
            raise ConfigurationError(f"{name}: {why}")
    for name, why in lacking.items():
        to_stderr(f"without {name}: {why}")
    return [name for name in SECTIONS if name in (asked or SECTIONS) and name not in lacking]


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this section alone; more than once")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val for the choice of models")
    parser.add_argument("--limit", type=int, help="only so many frames")
    parser.add_argument("--network", action="append", help="NAME=FILE in place of what is shipped; more than once")
    parser.add_argument("--unseen", action="append", help="NAME=FILE of a network that no loop was trained with")
    parser.add_argument("--loops", type=Path, help="folder of trainings of the loop")
    parser.add_argument("--ablations", type=Path, help="folder of variants of the loop")
    parser.add_argument("--main", default="main", help="the variant that the others are compared to")
    parser.add_argument("--rivals", type=Path, help="folder of retrained and jointly trained networks")
    parser.add_argument("--device", default="cpu", help="where networks run")
    parser.add_argument("--fresh", action="store_true", help="look at everything anew")
    return parser.parse_args(words)


def spoken(arguments: argparse.Namespace) -> str:
    """The command without the places of files, which are those of one machine."""
    words = [COMMAND]
    for option, value in vars(arguments).items():
        if option in ("device", "fresh") or value is None or (option, value) in (("split", "test"), ("main", "main")):
            continue
        for one in value if isinstance(value, list) else [value]:
            name, equals, file = str(one).partition("=")
            words.append(f"--{option} {name}={Path(file).name}" if equals else f"--{option} {Path(name).name}")
    return " ".join(words)


def open_study(arguments: argparse.Namespace) -> Study:
    """What the arguments name."""
    given = named(arguments.network, "--network") if arguments.network else {}
    networks = {name: load(path) for name, path in given.items()} or shipped()
    unseen = (
        {name: load(path) for name, path in named(arguments.unseen, "--unseen").items()} if arguments.unseen else {}
    )
    rivals, rival_networks = rivals_in(arguments.rivals)
    networks = {**networks, **unseen, **rival_networks}
    return Study(
        {name: network.to(arguments.device) for name, network in networks.items()},
        unseen=tuple(unseen),
        loops=runs_in(arguments.loops),
        ablations=runs_in(arguments.ablations),
        main=arguments.main,
        rivals=rivals,
        data=data_folder(),
        split=arguments.split,
        limit=arguments.limit,
        store=Store(None if arguments.fresh else STORE),
    )


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(sys.argv[1:] if words is None else words)
    tune_allocator()
    torch.manual_seed(0)  # of the ablation that makes noise while it is used
    try:
        study = open_study(arguments)
        written = make(study, possible(study, arguments.only), spoken(arguments))
    except FuseloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.split == "test" and arguments.limit is None and not arguments.network:
        publish(written)
        print(f"wrote {', '.join(written)} of {DOCUMENT}")
    else:
        print("\n\n".join(f"## {text}" for text in written.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
