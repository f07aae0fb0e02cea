"""What there is to compare: networks, closed loops and rivals, from what is shipped and from folders of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted

from benchmarks.results.figures import Figures
from benchmarks.results.images import Image, Makers
from benchmarks.results.looks import Look, Looks, Store
from fuseloop.datasets.files import open_labelled
from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.results import weights_hash
from fuseloop.fusers.rules import RULES
from fuseloop.tasks.protocol import Task, TaskNetwork
from fuseloop.tasks.weights import load

OWN = "vfn"
BEST, FUSION = "best.safetensors", "best-fusion.safetensors"
RETRAINED, JOINT = "retrained", "joint"
PROFILED = "train[::7]"
"""Frames whose mean requirement is a profile; none of them is scored."""


class Rival(NamedTuple):
    """A task network that was trained for fused images, and what fuses them.

    Attributes:
        way: How it was trained, `RETRAINED` or `JOINT`.
        network: The network that it takes the place of.
        name: What it is called among the networks.
        fusion: Name or weight file of its fusion network.
    """

    way: str
    network: str
    name: str
    fusion: str


@dataclass(frozen=True)
class Study:
    """All that sections compare, and what was seen of it.

    Attributes:
        networks: Task networks by their names, those of the rivals among them.
        unseen: Names of networks that no loop was trained with.
        loops: Weight files of one closed loop by the names of its trainings.
        ablations: Weight files of variants of the loop by their names.
        main: The variant that the others are compared to.
        rivals: The rivals.
        data: Folder of the data sets.
        split: Split of MSRS.
        limit: Only so many frames of each data set.
        store: Keeps what is seen.
    """

    networks: Mapping[str, TaskNetwork]
    unseen: Sequence[str] = ()
    loops: Mapping[str, str] = field(default_factory=dict)
    ablations: Mapping[str, str] = field(default_factory=dict)
    main: str = "main"
    rivals: Sequence[Rival] = ()
    data: Path = Path()
    split: str = "test"
    limit: int | None = None
    store: Store = field(default_factory=lambda: Store(None))

    @cached_property
    def own(self) -> dict[Task, str]:
        """The network of each task that loops were trained with: the first one of the task."""
        names = [name for name in self.networks if name not in {*self.unseen, *(rival.name for rival in self.rivals)}]
        found: dict[Task, str] = {}
        for name in names:
            found.setdefault(self.networks[name].task, name)
        return found

    @property
    def others(self) -> list[str]:
        """The networks that no loop was trained with."""
        rivals = {rival.name for rival in self.rivals}
        return [name for name in self.networks if name not in {*self.own.values(), *rivals}]

    @cached_property
    def looks(self) -> Looks:
        """What is seen in the split of MSRS."""
        return self._open(f"msrs:{self.data / 'MSRS'}:{self.split}{self._slice}", self.networks)

    @cached_property
    def zero_shot(self) -> Looks | None:
        """What saliency networks see in TNO, which nothing was trained on; None without such a network."""
        salient = {name: network for name, network in self.networks.items() if network.task == "saliency"}
        return self._open(f"tno_salient:{self.data / 'TNO_salient'}:{self._slice}", salient) if salient else None

    @cached_property
    def figures(self) -> Figures:
        """Scores of what was seen in the split of MSRS."""
        return Figures(self.looks)

    def customised(self, network: str, **options: float | str) -> list[Image]:
        """The images that the trainings of the loop make for a network."""
        return [Image(file, network, **options) for file in self.loops.values()]  # type: ignore[arg-type]

    def weights(self, looks: Sequence[Look | Image]) -> list[str]:
        """All weights behind some looks, a line each with the hash."""
        images = [look.image if isinstance(look, Look) else look for look in looks]
        files = dict.fromkeys(image.maker for image in images if image.maker not in RULES)
        loops = {file: f"closed loop `{name}`" for name, file in (*self.ablations.items(), *self.loops.items())}
        lines = [
            f"{loops.get(file, f'fusion weights `{Path(file).stem}`')}: {Makers.maker_hash(file)}" for file in files
        ]
        names = dict.fromkeys(look.network for look in looks if isinstance(look, Look))
        return lines + [f"task network `{name}`: {weights_hash(self.networks[name])}" for name in names]

    @property
    def _slice(self) -> str:
        return "[:]" if self.limit is None else f"[:{self.limit}]"

    def _open(self, spec: str, networks: Mapping[str, TaskNetwork]) -> Looks:
        makers = Makers(networks, lambda: open_labelled(f"msrs:{self.data / 'MSRS'}:{PROFILED}"))
        return Looks(open_labelled(spec), networks, makers, self.store)


def runs_in(folder: Path | None) -> dict[str, str]:
    """The best weights of every run of a folder, by the names of the runs in natural order.

    Raises:
        ConfigurationError: It holds no run that has any.
    """
    if folder is None:
        return {}
    found = natsorted(folder.glob(f"*/{BEST}"))
    if not found:
        raise ConfigurationError(f"{folder}: holds no run with {BEST}; give the folder in which the run folders lie")
    return {path.parent.name: str(path) for path in found}


def rivals_in(folder: Path | None) -> tuple[list[Rival], dict[str, TaskNetwork]]:
    """The rivals of a folder, and their networks by name.

    `retrained/NETWORK/best.safetensors` was trained on images of the shipped fusion network; beside
    `joint/NETWORK/best.safetensors` lies `best-fusion.safetensors`, which was trained with it.

    Raises:
        ConfigurationError: It holds none.
    """
    if folder is None:
        return [], {}
    rivals = []
    for way in (RETRAINED, JOINT):
        for path in natsorted((folder / way).glob(f"*/{BEST}")):
            network = path.parent.name
            fusion = OWN if way == RETRAINED else str(path.parent / FUSION)
            rivals.append(Rival(way, network, f"{network}, {way}", fusion))
    if not rivals:
        raise ConfigurationError(f"{folder}: holds no {RETRAINED}/NETWORK/{BEST} and no {JOINT}/NETWORK/{BEST}")
    return rivals, {rival.name: load(folder / rival.way / rival.network / BEST) for rival in rivals}
