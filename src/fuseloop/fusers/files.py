"""Fuses files: plans which output every pair goes to, and runs the loop where one bad pair does not stop the others."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseloop.errors import ConfigurationError, FuseloopError, ImageError
from fuseloop.pairs.atomic import check_target
from fuseloop.pairs.folders import pair_folders
from fuseloop.pairs.images import Picture, default_suffix, file_format, read_image, write_image
from fuseloop.pairs.levels import Levels, Limits, from_unit, to_unit

Depth = Literal["8", "16", "float"]
_DEPTHS: dict[Depth, tuple[np.dtype[Any], Limits]] = {
    "8": (np.dtype(np.uint8), Limits(0, 255)),
    "16": (np.dtype(np.uint16), Limits(0, 65535)),
    "float": (np.dtype(np.float32), Limits(0, 1)),
}
_ROWS = 256


class Job(NamedTuple):
    """One pair of files and where its fused image goes.

    Attributes:
        infrared: The infrared file.
        visible: The visible file.
        stem: The output without its ending.
        ending: The ending of the output, such as ".png"; None when the fused image decides, see `default_suffix`.
    """

    infrared: Path
    visible: Path
    stem: Path
    ending: str | None = None

    def output(self, ending: str) -> Path:
        """The file that the fused image goes to, when the job does not say another ending."""
        return self.stem.with_name(self.stem.name + (self.ending or ending))  # with_suffix would cut stems with dots

    def existing(self) -> Path | None:
        """A file that may be the output of an earlier run: `default_suffix` knows two endings."""
        return next((path for path in map(self.output, (".png", ".tiff")) if path.exists()), None)


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
        job: The job.
        status: "fused"; "kept" when the output was there already; "failed".
        output: The output, None when failed.
        error: Why it failed, else None.
    """

    job: Job
    status: Literal["fused", "kept", "failed"]
    output: Path | None = None
    error: FuseloopError | None = None


def plan_file(infrared: Path, visible: Path, out: Path, ending: str | None = None, *, overwrite: bool = False) -> Job:
    """Plans one pair of files.

    Args:
        infrared: The infrared file.
        visible: The visible file.
        out: The output, or a folder to put it in under the stem of the visible file.
        ending: The ending of the output, such as ".png", when `out` does not say it.
        overwrite: Whether the output may exist.

    Raises:
        ConfigurationError: The output is one of the inputs, or its ending is missing or contradicts `ending`.
        ImageError: The output exists and may not.
    """
    if out.is_dir():
        job = Job(infrared, visible, out / visible.stem, ending)
    elif not (ending or out.suffix):
        raise ConfigurationError(f"{out} has no ending such as .png and is no folder; give one of these")
    elif ending and out.suffix and file_format(out.suffix) != file_format(ending):
        raise ConfigurationError(f"{out} ends with {out.suffix}, and the format asked for is {ending[1:]}; choose one")
    else:
        job = Job(infrared, visible, out.with_suffix(""), out.suffix or ending)
    existing = job.existing()
    if existing is not None:
        if any(existing.samefile(source) for source in (infrared, visible) if source.exists()):
            raise ConfigurationError(f"{existing} is one of the two inputs; choose another output")
        check_target(existing, overwrite=overwrite)
    return job


def plan_folder(
    infrared: Path, visible: Path, out: Path, ending: str | None = None, *, suffixes: tuple[str, str] = ("", "")
) -> tuple[list[Job], list[Path]]:
    """Plans the pairs of two folders, in natural order.

    Args:
        infrared: Folder of infrared images.
        visible: Folder of visible images.
        out: Folder of the outputs, which keep the stems of the visible images.
        ending: The ending of the outputs, see `Job`.
        suffixes: Ends of the infrared and of the visible stems that do not count in pairing, such as ("_ir", "_vis").

    Returns:
        The jobs, and the images that have no partner.

    Raises:
        PairError: The folders have no name in common, or one has a name twice.
        ConfigurationError: `out` is one of the two folders.
    """
    if any(out.exists() and out.samefile(source) for source in (infrared, visible) if source.exists()):
        raise ConfigurationError(f"{out} is one of the two input folders; choose another folder for the outputs")
    pairing = pair_folders(infrared, visible, infrared_suffix=suffixes[0], visible_suffix=suffixes[1])
    jobs = [Job(pair.infrared, pair.visible, out / pair.visible.stem, ending) for pair in pairing.pairs]
    return jobs, pairing.unpaired


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; one that exists is fine.

    Raises:
        ImageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ImageError(f"cannot make the folder {folder}: a file is in its place; choose another folder") from error
    except OSError as error:
        raise ImageError(f"cannot make the folder {folder}: {error.strerror}; choose another folder") from error


