from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseloop.pairs.tiles import Box, Tile, plan_tiles

halos = st.integers(0, 12)
sides = st.integers(1, 120)


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, int]:
    halo = draw(halos)
    return draw(sides), draw(sides), draw(st.integers(2 * halo + 1, 2 * halo + 60)), halo


@settings(deadline=None)
@given(plans())
def test_inner_boxes_partition_the_frame(plan: tuple[int, int, int, int]) -> None:
    height, width, tile, halo = plan
    covered = np.zeros((height, width), int)
    for piece in plan_tiles(height, width, tile, halo):
        covered[piece.inner.slices] += 1
    assert (covered == 1).all()


@settings(deadline=None)
@given(plans())
def test_outer_boxes_lie_in_the_frame_and_are_of_one_size_no_larger_than_asked(
    plan: tuple[int, int, int, int],
) -> None:
    height, width, tile, halo = plan
    outers = [piece.outer for piece in plan_tiles(height, width, tile, halo)]
    assert len({(outer.height, outer.width) for outer in outers}) == 1
    assert max(outers[0].height, outers[0].width) <= tile
    assert all(0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width for box in outers)


@settings(deadline=None)
@given(plans())
def test_inner_boxes_keep_the_halo_unless_they_touch_the_edge_of_the_frame(plan: tuple[int, int, int, int]) -> None:
    height, width, tile, halo = plan
    for outer, inner in plan_tiles(height, width, tile, halo):
        assert outer.top == 0 or inner.top - outer.top >= halo
        assert outer.left == 0 or inner.left - outer.left >= halo
        assert outer.bottom == height or outer.bottom - inner.bottom >= halo
        assert outer.right == width or outer.right - inner.right >= halo


@settings(deadline=None)
@given(plans())
def test_no_fewer_tiles_would_do(plan: tuple[int, int, int, int]) -> None:
    height, width, tile, halo = plan
    rows = max(1, -(-(height - 2 * halo) // (tile - 2 * halo)))
    columns = max(1, -(-(width - 2 * halo) // (tile - 2 * halo)))
    assert len(plan_tiles(height, width, tile, halo)) <= rows * columns


def test_a_frame_that_fits_is_one_tile() -> None:
    frame = Box(0, 0, 48, 64)
    assert plan_tiles(48, 64, tile=64, halo=25) == [Tile(frame, frame)]


def test_a_box_within_another_keeps_its_size() -> None:
    assert Box(10, 20, 15, 40).within(Box(8, 5, 30, 50)) == Box(2, 15, 7, 35)


@pytest.mark.parametrize(
    ("height", "width", "tile", "halo"), [(0, 5, 10, 1), (5, 0, 10, 1), (5, 5, 50, 25), (5, 5, 9, -1)]
)
def test_what_cannot_be_planned_is_refused(height: int, width: int, tile: int, halo: int) -> None:
    with pytest.raises(ValueError, match=r"pixel|halos"):
        plan_tiles(height, width, tile, halo)
