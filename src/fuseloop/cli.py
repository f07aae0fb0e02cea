"""The command `fuseloop`: parses, calls, prints.

Heavy modules are imported inside the commands, so that help and mistakes in the arguments answer at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.types import PositiveInt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fuseloop.errors import ConfigurationError, FuseloopError, ImageError, PairError

if TYPE_CHECKING:
    from fuseloop.datasets.check import Checked
    from fuseloop.datasets.findings import Finding
    from fuseloop.evaluation.evaluate import Evaluation, Failure, Look, Uncertainty
    from fuseloop.evaluation.predict import Outcome as PredictOutcome
    from fuseloop.fusers.closed_loop import ClosedLoopFuser
    from fuseloop.fusers.files import Job, Outcome
    from fuseloop.fusers.fuser import Fuser
    from fuseloop.fusers.instructed import InstructedFuser
    from fuseloop.pairs.images import Picture
    from fuseloop.scoring.files import Outcome as ScoreOutcome
    from fuseloop.scoring.files import Scores
    from fuseloop.scoring.plan import Plan
    from fuseloop.scoring.tables import TextTable
    from fuseloop.tasks.protocol import TaskNetwork
    from fuseloop.training.config import TrainingConfig
    from fuseloop.training.trainer import Result as TrainingResult

DONE, PARTLY, NOTHING, INTERRUPTED = 0, 1, 2, 130
LISTED = 100  # broken files that are printed

HELP = """Fuses aligned infrared and visible images, folders and videos, and measures how well.

