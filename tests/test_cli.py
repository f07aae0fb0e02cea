"""The command: what it does, what it says, and its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import fuseloop
from fuseloop import cli
from fuseloop.datasets.table import DATA_SETS
from fuseloop.engines import ENGINES
from fuseloop.errors import ImageError
from fuseloop.fusers.instruction_weights import shipped_instructed, write_instructed
from fuseloop.fusers.loop_weights import read_loop, shipped_loops, write_loop
from fuseloop.fusers.reference import published_compensation
from fuseloop.fusers.reference_tdfusion import published_tdfusion
from fuseloop.fusers.requirement import Profile, read_profile
from fuseloop.fusers.weights import known_weights, write_weights
from fuseloop.instructions import HashedEncoder
from fuseloop.instructions.understanding import ENCODERS
from fuseloop.metrics import metrics_of, score_frame
from fuseloop.networks.instruction_conditioner import InstructionConditioner
from fuseloop.networks.prompt_injection import BFN
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.images import Picture, read_image, write_image
from fuseloop.pairs.video import VideoReader, VideoWriter
from fuseloop.tasks import weights as task_weights
from tools import command_page

COMMAND = Path(sys.executable).with_name("fuseloop")
HEIGHT, WIDTH = 24, 32


class Ran(NamedTuple):
    code: int
    output: str
    errors: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[[str], Ran]:
    """Runs the command in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fuseloop.engines.allocator.tune_allocator", lambda: None)  # this process is pytest's

    def run(command: str) -> Ran:
        code = cli.main(command.split())
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A network that is not trained, so that these tests do not depend on what is shipped."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    write_weights(path, VFN(1))
    return path


@pytest.fixture
def fuse(run, weights) -> Callable[[str], Ran]:
    return lambda options: run(f"fuse --fuser {weights} --engine torch {options}")


def noise(*shape: int, dtype: type = np.uint8) -> NDArray[np.generic]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def save(path: str, pixels: NDArray[np.generic]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Picture(pixels))


def save_folders(*names: str) -> None:
    for name in names:
        save(f"ir/{name}.png", noise(HEIGHT, WIDTH))
        save(f"vis/{name}.png", noise(HEIGHT, WIDTH, 3))


def read_until_closed(terminal: int) -> bytes:
    """What is written to a terminal; one that nobody reads holds 4 kB, and then its writer waits."""
    shown = b""
    with contextlib.suppress(OSError):  # which Linux raises at the end
        while part := os.read(terminal, 65536):
            shown += part
    return shown


class TestHelp:
    @pytest.mark.parametrize("arguments", ["", "--help", "-h"])
    def test_says_what_it_is_for_how_it_is_used_and_what_exit_codes_mean(self, run, arguments):
        ran = run(arguments)
        text = " ".join(ran.output.split())
        assert ran.code == 0
        assert "Fuses aligned infrared and visible images, folders and videos, and measures how well." in text
        assert "fuseloop fuse --infrared ir.png --visible vis.png --out fused.png" in text
        for code in (cli.DONE, cli.PARTLY, cli.NOTHING, cli.INTERRUPTED):
            assert re.search(rf"\b{code} \w+", text), code

    @pytest.mark.parametrize(
        "command",
        ["fuse", "score", "predict", "evaluate", "profile", "cost", "explain", "demo", "weights", "synthetic", "train",
         "train visual", "train encoder", "export", "convert"],
    )  # fmt: skip
    def test_explains_every_command_and_each_of_its_options(self, run, command):
        assert command.split()[0] in run("--help").output
        text = run(f"{command} --help").output
        assert text.startswith(f"Usage: fuseloop {command}")
        unexplained = re.findall(r"^│[ *]+(--[\w-]+ (?:[A-Z]+ )?) *(?:\[.*)?│$", text, re.MULTILINE)
        assert not unexplained

    def test_comes_without_loading_anything_heavy(self):
        program = (
            "import sys; from fuseloop.cli import main; main(['fuse', '--help'])\n"
            "sys.exit(' '.join({'torch', 'numpy', 'cv2', 'av', 'openvino', 'onnxruntime'} & set(sys.modules)))"
        )
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert finished.stderr.strip() == ""

    def test_the_version_is_that_of_the_package(self, run):
        assert run("--version").output.strip() == fuseloop.__version__

    def test_the_engines_offered_are_those_there_are(self):
        assert set(cli.EngineName.__args__) == set(ENGINES)


