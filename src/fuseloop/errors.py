"""Errors that a user can mend.

Every message says what was wrong, where, and what to do. The command prints them without a traceback; anything that is
not a `FuseloopError` is a defect of the library and keeps its traceback.
"""

from __future__ import annotations


class FuseloopError(Exception):
    """Base of all errors that a user can mend."""


class ImageError(FuseloopError):
    """An image or video cannot be read, written, or is not usable."""


class PairError(FuseloopError):
    """The two images of a pair, or two folders, do not belong together."""


class WeightsError(FuseloopError):
    """A weight file or weight name is unknown, corrupt or foreign."""


class ConfigurationError(FuseloopError):
    """A configuration, option or argument is unknown or out of range."""


class LabelError(FuseloopError):
    """Labels of a frame, or what a task network predicted for it, are not usable."""