```
fuseloop demo
fuseloop fuse --infrared ir.png --visible vis.png --out fused.png
fuseloop fuse --infrared thermal/ --visible colour/ --out fused/
fuseloop fuse --infrared ir.mp4 --visible vis.mp4 --out fused.mp4
fuseloop score --infrared thermal/ --visible colour/ --fused fused/
fuseloop evaluate --fuser vfn --fuser max --task-network yolov5s --dataset msrs:data/MSRS:test
```
"""
EXIT_CODES = """Exit codes: 0 all is done; 1 some pairs failed and the rest is done; 2 nothing is done, because of the
arguments or the input; 130 interrupted, and what was finished stays."""

Texts = Annotated[list[str], Parameter(negative=())]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
EngineName = Literal["openvino", "onnxruntime", "torch"]
PrecisionName = Literal["fp32", "bf16"]
PartName = Literal["frame", "statistics", "tile", "first", "second"]
DeviceName = Literal["auto", "cpu", "cuda"]
Kind = Literal["image", "folder", "video"]

app = App(
    name="fuseloop",
    help=HELP,
    help_epilogue=EXIT_CODES,
    help_format="markdown",
    version=version("fuseloop"),
    suppress_keyboard_interrupt=False,  # main gives it its exit code
)
train = App(name="train", sort_key=8, help="Train the networks that fuseloop ships.")
app.command(train)
data = App(name="data", sort_key=8, help="Look at labelled data sets.")
app.command(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code.

    Args:
        arguments: The arguments after the name of the command; those of the process by default.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may hold what no text can
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (CycloptsError, FuseloopError) as error:
        _say("error", str(error))
        return NOTHING
    except KeyboardInterrupt:
        _say("interrupted", "stopped before the end")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; without this the interpreter complains when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PARTLY
    return code or DONE


@app.command(sort_key=1)
def fuse(
    *,
    infrared: Path,
    visible: Path,
    out: Path,
    fuser: str | None = None,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    instruction: str | None = None,
    strength: float | None = None,
    feedback: str | None = None,
    first_look: float | None = None,
    engine: EngineName = "openvino",
    precision: PrecisionName = "fp32",
    device: DeviceName = "auto",
    infrared_levels: str = "auto",
    visible_levels: str = "full",
    align: Literal["none", "resize"] = "none",
    suffix: str | None = None,
    format: Literal["png", "tiff", "jpg", "webp", "bmp"] | None = None,
    depth: Literal["8", "16", "float"] | None = None,
    max_pixels: PositiveInt = 250_000_000,
    overwrite: Flag = False,
) -> int:
    """Fuse two images, two folders of images, or two videos.

    Folders are paired by file stem in natural order, whatever the endings; what has no partner is listed. The outputs
    keep the stems of the visible images. A pair that cannot be fused is reported and the others are done. Outputs that
    exist are kept, so the same command continues a run that was interrupted.

    With --for, a closed loop makes the images that a task network asks for, without labels. With --instruction, a
    sentence says what they are for: `fuseloop explain` shows what is understood of one, and one that is not understood
    leaves the images neutral.

    ```
    fuseloop fuse --infrared ir.png --visible vis.png --out fused.png --for yolov5s --fuser loop.safetensors
    fuseloop fuse --infrared ir.mp4 --visible vis.mp4 --out fused.mp4 --for my/network --feedback previous
    fuseloop fuse --infrared ir --visible vis --out fused --instruction "find people, it is night" --fuser w.safetensors
    ```

    Args:
        infrared: Infrared image, folder or video.
        visible: Visible image, folder or video.
        out: Output image, folder or video.
        fuser: Name of shipped weights (`fuseloop weights` lists them) or a weight file; by default vfn, for a task
            network cldyn, and for an instruction toar.
        for_: Name of a task network, a weight file of one, or a folder that transformers wrote: what the images are
            for.
        instruction: What the images are for, in a sentence, or a mixture such as detection=0.7,view=0.3.
        strength: How much the images are changed for it, from 0 (not at all) to 1, the default.
        feedback: Where its requirement comes from: frame, a first look at the same frame and the default; previous, the
            frame before, so that it looks once a frame; or profile:FILE, what `fuseloop profile` wrote, with which no
            task network is needed.
        first_look: Size of the image of the first look as a share of the frame; below the default, 1, it costs less.
        engine: What runs the network; all give the same image within 1e-4.
        precision: fp32, or bf16, which is faster on processors that have it and, with the shipped weights, within
            2/255 on all but a few pixels in a million; onnxruntime has fp32 alone.
        device: What runs the task network; auto takes a GPU where there is one.
        infrared_levels: What is black and what is white: full, percentile, percentile:LOW,HIGH, range:LOW,HIGH, or
            auto, which takes percentiles of 16-bit images and the full range of others.
        visible_levels: The same for the visible image.
        align: Two sizes in a pair are an error, or resize brings the infrared image to the size of the visible one.
        suffix: Ends of the infrared and the visible names that do not count in pairing: `_ir,_vis` pairs x_ir.png
            with x_vis.jpg.
        format: Format of the outputs; by default the ending of OUT, and in a folder png, or tiff for floats.
        depth: Bits of the outputs; by default those of the visible image.
        max_pixels: Refuse larger images.
        overwrite: Replace outputs that exist.
    """
    kind = _kind_of_all(infrared, visible)
    if suffix is not None and kind != "folder":
        raise ConfigurationError("--suffix is for folders; two files are a pair whatever their names")
    if (format or depth) and kind == "video":
        raise ConfigurationError("--format and --depth are for images; the ending of OUT says how a video is written")

    from fuseloop.fusers.files import fuse_files, make_folder, plan_file, plan_folder, to_depth
    from fuseloop.pairs.images import default_suffix, read_image
    from fuseloop.pairs.levels import Levels

    for levels in (infrared_levels, visible_levels):
        Levels.parse(levels)  # a mistake there would fail every pair
    unpaired: list[Path] = []
    if kind == "folder":
        ending = format and f".{format}"
        jobs, unpaired = plan_folder(infrared, visible, out, ending, suffixes=_suffixes(suffix))
    else:
        ending = ".mp4" if kind == "video" and out.is_dir() else format and f".{format}"
        jobs = [plan_file(infrared, visible, out, ending, overwrite=overwrite)]
    loop_options = {"strength": strength, "feedback": feedback, "first_look": first_look}
    given = {name: value for name, value in loop_options.items() if value is not None}
    loaded: Fuser | ClosedLoopFuser | InstructedFuser
    told: dict[str, Any] = {}
    if instruction is not None:
        if for_ is not None or feedback is not None or first_look is not None:
            raise ConfigurationError("--instruction goes without a task network; leave out --for and what is for it")
        loaded, told = _load_instructed(fuser or "toar", instruction, given, engine, precision, max_pixels)
    elif for_ is not None or str(feedback).startswith("profile:"):
        loaded = _load_loop(fuser or "cldyn", for_, given, engine, precision, max_pixels, device)
    elif given:
        raise ConfigurationError(f"--{next(iter(given)).replace('_', '-')} is for a task network; give --for as well")
    else:
        loaded = _load(fuser or "vfn", engine, precision, max_pixels)
    options: Any = {"infrared_levels": infrared_levels, "align": align, **told}
    make_folder(jobs[0].stem.parent)

    def fuse_pair(infrared: Picture, visible: Picture) -> Picture:
        rule = visible_levels
        if depth or kind == "video":
            visible, rule = to_depth(visible, depth or "8", visible_levels), "full"
        return loaded.fuse_picture(infrared, visible, visible_levels=rule, **options)

    if kind == "video":
        return _run_video(jobs[0], fuse_pair, overwrite)
    read = partial(read_image, max_pixels=max_pixels)
    ending_of = (lambda visible: default_suffix(to_depth(visible, depth))) if depth else default_suffix
    loop = partial(fuse_files, jobs, fuse_pair, read=read, ending=ending_of, overwrite=overwrite)
    return _run_folder(loop, len(jobs), unpaired, out) if kind == "folder" else _run_image(loop)


@app.command(sort_key=2)
def score(
    *,
    infrared: Path,
    visible: Path,
    fused: Texts,
    metrics: str = "all",
    convention: str | None = None,
    json: Path | None = None,
    csv: Path | None = None,
    html: Path | None = None,
    baseline: str | None = None,
    levels: Texts | None = None,
    suffix: str | None = None,
    workers: PositiveInt | None = None,
    max_pixels: PositiveInt = 250_000_000,
    overwrite: Flag = False,
) -> int:
    """Score fused images, and compare methods that fused the same pairs.

    Every metric is printed with mean, standard deviation and the bootstrap 95 % interval of the mean over the frames.
    Frames are matched by file stem. What has no partner or cannot be scored is listed, and all else is scored.

    ```
    fuseloop score --infrared thermal --visible colour --fused fused --json scores.json
    fuseloop score --infrared thermal --visible colour --fused ours=a --fused theirs=b --convention cddfuse
    ```

    Args:
        infrared: Infrared image or folder.
        visible: Visible image or folder.
        fused: Fused image or folder, or NAME=PATH; again for every method to compare. Without a NAME the method is
            called as the folder, or as the stem of the file.
        metrics: Keys separated by commas, such as en,mi,vif; the name of a convention for the metrics of its
            implementation, scored by it; all; or fast, which is all but FMI and Qp, which take most of the time.
        convention: Whose definitions to follow: default (textbook), cddfuse, tdfusion, tang, ivif_zoo, vifb, zheng or
            yuliu; by default the one that --metrics consists of, else default. What a convention lacks follows
            default, and is marked.
        json: Write all values, summaries and reasons to this file.
        csv: Write a row for each method, frame and metric to this file.
        html: Write pages that compare the methods and show every frame to this folder; open index.html in it.
        baseline: The method that others are compared to, by default the first.
        levels: What is black and what is white in images that are not 8-bit, which are refused without: full,
            percentile, percentile:LOW,HIGH or range:LOW,HIGH. infrared=RULE, visible=RULE and fused=RULE tell them
            apart.
        suffix: Ends of the infrared and the visible names that do not count in matching, and that of the fused names
            where they are not as `fuseloop fuse` writes them: `_ir,_vis` or `_ir,_vis,_fused`.
        workers: How many frames to score at a time, by default one for each core.
        max_pixels: Refuse larger images.
        overwrite: Replace outputs that exist.
    """
    from fuseloop.pairs.atomic import check_target
    from fuseloop.scoring.plan import name_methods, plan_file, plan_folders

    methods = name_methods(fused)
    kind = _kind_of_all(infrared, visible, *methods.values())
    if kind == "video":
        raise ConfigurationError(f"{infrared} is a video; scores are taken from images, so give folders of its frames")
    for output in (json, csv):
        if output is not None:
            check_target(output, overwrite=overwrite)
    if json is not None and json == csv:
        raise ConfigurationError(f"--json and --csv are both {json}; give each its own file")
    if baseline is not None and baseline not in methods:
        raise ConfigurationError(f"--baseline {baseline} is none of the methods {', '.join(methods)}")
    if kind == "folder":
        first, _, last = (suffix or "").rpartition(",") if (suffix or "").count(",") == 2 else (suffix, "", None)
        plan = plan_folders(infrared, visible, methods, suffixes=_suffixes(first), fused_suffix=last)
    elif suffix is not None:
        raise ConfigurationError("--suffix is for folders; files belong together whatever their names")
    else:
        plan = plan_file(infrared, visible, methods)
    _spread_threads(len(plan.jobs))

    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.metrics.table import implied_convention, parse_metrics
    from fuseloop.pairs.images import read_image
    from fuseloop.scoring.files import Mapping8, Scores, score_files
    from fuseloop.scoring.results import write_csv, write_json

    followed = implied_convention(metrics) if convention is None else convention.lower()
    keys, mapping = parse_metrics(metrics, followed), Mapping8.parse(levels or [])
    if html is not None:
        from fuseloop.reports.score import check_score_report

        check_score_report(html, overwrite=overwrite)
    tune_allocator()
    read = partial(read_image, max_pixels=max_pixels)
    loop = partial(score_files, plan, metrics=keys, convention=followed, levels=mapping, read=read, workers=workers)
    outcomes: list[ScoreOutcome] = []
    code, said = _run_scoring(loop, plan, outcomes)
    scores = Scores.of(plan, outcomes, followed, mapping)
    if scores.evaluations:
        _print_scores(scores, baseline)
        writers: list[tuple[Path | None, Callable[..., object]]] = [
            (json, write_json),
            (csv, write_csv),
            (html, partial(_write_pages, plan=plan, baseline=baseline)),
        ]
        for path, write in writers:
            if path is not None:
                try:
                    write(path, scores, overwrite=overwrite)
                    said += f"\nwrote {path}"
                except ImageError as error:  # what another file can hold is not lost
                    _say("error", str(error))
                    code = max(code, PARTLY)
    print(said)
    return code


@app.command(sort_key=3)
def predict(
    *,
    task_network: str,
    out: Path,
    images: Path | None = None,
    infrared: Path | None = None,
    visible: Path | None = None,
    fuser: str = "vfn",
    threshold: float = 0.25,
    suffix: str | None = None,
    engine: EngineName = "openvino",
    device: DeviceName = "auto",
    overwrite: Flag = False,
) -> int:
    """Show what a detector, segmenter or saliency network sees in images, or in pairs that are fused first.

    OUT gets overlays to look at, what was predicted for each image (boxes as JSON, masks as PNG of class ids, saliency
    as PNG), and predictions.json, which lists all; boxes are there in COCO's form. What was predicted before is kept,
    so the same command continues a run that was interrupted.

    ```
    fuseloop predict --images fused --task-network yolov5s --out seen
    fuseloop predict --infrared thermal --visible colour --task-network segformer-b0 --out seen
    ```

    Args:
        task_network: Name of a task network, a weight file of one, or a folder that transformers wrote.
        out: Folder to write to; a new or empty one, or that of an earlier run.
        images: Image or folder of images to look at as they are.
        infrared: Infrared image or folder of pairs to fuse.
        visible: Visible image or folder of pairs to fuse.
        fuser: What fuses pairs: infrared, visible, mean, max, the name of shipped weights, or a weight file; a closed
            loop fuses for the task network.
        threshold: Boxes with lower scores are left out.
        suffix: Ends of the infrared and the visible names that do not count in pairing: `_ir,_vis`.
        engine: What runs a fusion network.
        device: What runs the task network; auto takes a GPU where there is one.
        overwrite: Predict again what was predicted, and replace predictions of another network.
    """
    if (images is None) == (infrared is None) or (infrared is None) != (visible is None):
        raise ConfigurationError("give --images, or --infrared and --visible")
    kind = _kind_of_all(*(path for path in (images, infrared, visible) if path is not None))
    if kind == "video":
        raise ConfigurationError("predictions are made of images; give a folder of the frames")
    if suffix is not None and (kind != "folder" or images is not None):
        raise ConfigurationError("--suffix is for pairs in folders")

    from fuseloop.evaluation.predict import Predictions, plan_images, plan_pairs, predict_files
    from fuseloop.evaluation.sources import LoopSource, open_source
    from fuseloop.reports.predictions import draw_prediction

    unpaired: list[Path] = []
    source = None
    if infrared is not None and visible is not None:
        jobs, unpaired = plan_pairs(infrared, visible, suffixes=_suffixes(suffix))
        source = open_source(fuser, engine=engine)
    else:
        assert images is not None
        jobs = plan_images(images)
    made = {} if source is None else {"fuser": source.describe()}
    network = _load_task_network(task_network, _device(device))
    maker = source.bound(network) if isinstance(source, LoopSource) else source
    predictions = Predictions(out, network, threshold, made)
    predictions.prepare(overwrite=overwrite)
    draw = partial(draw_prediction, threshold=threshold)
    return _run_predict(
        partial(predict_files, jobs, predictions, draw, fuser=maker, overwrite=overwrite), len(jobs), unpaired, out
    )


@app.command(sort_key=4)
def evaluate(
    *,
    fuser: Texts,
    dataset: str,
    task_network: Texts | None = None,
    retrain: Texts | None = None,
    runs: Path = Path("runs/retrained"),
    setting: Texts | None = None,
    baseline: str | None = None,
    json: Path | None = None,
    csv: Path | None = None,
    overlays: Path | None = None,
    same: Texts | None = None,
    strength: float = 1.0,
    feedback: str = "frame",
    first_look: float = 1.0,
    batch: PositiveInt = 1,
    engine: EngineName = "openvino",
    device: DeviceName = "auto",
    overwrite: Flag = False,
) -> int:
    """Score what task networks see in what fusers make of a labelled data set.

    Each pair is fused, rounded to 8 bits, and looked at by the task networks as they are. A closed loop makes an image
    of its own for each of them, from its first look and without the labels; --feedback profile:FILE makes one for all,
    of what `fuseloop profile` stored. Every score is printed with
    its bootstrap 95 % interval over the frames, and several fusers with their differences on the same frames. A frame
    that one of them cannot do is reported and left out for all.

    ```
    fuseloop evaluate --fuser visible --fuser max --fuser vfn --task-network yolov5s --dataset msrs:data/MSRS:test
    fuseloop evaluate --fuser theirs=their/images --fuser vfn --task-network mine=best.safetensors --dataset my/pairs
    ```

    Args:
        fuser: What makes the images: infrared, visible, mean, max, the name of shipped weights, a weight file, also of
            a closed loop, or a folder of images that were fused before; again for every one to compare. NAME=VALUE
            gives it a name.
        task_network: Name of a task network, a weight file of one, or a folder that transformers wrote; again for
            several. NAME=VALUE gives it a name.
        retrain: Preset or configuration file of `fuseloop train task`: a task network is trained for each fuser on its
            images alone, and scored on them; again for several. The same command again continues.
        runs: Folder of these trainings.
        setting: KEY=VALUE change to their configuration, such as root=data.
        dataset: The labelled pairs: NAME:PATH:SPLIT such as msrs:data/MSRS:test, a folder, or synthetic:COUNT:SEED;
            `fuseloop data layouts` lists the names.
        baseline: The fuser that others are compared to, by default the first.
        json: Write all figures and what they depend on to this file.
        csv: Write a row for each score to this file.
        overlays: Write pictures of every frame, labels beside predictions, to this folder.
        same: Two names of one class, THEIRS=OURS: what the data set calls it, and the task network.
        strength: How much closed loops change the images for a task network, from 0 to 1.
        feedback: Where closed loops have the requirement from, see `fuseloop fuse`; with previous the pairs are the
            frames of a video.
        first_look: Size of the image of their first look as a share of the frame.
        batch: How many images of one size a task network sees at a time.
        engine: What runs fusion networks.
        device: What runs the task networks; auto takes a GPU where there is one.
        overwrite: Replace outputs that exist.
    """
    from fuseloop.pairs.atomic import check_target

    for output in (json, csv):
        if output is not None:
            check_target(output, overwrite=overwrite)
    if json is not None and json == csv:
        raise ConfigurationError(f"--json and --csv are both {json}; give each its own file")
    aliases = dict(_two_names(text) for text in same or [])

    from fuseloop.evaluation.naming import named

    fusers = named(fuser, "--fuser")
    networks = named(task_network or [], "--task-network") if task_network or not retrain else {}
    if baseline is not None and baseline not in fusers:
        raise ConfigurationError(f"--baseline {baseline} is none of the fusers {', '.join(fusers)}")

    from fuseloop.datasets.files import open_labelled
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.evaluation.evaluate import evaluate as run_evaluation
    from fuseloop.evaluation.evaluate import uncertainty
    from fuseloop.evaluation.results import Asked, write_csv, write_json
    from fuseloop.evaluation.sources import open_source

    tune_allocator()
    place = _device(device)
    opened = partial(open_source, engine=engine, strength=strength, feedback=feedback, first_look=first_look)
    sources = {name: opened(value) for name, value in fusers.items()}
    task_networks: dict[str, TaskNetwork | dict[str, TaskNetwork]] = {
        name: _load_task_network(value, place) for name, value in networks.items()
    }
    pairs = open_labelled(dataset, "skip")
    _print_broken(pairs.left_out)
    draw = None if overlays is None else _overlay_writer(overlays, overwrite)
    for source in retrain or []:
        task_networks[f"{Path(source).stem}-retrained"] = _retrained(source, fusers, runs, setting or [], place)
    loop = partial(run_evaluation, task_networks, sources, pairs, batch=batch, same=aliases, look=draw)
    evaluation, said = _run_evaluation(loop, len(pairs))
    found = uncertainty(evaluation, baseline=baseline)
    _print_evaluation(evaluation, found)
    settings = {"batch": batch, "same": aliases, "device": place, "retrain": retrain or [], "setting": setting or []}
    asked = Asked(dataset, pairs.describe(), task_networks, sources, settings)
    if json is not None:
        write_json(json, evaluation, found, asked, overwrite=overwrite)
        said += f"\nwrote {json}"
    if csv is not None:
        write_csv(csv, evaluation, found, overwrite=overwrite)
        said += f"\nwrote {csv}"
    print(said)
    return PARTLY if evaluation.failures else DONE


@app.command(sort_key=4)
def profile(
    *,
    task_network: str,
    out: Path,
    infrared: Path | None = None,
    visible: Path | None = None,
    dataset: str | None = None,
    fuser: str = "vfn",
    infrared_levels: str = "auto",
    visible_levels: str = "full",
    suffix: str | None = None,
    engine: EngineName = "openvino",
    device: DeviceName = "auto",
    overwrite: Flag = False,
) -> int:
    """Store what a task network requires of images on average, for fusing without it.

    Pairs are fused neutrally and looked at, without labels; the mean requirement goes to OUT. `fuseloop fuse
    --feedback profile:OUT` then closes the loop without running the task network.

    ```
    fuseloop profile --task-network yolov5s --dataset msrs:data/MSRS:train --out yolov5s.safetensors
    fuseloop profile --task-network my/network --infrared thermal --visible colour --out mine.safetensors
    ```

    Args:
        task_network: Name of a task network, a weight file of one, or a folder that transformers wrote.
        out: The file to write, FILE.safetensors.
        infrared: Infrared image or folder.
        visible: Visible image or folder.
        dataset: Pairs of a data set instead, as `fuseloop evaluate` takes them.
        fuser: Name of shipped weights or a weight file, also of a closed loop: the one that will fuse.
        infrared_levels: What is black and what is white, see `fuseloop fuse`.
        visible_levels: The same for the visible images.
        suffix: Ends of the infrared and the visible names that do not count in pairing: `_ir,_vis`.
        engine: What runs the fusion network.
        device: What runs the task network; auto takes a GPU where there is one.
        overwrite: Replace a file that exists.
    """
    if (infrared is None) != (visible is None) or (infrared is None) == (dataset is None):
        raise ConfigurationError("give --infrared and --visible, or --dataset")
    if suffix is not None and dataset is not None:
        raise ConfigurationError("--suffix is for pairs in folders")

    from fuseloop.fusers.fuser import Fuser
    from fuseloop.fusers.loop_weights import find_loop, is_loop, read_loop
    from fuseloop.fusers.requirement import ProfileMaker, write_profile
    from fuseloop.pairs.atomic import check_target
    from fuseloop.weights.files import SUFFIX

    check_target(out, overwrite=overwrite)
    if out.suffix != SUFFIX:
        raise ConfigurationError(f"profiles are written as {SUFFIX} files, got {out}")
    pairs, unpaired = _profiled_pairs(infrared, visible, dataset, _suffixes(suffix))
    network = _load_task_network(task_network, _device(device))
    neutral = Fuser(read_loop(find_loop(fuser)).network, engine=engine) if is_loop(fuser) else _load(fuser, engine)
    maker = ProfileMaker(neutral, network)
    began = time.monotonic()
    failed = 0
    with _progress() as progress:
        for path in unpaired:
            _say("no partner", str(path), progress.console)
        task = progress.add_task("looking", total=len(pairs))
        for name, read in pairs:
            try:
                maker.add(*read(), infrared_levels=infrared_levels, visible_levels=visible_levels)
            except FuseloopError as error:
                failed += 1
                _say("failed", f"{name}: {error}", progress.console)
            progress.advance(task)
    if not maker.frames:
        _say("error", f"no pair could be looked at, so {out} was not written")
        return NOTHING
    pairs_are = dataset or f"{infrared}, {visible}"
    write_profile(out, maker.profile(f"{task_network} on {pairs_are}"), overwrite=overwrite)
    said = f"wrote {out}, the mean of {maker.frames} of {len(pairs)} pairs in {time.monotonic() - began:.1f} s"
    print(f"{said}; use it with: fuseloop fuse --feedback profile:{out}")
    return PARTLY if failed else DONE


@app.command(sort_key=6)
def cost(*, task_network: Texts | None = None, size: Texts | None = None, fuser: str | None = None) -> None:
    """Count what the parts of the closed loop cost: parameters and multiply-accumulates.

    Fusion network, compensation (RSC) and task network are counted apart, for frames of each size. The compensation
    costs more or less with the kernels that it chooses. Nothing is computed.

    ```
    fuseloop cost --size 640x480 --size 1024x768 --task-network yolov5s --task-network ctdnet-18
    ```

    Args:
        task_network: Name of a task network, a weight file of one, or a folder that transformers wrote, by default
            yolov5s; again for several. NAME=VALUE gives it a name.
        size: Width and height of the frames, by default 640x480; again for several.
        fuser: Weight file of a closed loop; by default the sizes of the published one.
    """
    from fuseloop.evaluation.costs import tables
    from fuseloop.evaluation.naming import named
    from fuseloop.fusers.loop_weights import Loop, find_loop, read_loop
    from fuseloop.networks.semantic_compensation import SemanticCompensation
    from fuseloop.networks.vfn import VFN
    from fuseloop.tasks.weights import NETWORKS, build

    sizes = [_size(text) for text in size or ["640x480"]]
    if any(min(sides) < VFN.minimum_side for sides in sizes):
        raise ConfigurationError(f"frames have at least {VFN.minimum_side} pixels on each side")
    loop = Loop(VFN(), SemanticCompensation()) if fuser is None else read_loop(find_loop(fuser))
    networks = {
        name: build(value) if value in NETWORKS else _load_task_network(value, "cpu")
        for name, value in named(task_network or ["yolov5s"], "--task-network").items()
    }
    for made in tables(loop, networks, sizes):
        _print_table(made)


@app.command(sort_key=5)
def explain(*text: str, file: Path | None = None, json: Flag = False) -> int:
    """Show what is understood of instructions, without fusing.

    An instruction says what the image is for, in English, German, Spanish or Chinese: detection, segmentation,
    saliency, viewing, or several of these; and something of the scene, such as night. What is not understood leaves the
    image neutral. The exit code is 0 when all were understood, 1 when some were, and 2 when none was.

    ```
    fuseloop explain "make the pedestrians easy to detect, it is night" "detect people but keep it natural"
    fuseloop explain detection=0.7,view=0.3
    ```

    Args:
        text: Instructions in quotation marks, or mixtures such as detection=0.7,view=0.3.
        file: A text file with an instruction on each line.
        json: Print a JSON list in place of bars.
    """
    from fuseloop.instructions.explain import describe, parse_instruction, read_lines
    from fuseloop.instructions.understanding import understand

    texts = [*text, *(read_lines(file) if file is not None else [])]
    if not texts:
        raise ConfigurationError('give instructions in quotation marks, such as "detect people", or --file FILE')
    matches = [understand(parse_instruction(one)) for one in texts]
    if json:
        import json as writer

        rows = [{"text": one, **match.as_dict()} for one, match in zip(texts, matches, strict=True)]
        print(writer.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(describe(one, match) for one, match in zip(texts, matches, strict=True)))
    understood = sum(match.understood for match in matches)
    return DONE if understood == len(matches) else PARTLY if understood else NOTHING


@app.command(sort_key=5)
def demo(
    *,
    out: Path = Path("outputs/demo"),
    scenes: PositiveInt = 6,
    seed: int = 0,
    fuser: str = "vfn",
    engine: EngineName = "openvino",
) -> None:
    """Fuse labelled synthetic scenes and write a page that shows and scores them.

    It needs no data and no download. The page is OUT/index.html; the pairs and the fused images lie beside it.

    Args:
        out: Folder of the page; one that holds anything but an earlier demo is refused.
        scenes: Number of scenes.
        seed: Seed of the scenes.
        fuser: Name of shipped weights (`fuseloop weights` lists them) or a weight file.
        engine: What runs the network.
    """
    from fuseloop.reports.demo import write_demo

    loaded = _load(fuser, engine)
    with _progress() as progress:
        scenes_done = progress.add_task("drawing, fusing and scoring", total=scenes)
        made = write_demo(out, loaded, fuser, scenes=scenes, seed=seed, report=lambda: progress.advance(scenes_done))
    table = Table(*made.header)
    for row in made.rows():
        table.add_row(*row)
    Console(highlight=False).print(table)
    print(f"open {made.page}")


@app.command(sort_key=6)
def weights(name: str | None = None, /) -> None:
    """List the shipped weights, or show the card of one.

    Args:
        name: Weights whose card to show: data, training, scores, terms.
    """
    from fuseloop.fusers.loop_weights import find_loop, shipped_loops
    from fuseloop.fusers.weights import LOOPS, SHIPPED, find_weights
    from fuseloop.instructions.understanding import ENCODERS, find_encoder
    from fuseloop.weights.files import read_card

    def find(name: str) -> Path:
        return find_encoder(name) if name in ENCODERS else find_loop(name) if name in LOOPS else find_weights(name)

    if name is not None:
        print(read_card(find(name)) or f"{name} has no card")
        return
    purposes = {**SHIPPED, **{loop: LOOPS[loop] for loop in shipped_loops()}, **ENCODERS}
    for known, purpose in purposes.items():
        print(f"{known}: {purpose} ({find(known).stat().st_size / 1e3:.0f} kB)")
    print("fuseloop weights NAME shows a card")


@app.command(sort_key=9)
def export(*, out: Path, fuser: str = "vfn", part: PartName = "frame", overwrite: Flag = False) -> None:
    """Write a fusion network or a pass of a closed loop as an ONNX file for any height and width.

    Frames too large for memory are fused in tiles: statistics adds up what the tiles say of the whole frame, and tile
    takes that as an input. The passes of a closed loop are first, which makes features of a pair, and second, which
    makes the image of them, of what a task network requires and of the strength. The metadata of the file say what goes
    in.

    Args:
        out: The file to write, FILE.onnx.
        fuser: Name of shipped weights or a weight file, for second that of a closed loop.
        part: The network for whole frames, one of the two passes over tiles, or one of the two of a closed loop.
        overwrite: Replace a file that exists.
    """
    from fuseloop.engines.export import export_onnx
    from fuseloop.fusers.loop_weights import find_loop, is_loop, read_loop
    from fuseloop.fusers.weights import find_weights, read_weights

    loop = read_loop(find_loop(fuser)) if is_loop(fuser) else None
    network = loop.network if loop else read_weights(find_weights(fuser))
    export_onnx(network, out, part=part, compensation=loop.compensation if loop else None, overwrite=overwrite)
    print(f"wrote {out}")


@app.command(sort_key=10)
def convert(checkpoint: Path, out: Path, *, fusion: str | None = None, overwrite: Flag = False) -> None:
    """Convert a pickled checkpoint of published code to a weight file.

    It may be of VFN or the semantic compensation of CLDyN, of the base network or the prompts of T-OAR, or of the
    fusion network or the loss generator of TDFusion; it says itself which. The checkpoint cannot run code: only tensors
    and plain values are read from it.

    ```
    fuseloop convert vfn.pth vfn.safetensors
    fuseloop convert rsc.pth loop.safetensors --fusion vfn.pth
    ```

    Args:
        checkpoint: What torch.save wrote: state dictionaries under the published keys, such as `net` or `T_dpi`.
        out: The file to write, FILE.safetensors.
        fusion: The VFN that a semantic compensation was trained for: its checkpoint, a weight file, or the name of
            shipped weights. OUT is then a closed loop.
        overwrite: Replace a file that exists.
    """
    from fuseloop.fusers.conversion import convert as convert_checkpoint
    from fuseloop.fusers.reference import convert_loop
    from fuseloop.networks.restormer_fusion import RestormerFusion
    from fuseloop.networks.semantic_compensation import SemanticCompensation
    from fuseloop.networks.vfn import VFN

    if fusion is not None:
        loop = convert_loop(checkpoint, fusion, out, overwrite=overwrite)
        use = f"use it with: fuseloop fuse --fuser {out} --for NETWORK"
        print(f"wrote {out}, a closed loop of depth {loop.network.depth}, as published; {use}")
        return
    network = convert_checkpoint(checkpoint, out, overwrite=overwrite)
    use = f"; use it with: fuseloop fuse --fuser {out}" if isinstance(network, VFN | RestormerFusion) else ""
    use += " --engine torch" if isinstance(network, RestormerFusion) else ""
    if isinstance(network, SemanticCompensation):
        use = "; with --fusion VFN it becomes a closed loop that fuses"
    depth = getattr(network, "depth", None)  # of those that come in several
    print(f"wrote {out}, a {type(network).__name__}{f' of depth {depth}' if depth else ''}{use}")


@app.command(sort_key=7)
def synthetic(
    *, out: Path, count: PositiveInt = 100, seed: int = 0, size: str = "640x480", overwrite: Flag = False
) -> None:
    """Write labelled synthetic pairs in the layout of the MSRS kit.

    Args:
        out: Folder to write to; vi, ir, Segmentation_labels, saliency and labels are made in it.
        count: Number of pairs.
        seed: Seed of the set; pair i of a seed is the same whatever the count.
        size: Width and height in pixels.
        overwrite: Replace files that exist.
    """
    from fuseloop.datasets.synthetic import write_scenes

    width, height = _size(size)
    stems = write_scenes(out, count, seed, height=height, width=width, overwrite=overwrite)
    print(f"wrote {len(stems)} pairs with their labels into {out}")


@train.command
def visual(*settings: str, preset: str | None = None, out: Path | None = None) -> None:
    """Train the vision-guided fusion network.

    The run folder gets checkpoints, curves, and the best weights by validation. The same command again continues a run
    that was stopped or killed.

    ```
    fuseloop train visual --preset paper --out runs/paper root=data seed=1
    fuseloop train visual mine.yaml stages.0.steps=100
    ```

    Args:
        settings: A configuration file, unless there is a preset, and key=value changes to it.
        preset: A configuration that fuseloop ships, such as paper or finetune.
        out: Run folder, in place of the one that the configuration names.
    """
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.training.config import VisualConfig, load_config
    from fuseloop.training.visual import train

    tune_allocator()
    result = train(load_config(VisualConfig, *_configuration(VisualConfig, settings, preset, out)))
    if result.weights is not None:
        print(f"best weights: {_validated(result)}; use them with: fuseloop fuse --fuser {result.weights}")


@train.command
def task(*settings: str, preset: str | None = None, out: Path | None = None) -> None:
    """Train a task network: a detector, a segmenter or a saliency network.

    It learns from labelled data sets, on a mixture of infrared, visible, mean, maximum and fused images. The run
    folder gets checkpoints, curves, and the best weights by validation. The same command again continues a run that
    was stopped or killed.

    ```
    fuseloop train task --preset yolov5s --out runs/detector root=data
    fuseloop train task --preset segformer-b0 --out runs/segmenter root=data fusers='{vfn: 1}'
    ```

    Args:
        settings: A configuration file, unless there is a preset, and key=value changes to it.
        preset: A configuration that fuseloop ships, such as yolov5s.
        out: Run folder, in place of the one that the configuration names.
    """
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.training.config import TaskConfig, load_config
    from fuseloop.training.task import train

    tune_allocator()
    result = train(load_config(TaskConfig, *_configuration(TaskConfig, settings, preset, out)))
    if result.weights is not None:
        print(f"best weights: {_validated(result)}; use them with: fuseloop evaluate --task-network {result.weights}")


@train.command
def closed_loop(*settings: str, preset: str | None = None, out: Path | None = None) -> None:
    """Train the compensation by which one fusion network serves several task networks.

    Fusion network and task networks stay as they are. The compensation learns from labelled data of each task. The
    run folder gets checkpoints, curves, and the best weights by validation. The same command again continues a run
    that was stopped or killed.

    ```
    fuseloop train closed-loop --preset cldyn --out runs/loop root=data
    fuseloop train closed-loop --preset cldyn root=data tasks.0.task_network=runs/detector/best.safetensors
    ```

    Args:
        settings: A configuration file, unless there is a preset, and key=value changes to it.
        preset: A configuration that fuseloop ships, such as cldyn.
        out: Run folder, in place of the one that the configuration names.
    """
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.training.closed_loop import train
    from fuseloop.training.config import ClosedLoopConfig, load_config

    tune_allocator()
    result = train(load_config(ClosedLoopConfig, *_configuration(ClosedLoopConfig, settings, preset, out)))
    if result.weights is not None:
        print(
            f"best weights: {_validated(result)}; use them with: fuseloop fuse --fuser {result.weights} --for NETWORK"
        )


@train.command
def instruction(*settings: str, preset: str | None = None, out: Path | None = None) -> None:
    """Train the conditioner by which one fusion network does what an instruction says.

    Fusion network, task networks and text encoder stay as they are. The conditioner learns from labelled data of each
    task, and from sentences that a grammar makes. The run folder gets checkpoints, curves, and the best weights by
    validation. The same command again continues a run that was stopped or killed.

    ```
    fuseloop train instruction --preset toar --out runs/toar root=data
    fuseloop train instruction --preset toar root=data encoder=tasks
    ```

    Args:
        settings: A configuration file, unless there is a preset, and key=value changes to it.
        preset: A configuration that fuseloop ships, such as toar.
        out: Run folder, in place of the one that the configuration names.
    """
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.training.config import InstructionConfig, load_config
    from fuseloop.training.instruction import train

    tune_allocator()
    result = train(load_config(InstructionConfig, *_configuration(InstructionConfig, settings, preset, out)))
    if result.weights is not None:
        print(f"best weights: {_validated(result)}; use them with: fuseloop.InstructedFuser('{result.weights}')")


@train.command
def encoder(*settings: str, preset: str | None = None, out: Path | None = None) -> None:
    """Train the text encoder that understands instructions.

    It learns from sentences that a grammar makes, and needs no data; the shipped one took some minutes on one core.
    The run folder gets checkpoints, curves, and the best weights by validation. The same command again continues a run
    that was stopped or killed.

    ```
    fuseloop train encoder --preset instructions --out runs/encoder
    fuseloop train encoder --preset instructions seed=1 stages.0.steps=1000
    ```

    Args:
        settings: A configuration file, unless there is a preset, and key=value changes to it.
        preset: A configuration that fuseloop ships: instructions.
        out: Run folder, in place of the one that the configuration names.
    """
    from fuseloop.training.config import EncoderConfig, load_config
    from fuseloop.training.encoder import train

    result = train(load_config(EncoderConfig, *_configuration(EncoderConfig, settings, preset, out)))
    if result.weights is not None:
        print(f"best weights: {_validated(result)}; read them with: fuseloop.instructions.read_encoder")


@data.command(name="layouts")
def data_layouts(name: str | None = None, /) -> None:
    """List the data sets that can be read, or show how one lies on disk.

    Args:
        name: The data set to show: folders, classes, splits, paper, terms.
    """
    from fuseloop.datasets.table import DATA_SETS, card

    if name is None:
        for key, row in DATA_SETS.items():
            print(f"{key}: {row.title}; {'; '.join(row.features)}")
        print("fuseloop data layouts NAME shows where its files lie")
    elif name in DATA_SETS:
        print(f"{DATA_SETS[name].title}\n\n{card(DATA_SETS[name])}")
    else:
        raise ConfigurationError(f"{name!r} is no known data set; known are {', '.join(DATA_SETS)}")


@data.command(name="check")
def check_data(
    layout: str,
    path: str,
    /,
    *,
    split: str | None = None,
    sheet: Path | None = None,
    frames: PositiveInt = 12,
    json: Path | None = None,
    workers: PositiveInt | None = None,
    overwrite: Flag = False,
) -> int:
    """Look at every file of a labelled data set: what is there, what is broken, how much there is of each class.

    What is broken is named by file and line: images without a partner or of two sizes, broken images and labels, boxes
    outside, without area or of unknown classes, masks of another size or with unknown ids. An empty text file with
    boxes says that nothing is there.

    ```
    fuseloop data check msrs data/MSRS --sheet sheet.png
    fuseloop data check fmb data/FMB --split train --json check.json
    fuseloop data check folder my/pairs
    ```

    Args:
        layout: How it lies on disk: m3fd, fmb, vt5000, vt1000, vt821, msrs, llvip, roadscene, tno, tno_salient; folder
            for one of your own, csv for a manifest, synthetic for scenes that are drawn.
        path: Its folder; the file of a manifest; COUNT or COUNT:SEED of synthetic scenes.
        split: A split, by default each that has a folder; several as train+val; some frames as train[::10].
        sheet: Write a picture of some pairs with their labels to this file.
        frames: How many pairs it shows.
        json: Write all that was found to this file.
        workers: How many frames to read at a time, by default a few more than there are cores.
        overwrite: Replace outputs that exist.
    """
    from fuseloop.datasets.check import check, read_some, sources
    from fuseloop.datasets.spec import parse_spec
    from fuseloop.pairs.atomic import check_target
    from fuseloop.reports.data_check import write_json

    for output in (sheet, json):
        if output is not None:
            check_target(output, overwrite=overwrite)
    began = time.monotonic()
    found = sources(parse_spec(f"{layout}:{path}" + (f":{split}" if split else "")))
    with _progress() as progress:
        task = progress.add_task("looking", total=sum(len(source.frames) for source in found))
        checks = [check(source, workers=workers, report=lambda: progress.advance(task)) for source in found]
    seconds = time.monotonic() - began
    for checked in checks:
        _print_checked(checked)
    total, usable = sum(checked.frames for checked in checks), sum(len(checked.usable) for checked in checks)
    said = f"looked at {total} frames in {seconds:.1f} s; {total - usable} broken"
    if sheet is not None and usable:
        from fuseloop.pairs.images import Picture, write_image
        from fuseloop.reports.contact_sheet import contact_sheet

        each = max(1, frames // len(found))
        shown = [
            pair for source, checked in zip(found, checks, strict=True) for pair in read_some(source, checked, each)
        ]
        write_image(sheet, Picture(contact_sheet(shown, found[0].names)), overwrite=overwrite)
        said += f"\nwrote {sheet}"
    if json is not None:
        write_json(json, checks, overwrite=overwrite)
        said += f"\nwrote {json}"
    print(said)
    return NOTHING if not usable else PARTLY if usable < total else DONE


def _configuration(
    kind: type[TrainingConfig], settings: Sequence[str], preset: str | None, out: Path | None
) -> tuple[str, list[str]]:
    """The configuration that the arguments of a training name, and the changes to it."""
    from fuseloop.training.config import presets

    sources = [setting for setting in settings if "=" not in setting] + ([preset] if preset else [])
    changes = [setting for setting in settings if "=" in setting] + ([f"folder={out}"] if out else [])
    if len(sources) != 1:
        raise ConfigurationError(
            f"give one configuration file or --preset ({', '.join(presets(kind))}), and changes to it as key=value; "
            f"got {' and '.join(sources) or 'none'}"
        )
    return sources[0], changes


def _validated(result: TrainingResult) -> str:
    """The best weights of a training and how good they are."""
    return f"{result.weights} (step {result.best_step} of {result.step}, validation {result.best:.4f})"


def _kind_of_all(*paths: Path) -> Kind:
    """What the inputs are; it must be the same."""
    from fuseloop.pairs.video import is_video

    def kind(path: Path) -> Kind:
        if not os.path.exists(path):  # unlike Path.exists, this raises nothing on a name that the system cannot hold
            raise ImageError(f"{path}: does not exist; check the path")
        return "folder" if path.is_dir() else "video" if is_video(path) else "image"

    kinds = [kind(path) for path in paths]
    for path, other in zip(paths, kinds, strict=True):
        if other != kinds[0]:
            raise PairError(f"{paths[0]} is one {kinds[0]} and {path} one {other}; give two of a kind")
    return kinds[0]


def _suffixes(text: str | None) -> tuple[str, str]:
    """The two ends of "_ir,_vis"."""
    if text is None:
        return "", ""
    ends = text.split(",")
    if len(ends) != 2:
        raise ConfigurationError(
            f"--suffix {text} is not of the form _ir,_vis: the infrared end, a comma, the visible end"
        )
    return ends[0], ends[1]


def _size(text: str) -> tuple[int, int]:
    """Width and height of "640x480"."""
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise ConfigurationError(f"--size {text} is not of the form WIDTHxHEIGHT, such as 640x480")
    return int(width), int(height)


def _spread_threads(jobs: int) -> None:
    """Gives each of several frames at a time one thread of PyTorch, and a single frame all of them.

    PyTorch reads this when it is imported; where it is there already, or the user has chosen, nothing changes.
    """
    if "torch" not in sys.modules:
        from fuseloop.scoring.plan import usable_cores

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // jobs)))


def _load(weights: str, engine: str, precision: PrecisionName = "fp32", max_pixels: int | None = None) -> Fuser:
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.fusers.fuser import Fuser
    from fuseloop.fusers.weights import find_weights, read_network

    tune_allocator()
    return Fuser(read_network(find_weights(weights)), engine=engine, precision=precision, max_pixels=max_pixels)


def _load_loop(
    weights: str,
    network: str | None,
    options: dict[str, Any],
    engine: str,
    precision: PrecisionName,
    max_pixels: int | None,
    device: DeviceName,
) -> ClosedLoopFuser:
    """A closed loop for a task network, which is not loaded where a profile stands for it."""
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.fusers.closed_loop import ClosedLoopFuser
    from fuseloop.fusers.loop_weights import find_loop, read_loop

    tune_allocator()
    loop = read_loop(find_loop(weights))
    profiled = str(options.get("feedback")).startswith("profile:")
    task_network = None if network is None or profiled else _load_task_network(network, _device(device))
    return ClosedLoopFuser(loop, task_network, **options, engine=engine, precision=precision, max_pixels=max_pixels)


def _load_instructed(
    weights: str,
    text: str,
    options: dict[str, Any],
    engine: str,
    precision: PrecisionName,
    max_pixels: int | None,
) -> tuple[InstructedFuser, dict[str, Any]]:
    """A fuser by instruction, and what each call of it is told; prints once what was understood."""
    from fuseloop.engines.allocator import tune_allocator
    from fuseloop.fusers.instructed import InstructedFuser, check_strength
    from fuseloop.instructions.explain import describe, parse_instruction

    check_strength(options.get("strength", 1.0))
    tune_allocator()
    fuser = InstructedFuser(weights, engine=engine, precision=precision, max_pixels=max_pixels)
    instruction = parse_instruction(text)
    match = fuser.understand(instruction)
    print(describe(text, match))
    if match.understood:
        return fuser, {"instruction": instruction, **options}
    _say("warning", f"the instruction is not understood, so the images are neutral: {match.reason}")
    return fuser, {"instruction": None, **options}


def _device(name: DeviceName) -> str:
    """The device that a name means here."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: PyTorch finds no GPU here; take cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _load_task_network(name_or_path: str, device: str) -> TaskNetwork:
    """A task network on its device; that it is untrained is said as other warnings are."""
    import warnings

    from fuseloop.tasks.weights import load

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network = load(name_or_path)
    for warning in caught:
        _say("warning", str(warning.message))
    return network.to(device)


