"""Anchors that fit a data set, and the cells that answer for a box."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseloop.tasks.detection.anchors import RATIO, assign, cluster_sizes, fit_of, worse_ratio

quickly = settings(deadline=None, max_examples=100)
sizes = st.floats(1, 300)


class TestFit:
    def test_by_hand(self):
        anchors = torch.tensor([[10.0, 10.0], [40.0, 80.0]])
        boxes = torch.tensor([[10.0, 20.0], [40.0, 80.0], [1.0, 10.0], [39.0, 320.0]])
        torch.testing.assert_close(worse_ratio(boxes, anchors).amin(dim=1), torch.tensor([2.0, 1.0, 10.0, 4.0]))
        fit = fit_of(anchors, boxes)
        assert fit.closeness == pytest.approx((1 / 2 + 1) / 4)
        assert fit.recall == 0.5

    def test_boxes_of_the_sizes_of_the_anchors_fit_perfectly(self):
        anchors = torch.rand(3, 3, 2) + 1
        assert fit_of(anchors, anchors.reshape(-1, 2)) == (1, 1)


class TestClustering:
    def test_sizes_that_come_in_kinds_are_found(self):
        kinds = torch.tensor([[4.0, 9.0], [20.0, 10.0], [30.0, 70.0], [150.0, 100.0]])
        noise = torch.exp(0.05 * torch.randn(4, 200, 2, generator=torch.Generator().manual_seed(0)))
        found = cluster_sizes((kinds[:, None] * noise).reshape(-1, 2), 4)
        torch.testing.assert_close(found, kinds, rtol=0.02, atol=0)

    def test_a_seed_decides(self):
        boxes = 100 * torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) + 1
        assert torch.equal(cluster_sizes(boxes, 9, seed=3), cluster_sizes(boxes, 9, seed=3))

    @quickly
    @given(st.lists(st.tuples(sizes, sizes), min_size=3, max_size=12))
    def test_anchors_lie_among_the_boxes_from_small_to_large(self, boxes):
        boxes = torch.tensor(boxes)
        found = cluster_sizes(boxes, 3, restarts=2)
        assert found.shape == (3, 2)
        assert found.isfinite().all()
        assert (found >= boxes.amin(dim=0) * 0.999).all()
        assert (found <= boxes.amax(dim=0) * 1.001).all()
        assert (found.prod(dim=1).diff() >= 0).all()

    def test_they_fit_better_than_those_of_another_data_set(self):
        boxes = torch.exp(0.5 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))) * torch.tensor([6, 15])
        others = torch.tensor([[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119]])
        assert fit_of(cluster_sizes(boxes, 6), boxes).closeness > fit_of(others, boxes).closeness + 0.1

    def test_too_few_or_empty_boxes_are_refused(self):
        with pytest.raises(ValueError, match="at least 9 boxes of positive size, got 8"):
            cluster_sizes(torch.ones(8, 2), 9)
        with pytest.raises(ValueError, match="positive"):
            cluster_sizes(torch.zeros(9, 2), 9)


@st.composite
def boxes_in_a_grid(draw: st.DrawFn) -> tuple[list[float], int, int, int]:
    stride, rows, columns = draw(st.sampled_from([8, 16, 32])), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    x, y = draw(st.floats(0, stride * columns)), draw(st.floats(0, stride * rows))
    return [x, y, draw(sizes), draw(sizes)], stride, rows, columns


class TestAssignment:
    anchors = torch.tensor([[10.0, 20.0], [40.0, 40.0], [100.0, 30.0]])

    def test_of_one_box_by_hand(self):
        found = assign(torch.tensor([[20.0, 29.0, 38.0, 35.0]]), self.anchors, 8, 6, 6)
        # The centre is at column 2.5 and row 3.6: right of it or at its middle, and below.
        places = set(zip(found.anchor.tolist(), found.row.tolist(), found.column.tolist(), strict=True))
        assert places == {(a, row, column) for a in (0, 1, 2) for row, column in ((3, 2), (3, 3), (4, 2))}

    @quickly
    @given(boxes_in_a_grid())
    def test_a_box_belongs_to_fitting_anchors_at_cells_near_its_centre(self, case):
        box, stride, rows, columns = case
        found = assign(torch.tensor([box]), self.anchors, stride, rows, columns)
        x, y, width, height = torch.tensor(box).tolist()
        fitting = {
            index
            for index, (w, h) in enumerate(self.anchors.tolist())
            if max(width / w, w / width, height / h, h / height) < RATIO - 1e-4
        }
        assert fitting <= {*found.anchor.tolist()}
        for anchor in {*found.anchor.tolist()}:
            mine = found.anchor == anchor
            cells = list(zip(found.row[mine].tolist(), found.column[mine].tolist(), strict=True))
            own = (min(int(y / stride), rows - 1), min(int(x / stride), columns - 1))
            assert cells[0] == own
            assert len(cells) == len({*cells}) <= 3
            for row, column in cells:
                assert 0 <= row < rows
                assert 0 <= column < columns
                # As far as a decoded centre reaches: from half a cell before to half a cell behind its cell.
                assert -0.5 <= x / stride - column <= 1.5
                assert -0.5 <= y / stride - row <= 1.5

    def test_boxes_keep_their_numbers(self):
        boxes = torch.tensor([[4.0, 4, 10, 20], [100, 100, 900, 900], [44, 4, 40, 40]])
        found = assign(boxes, self.anchors[:2], 8, 8, 8)
        assert {*found.box.tolist()} == {0, 2}
        assert {*found.column[found.box == 2].tolist()} <= {4, 5, 6}

    def test_of_no_boxes(self):
        assert all(len(part) == 0 for part in assign(torch.zeros(0, 4), self.anchors, 8, 4, 4))
