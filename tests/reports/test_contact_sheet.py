"""Contact sheets show pairs with their labels where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fuseloop.datasets.classes import ClassNames
from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.labelled import LabelledPair
from fuseloop.reports.contact_sheet import CELL, contact_sheet
from fuseloop.reports.overlays import TEXT, brightest, class_colours, draw_boxes, paint_ids, paint_saliency

HEIGHT, WIDTH = 60, 100
NAMES = ClassNames(("person", "car"), ("background", "car", "person"))
COLOURS = class_colours(("car", "person"))


def pair(**labels) -> LabelledPair:
    return LabelledPair(np.full((HEIGHT, WIDTH), 90, np.uint8), np.full((HEIGHT, WIDTH, 3), 60, np.uint8), **labels)


def labelled() -> LabelledPair:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[20:40, 50:90] = 2
    return pair(
        boxes=np.array([[50, 20, 90, 40]], np.float32),
        classes=np.array([0]),
        segmentation=ids,
        saliency=np.where(ids > 0, np.uint8(255), np.uint8(0)),
        name="one",
    )


def places(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of all pixels of a colour."""
    return np.argwhere((sheet == colour).all(axis=2))


class TestSheet:
    def test_every_label_has_a_cell_beside_the_images(self) -> None:
        rows = round(HEIGHT * CELL / WIDTH)
        full = contact_sheet([labelled()], NAMES)
        plain = contact_sheet([replace(labelled(), boxes=None, classes=None, segmentation=None)], NAMES)
        assert full.shape[1] // CELL == 5
        assert plain.shape[1] // CELL == 3
        assert rows < plain.shape[0] < full.shape[0] - 2 * TEXT, "two legends lie below the labels"

    def test_boxes_lie_where_they_are_in_the_colour_of_their_class(self) -> None:
        rows = round(HEIGHT * CELL / WIDTH)
        sheet = contact_sheet([replace(labelled(), segmentation=None, saliency=None)], NAMES)
        found = places(sheet, class_colours(("car", "person"), ("person", "car"))["person"])
        found = found[found[:, 0] < rows]  # below is the legend
        top, left = found.min(axis=0)
        bottom, right = found.max(axis=0) + 1
        scale = CELL / WIDTH
        assert (right - left, bottom - top) == pytest.approx((40 * scale, 20 * scale), abs=1)
        assert (left - 50 * scale) % (CELL + 4) == pytest.approx(0, abs=1)

    def test_pairs_of_any_size_stand_below_each_other(self) -> None:
        tall = LabelledPair(np.zeros((200, 50), np.uint8), np.zeros((200, 50, 3), np.uint8))
        one, two = contact_sheet([pair()], NAMES), contact_sheet([tall], NAMES)
        both = contact_sheet([replace(labelled(), boxes=None, classes=None), tall], NAMES)
        assert both.shape[0] > one.shape[0] + two.shape[0] - 1

    def test_pairs_without_labels_stand_side_by_side(self) -> None:
        assert contact_sheet([pair()] * 3, NAMES).shape[1] // CELL == 4

    def test_synthetic_scenes_make_a_sheet(self) -> None:
        pairs = open_labelled("synthetic:2")
        sheet = contact_sheet(list(pairs), ClassNames(pairs.box_names, pairs.segmentation_names))
        assert sheet.dtype == np.uint8
        assert sheet.std() > 30


class TestOverlays:
    def test_one_name_has_one_colour_and_others_have_others(self) -> None:
        colours = class_colours(("car", "person"), ("person", "car", "dog"))
        assert list(colours) == ["car", "person", "dog"]
        names = [f"class {number}" for number in range(20)]
        made = np.array(list(class_colours(names).values()), int)
        gaps = np.abs(made[:, None] - made[None]).sum(axis=2) + 999 * np.eye(20, dtype=int)
        assert gaps.min() >= 20
        assert (made.max(axis=1) - made.min(axis=1)).min() >= 60, "none is grey"

    def test_what_either_image_shows_is_seen(self) -> None:
        infrared = np.array([[0, 200]], np.uint8)
        visible = np.array([[[10, 90, 30], [5, 6, 7]]], np.uint8)
        assert brightest(infrared, visible).tolist() == [[[10, 90, 30], [200, 200, 200]]]

    def test_boxes_leave_their_inside_and_the_image_alone(self) -> None:
        image = np.zeros((40, 50, 3), np.uint8)
        shown = draw_boxes(image, np.array([[10, 5, 30, 25]], np.float32), [(9, 8, 7)])
        assert image.max() == 0
        assert shown[7:23, 12:28].max() == 0
        assert {tuple(shown[row, column]) for row, column in ((5, 10), (24, 29), (6, 20), (15, 11))} == {(9, 8, 7)}
        assert len(places(shown, (9, 8, 7))) == 20 * 20 - 16 * 16

    def test_small_boxes_lie_over_large_ones(self) -> None:
        boxes = np.array([[10, 5, 14, 9], [0, 0, 12, 30]], np.float32)
        shown = draw_boxes(np.zeros((40, 50, 3), np.uint8), boxes, [(1, 1, 1), (2, 2, 2)])
        assert tuple(shown[6, 10]) == (1, 1, 1)

    @pytest.mark.parametrize("top", [0, 20])
    def test_texts_stand_beside_their_boxes(self, top) -> None:
        box = np.array([[10, top, 30, top + 10]], np.float32)
        plain, named = (draw_boxes(np.zeros((60, 90, 3), np.uint8), box, [(200, 90, 7)], t) for t in (None, ["a dog"]))
        changed = np.argwhere((plain != named).any(axis=2))
        assert len(changed) > 50
        assert changed[:, 0].max() < top or changed[:, 0].min() >= top + 10

    def test_no_boxes_are_nothing(self) -> None:
        image = np.full((4, 5, 3), 3, np.uint8)
        assert np.array_equal(draw_boxes(image, np.zeros((0, 4), np.float32), []), image)

    def test_ids_are_painted_the_background_stays_and_the_ignored_is_grey(self) -> None:
        image = np.full((1, 4, 3), 100, np.uint8)
        shown = paint_ids(image, np.array([[0, 1, 2, 255]]), [(255, 0, 0), (0, 255, 0)], strength=0.5)
        assert shown.tolist() == [[[100, 100, 100], [178, 50, 50], [50, 178, 50], [114, 114, 114]]]

    def test_what_is_not_salient_turns_dark(self) -> None:
        saliency = np.zeros((20, 20), np.uint8)
        saliency[5:15, 5:15] = 255
        shown = paint_saliency(np.full((20, 20, 3), 200, np.uint8), saliency)
        assert shown[10, 10].tolist() == [200, 200, 200]
        assert shown[2, 2].tolist() == [50, 50, 50]
        assert shown[5, 10].tolist() == [255, 220, 0]