def _retrained(
    source: str, fusers: dict[str, str], runs: Path, changes: list[str], device: str
) -> dict[str, TaskNetwork]:
    """A task network that was trained for each fuser."""
    from fuseloop.training.retrain import retrain

    found = retrain(source, fusers, runs / Path(source).stem, changes, console=_errors())
    return {name: network.to(device) for name, network in found.items()}


def _two_names(text: str) -> tuple[str, str]:
    """The names of "THEIRS=OURS"."""
    theirs, _, ours = text.partition("=")
    if not theirs or not ours:
        raise ConfigurationError(f"--same {text} is not of the form THEIRS=OURS, such as people=person")
    return theirs, ours


def _profiled_pairs(
    infrared: Path | None, visible: Path | None, dataset: str | None, suffixes: tuple[str, str]
) -> tuple[list[tuple[str, Callable[[], tuple[Picture, Picture]]]], list[Path]]:
    """The name of each pair and what reads it, and the images without a partner."""
    from fuseloop.pairs.images import Picture, read_image

    if dataset is not None:
        from fuseloop.datasets.files import open_labelled

        labelled = open_labelled(dataset, "skip")
        _print_broken(labelled.left_out)

        def read_labelled(index: int) -> tuple[Picture, Picture]:
            pair = labelled[index]
            return Picture(pair.infrared), Picture(pair.visible)

        return [(f"pair {index}", partial(read_labelled, index)) for index in range(len(labelled))], []
    assert infrared is not None
    assert visible is not None
    if _kind_of_all(infrared, visible) == "video":
        raise ConfigurationError("profiles are made of images; give folders of the frames")
    from fuseloop.evaluation.predict import plan_pairs

    def read_files(files: tuple[Path, ...]) -> tuple[Picture, Picture]:
        return read_image(files[0]), read_image(files[1])

    jobs, unpaired = plan_pairs(infrared, visible, suffixes=suffixes)
    return [(job.name, partial(read_files, job.files)) for job in jobs], unpaired