class TestFuseImages:
    def test_the_image_is_what_the_library_makes(self, fuse, weights):
        infrared, visible = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, 3)
        save("ir.png", infrared)
        save("vis.png", visible)
        ran = fuse("--infrared ir.png --visible vis.png --out new/folder/fused.png")
        assert ran.code == 0
        assert ran.output.startswith("wrote new/folder/fused.png in ")
        assert ran.errors == ""
        expected = fuseloop.load(weights)(infrared, visible)
        assert np.array_equal(read_image("new/folder/fused.png").pixels, expected)

    def test_a_folder_as_output_takes_the_stem_of_the_visible_image(self, fuse):
        save("a_ir.png", noise(HEIGHT, WIDTH))
        save("a.bmp", noise(HEIGHT, WIDTH, 3))
        Path("out").mkdir()
        assert fuse("--infrared a_ir.png --visible a.bmp --out out").code == 0
        assert [path.name for path in Path("out").iterdir()] == ["a.png"]

    def test_overwrite_replaces_what_is_there(self, fuse):
        save_folders("a")
        Path("fused.png").write_text("old")
        assert fuse("--infrared ir/a.png --visible vis/a.png --out fused.png --overwrite").code == 0
        assert read_image("fused.png").pixels.shape == (HEIGHT, WIDTH, 3)

    def test_sixteen_bits_in_give_sixteen_bits_out(self, fuse):
        save("ir.png", noise(HEIGHT, WIDTH, dtype=np.uint16))
        save("vis.png", noise(HEIGHT, WIDTH, 3, dtype=np.uint16))
        assert fuse("--infrared ir.png --visible vis.png --out fused.png").code == 0
        assert read_image("fused.png").pixels.dtype == np.uint16

    @pytest.mark.parametrize(("depth", "dtype"), [("8", np.uint8), ("16", np.uint16), ("float", np.float32)])
    def test_the_depth_can_be_chosen(self, fuse, depth, dtype):
        save("ir.png", noise(HEIGHT, WIDTH))
        save("vis.png", noise(HEIGHT, WIDTH, 3))
        assert fuse(f"--infrared ir.png --visible vis.png --out fused.tiff --depth {depth}").code == 0
        assert read_image("fused.tiff").pixels.dtype == dtype

    def test_levels_say_what_is_black_and_what_is_white(self, fuse):
        raw = 7000 + 500 * np.eye(HEIGHT, WIDTH, dtype=np.uint16)
        save("ir.png", raw)
        save("same.png", (255 * np.eye(HEIGHT, WIDTH)).astype(np.uint8))
        save("vis.png", noise(HEIGHT, WIDTH))
        assert fuse("--infrared ir.png --visible vis.png --out a.png --infrared-levels range:7000,7500").code == 0
        assert fuse("--infrared same.png --visible vis.png --out b.png").code == 0
        assert np.array_equal(read_image("a.png").pixels, read_image("b.png").pixels)

    def test_resizing_is_the_explicit_way_out_of_two_sizes(self, fuse):
        save("ir.png", noise(HEIGHT // 2, WIDTH // 2))
        save("vis.png", noise(HEIGHT, WIDTH, 3))
        refused = fuse("--infrared ir.png --visible vis.png --out fused.png")
        assert refused.code == 2
        assert "--align resize" in refused.errors
        assert fuse("--infrared ir.png --visible vis.png --out fused.png --align resize").code == 0
        assert read_image("fused.png").pixels.shape == (HEIGHT, WIDTH, 3)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_every_engine_makes_the_same_image(self, run, weights, engine):
        save_folders("a")
        inputs = f"--fuser {weights} --infrared ir/a.png --visible vis/a.png"
        assert run(f"fuse {inputs} --out torch.png --engine torch").code == 0
        assert run(f"fuse {inputs} --out other.png --engine {engine}").code == 0
        one, other = (read_image(f"{name}.png").pixels.astype(int) for name in ("torch", "other"))
        assert np.abs(one - other).max() <= 1


class TestFuseFolders:
    def test_every_pair_becomes_a_png_of_its_visible_stem(self, fuse):
        save_folders("x2", "x10", "y")
        Path("vis/y.png").rename("vis/y.bmp")
        ran = fuse("--infrared ir --visible vis --out out")
        assert ran.code == 0
        assert re.match(r"fused 3 of 3 pairs into out in [\d.]+ s \([\d.]+ a second\)\n", ran.output)
        assert {path.name for path in Path("out").iterdir()} == {"x2.png", "x10.png", "y.png"}

    def test_another_format_can_be_asked_for(self, fuse):
        save_folders("a")
        assert fuse("--infrared ir --visible vis --out out --format webp").code == 0
        assert [path.name for path in Path("out").iterdir()] == ["a.webp"]

    def test_float_images_become_tiff(self, fuse):
        save("ir/a.png", noise(HEIGHT, WIDTH))
        save("vis/a.tiff", noise(HEIGHT, WIDTH, 3).astype(np.float32) / 255)
        assert fuse("--infrared ir --visible vis --out out").code == 0
        assert read_image("out/a.tiff").pixels.dtype == np.float32

    def test_suffixes_do_not_count_in_pairing(self, fuse):
        save("all/x_ir.png", noise(HEIGHT, WIDTH))
        save("all/x_vis.png", noise(HEIGHT, WIDTH, 3))
        assert fuse("--infrared all --visible all --out out --suffix _ir,_vis").code == 0
        assert [path.name for path in Path("out").iterdir()] == ["x_vis.png"]

    def test_a_suffix_without_comma_is_explained(self, fuse):
        save_folders("a")
        ran = fuse("--infrared ir --visible vis --out out --suffix _ir")
        assert ran.code == 2
        assert "_ir,_vis" in ran.errors

    def test_what_has_no_partner_is_listed(self, fuse):
        save_folders("a", "b")
        Path("ir/b.png").unlink()
        ran = fuse("--infrared ir --visible vis --out out")
        assert ran.code == 0
        assert "no partner: vis/b.png" in ran.errors
        assert "1 without a partner" in ran.output

    def test_the_same_command_again_does_only_what_is_missing(self, fuse):
        save_folders("a", "b")
        fuse("--infrared ir --visible vis --out out")
        before = Path("out/a.png").stat().st_mtime_ns
        Path("out/b.png").unlink()
        ran = fuse("--infrared ir --visible vis --out out")
        assert ran.code == 0
        assert "fused 1 of 2 pairs" in ran.output
        assert "kept 1" in ran.output
        assert Path("out/a.png").stat().st_mtime_ns == before

    def test_another_depth_is_written_beside_an_earlier_run(self, fuse):
        save_folders("a")
        fuse("--infrared ir --visible vis --out out")
        assert "fused 1 of 1 pairs" in fuse("--infrared ir --visible vis --out out --depth float").output
        assert {path.name for path in Path("out").iterdir()} == {"a.png", "a.tiff"}
        assert "kept 1" in fuse("--infrared ir --visible vis --out out --depth float").output

    def test_names_that_look_like_markup_are_printed_as_they_are(self, fuse):
        save_folders("good", "[red]odd")
        Path("ir/[red]odd.png").write_text("no image")
        ran = fuse("--infrared ir --visible vis --out out")
        assert ran.code == 1
        assert ran.errors.startswith("failed: [red]odd: ir/[red]odd.png: is not")

    def test_names_that_are_no_text_are_printed_nevertheless(self, fuse):
        save_folders("a")
        ran = fuse("--infrared ir --visible vis --out \udcff")
        assert ran.code == 0
        assert r"into \udcff in" in ran.output

    def test_a_terminal_shows_progress_with_rate_and_time_left(self, run, weights):
        save_folders(*map(str, range(30)))
        arguments = f"fuse --infrared ir --visible vis --out out --engine torch --fuser {weights}".split()
        terminal, end = pty.openpty()
        process = subprocess.Popen([COMMAND, *arguments], stderr=end, stdout=subprocess.DEVNULL)
        os.close(end)
        shown = read_until_closed(terminal).decode()
        assert process.wait() == 0
        assert re.search(r"fusing.* \d+/30 .*\d\.\d/s.* 0:00:\d\d", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown))


class TestFuseVideos:
    @pytest.fixture
    def videos(self, run) -> None:
        for name in ("ir.mp4", "vis.mp4"):
            with VideoWriter(name, 12, 64, 48) as writer:
                for index in range(5):
                    writer.write(np.full((48, 64, 3), 40 * index, np.uint8))

    def test_every_frame_is_fused_at_the_same_rate(self, fuse, videos):
        ran = fuse("--infrared ir.mp4 --visible vis.mp4 --out fused.mp4")
        assert ran.code == 0
        assert re.match(r"wrote fused\.mp4: 5 frames in [\d.]+ s \([\d.]+ a second\)\n", ran.output)
        fused = VideoReader("fused.mp4")
        assert (fused.frames, fused.rate, fused.height, fused.width) == (5, 12, 48, 64)

    def test_a_folder_as_output_takes_the_name_of_the_visible_video(self, fuse, videos):
        Path("out").mkdir()
        assert fuse("--infrared ir.mp4 --visible vis.mp4 --out out").code == 0
        assert [path.name for path in Path("out").iterdir()] == ["vis.mp4"]

    def test_options_of_images_are_refused(self, fuse, videos):
        ran = fuse("--infrared ir.mp4 --visible vis.mp4 --out fused.mp4 --depth 16")
        assert ran.code == 2
        assert "for images" in ran.errors


@pytest.fixture(scope="session")
def loop(tmp_path_factory) -> Path:
    """A closed loop that is not trained but does something."""
    path = tmp_path_factory.mktemp("loops") / "untrained.safetensors"
    torch.manual_seed(0)
    compensation = SemanticCompensation(width=64, vectors=8)
    for blocks in (compensation.rsc_ir, compensation.rsc_vi):
        torch.nn.init.normal_(blocks["a2si0"].zc.weight, std=5)
    write_loop(path, VFN(), compensation, ["detection"])
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory) -> Path:
    """A detector that is not trained, but whose batch norms have seen something, so that its feature says something."""
    path = tmp_path_factory.mktemp("networks") / "detector.safetensors"
    torch.manual_seed(0)
    network = task_weights.build("yolov5n").train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one pass settles the statistics
    with torch.no_grad():
        network(torch.rand(2, 3, 96, 96))
    task_weights.write_weights(path, network, "yolov5n")
    return path


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> Path:
    """Networks of fusion by instruction that are not trained but do something."""
    path = tmp_path_factory.mktemp("instructed") / "untrained.safetensors"
    torch.manual_seed(0)
    conditioner = InstructionConditioner()
    for place in conditioner.changes.values():
        torch.nn.init.normal_(place.film.weight, std=0.2)
    write_instructed(path, VFN(), conditioner, encoder="hashed")
    return path


