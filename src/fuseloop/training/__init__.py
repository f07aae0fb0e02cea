"""Training: one recipe per stage, over one crash-safe loop."""

from fuseloop.errors import FuseloopError


class TrainingError(FuseloopError):
    """A training cannot go on; what it had saved is kept."""