def _overlay_writer(folder: Path, overwrite: bool) -> Callable[[Look], None]:
    """Writes what was looked at to FOLDER/NETWORK/FUSER/FRAME.png."""
    from fuseloop.fusers.files import make_folder
    from fuseloop.pairs.images import Picture, write_image
    from fuseloop.reports.predictions import draw_beside_labels

    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ImageError(f"{folder}: holds files, which were kept; choose a new folder, or use --overwrite")

    def write(look: Look) -> None:
        path = folder / look.network / look.fuser / f"{look.frame}.png"
        make_folder(path.parent)
        drawn = draw_beside_labels(look.image, look.prediction, look.target, look.classes)
        write_image(path, Picture(drawn), overwrite=overwrite)

    return write


# What commands print: results on standard output; progress, and what went wrong, on standard error.


def _errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _say(word: str, text: str, console: Console | None = None) -> None:
    """Prints a line of complaint, plain where no terminal shows it."""
    (console or _errors()).print(Text.assemble((f"{word}: ", "bold red"), text))


class _Rate(ProgressColumn):
    """How many are done in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


def _progress() -> Progress:
    """A bar with rate and time left, shown only on a terminal."""
    console = _errors()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _run_image(loop: Callable[..., None]) -> int:
    """Fuses one pair of images."""
    outcomes: list[Outcome] = []
    began = time.monotonic()
    loop(outcomes.append)
    (outcome,) = outcomes
    if outcome.error is not None:
        raise outcome.error
    print(f"wrote {outcome.output} in {time.monotonic() - began:.2f} s")
    return DONE


def _run_folder(loop: Callable[..., None], total: int, unpaired: Sequence[Path], out: Path) -> int:
    """Fuses the pairs of two folders, says what went wrong with which, and sums up."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with _progress() as progress:
        for path in unpaired:
            _say("no partner", str(path), progress.console)
        task = progress.add_task("fusing", total=total)

        def report(outcome: Outcome) -> None:
            counts[outcome.status] += 1
            progress.advance(task)
            if outcome.error is not None:
                _say("failed", f"{outcome.job.stem.name}: {outcome.error}", progress.console)

        try:
            loop(report)
        except KeyboardInterrupt:
            progress.stop()
            stay = f"{counts['fused']} finished images stay in {out}; the same command continues"
            _say("interrupted", stay)
            return INTERRUPTED
    seconds = time.monotonic() - began
    parts = [f"fused {counts['fused']} of {total} pairs into {out} in {seconds:.1f} s"]
    if counts["fused"]:
        parts[0] += f" ({counts['fused'] / seconds:.1f} a second)"
    if counts["kept"]:
        parts.append(f"kept {counts['kept']} that were there (--overwrite replaces them)")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    if total > counts.total():
        parts.append(f"{total - counts.total()} not tried")
    if unpaired:
        parts.append(f"{len(unpaired)} without a partner")
    print("; ".join(parts))
    good = counts["fused"] + counts["kept"]
    return DONE if good == total else PARTLY if good else NOTHING