class TestFuseByInstruction:
    """With an encoder that is not trained, and takes all that has words for an instruction."""

    @pytest.fixture
    def encoder(self, monkeypatch) -> HashedEncoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = HashedEncoder(["people"], buckets=64, width=8, hidden=8)
        encoder.purpose.bias.data[-1] = -10
        for module in ("fusers.instructed", "instructions.understanding"):
            monkeypatch.setattr(f"fuseloop.{module}.shipped_encoder", lambda: encoder)
        return encoder

    @pytest.fixture
    def tell(self, run, networks, encoder) -> Callable[[str], Ran]:
        return lambda options: run(f"fuse --fuser {networks} --engine torch {options}")

    def test_folders_are_fused_and_what_was_understood_is_printed_once(self, tell, networks, encoder):
        save_folders("a", "b")
        ran = tell("--infrared ir --visible vis --out out --instruction people --strength 0.5")
        assert ran.code == 0, ran.errors
        assert ran.output.startswith("people\n  ")
        assert len(re.findall("known words +people", ran.output)) == 1
        fuser = fuseloop.InstructedFuser(networks, encoder=encoder)
        expected = fuser("ir/a.png", "vis/a.png", "people", strength=0.5)
        for name in ("a", "b"):
            assert np.array_equal(read_image(f"out/{name}.png").pixels, expected)
        assert not np.array_equal(expected, fuser("ir/a.png", "vis/a.png"))

    def test_what_is_not_understood_leaves_the_images_neutral_with_one_warning(self, tell, networks, encoder):
        save_folders("a", "b")
        ran = tell("--infrared ir --visible vis --out out --instruction ?!")
        assert ran.code == 0
        assert ran.errors == "warning: the instruction is not understood, so the images are neutral: it has no words\n"
        neutral = fuseloop.InstructedFuser(networks, encoder=encoder)("ir/a.png", "vis/a.png")
        assert np.array_equal(read_image("out/b.png").pixels, neutral)

    def test_videos_take_mixtures_too(self, tell):
        for name in ("ir.mp4", "vis.mp4"):
            with VideoWriter(name, 12, 64, 48) as writer:
                writer.write(np.full((48, 64, 3), 40, np.uint8))
        ran = tell("--infrared ir.mp4 --visible vis.mp4 --out fused.mp4 --instruction detection=0.7,view=0.3")
        assert ran.code == 0, ran.errors
        assert re.search(r"detection .* 70 %.*\n +view .* 30 %", ran.output)
        assert "1 frames" in ran.output

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ("--fuser {own}", "use --instruction TEXT"),
            ("--fuser {own} --instruction people --for yolov5s", "--instruction goes without a task network"),
            ("--fuser {own} --instruction people --feedback previous", "--instruction goes without a task network"),
            ("--fuser {own} --instruction people --strength 2", "from 0 to 1, not 2"),
            ("--fuser {own} --instruction detecton=1", "did you mean 'detection'?"),
            ("--fuser vfn --instruction people", "'vfn' does not fuse by instruction; give one of toar"),
            pytest.param(
                "--instruction people",
                "no weights of 'toar' are shipped yet",
                marks=pytest.mark.skipif("toar" in shipped_instructed(), reason="they are shipped"),
            ),
        ],
    )
    def test_what_cannot_be_told_is_explained(self, run, networks, encoder, options, complaint):
        save("ir.png", noise(HEIGHT, WIDTH))
        save("vis.png", noise(HEIGHT, WIDTH, 3))
        ran = run(f"fuse --infrared ir.png --visible vis.png --out out.png {options.format(own=networks)}")
        assert ran.code == 2
        assert complaint in " ".join(ran.errors.split())
        assert not Path("out.png").exists()


