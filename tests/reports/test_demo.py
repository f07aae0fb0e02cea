"""The demo: honest numbers, and a page that opens without a server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from fuseloop.datasets.synthetic import Scene
from fuseloop.errors import ConfigurationError, ImageError
from fuseloop.fusers.fuser import Fuser
from fuseloop.metrics.grey import to_grey
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.images import read_image
from fuseloop.reports.demo import PLAIN, Demo, contrast, folder_of, show, with_luma, write_demo

KINDS = ["infrared", "visible", "pixel mean", "pixel maximum", "fused"]


@pytest.fixture(scope="module")
def fuser() -> Fuser:
    torch.manual_seed(0)
    return Fuser(VFN(1))


@pytest.fixture(scope="module")
def demo(tmp_path_factory, fuser) -> Demo:
    return write_demo(tmp_path_factory.mktemp("demo"), fuser, "my <own> network", scenes=2, seed=1)


def scene_with_a_warm_person() -> Scene:
    """A person of 10×20 who is plain in the infrared and cannot be told from the ground in the visible image."""
    visible = np.full((48, 64, 3), 90, np.uint8)
    infrared = np.full((48, 64), 40, np.uint8)
    saliency = np.zeros((48, 64), np.uint8)
    infrared[10:30, 20:30] = 200
    saliency[10:30, 20:30] = 255
    return Scene(
        visible=visible,
        infrared=infrared,
        boxes=np.array([[20, 10, 30, 30]], np.float32),
        box_classes=np.array([0]),
        segmentation=(saliency > 0).astype(np.uint8) * 2,
        saliency=saliency,
        night=True,
    )


class TestContrast:
    BOX = np.array([20, 10, 30, 30], np.float32)

    def objects(self) -> np.ndarray:
        objects = np.zeros((48, 64), bool)
        objects[10:30, 20:30] = True
        return objects

    def test_of_an_even_shift_is_its_size(self):
        pixels = np.full((48, 64), 40, np.uint8)
        pixels[10:30, 20:30] = 140
        assert contrast(pixels, self.BOX, self.objects()) == pytest.approx(100)

    def test_counts_the_colour_that_differs_most(self):
        pixels = np.full((48, 64, 3), 40, np.uint8)
        pixels[10:30, 20:30] = 50, 40, 10
        assert contrast(pixels, self.BOX, self.objects()) == pytest.approx(30)

    def test_leaves_other_objects_out_of_the_surroundings(self):
        pixels = np.full((48, 64), 40, np.uint8)
        objects = self.objects()
        objects[10:30, 30:40] = True
        pixels[objects] = 240
        assert contrast(pixels, self.BOX, objects) == pytest.approx(200)

    def test_sees_light_and_dark_parts_on_a_plain_ground(self):
        pixels = np.full((48, 64), 100, np.uint8)
        pixels[10:20, 20:30], pixels[20:30, 20:30] = 60, 140
        assert contrast(pixels, self.BOX, self.objects()) == pytest.approx(40, abs=1)

    def test_does_not_see_noise_that_is_everywhere(self):
        pixels = np.random.default_rng(0).integers(60, 140, (48, 64), np.uint8)
        assert contrast(pixels, self.BOX, self.objects()) < 8

    def test_does_not_look_far_away(self):
        pixels = np.full((48, 64), 40, np.uint8)
        pixels[:, 36:] = 250
        assert contrast(pixels, self.BOX, self.objects()) == 0

    def test_an_object_without_surroundings_has_none(self):
        assert (
            contrast(np.zeros((48, 64), np.uint8), np.array([0, 0, 64, 48], np.float32), np.ones((48, 64), bool)) == 0
        )


def test_with_luma_changes_the_brightness_and_keeps_the_colour():
    visible = np.random.default_rng(0).integers(60, 190, (8, 9, 3), np.uint8)
    changed = with_luma(visible, to_grey(visible).astype(float) + 20)
    assert np.abs(to_grey(changed).astype(int) - to_grey(visible) - 20).max() <= 1
    differences = changed.astype(int) - visible
    assert np.ptp(differences, axis=2).max() == 0


class TestShow:
    def test_an_object_that_only_the_infrared_shows_is_found_there(self, fuser):
        shown = show("one", scene_with_a_warm_person(), fuser)
        (person,) = shown.objects
        assert person.name == "person"
        assert person.only_in == "infrared"
        assert person.plain["pixel maximum"]
        assert shown.summary == "1 labelled: 1 plain in infrared only"

    def test_the_rules_are_what_they_say(self, fuser):
        images = show("one", scene_with_a_warm_person(), fuser).images
        assert list(images) == KINDS
        assert images["pixel mean"][0, 0].tolist() == [65, 65, 65]
        assert images["pixel maximum"][0, 0].tolist() == [90, 90, 90]
        assert images["pixel maximum"][20, 25].tolist() == [200, 200, 200]


class TestWriteDemo:
    def test_every_image_is_written_beside_the_page(self, demo):
        for kind in KINDS:
            assert len(list((demo.page.parent / folder_of(kind)).iterdir())) == 2
        assert np.array_equal(
            read_image(demo.page.parent / "fused" / "scene_1.png").pixels, demo.scenes[0].images["fused"]
        )

    def test_the_table_has_the_rules_that_need_no_network_beside_the_fuser(self, demo):
        rows = demo.rows()
        assert [row[0] for row in rows] == KINDS
        assert all(len(row) == len(demo.header) for row in rows)
        objects = sum(len(scene.objects) for scene in demo.scenes)
        assert all(row[1].endswith(f" of {objects}") for row in rows)
        assert rows[0][demo.header.index("SCD ↑")] == "undef."

    def test_the_page_has_the_table_the_boxes_and_what_plain_means(self, demo):
        page = demo.page.read_text(encoding="utf-8")
        for row in demo.rows():
            assert all(value in page for value in row)
        assert page.count("<rect ") == demo.objects * len(KINDS)
        assert f"{PLAIN} of 255 levels" in page
        assert "my &lt;own&gt; network" in page

    def test_the_page_needs_nothing_from_elsewhere(self, demo):
        page = demo.page.read_text(encoding="utf-8")
        assert not re.search(r"https?:|//[a-z]", page.replace("</", "").replace("// For", ""))
        for source in re.findall(r'(?:src|data-left|data-right|data-path)="([^"]+)"', page):
            assert (demo.page.parent / source).is_file()

    def test_an_earlier_demo_is_replaced(self, demo, fuser, tmp_path):
        shutil.copytree(demo.page.parent, tmp_path / "demo")
        again = write_demo(tmp_path / "demo", fuser, scenes=1, seed=1)
        assert again.page.read_text(encoding="utf-8").count("<section ") == 1

    def test_the_same_seed_gives_the_same_page(self, demo, fuser, tmp_path):
        again = write_demo(tmp_path, fuser, "my <own> network", scenes=2, seed=1)
        assert again.page.read_bytes() == demo.page.read_bytes()

    def test_a_folder_with_something_else_is_left_alone(self, fuser, tmp_path):
        (tmp_path / "index.html").write_text("<h1>my site</h1>")
        with pytest.raises(ConfigurationError, match="holds other files than a demo"):
            write_demo(tmp_path, fuser, scenes=1)
        assert [path.name for path in tmp_path.iterdir()] == ["index.html"]

    def test_a_file_in_the_place_of_the_folder_is_an_error(self, fuser, tmp_path):
        (tmp_path / "demo").touch()
        with pytest.raises(ImageError, match="cannot make the folder"):
            write_demo(tmp_path / "demo", fuser, scenes=1)

    def test_a_demo_without_scenes_is_refused(self, fuser, tmp_path):
        with pytest.raises(ConfigurationError, match="at least one scene"):
            write_demo(tmp_path, fuser, scenes=0)


class TestInABrowser:
    @pytest.fixture
    def dump(self, tmp_path):
        """Gives the page as a browser has it after its script has run."""
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if chromium is None:
            pytest.skip("no Chromium is installed")

        def dump(page: Path) -> str:
            flags = [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=10000",
                f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            ]  # fmt: skip
            finished = subprocess.run(
                [chromium, *flags, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
            )
            return finished.stdout

        return dump

    def test_every_image_is_drawn(self, demo, dump):
        assert 'data-images="loaded"' in dump(demo.page)

    def test_a_broken_image_is_noticed(self, demo, dump, tmp_path):
        broken = Path(shutil.copytree(demo.page.parent, tmp_path / "demo"))
        (broken / "fused" / "scene_2.png").write_bytes(b"no image")
        assert 'data-images="missing"' in dump(broken / "index.html")