def _run_scoring(loop: Callable[..., object], plan: Plan, outcomes: list[ScoreOutcome]) -> tuple[int, str]:
    """Scores frames, puts those that are finished into `outcomes`, and says what went wrong with which.

    Returns:
        The exit code, and a sentence that sums up.
    """
    interrupted = False
    began = time.monotonic()
    with _progress() as progress:
        for line in plan.unmatched:
            _say("no partner", line, progress.console)
        task = progress.add_task("scoring", total=len(plan.jobs))

        def report(outcome: ScoreOutcome) -> None:
            outcomes.append(outcome)
            progress.advance(task)
            for failure in outcome.failures:
                _say("failed", f"{failure.frame}: {failure.reason}", progress.console)

        try:
            loop(report)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.monotonic() - began
    failed = sum(bool(outcome.failures) for outcome in outcomes)
    good = sum(bool(outcome.scores) for outcome in outcomes)
    if interrupted:
        _say("interrupted", f"{good} of {len(plan.jobs)} frames were scored; tables and files are of these alone")
    parts = [f"scored {good} of {len(plan.jobs)} frames in {seconds:.1f} s"]
    if good:
        parts[0] += f" ({good / seconds:.1f} a second)" if good > seconds else f" ({seconds / good:.1f} s each)"
    if failed:
        parts.append(f"{failed} failed")
    if plan.unmatched:
        parts.append(f"{len(plan.unmatched)} without a partner")
    code = NOTHING if not good else PARTLY if failed or plan.unmatched else DONE
    return INTERRUPTED if interrupted else code, "; ".join(parts)