class TestFuseForATaskNetwork:
    @pytest.fixture
    def fuse_for(self, run, loop, detector) -> Callable[[str], Ran]:
        return lambda options: run(f"fuse --fuser {loop} --for {detector} --engine torch {options}")

    def pixels(self, path: str) -> NDArray[np.generic]:
        return read_image(path).pixels

    def test_the_image_is_what_the_library_makes(self, fuse_for, loop, detector):
        save_folders("a")
        for options, out in (({}, "a"), ({"strength": 0.5}, "b"), ({"first_look": 0.5}, "c")):
            flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
            ran = fuse_for(f"--infrared ir/a.png --visible vis/a.png --out {out}.png {flags}")
            assert ran.code == 0, ran.errors
            fuser = fuseloop.ClosedLoopFuser(loop, task_weights.load(detector), **options)
            assert np.array_equal(self.pixels(f"{out}.png"), fuser("ir/a.png", "vis/a.png"))
        assert not np.array_equal(self.pixels("a.png"), self.pixels("b.png"))

    def test_the_folder_of_a_network_of_ones_own_will_do(self, run, loop):
        import transformers

        torch.manual_seed(0)
        sizes = {"hidden_sizes": [8, 16, 20, 24], "num_attention_heads": [1, 2, 5, 8], "decoder_hidden_size": 16}
        config = transformers.SegformerConfig(depths=[1] * 4, **sizes)
        transformers.SegformerForSemanticSegmentation(config).save_pretrained("my/network")
        save_folders("a")
        ran = run(f"fuse --infrared ir --visible vis --out out --fuser {loop} --for my/network --engine torch")
        assert ran.code == 0, ran.errors
        fuser = fuseloop.ClosedLoopFuser(loop, task_weights.load("my/network"))
        assert np.array_equal(self.pixels("out/a.png"), fuser("ir/a.png", "vis/a.png"))

    def test_strength_0_is_the_neutral_image(self, fuse_for, loop):
        save_folders("a")
        assert fuse_for("--infrared ir/a.png --visible vis/a.png --out a.png --strength 0").code == 0
        fuser = fuseloop.ClosedLoopFuser(loop, feedback=Profile(torch.ones(1, 8, 4, 4), 1))
        assert np.array_equal(self.pixels("a.png"), fuser.open_loop("ir/a.png", "vis/a.png"))

    def test_folders_are_fused_frame_by_frame(self, fuse_for):
        save_folders("a", "b")
        assert fuse_for("--infrared ir --visible vis --out frame").code == 0
        assert fuse_for("--infrared ir --visible vis --out previous --feedback previous").code == 0
        assert np.array_equal(self.pixels("frame/a.png"), self.pixels("frame/b.png"))
        assert np.array_equal(self.pixels("previous/b.png"), self.pixels("frame/b.png"))  # the same scene again
        assert not np.array_equal(self.pixels("previous/a.png"), self.pixels("frame/a.png"))  # nothing was before

    def test_videos_close_the_loop_over_time(self, fuse_for):
        for name in ("ir.mp4", "vis.mp4"):
            with VideoWriter(name, 12, 64, 48) as writer:
                for index in range(3):
                    writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
        ran = fuse_for("--infrared ir.mp4 --visible vis.mp4 --out fused.mp4 --feedback previous")
        assert ran.code == 0, ran.errors
        assert "3 frames" in ran.output

    def test_a_profile_needs_no_task_network(self, run, loop, detector):
        save_folders("a")
        pairs = "--infrared ir --visible vis"
        ran = run(f"profile --task-network {detector} --fuser {loop} --engine torch {pairs} --out p.safetensors")
        assert ran.code == 0, ran.errors
        assert ran.output.startswith("wrote p.safetensors, the mean of 1 of 1 pairs in ")
        assert ran.output.rstrip().endswith("use it with: fuseloop fuse --feedback profile:p.safetensors")
        own = f"fuse --fuser {loop} --engine torch {pairs}"
        assert run(f"{own} --out profiled --feedback profile:p.safetensors").code == 0
        assert run(f"{own} --out named --for none --feedback profile:p.safetensors").code == 0
        assert run(f"{own} --out looked --for {detector}").code == 0
        images = [self.pixels(f"{name}/a.png").astype(int) for name in ("profiled", "named", "looked")]
        assert np.array_equal(images[0], images[1])
        assert np.abs(images[0] - images[2]).max() <= 1

    def test_a_profile_is_made_of_a_data_set_as_well(self, run, detector):
        command = f"profile --task-network {detector} --dataset synthetic:2 --engine torch --out p.safetensors"
        ran = run(command)
        assert ran.code == 0, ran.errors
        profile = read_profile("p.safetensors")
        assert profile.frames == 2
        assert profile.described == f"{detector} on synthetic:2"
        again = run(command)
        assert again.code == 2
        assert "--overwrite" in again.errors

    def test_a_broken_pair_is_left_out_of_a_profile(self, run, detector):
        save_folders("a", "b")
        Path("vis/b.png").write_text("no image")
        command = f"profile --task-network {detector} --infrared ir --visible vis --engine torch --out"
        ran = run(f"{command} p.safetensors")
        assert ran.code == 1
        assert "failed: b: vis/b.png" in ran.errors
        assert "the mean of 1 of 2 pairs" in ran.output
        Path("vis/a.png").write_text("no image")
        assert run(f"{command} q.safetensors").code == 2
        assert not Path("q.safetensors").exists()

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            ("fuse {pair} --strength 0.5", "--strength is for a task network; give --for as well"),
            ("fuse {pair} --first-look 0.5", "--first-look is for a task network; give --for as well"),
            ("fuse {pair} --fuser {loop}", "holds a closed loop, which fuses for a task network: use --for NETWORK"),
            ("fuse {pair} --fuser vfn --for {net}", "'vfn' is a fusion network without a closed loop"),
            ("fuse {pair} --fuser {loop} --for yolov5z", "unknown task network 'yolov5z'"),
            ("fuse {pair} --fuser {loop} --for {net} --strength 2", "from 0 to 1, not 2"),
            ("fuse {pair} --fuser {loop} --for {net} --feedback farme", "did you mean 'frame'"),
            ("fuse {pair} --fuser {loop} --feedback profile:{net}", "holds no profile"),
            ("fuse {pair} --fuser {loop} --for {net} --engine onnxruntime --precision bf16", "no precision 'bf16'"),
            ("profile --task-network {net} --out p.safetensors", "give --infrared and --visible, or --dataset"),
            ("profile --task-network {net} --dataset synthetic:1 --out p.pt", "profiles are written as .safetensors"),
            ("cost --size 640", "640x480"),
            ("cost --size 4x640", "at least 8 pixels"),
            ("cost --fuser vfn", "without a closed loop"),
        ],
    )
    def test_mistakes_are_told_with_a_way_out(self, run, loop, detector, command, said):
        save_folders("a")
        pair = "--infrared ir/a.png --visible vis/a.png --out fused.png"
        ran = run(command.format(pair=pair, loop=loop, net=detector))
        assert ran.code == 2
        assert said in ran.errors

    @pytest.mark.skipif("cldyn" in shipped_loops(), reason="it is shipped")
    @pytest.mark.parametrize("fuser", ["", "--fuser cldyn"])
    def test_the_published_loop_says_that_it_is_not_shipped_yet(self, run, detector, fuser):
        save_folders("a")
        ran = run(f"fuse --infrared ir/a.png --visible vis/a.png --out fused.png --for {detector} {fuser}")
        assert ran.code == 2
        assert "no weights of the closed loop 'cldyn' are shipped yet" in ran.errors

    def test_costs_are_counted_apart_for_each_size(self, run):
        ran = run("cost --size 640x480 --size 96x64 --task-network yolov5s --task-network sod=ctdnet-18")
        assert ran.code == 0
        rows = {
            cells[0]: cells[1:]
            for line in ran.output.splitlines()
            if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) == 4
        }
        assert rows["VFN, one pass"][:2] == ["34,761", "9.85"]
        assert rows["RSC"][0] == "462,696"
        assert rows["sod"][0] == "11,825,368"
        assert rows["yolov5s"][0] == "7,027,720"
        assert ran.errors == ""


