"""Labelled pairs hold together, and edge maps are made where none come with a data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseloop.datasets.labelled import LabelledPair, edge_map, edges_of
from fuseloop.datasets.synthetic import generate
from fuseloop.errors import LabelError

GREY = np.zeros((4, 6), np.uint8)
RGB = np.zeros((4, 6, 3), np.uint8)


def test_a_synthetic_scene_is_a_labelled_pair_with_all_labels() -> None:
    scene = generate(3, 48, 64)
    pair = LabelledPair.of(scene, "scene 3")
    assert pair.name == "scene 3"
    for part in ("infrared", "visible", "boxes", "segmentation", "saliency"):
        assert np.array_equal(getattr(pair, part), getattr(scene, part))
    assert np.array_equal(pair.classes, scene.box_classes)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"visible": GREY}, "infrared is H×W and visible H×W×3"),
        ({"visible": RGB[:2]}, "infrared is H×W and visible H×W×3"),
        ({"segmentation": GREY[:, :3]}, r"segmentation has the shape \(4, 3\)"),
        ({"saliency": RGB}, "saliency has the shape"),
        ({"edges": GREY[1:]}, "edges has the shape"),
        ({"boxes": np.zeros((1, 4), np.float32)}, "boxes and their classes come together"),
        ({"boxes": np.zeros((2, 4), np.float32), "classes": np.zeros(1, np.int64)}, "for 1 classes"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(parts, complaint) -> None:
    with pytest.raises(LabelError, match=f"pair 'x': .*{complaint}"):
        LabelledPair(**{"infrared": GREY, "visible": RGB, "name": "x", **parts})


class TestEdges:
    def test_edges_that_come_with_a_data_set_are_kept(self) -> None:
        given_edges = np.full((4, 6), 7, np.uint8)
        assert edges_of(LabelledPair(GREY, RGB, saliency=GREY, edges=given_edges)) is given_edges

    def test_edges_are_made_of_the_saliency_mask(self) -> None:
        mask = GREY.copy()
        mask[1:3, 2:4] = 255
        made = edges_of(LabelledPair(GREY, RGB, saliency=mask))
        expected = [[0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]]
        assert np.array_equal(made, 255 * np.array(expected))

    def test_without_saliency_there_are_none(self) -> None:
        assert edges_of(LabelledPair(GREY, RGB)) is None

    @given(st.integers(0, 10_000))
    @settings(deadline=None, max_examples=40)
    def test_a_pixel_is_an_edge_where_a_neighbour_is_on_the_other_side(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 9, 2)
        saliency = rng.integers(0, 256, (height, width), np.uint8)
        salient = saliency >= 128
        expected = np.zeros((height, width), bool)
        for row in range(height):
            for column in range(width):
                for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                    if 0 <= r < height and 0 <= c < width:
                        expected[row, column] |= salient[r, c] != salient[row, column]
        assert np.array_equal(edge_map(saliency), np.where(expected, 255, 0))
