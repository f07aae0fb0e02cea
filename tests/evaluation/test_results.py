"""Evaluations as tables, JSON and CSV."""

from __future__ import annotations

import math

import pytest
import torch

from fuseloop.evaluation.evaluate import evaluate, uncertainty
from fuseloop.evaluation.results import Asked, as_document, tables, weights_hash
from fuseloop.evaluation.sources import RuleSource
from fuseloop.metrics.task_scores import Interval
from fuseloop.tasks.weights import build
from tests.evaluation.fakes import Painted, PaintedSaliency

RULES = {name: RuleSource(name) for name in ("visible", "infrared")}


class TestTables:
    @pytest.mark.parametrize(
        ("key", "low", "high", "verdict"),
        [
            ("F/mean", 0.01, 0.03, "better"),
            ("F/mean", -0.03, -0.01, "worse"),
            ("F/mean", -0.01, 0.03, "unclear"),
            ("F/mean", 0.0, 0.03, "unclear"),
            ("MAE", 0.01, 0.03, "worse"),
            ("MAE", -0.03, -0.01, "better"),
            ("MAE", -0.03, 0.01, "unclear"),
        ],
    )
    def test_a_difference_is_better_or_worse_where_its_interval_excludes_none(self, key, low, high, verdict):
        found = evaluate({"s": PaintedSaliency()}, RULES, Painted(3))
        drawn = uncertainty(found, resamples=5)
        drawn.differences["s"]["infrared"][key] = Interval((low + high) / 2, low, high)
        _, differences = tables(found, drawn)
        ((_, *cells),) = differences.groups[0]
        column = [head.split()[0] for head in differences.header[1:]].index(key.partition("/")[0])
        assert f" {verdict}\n" in cells[column]

    def test_what_is_undefined_is_said_so(self):
        found = evaluate({"s": PaintedSaliency()}, RULES, Painted(1))  # whose mask is empty
        scores, differences = tables(found, uncertainty(found, resamples=5))
        assert set(scores.groups[0][0][1:]) == set(differences.groups[0][0][1:]) == {"undefined"}


class TestDocument:
    def test_undefined_scores_are_null(self):
        found = evaluate({"s": PaintedSaliency()}, RULES, Painted(1))
        asked = Asked("painted", "1 pair", {"s": PaintedSaliency()}, RULES, {})
        document = as_document(found, uncertainty(found, resamples=5), asked)
        assert document["scores"]["s"]["visible"]["scores"]["S"] is None
        assert document["differences"]["s"]["infrared"]["S"] == {"value": None, "low": None, "high": None}
        assert document["frames"] == ["frame0"]

    def test_networks_of_each_fuser_have_a_hash_each(self):
        own = {name: PaintedSaliency() for name in RULES}
        for number, network in enumerate(own.values()):
            network.register_buffer("own", torch.tensor(float(number)))
        found = evaluate({"retrained": own}, RULES, Painted(2))
        asked = Asked("painted", "2 pairs", {"retrained": own}, RULES, {})
        hashes = as_document(found, uncertainty(found, resamples=5), asked)["networks"]["retrained"]["weights_sha256"]
        assert len(set(hashes.values())) == 2
        assert set(hashes) == set(RULES)


def test_the_hash_of_weights_changes_with_any_of_them():
    one, other = build("yolov5n"), build("yolov5n")
    other.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(other)
    with torch.no_grad():
        other.anchors[0, 0, 0] = math.nextafter(float(other.anchors[0, 0, 0]), 99) + 1e-6
    assert weights_hash(one) != weights_hash(other)