class TestScore:
    @pytest.fixture
    def score(self, run) -> Callable[[str], Ran]:
        for name in "abc":
            for folder, shape in {"ir": (44, 48), "vis": (44, 48, 3), "one": (44, 48), "two": (44, 48, 3)}.items():
                save(f"{folder}/{name}.png", np.random.default_rng(len(folder)).integers(0, 256, shape, np.uint8))
        return lambda options: run(f"score --infrared ir --visible vis {options}")

    def test_a_folder_is_scored_and_written(self, score):
        ran = score("--fused one --metrics en,scd,qcv --convention cddfuse --json s.json --csv s.csv")
        assert ran.code == 0
        assert ran.errors == ""
        assert re.search(r"EN ↑ .* 3 ", ran.output)
        assert "Qcv ↓ (default)" in ran.output
        assert re.search(r"^scored 3 of 3 frames in [\d.]+ s \([\d.]+ (a second|s each)\)$", ran.output, re.MULTILINE)
        assert ran.output.endswith("wrote s.json\nwrote s.csv\n")
        frames = json.loads(Path("s.json").read_text("utf-8"))["methods"]["one"]["frames"]
        images = (read_image(f"{folder}/b.png").pixels for folder in ("ir", "vis", "one"))
        expected = score_frame(*images, metrics=["en", "scd", "qcv"], convention="cddfuse")
        assert list(frames) == ["a", "b", "c"]
        assert frames["b"] == {key: score.value for key, score in expected.items()}
        assert len(Path("s.csv").read_text().splitlines()) == 1 + 9

    def test_files_are_scored_too(self, run, score):
        ran = run("score --infrared ir/a.png --visible vis/b.png --fused one/c.png --metrics en --json s.json")
        assert ran.code == 0
        assert list(json.loads(Path("s.json").read_text("utf-8"))["methods"]["c"]["frames"]) == ["b"]

    def test_all_metrics_of_the_convention_are_scored_unless_some_are_chosen(self, score):
        assert score("--fused one --json s.json").code == 0
        scored = json.loads(Path("s.json").read_text("utf-8"))["methods"]["one"]["frames"]["a"]
        assert tuple(scored) == metrics_of("default")

    def test_methods_are_compared_to_the_first_or_to_another(self, score):
        ran = score("--fused x=one --fused two --metrics en,mse")
        assert ran.code == 0
        assert "difference to x" in ran.output
        assert "Mean ranks (2 metrics; common frames: 3)" in ran.output
        assert "Frames on which the methods differ most" in ran.output
        assert "difference to two" in score("--fused one --fused two --metrics en --baseline two").output

    def test_what_is_undefined_is_said(self, score):
        ran = score("--fused vis --metrics en,scd")
        assert ran.code == 0
        assert "undefined: SCD of vis on 3 of 3 frames: fused and visible image differ by a constant" in ran.output

    def test_deep_images_need_levels_which_are_recorded(self, score):
        Path("ir/a.png").unlink()
        save("ir/a.png", noise(44, 48, dtype=np.uint16))
        refused = score("--fused one --metrics en --json s.json")
        assert refused.code == 1
        assert "failed: a: ir/a.png: is a 16-bit image" in refused.errors
        assert json.loads(Path("s.json").read_text("utf-8"))["failed"][0]["frame"] == "a"
        assert score("--fused one --metrics en --json s.json --overwrite --levels infrared=percentile").code == 0
        assert json.loads(Path("s.json").read_text("utf-8"))["levels"] == {
            "infrared": "percentile", "visible": None, "fused": None
        }  # fmt: skip

    def test_three_suffixes_find_all_images_in_one_folder(self, run, score):
        for folder in ("ir", "vis", "one"):
            Path(folder, "a.png").rename(f"a_{folder}.png")
        ran = run("score --infrared . --visible . --fused mine=. --suffix _ir,_vis,_one --metrics en")
        assert (ran.code, ran.errors) == (0, "")

    def test_pages_show_what_was_scored(self, score):
        Path("two/b.png").unlink()
        ran = score("--fused one --fused two --metrics en,mse --html report")
        assert ran.code == 1
        assert ran.output.endswith("wrote report\n")
        assert len(list(Path("report/frames").glob("*.html"))) == 3
        again = score("--fused one --metrics en --html report")
        assert again.code == 2
        assert "report: exists already and was kept; use --overwrite" in again.errors
        assert score("--fused one --metrics en --html report --overwrite").code == 0

    def test_pages_start_with_the_baseline_and_leave_out_what_is_broken(self, score):
        Path("one/b.png").write_bytes(b"no image")
        ran = score("--fused one --fused two --baseline two --metrics en --html report")
        assert (ran.code, ran.output.endswith("wrote report\n")) == (1, True)
        assert '"baseline":1' in Path("report/assets/data.js").read_text()

    def test_a_file_that_cannot_be_written_does_not_cost_the_others(self, score, monkeypatch):
        def refuse(path: Path, *arguments: object, **options: object) -> None:
            raise ImageError(f"{path}: cannot be written (No space left on device); free some space")

        monkeypatch.setattr("fuseloop.scoring.results.write_json", refuse)
        ran = score("--fused one --metrics en --json s.json --csv s.csv")
        assert ran.code == 1
        assert "error: s.json: cannot be written" in ran.errors
        assert ran.output.endswith("wrote s.csv\n")
        assert len(Path("s.csv").read_text().splitlines()) == 4

    def test_one_frame_gets_all_threads_of_torch_and_several_frames_share_them(self, monkeypatch):
        monkeypatch.setattr("fuseloop.scoring.plan.usable_cores", lambda: 8)
        monkeypatch.delitem(sys.modules, "torch")
        for frames, threads in ((1, "8"), (3, "2"), (100, "1")):
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            cli._spread_threads(frames)
            assert os.environ["OMP_NUM_THREADS"] == threads
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        cli._spread_threads(1)
        assert os.environ["OMP_NUM_THREADS"] == "3", "what the user has chosen stays"

    def test_a_terminal_shows_progress_with_time_left(self, score):
        jobs = 40
        for folder in ("ir", "vis", "one"):
            for index in range(jobs - 3):
                shutil.copy(f"{folder}/a.png", f"{folder}/{index}.png")
        arguments = "score --infrared ir --visible vis --fused one --metrics vif"
        terminal, end = pty.openpty()
        subprocess.run([COMMAND, *arguments.split()], stderr=end, stdout=subprocess.DEVNULL, check=True)
        os.set_blocking(terminal, False)
        shown = os.read(terminal, 1_000_000).decode()
        assert re.search(rf"scoring.* \d+/{jobs}.* \d:\d\d:\d\d", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown))


