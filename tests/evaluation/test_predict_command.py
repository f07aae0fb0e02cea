"""`fuseloop predict`: what it writes, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import COCO

from fuseloop.pairs.images import Picture, read_image, write_image
from fuseloop.tasks.weights import build, write_weights
from tests.evaluation.fakes import PaintedDetector

IMAGES = "predict --images data/test/vi --out out"


def index() -> dict:
    return json.loads(Path("out/predictions.json").read_text("utf-8"))


def files() -> set[str]:
    return {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}


class TestWhatItWrites:
    def test_boxes_are_in_coco_form(self, run, data):
        ran = run(f"{IMAGES} --task-network detector --threshold 0.3")
        assert ran.code == 0
        assert ran.output.startswith("looked at 4 of 4 images in ")
        content = index()
        assert [image["file_name"] for image in content["images"]] == [f"frame{number}.png" for number in range(4)]
        assert (content["images"][0]["width"], content["images"][0]["height"]) == (64, 48)
        assert [category["name"] for category in content["categories"]] == ["person", "bicycle", "car"]
        own = [box for box in content["annotations"] if box["image_id"] == content["images"][2]["id"]]
        expected = data[2].boxes[:2]  # the third one has the score .1
        assert [box["category_id"] for box in own] == [0, 1]
        assert np.array_equal([box["bbox"][:2] for box in own], expected[:, :2])
        assert np.array_equal([box["bbox"][2:] for box in own], expected[:, 2:] - expected[:, :2])
        assert [box["score"] for box in own] == [0.9, 0.5]

    def test_tools_for_coco_read_it(self, run, data):
        run(f"{IMAGES} --task-network detector")
        found = COCO("out/predictions.json")
        assert len(found.getImgIds()) == 4
        again = found.loadRes(index()["annotations"])
        assert len(again.getAnnIds()) == len(found.getAnnIds()) == 8

    def test_masks_are_images_of_class_ids(self, run, data):
        assert run(f"{IMAGES} --task-network segmenter").code == 0
        for number in range(4):
            assert np.array_equal(read_image(f"out/masks/frame{number}.png").pixels, data[number].segmentation)
        content = index()
        assert "annotations" not in content
        assert content["images"][1]["prediction"] == "masks/frame1.png"
        assert content["categories"][2] == {"id": 2, "name": "person"}

    def test_saliency_is_an_image_of_levels(self, run, data):
        assert run(f"{IMAGES} --task-network saliency").code == 0
        assert np.array_equal(read_image("out/saliency/frame3.png").pixels, data[3].saliency)

    @pytest.mark.parametrize("network", ["detector", "segmenter", "saliency"])
    def test_overlays_differ_from_the_images_where_something_was_found(self, run, data, network):
        assert run(f"{IMAGES} --task-network {network}").code == 0
        overlay, image = read_image("out/overlays/frame1.png").pixels[:48, :64], data[1].visible
        (x1, y1, x2, y2), changed = data[1].boxes[1].astype(int), (overlay != image).any(axis=2)
        assert changed[y1:y2, x1:x2].any()

    def test_a_single_image_will_do(self, run, data):
        assert run("predict --images data/test/vi/frame2.png --task-network detector --out out").code == 0
        assert files() == {"predictions.json", "overlays/frame2.png", "boxes/frame2.json"}

    def test_pairs_are_fused_first(self, run, data, weights):
        pairs = "predict --infrared data/test/ir --visible data/test/vi --task-network saliency --out out"
        assert run(f"{pairs} --fuser visible").code == 0
        assert np.array_equal(read_image("out/saliency/frame3.png").pixels, data[3].saliency)
        assert run(f"{pairs} --fuser {weights} --engine torch --overwrite").code == 0
        run(f"fuse --infrared data/test/ir --visible data/test/vi --out saved --fuser {weights} --engine torch")
        fused = read_image("saved/frame3.png").pixels
        assert np.array_equal(read_image("out/saliency/frame3.png").pixels, fused[..., 1])
        assert index()["info"]["fuser"]["weights_sha256"]

    def test_two_files_are_a_pair_and_suffixes_pair_folders(self, run, data):
        one = "--infrared data/test/ir/frame0.png --visible data/test/vi/frame1.png"
        assert run(f"predict {one} --fuser visible --task-network saliency --out out").code == 0
        Path("all").mkdir()
        for kind, end in (("ir", "_t"), ("vi", "_c")):
            Path(f"data/test/{kind}/frame2.png").rename(f"all/x{end}.png")
        folder = "--infrared all --visible all --suffix _t,_c"
        assert run(f"predict {folder} --fuser visible --task-network saliency --out out").code == 0
        assert files() == {"predictions.json"} | {
            f"{kind}/{name}.png" for kind in ("overlays", "saliency") for name in ("frame1", "x_c")
        }

    def test_a_real_network_predicts(self, run, data):
        write_weights("narrow.safetensors", build("yolov5n"), "yolov5n")
        assert run(f"{IMAGES} --task-network narrow.safetensors --threshold 0").code == 0
        assert len(index()["annotations"]) > 0


class TestContinuing:
    def test_what_was_predicted_is_kept_and_the_rest_is_done(self, run, data):
        run(f"{IMAGES} --task-network detector")
        whole = index()
        Path("out/boxes/frame1.json").unlink()
        before = Path("out/boxes/frame2.json").stat().st_mtime_ns
        ran = run(f"{IMAGES} --task-network detector")
        assert ran.code == 0
        assert "looked at 1 of 4 images" in ran.output
        assert "kept 3 that were there" in ran.output
        assert Path("out/boxes/frame2.json").stat().st_mtime_ns == before
        assert {image["file_name"] for image in index()["images"]} == {i["file_name"] for i in whole["images"]}
        assert len(index()["annotations"]) == len(whole["annotations"])

    def test_other_images_are_added(self, run, data):
        for number in (0, 3):
            assert run(f"predict --images data/test/vi/frame{number}.png --task-network detector --out out").code == 0
        content = index()
        assert [image["file_name"] for image in content["images"]] == ["frame0.png", "frame3.png"]
        assert {box["image_id"] for box in content["annotations"]} == {1, 2}

    @pytest.mark.parametrize("change", ["--task-network saliency", "--task-network detector --threshold 0.5"])
    def test_predictions_of_other_settings_are_replaced_only_when_asked(self, run, data, change):
        run(f"{IMAGES} --task-network detector")
        before = {name: Path("out", name).read_bytes() for name in files()}
        ran = run(f"predict --images data/test/vi/frame1.png --out out {change}")
        assert ran.code == 2
        assert "holds predictions of another network, threshold or fuser" in ran.errors
        assert {name: Path("out", name).read_bytes() for name in files()} == before
        assert run(f"predict --images data/test/vi/frame1.png --out out {change} --overwrite").code == 0
        assert [image["file_name"] for image in index()["images"]] == ["frame1.png"]
        assert not any("frame2" in name for name in files())

    def test_overwrite_predicts_again(self, run, data):
        run(f"{IMAGES} --task-network saliency")
        Path("data/test/vi/frame1.png").write_bytes(Path("data/test/vi/frame3.png").read_bytes())
        ran = run(f"{IMAGES} --task-network saliency --overwrite")
        assert "looked at 4 of 4 images" in ran.output
        assert np.array_equal(read_image("out/saliency/frame1.png").pixels, data[3].saliency)

    def test_a_folder_with_other_files_is_left_alone(self, run, data):
        Path("out").mkdir()
        Path("out/mine.txt").write_text("mine")
        for overwrite in ("", " --overwrite"):
            ran = run(f"{IMAGES} --task-network detector{overwrite}")
            assert ran.code == 2
            assert "holds other files, which were kept" in ran.errors
        Path("out/mine.txt").rename("out/predictions.json")
        assert run(f"{IMAGES} --task-network detector --overwrite").code == 2
        assert Path("out/predictions.json").read_text() == "mine"

    def test_an_interruption_leaves_what_is_finished(self, run, data, monkeypatch):
        found = PaintedDetector.found
        looked = []

        def interrupt(self, blue):
            looked.append(blue)
            if len(looked) == 3:
                raise KeyboardInterrupt
            return found(self, blue)

        monkeypatch.setattr(PaintedDetector, "found", interrupt)
        ran = run(f"{IMAGES} --task-network detector")
        assert ran.code == 130
        assert "2 predictions stay in out" in ran.errors
        assert [image["file_name"] for image in index()["images"]] == ["frame0.png", "frame1.png"]
        assert "looked at 2 of 4" in run(f"{IMAGES} --task-network detector").output


class TestWhatGoesWrong:
    def test_a_broken_image_does_not_stop_the_others(self, run, data):
        Path("data/test/vi/frame1.png").write_text("no image")
        ran = run(f"{IMAGES} --task-network detector")
        assert ran.code == 1
        assert "failed: frame1: data/test/vi/frame1.png: is not a PNG" in ran.errors
        assert "1 failed" in ran.output
        assert len(index()["images"]) == 3

    def test_nothing_but_broken_images_is_exit_code_2(self, run, data):
        Path("no.png").write_text("no image")
        assert run("predict --images no.png --task-network detector --out out").code == 2

    def test_pairs_of_two_sizes_are_refused_with_a_way_out(self, run, data):
        pixels = read_image("data/test/ir/frame1.png").pixels[:, :32].copy()
        write_image("data/test/ir/frame1.png", Picture(pixels), overwrite=True)
        ran = run("predict --infrared data/test/ir --visible data/test/vi --task-network detector --out out")
        assert ran.code == 1
        assert "fuseloop fuse --align resize" in ran.errors

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ("--images data/test/vi --infrared data/test/ir --visible data/test/vi", "give --images, or"),
            ("--infrared data/test/ir", "give --images, or --infrared and --visible"),
            ("--images data/no", "data/no: does not exist"),
            ("--images data/test/vi --suffix _a,_b", "--suffix is for pairs"),
            ("--images data/test/vi --threshold 2", "in [0, 1], not 2"),
            ("--infrared data/test/ir --visible data/test/vi --fuser vnf", "unknown fuser 'vnf'"),
        ],
    )
    def test_mistakes_are_told_with_a_way_out(self, run, data, options, said):
        ran = run(f"predict {options} --task-network detector --out out")
        assert ran.code == 2
        assert said in ran.errors
        assert not Path("out").exists()

    def test_an_unknown_network_is_told(self, run, data):
        ran = run(f"{IMAGES} --task-network yolo5n")
        assert ran.code == 2
        assert "did you mean 'yolov5n'" in ran.errors