def to_depth(picture: Picture, depth: Depth, levels: str = "full") -> Picture:
    """A picture with other bits, row by row so that memory stays small.

    Args:
        picture: The picture.
        depth: "8" or "16" bits, or "float".
        levels: Which raw values become black and white, see `fuseloop.pairs.levels`.

    Raises:
        ImageError: The levels do not fit the picture.
    """
    dtype, full = _DEPTHS[depth]

    def convert(values: NDArray[Any], limits: Limits) -> NDArray[Any]:
        converted = np.empty(values.shape, dtype)
        for start in range(0, len(values), _ROWS):
            rows = slice(start, start + _ROWS)
            converted[rows] = from_unit(to_unit(values[rows], limits), dtype, full)
        return converted

    alpha = picture.alpha
    return Picture(
        convert(picture.pixels, Levels.parse(levels).limits(picture.pixels)),
        None if alpha is None else convert(alpha, Levels("full").limits(alpha)),
    )


def fuse_files(
    jobs: Sequence[Job],
    fuse: Callable[[Picture, Picture], Picture],
    report: Callable[[Outcome], None],
    *,
    read: Callable[[Path], Picture] = read_image,
    ending: Callable[[Picture], str] = default_suffix,
    overwrite: bool = False,
) -> None:
    """Fuses image pairs one after the other.

    While a pair is fused, the next one is read and the last image is written; at most these three are in memory. When
    the loop is interrupted, the image that is being written is finished and reported first. A full disk ends the loop,
    because the jobs after it would fail alike.

    Args:
        jobs: What to fuse.
        fuse: Fuses an infrared and a visible picture.
        report: Called with the outcome of every job that was tried, soon after it ended.
        read: Reads an image file.
        ending: What `default_suffix` will say of what `fuse` makes of a visible picture.
        overwrite: Whether to fuse pairs whose output exists, and replace it.
    """
    todo = []
    for job in jobs:
        finished = None if overwrite else _finished(job, read, ending)
        if finished is None:
            todo.append(job)
        else:
            report(Outcome(job, "kept", finished))

    def read_pair(job: Job) -> tuple[Picture, Picture]:
        return read(job.infrared), read(job.visible)

    def write(job: Job, fused: Picture) -> Outcome:
        output = job.output(default_suffix(fused))
        try:
            write_image(output, fused, overwrite=overwrite)
        except FuseloopError as error:
            return Outcome(job, "failed", error=error)
        return Outcome(job, "fused", output)

    if not todo:
        return
    with ThreadPoolExecutor(max_workers=2) as threads:
        reading = threads.submit(read_pair, todo[0])
        writing: Future[Outcome] | None = None
        try:
            for number, job in enumerate(todo, 1):
                pair = reading
                if number < len(todo):
                    reading = threads.submit(read_pair, todo[number])
                try:
                    fused = fuse(*pair.result())
                except FuseloopError as error:
                    report(Outcome(job, "failed", error=error))
                    continue
                if writing is not None:
                    outcome, writing = writing.result(), None
                    report(outcome)
                    if outcome.error is not None and _disk_is_full(outcome.error):
                        return
                writing = threads.submit(write, job, fused)
        finally:
            if writing is not None:
                report(writing.result())


def _finished(job: Job, read: Callable[[Path], Picture], ending: Callable[[Picture], str]) -> Path | None:
    """The output when an earlier run has written it; a file of its stem with the other ending is none."""
    found = job.existing()
    if found is None or job.ending is not None:
        return found
    if ending is default_suffix and found.suffix == ".png" and file_format(job.visible.suffix) != "TIFF":
        return found  # not in doubt, and to read every image would make it slow to continue a long run
    try:
        output = job.output(ending(read(job.visible)))
    except FuseloopError:
        return None  # it is reported when it is the turn of the job
    return output if output.exists() else None


def _disk_is_full(error: BaseException) -> bool:
    """Whether an error was caused by a full disk or an exhausted quota."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        cause = cause.__cause__
    return False