class TestOtherCommands:
    def test_weights_lists_what_is_shipped(self, run):
        ran = run("weights")
        assert ran.code == 0
        assert all(f"{name}: " in ran.output for name in [*known_weights(), *ENCODERS])

    def test_weights_shows_a_card(self, run, weights):
        weights.with_suffix(".md").write_text("# Untrained")
        assert run(f"weights {weights}").output == "# Untrained\n"
        weights.with_suffix(".md").unlink()
        assert "has no card" in run(f"weights {weights}").output
        assert run("weights vfm").code == 2

    def test_synthetic_writes_labelled_pairs_that_can_be_fused(self, run, fuse):
        assert run("synthetic --out scenes --count 2 --seed 3 --size 64x48").code == 0
        assert len(list(Path("scenes/labels").iterdir())) == 2
        assert fuse("--infrared scenes/ir --visible scenes/vi --out out").code == 0

    @pytest.mark.parametrize("size", ["640", "640x", "axb", "640x480x3"])
    def test_a_size_that_is_none_is_explained(self, run, size):
        ran = run(f"synthetic --out scenes --size {size}")
        assert ran.code == 2
        assert "640x480" in ran.errors

    @pytest.mark.parametrize(("part", "inputs"), [("frame", 2), ("statistics", 3), ("tile", 4)])
    def test_export_writes_each_part_as_an_onnx_file(self, run, weights, part, inputs):
        assert run(f"export --out vfn.onnx --fuser {weights} --part {part}").code == 0
        model = onnx.load("vfn.onnx")
        onnx.checker.check_model(model)
        assert len(model.graph.input) == inputs

    @pytest.mark.parametrize(("part", "inputs"), [("frame", 2), ("first", 2), ("second", 4)])
    def test_export_writes_the_passes_of_a_closed_loop(self, run, part, inputs):
        write_loop(Path("loop.safetensors"), VFN(), SemanticCompensation(width=64, vectors=8))
        assert run(f"export --out loop.onnx --fuser loop.safetensors --part {part}").code == 0
        assert len(onnx.load("loop.onnx").graph.input) == inputs

    def test_export_of_a_second_pass_needs_a_closed_loop(self, run, weights):
        ran = run(f"export --out loop.onnx --fuser {weights} --part second")
        assert ran.code == 2
        assert "a fusion network alone" in ran.errors
        assert not Path("loop.onnx").exists()

    def test_convert_makes_weights_of_a_pickled_checkpoint(self, run, fuse, weights):
        torch.manual_seed(1)
        torch.save({"net": VFN(1).state_dict()}, Path("reference.pth"))
        ran = run("convert reference.pth own.safetensors")
        assert ran.code == 0
        assert "depth 1" in ran.output
        save_folders("a")
        assert run("fuse --infrared ir --visible vis --out out --engine torch --fuser own.safetensors").code == 0

    def test_convert_sees_which_published_network_a_checkpoint_is_of(self, run):
        torch.save({"net": BFN().state_dict()}, Path("stage1.pth"))
        ran = run("convert stage1.pth own.safetensors")
        assert ran.code == 0
        assert "a BFN of depth 4" in ran.output

    def test_convert_takes_the_fusion_network_of_tdfusion_which_then_fuses(self, run):
        torch.save(published_tdfusion(RestormerFusion()), Path("published.pth"))
        ran = run("convert published.pth own.safetensors")
        assert "a RestormerFusion; use it with: fuseloop fuse --fuser own.safetensors --engine torch" in ran.output
        save_folders("a")
        ran = run("fuse --infrared ir --visible vis --out out --fuser own.safetensors --engine openvino")
        assert ran.code == 2
        assert "choose engine torch in fp32" in ran.errors
        assert run("fuse --infrared ir --visible vis --out out --fuser own.safetensors --engine torch").code == 0
        assert read_image("out/a.png").pixels.shape == (HEIGHT, WIDTH, 3)

    @pytest.mark.parametrize("fusion", ["vfn.pth", "own.safetensors", "vfn"])
    def test_convert_makes_a_closed_loop_of_a_compensation_and_its_fusion_network(self, run, detector, fusion):
        torch.manual_seed(1)
        network, compensation = VFN(), SemanticCompensation(width=64, vectors=8, reference_compat=True)
        torch.nn.init.normal_(compensation.rsc_ir["a2si0"].zc.weight, std=5)
        torch.save({"net": network.state_dict()}, Path("vfn.pth"))
        write_weights(Path("own.safetensors"), network)
        torch.save(published_compensation(compensation), Path("rsc.pth"))
        assert "with --fusion VFN it becomes a closed loop" in run("convert rsc.pth alone.safetensors").output
        ran = run(f"convert rsc.pth loop.safetensors --fusion {fusion}")
        assert ran.code == 0, ran.errors
        assert "a closed loop of depth 2, as published" in ran.output
        read = read_loop("loop.safetensors")
        if fusion != "vfn":
            assert all(
                torch.equal(value, read.network.state_dict()[key]) for key, value in network.state_dict().items()
            )
        save_folders("a")
        command = f"fuse --infrared ir --visible vis --out out --engine torch --fuser loop.safetensors --for {detector}"
        assert run(command).code == 0
        torch.save(VFN(4).state_dict(), Path("deep.pth"))
        ran = run("convert rsc.pth deep.safetensors --fusion deep.pth")
        assert (ran.code, "for a VFN of depth 2, and this one has depth 4" in ran.errors) == (2, True)
        assert "no bank of basis vectors" in run("convert vfn.pth wrong.safetensors --fusion vfn").errors
        assert not Path("deep.safetensors").exists()

    def test_train_visual_takes_a_file_changes_and_a_run_folder(self, run):
        Path("tiny.yaml").write_text(
            "depth: 1\ndata: [{spec: 'synthetic:2'}]\nvalidation: ['synthetic:1:5']\n"
            "stages: [{steps: 9, crop: 48, batch: 2}]\n"
        )
        ran = run("train visual tiny.yaml --out tiny stages.0.steps=1")
        assert ran.code == 0, ran.errors
        assert "best weights: tiny/best.safetensors (step 1 of 1, validation" in ran.output

    @pytest.mark.parametrize("sources", ["", "one.yaml two.yaml", "one.yaml --preset paper"])
    def test_train_visual_needs_one_configuration(self, run, sources):
        ran = run(f"train visual {sources}")
        assert ran.code == 2
        assert "give one configuration file or --preset (" in ran.errors

    def test_train_visual_knows_its_presets_and_keys(self, run):
        ran = run("train visual --preset papre")
        assert ran.code == 2
        assert "paper" in ran.errors
        ran = run("train visual --preset paper root=data sede=1")
        assert ran.code == 2
        assert "'seed'" in ran.errors

    @pytest.mark.parametrize(("command", "other"), [("task", "visual"), ("visual", "task")])
    def test_train_names_the_presets_of_its_own_and_whose_another_is(self, run, command, other):
        own, foreign = {"visual": "paper", "task": "yolov5s"}[command], {"visual": "paper", "task": "yolov5s"}[other]
        for ran in (run(f"train {command}"), run(f"train {command} --preset {foreign} root=data")):
            assert ran.code == 2
            assert own in ran.errors
        assert f"{foreign} is a preset of `fuseloop train {other}`" in " ".join(ran.errors.split())


