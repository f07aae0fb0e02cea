"""Plans the tiles that a large frame is fused in. Pure arithmetic on sizes."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

TILE_PIXELS = 800_000
"""Largest tile unless the user says otherwise: a good compromise of speed and memory."""


class Box(NamedTuple):
    """A rectangle of pixels; `bottom` and `right` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows of the box."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns of the box."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index the last two axes of a frame with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, outer: Box) -> Box:
        """The same box in the coordinates of an outer one."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)


class Tile(NamedTuple):
    """One piece of work: `outer` is what the network sees, `inner` what counts of its result."""

    outer: Box
    inner: Box


class _Span(NamedTuple):
    """A tile along one axis."""

    outer_start: int
    outer_stop: int
    inner_start: int
    inner_stop: int


def _plan_axis(length: int, tile: int, halo: int) -> list[_Span]:
    """Tiles along one axis, as few as `tile` allows and all of the same, smallest length."""
    if length <= tile:
        return [_Span(0, length, 0, length)]
    # The frame's own ends need no halo, so `length - 2 * halo` is shared out.
    count = -(-(length - 2 * halo) // (tile - 2 * halo))
    share = -(-(length - 2 * halo) // count)
    count = -(-(length - 2 * halo) // share)
    outer = share + 2 * halo
    starts = [index * (length - outer) // (count - 1) for index in range(count)]
    cuts = [0, *(start + halo for start in starts[1:]), length]
    return [
        _Span(start, start + outer, inner_start, inner_stop)
        for start, inner_start, inner_stop in zip(starts, cuts, cuts[1:], strict=False)
    ]


def plan_tiles(height: int, width: int, tile: int, halo: int) -> list[Tile]:
    """Plans tiles that cover a frame.

    The outer boxes are all of one size, so that an engine compiles one shape. The inner boxes partition the frame, and
    each keeps at least `halo` pixels to the edges of its outer box, other than those on the edge of the frame.

    Args:
        height: Rows of the frame.
        width: Columns of the frame.
        tile: Largest side of an outer box.
        halo: Pixels around a region that the network looks at, see `VFN.halo`.

    Returns:
        The tiles, row by row. A frame whose sides are at most `tile` is one tile.

    Raises:
        ValueError: A side is below 1, or `tile` leaves nothing between two halos.

    >>> [tile.inner for tile in plan_tiles(20, 40, tile=25, halo=2)]
    [Box(top=0, left=0, bottom=20, right=20), Box(top=0, left=20, bottom=20, right=40)]
    """
    if height < 1 or width < 1:
        raise ValueError(f"a frame has at least one pixel, got {width}x{height}")
    if halo < 0 or tile <= 2 * halo:
        raise ValueError(f"a tile must be larger than two halos of {halo}, got {tile}")
    rows, columns = _plan_axis(height, tile, halo), _plan_axis(width, tile, halo)
    return [
        Tile(
            Box(row.outer_start, column.outer_start, row.outer_stop, column.outer_stop),
            Box(row.inner_start, column.inner_start, row.inner_stop, column.inner_stop),
        )
        for row, column in product(rows, columns)
    ]
