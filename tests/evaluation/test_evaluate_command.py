"""`fuseloop evaluate`: what it prints and writes, and its exit codes."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import fuseloop
from fuseloop.fusers.requirement import Profile, write_profile
from fuseloop.fusers.weights import write_weights as fusion_weights
from fuseloop.pairs.images import read_image
from fuseloop.tasks.weights import build, write_weights
from tests.evaluation.fakes import PaintedSaliency, painted_networks

DATA = "--dataset msrs:data:test"
ALL = "--task-network detector --task-network segmenter --task-network saliency"


def read(path: str = "all.json") -> dict:
    return json.loads(Path(path).read_text("utf-8"))


class TestWhatItSays:
    def test_a_table_for_each_task_network_has_the_fusers_with_their_intervals(self, run, data):
        ran = run(f"evaluate --fuser visible --fuser infrared {ALL} {DATA}")
        assert ran.code == 0
        assert ran.errors == ""
        assert "detector, detection, 4 frames; means over the classes that occur" in ran.output
        assert "segmenter, segmentation, 4 frames; means over the foreground classes that occur, without" in ran.output
        assert (
            "saliency, saliency, 4 frames; 95 % intervals below; 1 of them has an empty mask and is left out"
            in ran.output
        )
        assert re.search(r"visible +│ +1\.000 │ +1\.000 │ +1\.000 │\n│ +│ 1\.000–1\.000", ran.output)
        assert re.search(r"infrared +│ +-1\.000 worse", ran.output)
        assert re.search(r"^scored 4 of 4 frames in [\d.]+ s$", ran.output, re.MULTILINE)

    def test_classes_have_their_scores(self, run, data):
        ran = run(f"evaluate --fuser visible --task-network segmenter {DATA}")
        row = re.search(r"IoU +│ visible │(.*)│", ran.output)[1].split("│")
        assert row[-1].strip() == "absent"
        assert {"1.000"} <= {cell.strip() for cell in row} <= {"1.000", "absent"}
        assert "differences" not in ran.output

    def test_differences_are_to_the_first_fuser_or_to_another(self, run, data):
        command = f"evaluate --fuser x=visible --fuser max --task-network saliency {DATA}"
        assert "differences to x on the same frames" in run(command).output
        assert "differences to max on the same frames" in run(f"{command} --baseline max").output

    def test_classes_of_one_side_alone_are_told(self, run, data):
        write_weights("few.safetensors", build("yolov5n", ("person", "lamp")), "yolov5n")
        ran = run(f"evaluate --fuser visible --task-network few.safetensors {DATA}")
        assert ran.code == 0
        assert "note: few does not know bicycle, car: boxes of these were dropped" in ran.output
        assert "note: the data set has no class lamp, which few knows" in ran.output

    def test_a_network_without_weights_is_said_to_be_untrained(self, run, data):
        ran = run(f"evaluate --fuser visible --task-network yolov5m {DATA}")
        assert ran.code == 0
        assert "warning: yolov5m is untrained" in ran.errors


class TestWhatItWrites:
    def test_json_has_all_figures_and_what_they_depend_on(self, run, data, weights):
        command = f"evaluate --fuser visible --fuser own={weights} --engine torch {ALL} {DATA} --json all.json"
        ran = run(command)
        assert ran.code == 0
        assert ran.output.endswith("wrote all.json\n")
        content = read()
        assert content["dataset"]["spec"] == "msrs:data:test"
        assert content["frames"] == [f"frame{index}" for index in range(4)]
        assert content["failed"] == []
        assert {"torch", "numpy", "python"} <= set(content["versions"])
        assert content["settings"]["baseline"] == "visible"
        assert content["fusers"]["own"]["weights_sha256"]
        assert content["networks"]["detector"]["classes"] == ["person", "bicycle", "car"]
        assert len(content["networks"]["segmenter"]["weights_sha256"]) == 64
        detection = content["scores"]["detector"]["visible"]
        assert detection["scores"]["mAP50"] == detection["scores"]["AP50/car"] == 1
        assert detection["scores"]["mAP50:95/small"] == 1
        assert detection["scores"]["mAP50:95/large"] is None
        assert "mAP50:95/large" in detection["undefined"]
        assert detection["intervals"]["mAP50"] == [1, 1]
        assert detection["settings"]["score_threshold"] == 0.001
        assert content["scores"]["segmenter"]["own"]["settings"]["background"] == "exclude"
        assert content["scores"]["saliency"]["own"]["empty"] == ["frame0"]
        own = content["differences"]["segmenter"]["own"]["mIoU"]
        values = [content["scores"]["segmenter"][fuser]["scores"]["mIoU"] for fuser in ("own", "visible")]
        assert own["value"] == pytest.approx(values[0] - values[1])
        assert own["low"] <= own["value"] <= own["high"]

    def test_csv_has_a_row_for_each_score(self, run, data):
        run(f"evaluate --fuser visible --fuser infrared {ALL} {DATA} --json all.json --csv all.csv")
        with Path("all.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        content = read()["scores"]
        assert len(rows) == sum(len(of["scores"]) for of_fuser in content.values() for of in of_fuser.values())
        row = next(row for row in rows if (row["fuser"], row["score"]) == ("infrared", "mAP50"))
        assert (float(row["value"]), float(row["difference"])) == (0, -1)

    def test_overlays_show_labels_beside_predictions(self, run, data):
        ran = run(f"evaluate --fuser visible --task-network detector --task-network segmenter {DATA} --overlays seen")
        assert ran.code == 0
        for network in ("detector", "segmenter"):
            pictures = sorted(Path("seen", network, "visible").iterdir())
            assert [path.name for path in pictures] == [f"frame{index}.png" for index in range(4)]
            picture = read_image(pictures[0]).pixels
            labelled, predicted = picture[18:60, :60], picture[18:60, 68:128]
            if network == "segmenter":
                assert np.array_equal(labelled, predicted)

    def test_the_same_twice_is_the_same_file(self, run, data, weights):
        command = f"evaluate --fuser {weights} --task-network saliency {DATA} --engine torch --json"
        for name in ("a.json", "b.json"):
            assert run(f"{command} {name}").code == 0
        assert Path("a.json").read_bytes() == Path("b.json").read_bytes()

    @pytest.mark.parametrize("engine", ["torch", "openvino"])
    def test_images_that_were_saved_have_the_scores_of_their_fuser(self, run, data, weights, engine):
        own = f"--engine {engine}"
        assert run(f"fuse --infrared data/test/ir --visible data/test/vi --out saved --fuser {weights} {own}").code == 0
        command = f"evaluate --fuser own={weights} --fuser saved {ALL} {DATA} {own} --json all.json"
        assert run(command).code == 0
        content = read()
        assert content["fusers"]["own"]["images_sha256"] == content["fusers"]["saved"]["images_sha256"]
        for of_fuser in content["scores"].values():
            assert of_fuser["own"] == of_fuser["saved"]

    def test_synthetic_scenes_need_no_files(self, run):
        write_weights("narrow.safetensors", build("yolov5n"), "yolov5n")
        ran = run("evaluate --fuser max --task-network narrow.safetensors --dataset synthetic:2:7 --json all.json")
        assert ran.code == 0
        assert read()["dataset"]["description"] == "2 synthetic scenes of 320x240, seed 7"


class TestClosedLoops:
    def test_it_is_scored_beside_others_and_recorded(self, run, data, loop):
        ran = run(f"evaluate --fuser visible --fuser {loop} {ALL} {DATA} --engine torch --json all.json")
        assert ran.code == 0, ran.errors
        content = read()
        assert content["fusers"]["loop"]["kind"] == "closed loop"
        assert {name for name, of_fuser in content["scores"].items() if "loop" in of_fuser} == {*painted_networks()}

    def test_strength_0_scores_as_the_fusion_network_alone(self, run, data, loop):
        alone = fuseloop.ClosedLoopFuser(loop, painted_networks()["saliency"], strength=0).neutral.network
        fusion_weights("alone.safetensors", alone)
        command = f"evaluate --fuser {loop} --fuser alone.safetensors {ALL} {DATA} --engine torch --strength 0"
        assert run(f"{command} --json all.json").code == 0
        content = read()
        for of_fuser in content["scores"].values():
            assert of_fuser["loop"] == of_fuser["alone"]

    def test_a_stored_profile_makes_one_image_for_all_task_networks(self, run, data, loop):
        requirement = torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(1))
        write_profile("stored.safetensors", Profile(requirement, 1))
        files = "--infrared data/test/ir --visible data/test/vi --out saved --feedback profile:stored.safetensors"
        assert run(f"fuse {files} --fuser {loop} --engine torch").code == 0
        command = f"evaluate --fuser {loop} --fuser saved {ALL} {DATA} --engine torch --json"
        ran = run(f"{command} all.json --feedback profile:stored.safetensors")
        assert ran.code == 0, ran.errors
        content, own = read(), read()["fusers"]["loop"]
        assert own["feedback"] == "profile:stored.safetensors"
        assert len(own["profile_sha256"]) == 64
        for of_fuser in content["scores"].values():
            assert of_fuser["loop"] == of_fuser["saved"]
        assert run(f"{command} frame.json").code == 0
        assert read("frame.json")["fusers"]["loop"]["images_sha256"] != own["images_sha256"]

    def test_with_previous_the_pairs_are_frames_of_a_video(self, run, data, loop):
        """The first one is neutral."""
        command = f"evaluate --fuser {loop} --task-network saliency --dataset msrs:data:test[:1] --engine torch --json"
        for name, options in (("a", "--feedback previous"), ("b", "--strength 0"), ("c", "")):
            ran = run(f"{command} {name}.json {options}")
            assert ran.code == 0, ran.errors
        images = [read(f"{name}.json")["fusers"]["loop"]["images_sha256"] for name in "abc"]
        assert images[0] == images[1] != images[2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--feedback next", "unknown feedback 'next'"),
            ("--feedback profile:none.safetensors", "cannot read none.safetensors"),
            ("--feedback previous --first-look 0.5", "a smaller first look is for feedback 'frame'"),
        ],
    )
    def test_a_feedback_that_cannot_be_is_refused(self, run, data, loop, options, message):
        ran = run(f"evaluate --fuser {loop} --task-network saliency {DATA} --engine torch {options}")
        assert (ran.code, message in ran.errors) == (2, True), ran.errors

    def test_a_network_without_a_usable_feature_is_named(self, run, data, loop, monkeypatch):
        def flat(self, prepared):
            return (prepared * 255).round(), prepared.mean(dim=(2, 3))

        monkeypatch.setattr(PaintedSaliency, "run", flat)
        ran = run(f"evaluate --fuser {loop} --task-network saliency {DATA} --engine torch")
        assert ran.code == 2
        assert "saliency: loop: the closed loop feeds back a map B×C×h×w or tokens B×N×C" in ran.errors

    def test_predictions_are_of_the_image_for_their_network(self, run, data, loop):
        pairs = "--infrared data/test/ir --visible data/test/vi"
        ran = run(f"predict {pairs} --fuser {loop} --engine torch --task-network saliency --out seen")
        assert ran.code == 0, ran.errors
        fuser = fuseloop.ClosedLoopFuser(loop, painted_networks()["saliency"])
        image = fuser("data/test/ir/frame1.png", "data/test/vi/frame1.png")
        assert np.array_equal(read_image("seen/saliency/frame1.png").pixels, image[..., 1])


class TestWhatGoesWrong:
    def test_a_broken_frame_does_not_stop_the_others(self, run, data):
        Path("data/test/vi/frame2.png").write_bytes(Path("data/test/vi/frame2.png").read_bytes()[:-200])
        ran = run(f"evaluate --fuser visible --task-network saliency {DATA} --json all.json")
        assert ran.code == 1
        assert "failed: data/test/vi/frame2.png: is broken or truncated" in ran.errors
        assert "scored 3 of 4 frames" in ran.output
        assert "1 failed" in ran.output
        assert "frame2.png" in read()["failed"][0]["reason"]

    def test_a_broken_label_is_told_before_the_work_begins(self, run, data):
        Path("data/test/labels/frame1.txt").write_text("0 .5 .5\n7 .5 .5 .1 .1\n")
        ran = run(f"evaluate --fuser visible --task-network detector {DATA}")
        assert ran.code == 1
        assert "broken: data/test/labels/frame1.txt:1" in ran.errors
        assert "scored 3 of 4 frames" in ran.output

    def test_a_missing_fused_image_leaves_its_frame_out_for_all(self, run, data):
        run("fuse --infrared data/test/ir --visible data/test/vi --out saved --engine torch")
        Path("saved/frame3.png").unlink()
        ran = run(f"evaluate --fuser saved --fuser visible --task-network saliency {DATA}")
        assert ran.code == 1
        assert "failed: frame3: saved: saved: holds no image of the frame frame3" in ran.errors
        assert "saliency, saliency, 3 frames" in ran.output

    def test_no_frame_at_all_is_exit_code_2(self, run, data):
        Path("saved").mkdir()
        Path("data/test/vi/frame0.png").rename("saved/other.png")
        Path("data/test/ir/frame0.png").unlink()
        ran = run(f"evaluate --fuser saved --task-network saliency {DATA}")
        assert ran.code == 2
        assert "could be scored, the first because" in ran.errors

    def test_missing_labels_are_named(self, run, data):
        for path in Path("data/test/labels").iterdir():
            path.unlink()
        ran = run(f"evaluate --fuser visible --task-network detector {DATA}")
        assert ran.code == 2
        assert "detector is scored with boxes, but there are segmentation, saliency alone" in ran.errors

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (f"--fuser visibel --task-network saliency {DATA}", "did you mean 'visible'"),
            (f"--fuser visible --task-network yolov5z {DATA}", "unknown task network 'yolov5z'"),
            ("--fuser visible --task-network saliency --dataset msr:data:test", "did you mean 'msrs'"),
            (f"--fuser visible --task-network saliency {DATA} --baseline max", "--baseline max is none of the fusers"),
            (f"--fuser a/x --fuser b/x --task-network saliency {DATA}", "both called 'x'"),
            (f"--fuser visible --task-network saliency {DATA} --same cat=car", "have no class 'cat'"),
            (f"--fuser visible --task-network saliency {DATA} --same cat", "is not of the form THEIRS=OURS"),
            (f"--fuser visible --task-network saliency {DATA} --json a --csv a", "give each its own file"),
            (f"--fuser visible --task-network saliency {DATA} --json no/a.json", "no is not a folder"),
        ],
    )
    def test_mistakes_are_told_with_a_way_out(self, run, data, options, said):
        ran = run(f"evaluate {options}")
        assert ran.code == 2
        assert said in ran.errors

    def test_what_is_there_is_kept(self, run, data):
        Path("all.json").write_text("mine")
        Path("seen").mkdir()
        Path("seen/mine.txt").write_text("mine")
        command = f"evaluate --fuser visible --task-network saliency {DATA}"
        assert run(f"{command} --json all.json").code == 2
        assert run(f"{command} --overlays seen").code == 2
        assert Path("all.json").read_text() == "mine"
        assert run(f"{command} --json all.json --overlays seen --overwrite").code == 0
        assert read()["frames"]


class TestRetraining:
    CONFIG = """
