"""Classes of a data set as a task network numbers them: they are matched by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.labelled import IGNORED, LabelledPair, LabelledPairs
from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.tasks.protocol import Part, Target, Task, TaskNetwork

PARTS: dict[Task, Part] = {"detection": "boxes", "segmentation": "segmentation", "saliency": "saliency"}
"""The labels that each task is scored with."""


@dataclass(frozen=True)
class ClassMatch:
    """How the classes of a data set become those of a network.

    Boxes of a class that the network does not know are dropped, so that what it finds there is false; pixels of such a
    class count nowhere. A class of the network that the data set does not have is absent from the scores.

    Attributes:
        task: The task of the network.
        numbers: Class of the network for each class of the data set, -1 where there is none.
        unknown: Classes of the data set that the network does not know.
        unlabelled: Classes of the network that the data set does not have.
    """

    task: Task
    numbers: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    def target(self, pair: LabelledPair) -> Target:
        """The labels of a pair in the numbers of the network.

        Raises:
            LabelError: The pair lacks the labels of the task.
        """
        part = PARTS[self.task]
        if getattr(pair, part) is None:
            raise LabelError(f"the frame {pair.name} has no {part}, which {self.task} is scored with")
        target = Target.of(pair)
        if self.task == "detection":
            assert target.boxes is not None
            assert target.classes is not None
            classes = torch.tensor(self.numbers)[target.classes]
            return Target(boxes=target.boxes[classes >= 0], classes=classes[classes >= 0])
        if self.task == "segmentation":
            assert target.segmentation is not None
            return Target(segmentation=torch.from_numpy(self._ids)[target.segmentation])
        return replace(target, boxes=None, classes=None, segmentation=None)

    @property
    def _ids(self) -> NDArray[np.int64]:
        ids = np.full(256, IGNORED, np.int64)
        ids[: len(self.numbers)] = [IGNORED if number < 0 else number for number in self.numbers]
        return ids


def match_classes(
    network: TaskNetwork, pairs: LabelledPairs, *, same: Mapping[str, str] | None = None, name: str = "the network"
) -> ClassMatch:
    """Matches the classes of a data set with those of a network.

    Names are compared in any case, "car_stop" and "Car stop" are one. The background of a mask, id 0, is the background
    of the network, whatever it is called.

    Args:
        network: The network.
        pairs: The data set.
        same: Classes of the data set that the network has under other names.
        name: What the network is called in messages.

    Raises:
        LabelError: The data set has no labels of the task.
        ConfigurationError: No class is known on both sides.
    """
    part = PARTS[network.task]
    if part not in pairs.labels:
        there = f"{', '.join(pairs.labels)} alone" if pairs.labels else "no labels"
        raise LabelError(
            f"{name} is scored with {part}, but there are {there} in {pairs.describe()}; choose a task network for "
            "these, or another data set"
        )
    if network.task == "saliency":
        return ClassMatch("saliency")
    first = 1 if network.task == "segmentation" else 0
    own = pairs.box_names if network.task == "detection" else pairs.segmentation_names
    numbers = [0] * first + [
        _number(network.classes[first:], class_name, same or {}, first) for class_name in own[first:]
    ]
    known = {number for number in numbers[first:] if number >= 0}
    if not known:
        raise ConfigurationError(
            f"{name} knows {', '.join(network.classes[first:])}, and {pairs.describe()} label "
            f"{', '.join(own[first:])}: no class of one name; say which are the same, such as "
            f"--same {own[first:][0]}={network.classes[first:][0]}, or choose another network"
        )
    return ClassMatch(
        network.task,
        tuple(numbers),
        tuple(class_name for class_name, number in zip(own, numbers, strict=True) if number < 0),
        tuple(
            class_name for number, class_name in enumerate(network.classes) if number >= first and number not in known
        ),
    )


def _number(classes: Sequence[str], name: str, same: Mapping[str, str], first: int) -> int:
    """The number of a class in the network, -1 where it has none."""
    aliases = [theirs for ours, theirs in same.items() if ClassNames((ours,)).of_name(name) is not None]
    number = ClassNames(tuple(classes)).of_name(aliases[0] if aliases else name)
    return -1 if number is None else number + first


def check_same(same: Mapping[str, str], networks: Mapping[str, TaskNetwork], pairs: LabelledPairs) -> None:
    """Refuses names of classes that are not there.

    Raises:
        ConfigurationError: A data set has no class of a key, or no network one of its value.
    """
    own = ClassNames((*pairs.box_names, *pairs.segmentation_names))
    theirs = ClassNames(tuple(name for network in networks.values() for name in network.classes))
    for ours, other in same.items():
        if own.of_name(ours) is None:
            raise ConfigurationError(
                f"--same {ours}={other}: {pairs.describe()} have no class {ours!r}, only {', '.join(own.boxes)}"
            )
        if theirs.of_name(other) is None:
            raise ConfigurationError(
                f"--same {ours}={other}: no task network has a class {other!r}, only {', '.join(theirs.boxes)}"
            )
