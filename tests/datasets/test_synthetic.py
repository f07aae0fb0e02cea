"""Synthetic scenes: reproducible, correctly labelled, and worth fusing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseloop.datasets.synthesis.canvas import Camera, Canvas, Mark, heat, nearness, quad
from fuseloop.datasets.synthesis.conditions import sample_conditions
from fuseloop.datasets.synthesis.labels import label
from fuseloop.datasets.synthesis.layout import sample_camera
from fuseloop.datasets.synthesis.noise import normal, sheet, texture
from fuseloop.datasets.synthesis.sensors import Smoke, see_infrared, see_visible
from fuseloop.datasets.synthesis.stage import Stage
from fuseloop.datasets.synthetic import (
    BOX_NAMES,
    IMAGE_FOLDERS,
    SEGMENTATION_NAMES,
    Scene,
    generate,
    scene_seed,
    write_scenes,
)
from fuseloop.errors import ConfigurationError, ImageError
from fuseloop.pairs.images import read_image

SEGMENT_OF_BOX = {0: 2, 1: 3, 2: 1}  # person, bicycle and car in the ids of the segmentation
FIELDS = ("visible", "infrared", "boxes", "box_classes", "segmentation", "saliency", "night")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [generate(seed) for seed in range(120)]


def luma(scene: Scene) -> np.ndarray:
    return cv2.cvtColor(scene.visible, cv2.COLOR_RGB2GRAY)


def contrast(image: np.ndarray, inside: np.ndarray) -> float:
    """How far the median of an object lies from that of a ring around it."""
    ring = cv2.dilate(inside.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool) & ~inside
    return abs(float(np.median(image[inside])) - float(np.median(image[ring])))


def objects(scene: Scene) -> list[tuple[int, np.ndarray]]:
    """The class of every box and a mask of its pixels, for objects that are large enough to measure."""
    found = []
    for box, box_class in zip(scene.boxes.astype(int), scene.box_classes, strict=True):
        inside = np.zeros(scene.infrared.shape, bool)
        inside[box[1] : box[3], box[0] : box[2]] = True
        inside &= scene.segmentation == SEGMENT_OF_BOX[int(box_class)]
        if inside.sum() >= 60:
            found.append((int(box_class), inside))
    return found


class TestReproducibility:
    def test_same_seed_gives_the_same_bits_whatever_happened_before(self) -> None:
        first = generate(11, 96, 128)
        generate(12, 64, 64)
        np.random.seed(5)  # noqa: NPY002  # the global state must not matter
        np.random.random(100)  # noqa: NPY002
        second = generate(11, 96, 128)
        for field in FIELDS:
            assert np.array_equal(getattr(first, field), getattr(second, field)), field

    def test_global_random_state_is_left_alone(self) -> None:
        np.random.seed(5)  # noqa: NPY002
        expected = np.random.random()  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        generate(3, 64, 64)
        assert np.random.random() == expected  # noqa: NPY002

    def test_number_of_threads_does_not_matter(self) -> None:
        before = cv2.getNumThreads()
        try:
            cv2.setNumThreads(1)
            alone = generate(21)
            cv2.setNumThreads(2)
            together = generate(21)
        finally:
            cv2.setNumThreads(before)
        assert np.array_equal(alone.visible, together.visible)
        assert np.array_equal(alone.infrared, together.infrared)

    def test_seeds_give_different_scenes(self) -> None:
        assert len({generate(seed, 48, 64).visible.tobytes() for seed in range(20)}) == 20

    def test_seeds_of_frames_do_not_repeat_between_sets(self) -> None:
        seeds = {scene_seed(seed, index) for seed in range(20) for index in range(200)}
        assert len(seeds) == 20 * 200


class TestSize:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(32, 200), st.integers(32, 200), st.integers(0, 2**63))
    def test_any_size_is_drawn_with_types_and_ranges_as_documented(self, height: int, width: int, seed: int) -> None:
        scene = generate(seed, height, width)
        assert scene.visible.shape == (height, width, 3)
        assert scene.infrared.shape == scene.segmentation.shape == scene.saliency.shape == (height, width)
        for image in (scene.visible, scene.infrared, scene.segmentation, scene.saliency):
            assert image.dtype == np.uint8
            assert image.flags.c_contiguous
        assert scene.boxes.dtype == np.float32
        assert scene.boxes.shape == (len(scene.box_classes), 4)
        assert scene.segmentation.max() < len(SEGMENTATION_NAMES)
        assert set(scene.box_classes) <= set(range(len(BOX_NAMES)))
        assert np.all(scene.boxes[:, :2] >= 0)
        assert np.all(scene.boxes[:, 2:] <= (width, height))
        assert np.all(scene.boxes[:, 2:] > scene.boxes[:, :2])

    @pytest.mark.parametrize(("height", "width"), [(1080, 1440), (40, 700), (700, 40)])
    def test_large_and_narrow_frames_are_not_enlarged_small_ones(self, height: int, width: int) -> None:
        scene = generate(31, height, width)
        # Pixels that repeat their neighbour everywhere would betray an image that was drawn small and blown up.
        for image in (scene.visible[..., 1], scene.infrared):
            bright = image.astype(int)
            assert np.mean(np.diff(bright, axis=1)[:, ::2] != 0) == pytest.approx(
                np.mean(np.diff(bright, axis=1)[:, 1::2] != 0), abs=0.05
            )

    @pytest.mark.parametrize(
        ("seed", "height", "width", "message"),
        [(0, 31, 320, "at least 32"), (0, 240, 0, "at least 32"), (-1, 240, 320, "seed -1 is negative")],
    )
    def test_what_cannot_be_drawn_is_an_error_that_names_the_limits(
        self, seed: int, height: int, width: int, message: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=message):
            generate(seed, height, width)


class TestLabels:
    def test_boxes_are_tight_around_pixels_of_their_class(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            for box, box_class in zip(scene.boxes.astype(int), scene.box_classes, strict=True):
                inside = scene.segmentation[box[1] : box[3], box[0] : box[2]] == SEGMENT_OF_BOX[int(box_class)]
                assert inside[0].any()
                assert inside[-1].any()
                assert inside[:, 0].any()
                assert inside[:, -1].any()

    def test_every_salient_pixel_lies_in_a_box_of_its_class(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            for box_class, segment in SEGMENT_OF_BOX.items():
                covered = np.zeros(scene.segmentation.shape, bool)
                for box in scene.boxes[scene.box_classes == box_class].astype(int):
                    covered[box[1] : box[3], box[0] : box[2]] = True
                assert not np.any((scene.segmentation == segment) & ~covered)

    def test_saliency_is_the_union_of_cars_people_and_bikes(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            assert np.array_equal(scene.saliency == 255, np.isin(scene.segmentation, (1, 2, 3)))
            assert np.array_equal(scene.saliency == 0, ~np.isin(scene.segmentation, (1, 2, 3)))

    def test_all_classes_hours_and_sizes_occur(self, scenes: list[Scene]) -> None:
        assert set(np.unique(np.concatenate([np.unique(scene.segmentation) for scene in scenes]))) == set(range(9))
        assert set(np.concatenate([scene.box_classes for scene in scenes])) == {0, 1, 2}
        assert 0.3 < np.mean([scene.night for scene in scenes]) < 0.7
        assert np.mean([len(scene.boxes) > 0 for scene in scenes]) > 0.85
        heights = np.concatenate([scene.boxes[:, 3] - scene.boxes[:, 1] for scene in scenes])
        assert np.quantile(heights, 0.1) < 15
        assert np.quantile(heights, 0.9) > 50

    def test_hidden_objects_lose_box_and_segmentation(self) -> None:
        canvas = Canvas(60, 60)
        for left, box_class in ((5, 2), (30, 2)):
            mark = canvas.begin(1, 20.0)
            canvas.fill(quad(left, 10, left + 20, 40), (200, 200, 200, 100), mark)
            canvas.end(mark, box_class)
        canvas.fill(quad(0, 10, 23, 40), (20, 20, 20, 50), Mark(0, 0, 200))  # hides nearly all of the first
        canvas.fill(quad(40, 10, 60, 40), (20, 20, 20, 50), Mark(0, 0, 200))  # and half of the second
        boxes, classes = label(canvas)
        assert classes.tolist() == [2]
        assert boxes.tolist() == [[30, 10, 40, 41]]
        assert np.all(canvas.labels[:, :26, 0] == 0)


class TestPhysics:
    def test_people_are_warmer_than_their_surroundings_at_night(self, scenes: list[Scene]) -> None:
        warmer = [
            np.median(scene.infrared[inside]) > np.median(scene.infrared[scene.segmentation == 0])
            for scene in scenes
            if scene.night
            for box_class, inside in objects(scene)
            if box_class == 0
        ]
        assert len(warmer) > 20
        assert np.mean(warmer) > 0.9

    def test_the_sky_is_colder_than_the_road(self, scenes: list[Scene]) -> None:
        bright = [(scene.infrared[:4].mean(), scene.infrared[-40:].mean()) for scene in scenes]
        assert np.mean([sky <= road for sky, road in bright]) > 0.75  # trees and houses hide the sky in the others

    def test_nights_are_dark_but_for_their_lamps(self, scenes: list[Scene]) -> None:
        day = [np.median(luma(scene)) for scene in scenes if not scene.night]
        night = [np.median(luma(scene)) for scene in scenes if scene.night]
        assert np.median(night) < 0.45 * np.median(day)
        assert np.mean([luma(scene).max() > 200 for scene in scenes if scene.night]) > 0.6

    def test_some_objects_are_plain_in_only_one_modality(self, scenes: list[Scene]) -> None:
        pairs = np.array(
            [
                (contrast(scene.infrared, inside), contrast(luma(scene), inside))
                for scene in scenes
                for _, inside in objects(scene)
            ]
        )
        infrared_only = np.mean((pairs[:, 0] > 25) & (pairs[:, 1] < 8))
        visible_only = np.mean((pairs[:, 1] > 25) & (pairs[:, 0] < 8))
        assert len(pairs) > 150
        assert infrared_only > 0.08
        assert visible_only > 0.02

    def test_cones_are_plainer_in_the_visible_image_than_in_the_infrared_one(self, scenes: list[Scene]) -> None:
        cones = [
            (contrast(scene.infrared, scene.segmentation == 7), contrast(luma(scene), scene.segmentation == 7))
            for scene in scenes
            if not scene.night and np.count_nonzero(scene.segmentation == 7) >= 60
        ]
        infrared, visible = np.median(np.array(cones), axis=0)
        assert infrared < visible

    @pytest.mark.parametrize(("z", "hidden"), [(12.0, True), (3.0, False)])
    def test_smoke_hides_what_is_behind_it_from_the_visible_camera_only(self, z: float, hidden: bool) -> None:
        rng = np.random.default_rng(9)
        stage = Stage(Canvas(120, 160), sample_camera(rng, 120, 160), sample_conditions(rng), rng)
        for left, grey, celsius in ((0, 250, 30), (80, 5, 5)):
            target = quad(left, 0, left + 79, 119)
            stage.canvas.fill(target, (grey, grey, grey, heat(celsius)), Mark(0, 0, nearness(z)))
        cloud = Smoke(80, 60, 70, 60, z=6.0, density=1.0)

        def difference(image: np.ndarray) -> float:
            return abs(image[50:70, 60:75].mean() - image[50:70, 85:100].mean())

        clear = see_visible(stage._replace(rng=np.random.default_rng(1)), [], [])
        smoky = see_visible(stage._replace(rng=np.random.default_rng(1)), [], [cloud])
        assert difference(clear) > 40
        assert (difference(smoky) < 0.3 * difference(clear)) == hidden
        assert difference(see_infrared(stage)) > 40

    def test_infrared_noise_has_a_pattern_of_columns(self) -> None:
        rng = np.random.default_rng(4)
        stage = Stage(Canvas(64, 64), sample_camera(rng, 64, 64), sample_conditions(rng), rng)
        stage.canvas.paint[..., 3] = int(heat(10))
        stage.canvas.labels[..., 2] = 100
        image = see_infrared(stage).astype(float)
        assert image.mean(axis=0).std() > image.mean(axis=1).std()
        assert image.std() > 0.5


class TestBuildingBlocks:
    def test_noise_is_standard_normal(self) -> None:
        noise = normal(np.random.default_rng(0), (300, 400))
        assert noise.dtype == np.float32
        assert abs(noise.mean()) < 0.01
        assert noise.std() == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize(
        ("height", "width", "zoom"), [(40, 50, 1.0), (1, 700, 0.7), (1100, 30, 1.0), (90, 33, 3.3)]
    )
    def test_texture_has_the_size_that_was_asked_for(self, height: int, width: int, zoom: float) -> None:
        assert texture(np.random.default_rng(0), height, width, zoom).shape == (height, width)

    def test_the_sheet_is_periodic_and_cannot_be_changed(self) -> None:
        assert np.array_equal(sheet()[:512, :512], sheet()[512:, 512:])
        with pytest.raises(ValueError, match="read-only"):
            sheet()[0, 0] = 1

    def test_the_camera_projects_by_similar_triangles(self) -> None:
        camera = Camera(focal=300, centre=160, horizon=100, eye=1.5)
        assert camera.at(2, 0, 10) == pytest.approx((160 + 60, 100 + 45))
        assert camera.project(np.array([(2.0, 0.0, 10.0)]))[0] == pytest.approx((220, 145))
        assert camera.at(0, 1.5, 1e6)[1] == pytest.approx(100)


class TestWriting:
    def test_the_kit_layout_holds_what_the_generator_gives(self, tmp_path) -> None:
        stems = write_scenes(tmp_path / "scenes", 3, seed=7, height=96, width=128)
        assert len(stems) == 3
        for index, stem in enumerate(stems):
            scene = generate(scene_seed(7, index), 96, 128)
            assert stem == f"{index:05d}{'N' if scene.night else 'D'}"
            expected = (scene.visible, scene.infrared, scene.segmentation, scene.saliency)
            for folder, pixels in zip(IMAGE_FOLDERS, expected, strict=True):
                written = read_image(tmp_path / "scenes" / folder / f"{stem}.png").pixels
                assert np.array_equal(written, pixels)
            lines = (tmp_path / "scenes" / "labels" / f"{stem}.txt").read_text().splitlines()
            rows = np.array([line.split() for line in lines], float).reshape(-1, 5)
            assert rows[:, 0].tolist() == scene.box_classes.tolist()
            corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], axis=1)
            np.testing.assert_allclose(corners * (128, 96, 128, 96), scene.boxes, atol=1e-3)

    def test_frames_do_not_depend_on_the_count(self, tmp_path) -> None:
        few = write_scenes(tmp_path / "few", 2, seed=3, height=48, width=64)
        many = write_scenes(tmp_path / "many", 4, seed=3, height=48, width=64)
        assert many[:2] == few
        for stem in few:
            name = f"vi/{stem}.png"
            assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()

    def test_what_exists_is_kept_unless_told_otherwise(self, tmp_path) -> None:
        write_scenes(tmp_path, 1, seed=3, height=48, width=64)
        with pytest.raises(ImageError, match="exists"):
            write_scenes(tmp_path, 1, seed=3, height=48, width=64)
        write_scenes(tmp_path, 1, seed=3, height=48, width=64, overwrite=True)

    def test_a_negative_seed_is_refused(self, tmp_path) -> None:
        with pytest.raises(ConfigurationError, match="seed -1"):
            write_scenes(tmp_path, 1, seed=-1)

    def test_a_file_in_the_place_of_the_folder_is_named(self, tmp_path) -> None:
        (tmp_path / "taken").write_text("")
        with pytest.raises(ImageError, match="taken"):
            write_scenes(tmp_path / "taken", 1)