def _print_scores(scores: Scores, baseline: str | None) -> None:
    """Prints the tables, and what they leave out."""
    from fuseloop.metrics.comparison import compare
    from fuseloop.scoring.tables import tables, undefined_lines

    comparison = None
    if len(scores.evaluations) > 1:
        try:
            comparison = compare(scores.evaluations, baseline=baseline if baseline in scores.evaluations else None)
        except ConfigurationError as error:
            _say("not compared", str(error))
    for made in tables(scores, comparison):
        _print_table(made)
    for line in undefined_lines(scores):
        print(f"undefined: {line}")


def _print_table(made: TextTable) -> None:
    """Prints a table under its title, as wide as it is where no terminal shows it."""
    console = Console(highlight=False)
    table = Table()
    for index, head in enumerate(made.header):
        table.add_column(head, justify="left" if index < made.names else "right", no_wrap=True)
    for group in made.groups:
        for row in group:
            table.add_row(*row)
        table.add_section()
    if not console.is_terminal:
        console.width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    print(made.title)
    console.print(table)


def _run_predict(loop: Callable[..., None], total: int, unpaired: Sequence[Path], out: Path) -> int:
    """Looks at images, says what went wrong with which, and sums up."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with _progress() as progress:
        for path in unpaired:
            _say("no partner", str(path), progress.console)
        task = progress.add_task("looking", total=total)

        def report(outcome: PredictOutcome) -> None:
            counts[outcome.status] += 1
            progress.advance(task)
            if outcome.error is not None:
                _say("failed", f"{outcome.job.name}: {outcome.error}", progress.console)

        try:
            loop(report)
        except KeyboardInterrupt:
            progress.stop()
            _say("interrupted", f"{counts['predicted']} predictions stay in {out}; the same command continues")
            return INTERRUPTED
    seconds = time.monotonic() - began
    parts = [f"looked at {counts['predicted']} of {total} images in {seconds:.1f} s; see {out}"]
    if counts["kept"]:
        parts.append(f"kept {counts['kept']} that were there (--overwrite replaces them)")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    if unpaired:
        parts.append(f"{len(unpaired)} without a partner")
    print("; ".join(parts))
    good = counts["predicted"] + counts["kept"]
    return DONE if good == total else PARTLY if good else NOTHING


def _run_evaluation(loop: Callable[..., Evaluation], total: int) -> tuple[Evaluation, str]:
    """Evaluates, says what went wrong with which frame, and sums up."""
    began = time.monotonic()
    with _progress() as progress:
        task = progress.add_task("fusing and looking", total=total)

        def report(failure: Failure | None) -> None:
            progress.advance(task)
            if failure is not None:
                name = f"{failure.frame}: " if failure.frame else ""
                _say("failed", f"{name}{failure.reason}", progress.console)

        evaluation = loop(report=report)
    seconds = time.monotonic() - began
    good, failed = len(evaluation.frames), len(evaluation.failures)
    said = f"scored {good} of {good + failed} frames in {seconds:.1f} s"
    return evaluation, said + (f"; {failed} failed" if failed else "")


def _print_evaluation(evaluation: Evaluation, found: Uncertainty) -> None:
    """Prints the tables, and what they leave out."""
    from fuseloop.evaluation.results import notes, tables

    for made in tables(evaluation, found):
        _print_table(made)
    for line in notes(evaluation):
        print(f"note: {line}")


def _write_pages(out: Path, scores: Scores, *, plan: Plan, baseline: str | None, overwrite: bool) -> None:
    """Writes the report of scores."""
    from fuseloop.reports.score import ScoredImages, write_score_report

    images = ScoredImages(
        {job.name: job.infrared for job in plan.jobs},
        {job.name: job.visible for job in plan.jobs},
        {method: {job.name: job.fused[method] for job in plan.jobs if method in job.fused} for method in plan.methods},
    )
    with _progress() as progress:
        task = progress.add_task("writing pages", total=len(plan.jobs))
        write_score_report(
            out,
            scores.evaluations,
            images,
            convention=scores.convention,
            baseline=baseline if baseline in scores.evaluations else None,
            levels=scores.levels._asdict(),
            overwrite=overwrite,
            report=lambda: progress.advance(task),
        )


def _print_checked(checked: Checked) -> None:
    """Prints what was found in a data set."""
    from fuseloop.reports.data_check import notes, summary, tables

    _print_broken(checked.broken)
    print(summary(checked))
    for made in tables(checked):
        table = Table()
        for index, head in enumerate(made.header):
            table.add_column(head, justify="right" if index else "left")
        for row in made.rows:
            table.add_row(*row)
        Console(highlight=False).print(table)
    for line in notes(checked):
        print(f"note: {line}")


def _print_broken(findings: Sequence[Finding]) -> None:
    """Prints what makes frames unusable."""
    for finding in findings[:LISTED]:
        _say("broken", str(finding))
    if len(findings) > LISTED:
        _say("broken", f"and {len(findings) - LISTED} more; --json lists all")


def _run_video(job: Job, fuse: Callable[[Picture, Picture], Picture], overwrite: bool) -> int:
    """Fuses one pair of videos."""
    from fuseloop.fusers.videos import fuse_video
    from fuseloop.pairs.video import VideoReader

    infrared, visible, out = VideoReader(job.infrared), VideoReader(job.visible), job.output(".mp4")
    began = time.monotonic()
    with _progress() as progress:
        task = progress.add_task("fusing", total=visible.frames)
        try:
            frames = fuse_video(
                infrared, visible, out, fuse, report=lambda: progress.advance(task), overwrite=overwrite
            )
        except KeyboardInterrupt:
            progress.stop()
            _say("interrupted", f"{out} was not written, because a video is whole or not at all")
            return INTERRUPTED
    seconds = time.monotonic() - began
    print(f"wrote {out}: {frames} frames in {seconds:.1f} s ({frames / seconds:.1f} a second)")
    return DONE