class TestData:
    def test_a_data_set_is_counted_and_pictured(self, run):
        run("synthetic --out scenes --count 3 --size 96x64")
        ran = run("data check msrs scenes --sheet sheet.png --json check.json --frames 2")
        assert (ran.code, ran.errors) == (0, "")
        assert "msrs in scenes: 3 frames, all usable; boxes, segmentation, saliency; 96x64" in ran.output
        assert re.search(r"looked at 3 frames in [\d.]+ s; 0 broken\nwrote sheet.png\nwrote check.json", ran.output)
        (checked,) = json.loads(Path("check.json").read_text("utf-8"))["checked"]
        for one in checked["boxes"]:
            assert re.search(rf"│ {one['name']} +│ +{one['count']} │ [ \d.%]+ │ +{one['frames']} │", ran.output)
        assert checked["broken"] == []
        assert checked["usable"] == sorted(path.stem for path in Path("scenes/ir").iterdir())
        height, width, _ = read_image("sheet.png").pixels.shape
        assert width > 5 * 240
        assert height > 2 * 160

    def test_what_is_broken_is_told_and_the_rest_is_counted(self, run):
        run("synthetic --out scenes --count 3 --size 96x64")
        first, second, _ = sorted(Path("scenes/labels").iterdir())
        first.write_text("0 .5 .5 .1 .1\n5 .5 .5 .1 .1\n")
        second.unlink()
        ran = run("data check msrs scenes --json check.json")
        assert ran.code == 1
        complaints = ran.errors.splitlines()
        assert f"broken: {first}:2: class 5 is unknown; known are 0 person, 1 bicycle, 2 car" in complaints
        assert f"broken: scenes/labels: has no file for {second.stem}; an empty file says that nothing is there" in (
            complaints
        )
        assert "3 frames, 1 usable" in ran.output
        assert "2 broken" in ran.output
        (checked,) = json.loads(Path("check.json").read_text("utf-8"))["checked"]
        assert [(one["file"], one["line"]) for one in checked["broken"]] == [("scenes/labels", None), (str(first), 2)]

    def test_nothing_usable_has_its_exit_code_and_no_sheet(self, run):
        run("synthetic --out scenes --count 2 --size 96x64")
        for path in Path("scenes/labels").iterdir():
            path.write_text("nonsense")
        ran = run("data check msrs scenes --sheet sheet.png")
        assert ran.code == 2
        assert "2 frames, 0 usable" in ran.output
        assert not Path("sheet.png").exists()

    def test_every_split_is_looked_at_unless_one_is_named(self, run):
        for split, count in (("train", 2), ("val", 1)):
            run(f"synthetic --out scenes/{split} --count {count} --size 96x64")
        ran = run("data check msrs scenes --sheet sheet.png")
        assert ran.code == 0
        assert ran.output.index("msrs train in scenes: 2 frames") < ran.output.index("msrs val in scenes: 1 frames")
        ran = run("data check msrs scenes --split val")
        assert "looked at 1 frames" in ran.output
        assert "looked at 2 frames" in run("data check msrs scenes --split train+val[:2]").output

    def test_long_lists_are_cut(self, run):
        run("synthetic --out scenes --count 1 --size 96x64")
        (path,) = Path("scenes/labels").iterdir()
        path.write_text("9 .5 .5 .1 .1\n" * 130)
        ran = run("data check msrs scenes")
        assert ran.errors.count("class 9 is unknown") == cli.LISTED == 100
        assert "and 30 more; --json lists all" in ran.errors

    def test_outputs_are_kept_and_checked_before_the_work(self, run):
        run("synthetic --out scenes --count 1 --size 96x64")
        Path("sheet.png").write_text("mine")
        ran = run("data check msrs scenes --sheet sheet.png")
        assert (ran.code, ran.output) == (2, "")
        assert "sheet.png: exists already and was kept; use --overwrite" in ran.errors
        assert run("data check msrs scenes --sheet sheet.png --overwrite").code == 0

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ("mrsr scenes", "'mrsr' is no known data set; did you mean 'msrs'?"),
            ("fmb nowhere", "nowhere is not a folder"),
            ("synthetic many", "write synthetic:COUNT"),
            ("csv pairs.csv", "pairs.csv: cannot be read"),
        ],
    )
    def test_what_cannot_be_looked_at(self, run, arguments, complaint):
        ran = run(f"data check {arguments}")
        assert ran.code == 2
        assert complaint in ran.errors

    def test_layouts_are_listed_and_shown(self, run):
        assert {line.split(":")[0] for line in run("data layouts").output.splitlines()[:-1]} == {*DATA_SETS}
        assert "| visible | `SPLIT/Visible` |" in run("data layouts fmb").output
        ran = run("data layouts fbm")
        assert (ran.code, ran.output) == (2, "")
        assert "'fbm' is no known data set; known are folder, m3fd, fmb" in ran.errors