network: yolov5n
device: cpu
data: [{spec: "{root}"}]
validation: ["{root}"]
anchors: published
validate_every: 1
stages: [{steps: 1, batch: 1, height: 64, width: 64, lr: 0.001}]
"""

    def test_a_network_is_trained_for_each_fuser_and_scored_on_its_images(self, run, data):
        Path("tiny.yaml").write_text(self.CONFIG)
        command = "evaluate --fuser visible --fuser max --retrain tiny.yaml --setting root=synthetic:2 --json all.json"
        ran = run(f"{command} {DATA}")
        assert ran.code == 0
        assert "tiny-retrained, detection, 4 frames" in ran.output
        assert {path.name for path in Path("runs/retrained/tiny").iterdir()} == {"visible", "max"}
        content = read()
        hashes = content["networks"]["tiny-retrained"]["weights_sha256"]
        assert set(hashes) == {"visible", "max"}
        assert hashes["visible"] != hashes["max"]
        assert set(content["scores"]["tiny-retrained"]) == {"visible", "max"}
        assert content["settings"]["setting"] == ["root=synthetic:2"]

    def test_something_must_look(self, run, data):
        ran = run(f"evaluate --fuser visible {DATA}")
        assert ran.code == 2
        assert "give --task-network VALUE" in ran.errors
