"""Writing files and folders so that a failure leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
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
        raise _refused(path, problem) from problem
    finally:
        aside.unlink(missing_ok=True)


def check_target_folder(path: str | os.PathLike[str], *, ours: Callable[[Path], bool], overwrite: bool) -> None:
    """Checks that a folder may be written as a whole, before any work is done for it.

    Args:
        path: The folder; those above it need not exist.
        ours: Whether a folder that holds something may be replaced: only what the same writer made.
        overwrite: Replace such a folder.

    Raises:
        ImageError: It is no folder, or holds something that must be kept.
    """
    target = Path(path)
    try:
        if not os.path.lexists(target) or not any(target.iterdir()):
            return
    except NotADirectoryError as problem:
        raise ImageError(f"{target}: a file is in the place of the folder; choose another folder") from problem
    except OSError as problem:
        raise ImageError(f"{target}: cannot be read ({problem.strerror}); choose another folder") from problem
    if not ours(target):
        raise ImageError(f"{target}: holds other files, which were kept; choose a new or empty folder")
    if not overwrite:
        raise ImageError(f"{target}: exists already and was kept; use --overwrite to replace it")


@contextmanager
def folder_written_aside(
    path: str | os.PathLike[str], *, ours: Callable[[Path], bool], overwrite: bool
) -> Iterator[Path]:
    """Gives an empty folder beside `path`, which takes its place once all went well.

    After any failure, Ctrl-C included, what was at `path` is there unchanged and the folder aside is gone. A process
    that is killed leaves the folder aside, whose name starts with a dot, never a part of a folder at `path`.

    Args:
        path: See `check_target_folder`. Folders above it are made.
        ours: See `check_target_folder`.
        overwrite: See `check_target_folder`.

    Raises:
        ImageError: What `check_target_folder` raises, or the system refused to write, as when the disk is full.
    """
    check_target_folder(path, ours=ours, overwrite=overwrite)
    target = Path(os.path.realpath(path))  # a link stays a link
    token = secrets.token_hex(8)
    aside, earlier = target.with_name(f".{token}.part"), target.with_name(f".{token}.old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        yield aside
        check_target_folder(path, ours=ours, overwrite=overwrite)
        if target.exists():
            target.rename(earlier)
        try:
            aside.rename(target)
        except BaseException:
            if earlier.exists():
                earlier.rename(target)
            raise
    except OSError as problem:
        if problem.filename is not None:
            culprit = Path(os.fsdecode(problem.filename))
            if culprit not in (target, earlier, *target.parents) and aside not in (culprit, *culprit.parents):
                raise  # about another file, which was to be read
        raise _refused(path, problem) from problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            shutil.rmtree(earlier, ignore_errors=True)


def _refused(path: str | os.PathLike[str], problem: OSError) -> ImageError:
    full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some space" if full else "check the folder and its permissions"
    return ImageError(f"{path}: cannot be written ({problem.strerror or problem}); {advice}")
