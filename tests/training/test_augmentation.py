"""Labelled pairs changed at random stay aligned: images, boxes and masks move together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.synthetic import generate
from fuseloop.training.augmentation import SEEN, SHORTEST, brighten, cut, mirror, mosaic, zoom

quickly = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 10_000)


def marked(seed: int, first: int = 1) -> LabelledPair:
    """A pair on which every box is a rectangle of its own id, `first` and onward, and both images are the ids."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(60, 140, 2))
    ids = np.zeros((height, width), np.uint8)
    boxes = []
    for column in range(3):  # a third of the width for each, so that none covers another
        left, right = width * column // 3, width * (column + 1) // 3
        x1, x2 = sorted(rng.choice(np.arange(left, right + 1), 2, replace=False))
        y1, y2 = sorted(rng.choice(np.arange(height + 1), 2, replace=False))
        ids[y1:y2, x1:x2] = first + column
        boxes.append((x1, y1, x2, y2))
    classes = np.arange(first, first + 3)
    return LabelledPair(
        infrared=ids,
        visible=np.repeat(ids[..., None], 3, axis=2),
        boxes=np.array(boxes, np.float32),
        classes=classes,
        segmentation=ids.copy(),
        saliency=np.where(ids > 0, np.uint8(255), np.uint8(0)),
        edges=np.where(ids > 0, np.uint8(255), np.uint8(0)),
    )


def extent(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def check(pair: LabelledPair, slack: float) -> None:
    """All parts have one size, and every box lies where its id is, to within `slack` pixels."""
    height, width = pair.infrared.shape
    assert pair.visible.shape == (height, width, 3)
    assert pair.segmentation.shape == pair.saliency.shape == (height, width)
    assert np.array_equal(pair.edges, pair.saliency)
    assert pair.boxes.shape == (len(pair.classes), 4)
    assert pair.boxes.dtype == np.float32
    assert ((pair.boxes >= 0) & (pair.boxes <= [width, height] * 2)).all()
    assert np.array_equal(pair.saliency == 255, pair.segmentation > 0)
    assert set(np.unique(pair.saliency)) <= {0, 255}
    for box, name in zip(pair.boxes, pair.classes, strict=True):
        assert np.abs(extent(pair.segmentation == name) - box).max() <= slack
    # Infrared and visible were the same and have been moved alike.
    assert np.array_equal(pair.visible, np.repeat(pair.infrared[..., None], 3, axis=2))


def zoomed(seed: int) -> LabelledPair:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(32, 200, 2))
    found = zoom(marked(seed), height, width, rng)
    assert found.infrared.shape == (height, width)
    return found


def tiled(seed: int) -> LabelledPair:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(64, 200, 2))
    found = mosaic([marked(seed + i, first=1 + 3 * i) for i in range(4)], height, width, rng)
    assert found.infrared.shape == (height, width)
    return found


class TestMirror:
    @quickly
    @given(seeds)
    def test_boxes_move_with_the_pixels(self, seed):
        pair = marked(seed)
        check(mirror(pair), slack=0)
        assert np.array_equal(mirror(pair).infrared, pair.infrared[:, ::-1])
        assert np.array_equal(mirror(pair).classes, pair.classes)

    @quickly
    @given(seeds)
    def test_twice_is_nothing(self, seed):
        assert_same(mirror(mirror(marked(seed))), marked(seed))


class TestCut:
    def test_a_quarter_enlarged_by_hand(self):
        pair = replace(marked(0), boxes=np.array([[4, 6, 12, 10], [0, 0, 9, 9]], np.float32), classes=np.arange(2))
        found = cut(pair, 5, 8, 10, 20, out_height=20, out_width=40)
        assert found.infrared.shape == (20, 40)
        assert found.boxes.tolist() == [[0, 2, 8, 10]]  # half of the first is seen; of the second too little
        assert found.classes.tolist() == [0]

    def test_in_its_own_size_it_is_a_crop(self):
        pair = marked(1)
        found = cut(pair, 3, 5, 40, 50, out_height=40, out_width=50)
        for name in ("infrared", "visible", "segmentation", "saliency"):
            assert np.array_equal(getattr(found, name), getattr(pair, name)[3:43, 5:55])

    @quickly
    @given(seeds, st.data())
    def test_what_is_dropped_is_hardly_seen(self, seed, data):
        pair = marked(seed)
        rows, columns = pair.infrared.shape
        height, width = data.draw(st.integers(20, rows)), data.draw(st.integers(20, columns))
        top, left = data.draw(st.integers(0, rows - height)), data.draw(st.integers(0, columns - width))
        found = cut(pair, top, left, height, width, out_height=height, out_width=width)
        for box, name in zip(pair.boxes, pair.classes, strict=True):
            seen = np.count_nonzero(found.segmentation == name)
            whole = np.count_nonzero(pair.segmentation == name)
            sides = extent(found.segmentation == name) if seen else np.zeros(4)
            long = bool((sides[2:] - sides[:2] >= SHORTEST).all()) and seen > 0
            assert (name in found.classes) == (seen >= SEEN * whole and long), box


