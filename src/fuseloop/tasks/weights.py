"""Task networks by name, and their weight files.

A weight file carries in its metadata the `architecture`, which is a name of `NETWORKS`, the `classes` and `options` it
was built with as JSON, the `version` of fuseloop that wrote it and a `description`. Parameters are kept in half
precision, buffers such as running statistics and anchors as they are; a loaded network is in single precision.
"""

from __future__ import annotations

import difflib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES
from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.tasks.protocol import Task, TaskNetwork
from fuseloop.weights.files import FOLDER, SUFFIX, check_finite, mismatch, read_tensors, write_tensors

DEFAULT_CLASSES: dict[Task, tuple[str, ...]] = {
    "detection": BOX_NAMES,
    "segmentation": SEGMENTATION_NAMES,
    "saliency": (),
}
"""The classes of the MSRS kit and of the synthetic scenes, which an untrained network knows by default."""

SHIPPED: dict[str, str] = {"yolov5s": "a detector of people, bicycles and cars on roads"}
"""Task networks whose trained weights are shipped, and what each is for."""


@dataclass(frozen=True)
class Architecture:
    """What a name stands for.

    Attributes:
        home: Module below `fuseloop.tasks`, and class in it; imported when it is first built.
        task: What it does.
        options: Keywords that make this size of it.
    """

    home: str
    task: Task
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, classes: Sequence[str], **options: Any) -> TaskNetwork:
        """The untrained network; saliency networks have no classes."""
        module, _, name = self.home.partition(":")
        make = getattr(import_module(f"fuseloop.tasks.{module}"), name)
        arguments = () if self.task == "saliency" else (tuple(classes),)
        network: TaskNetwork = make(*arguments, **{**self.options, **options})
        return network


NETWORKS: dict[str, Architecture] = {
    **{f"yolov5{size}": Architecture("detection.yolov5:YOLOv5", "detection", {"size": size}) for size in "nsmlx"},
    "detr": Architecture("detection.detr:DETR", "detection"),
    "rtdetr": Architecture("detection.detr:RTDETR", "detection"),
    **{
        f"segformer-b{size}": Architecture("segmentation.segformer:SegFormer", "segmentation", {"size": f"b{size}"})
        for size in range(6)
    },
    "ctdnet-18": Architecture("saliency.ctdnet:CTDNet", "saliency"),
}
"""Task networks that can be built by name."""


def load(name_or_path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> TaskNetwork:
    """A task network by name or from a file, on the CPU and in evaluation mode.

    Args:
        name_or_path: A name of `NETWORKS`; a ``.safetensors`` file that fuseloop wrote; or a folder that the
            `save_pretrained` of `transformers` wrote, with a detector or a segmenter in it.
        classes: Names of the classes of an untrained network; by default those of the MSRS kit.

    Returns:
        The network with shipped weights where there are some for its name. Otherwise it is untrained, and a warning
        says so.

    Raises:
        ConfigurationError: The name is unknown, or classes are given for weights that have their own.
        WeightsError: The file is missing, corrupt, or not of a task network.
    """
    text = os.fspath(name_or_path)
    if text in SHIPPED and classes is None:
        return read_weights(FOLDER / f"{text}{SUFFIX}")
    if text in NETWORKS:
        why = "no weights of it are shipped" if text not in SHIPPED else "its shipped weights know other classes"
        warnings.warn(f"{text} is untrained: {why}; train it with `fuseloop train task`", stacklevel=2)
        return build(text, classes).eval()
    if classes is not None:
        raise ConfigurationError(f"{text} has classes of its own; leave out classes")
    path = Path(text)
    if path.is_dir():
        from fuseloop.tasks.wrapping import wrap_transformers

        return wrap_transformers(path)
    if path.suffix == SUFFIX or os.path.isfile(path):
        return read_weights(path)
    near = difflib.get_close_matches(text.lower(), NETWORKS, n=1)
    raise ConfigurationError(
        f"unknown task network {text!r}; " + (f"did you mean {near[0]!r}? " if near else "") + f"Give one of "
        f"{', '.join(NETWORKS)}, a {SUFFIX} file of fuseloop, or a folder that transformers wrote"
    )


def build(name: str, classes: Sequence[str] | None = None, **options: Any) -> TaskNetwork:
    """An untrained network.

    Args:
        name: A name of `NETWORKS`.
        classes: Names of its classes; by default those of the MSRS kit.
        options: Keywords of its class, such as `letterbox` of YOLOv5.

    Raises:
        ConfigurationError: The name or an option is unknown.
    """
    if name not in NETWORKS:
        raise ConfigurationError(f"unknown task network {name!r}; known are {', '.join(NETWORKS)}")
    architecture = NETWORKS[name]
    try:
        return architecture.build(DEFAULT_CLASSES[architecture.task] if classes is None else classes, **options)
    except TypeError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def read_weights(path: str | os.PathLike[str]) -> TaskNetwork:
    """Reads a weight file of a task network, as `write_weights` wrote it. Nothing in such a file can run code.

    Raises:
        WeightsError: The file is missing, corrupt, or not of a task network.
    """
    path = Path(path)
    metadata, tensors = read_tensors(path, pickled="only safetensors files are read")
    name = metadata.get("architecture", "")
    if name not in NETWORKS:
        raise WeightsError(
            f"{path} holds no task network: its metadata should name one of {', '.join(NETWORKS)} as architecture, "
            f"but it {f'says {name!r}' if name else 'names none'}"
        )
    try:
        options = json.loads(metadata.get("options", "{}"))
        network = build(name, json.loads(metadata["classes"]), **options)
    except (KeyError, ValueError, TypeError, ConfigurationError) as error:
        raise WeightsError(f"{path}: its metadata do not describe a {name} ({error})") from error
    complaint = mismatch(network.state_dict(), tensors)
    if complaint:
        raise WeightsError(f"{path} does not hold a {name}: {complaint}")
    check_finite(path, tensors)
    network.load_state_dict(tensors)  # into single precision
    return network.eval()


def write_weights(
    path: str | os.PathLike[str],
    network: TaskNetwork,
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    description: str = "",
    overwrite: bool = False,
) -> None:
    """Writes a weight file, parameters in half precision, aside first and then renamed.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        network: The network, on any device.
        name: Its name in `NETWORKS`.
        options: The options that it was built with.
        description: What these weights are, in one line.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WeightsError: A weight is too large for half precision, the suffix is another, the file exists, or it cannot be
            written.
    """
    path = Path(path)
    parameters = {key for key, _ in network.named_parameters(remove_duplicate=False)}
    tensors = {
        key: value.to(torch.float16) if key in parameters else value for key, value in network.state_dict().items()
    }
    check_finite(path, tensors)
    metadata = {
        "architecture": name,
        "classes": json.dumps(network.classes),
        "options": json.dumps(dict(options or {})),
        "description": description,
    }
    write_tensors(path, tensors, metadata, overwrite=overwrite)