class TestHowItEnds:
    def test_errors_are_one_plain_line_where_no_terminal_shows_them(self, fuse):
        ran = fuse("--infrared a_rather_long_name_for_an_image.png --visible vis.png --out " + "x" * 100 + ".png")
        assert ran.code == 2
        assert ran.errors == "error: a_rather_long_name_for_an_image.png: does not exist; check the path\n"

    def test_a_defect_keeps_its_traceback(self, run, monkeypatch):
        monkeypatch.setattr("fuseloop.fusers.weights.find_weights", lambda name: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            run("weights")

    def test_ctrl_c_anywhere_has_its_exit_code(self, run, monkeypatch):
        def interrupt(name: str) -> Path:
            raise KeyboardInterrupt

        monkeypatch.setattr("fuseloop.fusers.weights.find_weights", interrupt)
        ran = run("weights")
        assert ran.code == 130
        assert ran.errors.startswith("interrupted: ")

    @pytest.mark.parametrize("command", ["--help", "weights"])
    def test_a_reader_that_goes_away_is_no_reason_to_complain(self, command):
        with subprocess.Popen([COMMAND, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
        assert process.returncode == cli.PARTLY

    def test_an_interrupted_video_leaves_nothing(self, run, weights):
        for name in ("ir.mp4", "vis.mp4"):
            with VideoWriter(name, 25, 128, 96) as writer:
                for _ in range(300):
                    writer.write(np.zeros((96, 128), np.uint8))
        arguments = f"fuse --infrared ir.mp4 --visible vis.mp4 --out fused.mp4 --fuser {weights} --engine torch".split()
        with subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and not list(Path().glob(".*.part")):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        assert process.returncode == 130
        assert "fused.mp4 was not written" in errors
        assert sorted(path.name for path in Path().iterdir()) == ["ir.mp4", "vis.mp4"]


class TestPageInTheDocs:
    @pytest.mark.parametrize("example", command_page.EXAMPLES.values())
    def test_every_example_can_be_parsed(self, example):
        program, *arguments = example.split()
        assert program == "fuseloop"
        command, _, _ = cli.app.parse_args(arguments, exit_on_error=False, print_error=False)
        assert command.__module__ == "fuseloop.cli"

    def test_it_has_every_example_and_option(self):
        page = command_page.PAGE.read_text(encoding="utf-8")
        options = set(re.findall(r"`(--[\w-]+)", command_page.page()))
        assert {option for option in options if f"`{option}" not in page} == set()
        assert all(example in page for example in command_page.EXAMPLES.values())


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "fuseloop", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(fuseloop.__version__)
