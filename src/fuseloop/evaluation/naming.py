"""Names for what a user lists: "NAME=VALUE" or "VALUE"."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fuseloop.errors import ConfigurationError
from fuseloop.weights.files import SUFFIX


def named(texts: Sequence[str], option: str) -> dict[str, str]:
    """What each text stands for, by its name.

    Args:
        texts: "NAME=VALUE", or "VALUE": a path is called as its folder, or as its weight file without the ending.
        option: How the user gives them, for the messages.

    Raises:
        ConfigurationError: There is none, a name or value is empty, or two have one name.

    >>> named(["vfn", "mine=runs/a/best.safetensors", "out/fused"], "--fuser")
    {'vfn': 'vfn', 'mine': 'runs/a/best.safetensors', 'fused': 'out/fused'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or os.path.exists(text):
            value = text
            # Not the target of a link: the name is the one that was typed.
            name = Path(os.path.abspath(text)).name.removesuffix(SUFFIX) if text else ""
        if not name or not value:
            raise ConfigurationError(f"{option} {text} is not of the form VALUE or NAME=VALUE")
        if name in found:
            raise ConfigurationError(
                f"{found[name]} and {value} are both called {name!r}; tell them apart: {option} NAME={value}"
            )
        found[name] = value
    if not found:
        raise ConfigurationError(f"there is nothing to look at; give {option} VALUE or {option} NAME=VALUE")
    return found
