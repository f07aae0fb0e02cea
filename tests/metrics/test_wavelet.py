"""The wavelet metric, on images whose details are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fuseloop.metrics.functional import Frame, qm
from tests.metrics.tester import triple

FINE = torch.tensor([[0.0, 2.0], [0.0, 2.0]]).repeat(4, 4)  # two levels between neighbours of a row
COARSE = torch.tensor([[0.0, 4.0], [0.0, 4.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1).repeat(2, 2)


def image(levels: Tensor) -> Tensor:
    return (levels.double() / 255)[None, None]


def test_what_is_lost_counts_by_the_exponential_of_the_difference():
    source = image(FINE + COARSE + 100)
    # Both differences have one band of the three: 2·2/2 = 2 levels in the fine scale, 2·8/2 = 8 in the coarse one.
    without_fine, without_coarse = image(COARSE + 101), image(FINE + 102)
    fine, coarse = (2 + math.exp(-2)) / 3, (2 + math.exp(-8)) / 3
    assert float(qm(source, source, without_fine)) == pytest.approx(3 * fine ** (2 / 3))
    assert float(qm(source, source, without_coarse)) == pytest.approx(3 * coarse ** (1 / 3))


def test_the_source_with_more_detail_weighs_more():
    strong, weak = image(3 * FINE + COARSE), image(FINE + COARSE)
    kept = 2 + math.exp(-4)
    expected = ((9 * 3 + 1 * kept) / 10) ** (2 / 3) * 3 ** (1 / 3)
    assert float(qm(strong, weak, strong)) == pytest.approx(expected)


def test_an_odd_last_row_and_column_is_dropped_at_each_scale():
    images = triple(2, 27, 38)
    assert float(qm(*images)) == float(qm(*(each[..., :26, :] for each in images)))
    # They are 13×19 at the second scale. What that one drops has been looked at by the first.
    assert float(qm(*images)) != float(qm(*(each[..., :24, :36] for each in images)))


def test_sources_without_details_in_a_scale_leave_nothing_to_compare():
    source = image(FINE + 100)  # flat at the coarse scale
    assert qm.of(Frame.of(source, source, image(COARSE))).reason() is not None
    assert qm.of(Frame.of(source, image(FINE + COARSE), image(COARSE))).reason() is None