class TestZoomAndMosaic:
    @quickly
    @given(seeds, st.sampled_from([zoomed, tiled]))
    def test_boxes_and_masks_move_with_the_pixels(self, seed, change):
        pair = change(seed)
        check(pair, slack=1)
        assert (pair.boxes[:, 2:] - pair.boxes[:, :2] >= SHORTEST).all()

    @pytest.mark.parametrize("change", [zoomed, tiled])
    def test_the_generator_decides(self, change: Callable[[int], LabelledPair]):
        assert_same(change(5), change(5))
        assert change(5).infrared.shape != change(6).infrared.shape

    def test_a_mosaic_shows_all_four(self):
        pairs = [
            LabelledPair(np.full((50, 60), level, np.uint8), np.full((50, 60, 3), level, np.uint8))
            for level in (10, 20, 30, 40)
        ]
        found = mosaic(pairs, 64, 96, np.random.default_rng(0))
        corners = [found.infrared[row, column] for row in (0, -1) for column in (0, -1)]
        assert corners == [10, 20, 30, 40]
        assert found.boxes is found.segmentation is None

    def test_a_label_that_one_lacks_is_lost(self):
        pairs = [marked(seed) for seed in range(4)]
        pairs[2] = replace(pairs[2], segmentation=None)
        found = mosaic(pairs, 64, 96, np.random.default_rng(0))
        assert found.segmentation is None
        assert found.saliency is not None
        assert found.boxes is not None

    def test_of_three_it_is_refused(self):
        with pytest.raises(ValueError, match="4 pairs, got 3"):
            mosaic([marked(0)] * 3, 64, 64, np.random.default_rng(0))

    @pytest.mark.parametrize("place", [(0, 0), (40, 159), (127, 80)])
    def test_a_part_shows_the_pixel_that_it_is_of(self, place):
        pair, rng = LabelledPair.of(generate(3, 128, 160)), np.random.default_rng(0)
        shown = np.zeros((128, 160), np.uint8)
        shown[place] = 1
        for _ in range(50):
            found = zoom(replace(pair, segmentation=shown), 64, 64, rng, scales=(1.0, 2.0), on=place)
            assert found.segmentation.max() == 1

    def test_magnification_stays_in_its_range(self):
        pair, rng = LabelledPair.of(generate(3, 128, 160)), np.random.default_rng(0)
        pair = replace(pair, boxes=np.array([[60, 50, 100, 78]], np.float32), classes=np.zeros(1, np.int64))
        widths = []
        for _ in range(100):
            found = zoom(pair, 96, 128, rng, scales=(0.8, 1.25))
            boxes = found.boxes[(found.boxes[:, 0] > 0) & (found.boxes[:, 2] < 128)]
            widths.extend(boxes[:, 2] - boxes[:, 0])
        assert min(widths) < 36
        assert max(widths) > 46
        assert min(widths) >= 0.79 * 40
        assert max(widths) <= 1.27 * 40


class TestBrighten:
    def test_labels_and_shapes_stay(self):
        pair = marked(0)
        found = brighten(pair, 0.3, np.random.default_rng(0))
        assert_same(replace(found, infrared=pair.infrared, visible=pair.visible), pair)

    def test_both_images_change_in_brightness_alone(self):
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        found = brighten(LabelledPair(grey, np.stack([grey] * 3, axis=-1)), 0.3, np.random.default_rng(0))
        for image in (found.infrared, found.visible[..., 1]):
            assert not np.array_equal(image, grey)
            assert (np.diff(image.ravel().astype(int)) >= 0).all()
        assert np.array_equal(found.visible[..., 0], found.visible[..., 2])

    def test_of_no_strength_it_changes_nothing(self):
        assert_same(brighten(marked(0), 0.0, np.random.default_rng(0)), marked(0))


def test_inputs_stay_as_they_were():
    pair, rng = marked(0), np.random.default_rng(0)
    for change in (mirror, lambda p: zoom(p, 64, 64, rng), lambda p: mosaic([p] * 4, 64, 64, rng)):
        change(pair)
        brighten(pair, 0.3, rng)
    assert_same(pair, marked(0))


def assert_same(one: LabelledPair, other: LabelledPair) -> None:
    for field in fields(LabelledPair):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
