"""Writing files so that a failure leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuseloop.errors import ImageError


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Checks that a file may be written, before any work is done for it.

    Raises:
        ImageError: Its folder is missing, it exists and `overwrite` is not set, or it is no regular file.
    """
    target = Path(path)
    if not os.path.isdir(target.parent):
        raise ImageError(f"{target}: {target.parent} is not a folder; make it first")
    if os.path.exists(target):  # unlike Path.exists, this raises nothing on a name that the system cannot hold
        if not target.is_file():
            raise ImageError(f"{target}: is not a file; choose another name")
        if not overwrite:
            raise ImageError(f"{target}: exists already and was kept; use --overwrite to replace it")


@contextmanager
def written_aside(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Gives a path to write to in the folder of `path`, which replaces `path` once all went well.

    After any failure, Ctrl-C included, the file at `path` is what it was before and the file aside is gone.

    Raises:
        ImageError: What `check_target` raises, or the system refused to write, as when the disk is full.
    """
    check_target(path, overwrite=overwrite)
    target = Path(os.path.realpath(path))  # a link stays a link
    aside = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield aside
        check_target(path, overwrite=overwrite)
        os.replace(aside, target)
    except OSError as problem:
        if problem.filename is not None and Path(os.fsdecode(problem.filename)) not in (aside, target):
            raise  # about another file, which was to be read
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space" if full else "check the folder and its permissions"
        raise ImageError(f"{path}: cannot be written ({problem.strerror or problem}); {advice}") from problem
    finally:
        aside.unlink(missing_ok=True)
