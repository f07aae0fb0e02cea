"""The table of data sets, and the page that is made of it."""

from __future__ import annotations

import pytest

from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.table import DATA_SETS, LABEL_PARTS, SPLIT, card
from tests.datasets.trees import FORMS, grow
from tools import datasets_page


@pytest.mark.parametrize("key", DATA_SETS)
def test_a_row_says_all_that_a_reader_must_know(key) -> None:
    row = DATA_SETS[key]
    assert row.key == key
    assert row.features
    assert row.terms
    if key != "folder":
        assert row.citation.endswith(".")
        assert row.homepage.startswith("https://")
    for layout in row.layouts:
        assert bool(row.box_names) >= bool(layout.boxes) or key == "folder"
        assert bool(row.segmentation_names) >= bool(layout.segmentation) or key == "folder"
        assert {*layout.labels} <= {*LABEL_PARTS}
        assert (SPLIT in layout.infrared) == (SPLIT in layout.visible)


def test_a_card_names_folders_classes_paper_and_place() -> None:
    text = card(DATA_SETS["vt5000"])
    assert "| infrared | `SPLIT/T` | `SPLIT/T_GRAY` |" in text
    assert "| edges | `SPLIT/{Edge,Edges}` | `SPLIT/{Edge,Edges}` |" in text
    assert "Paper: Tu, Ma, " in text
    assert "* classes of boxes: 0 people, 1 car, 2 bus, 3 motorcycle, 4 lamp, 5 truck" in card(DATA_SETS["m3fd"])


class TestPage:
    def test_it_is_what_the_command_makes(self) -> None:
        assert datasets_page.PAGE.read_text("utf-8") == datasets_page.page()

    @pytest.mark.parametrize("published", datasets_page.PUBLISHED, ids=lambda one: one.title)
    def test_the_data_of_every_published_experiment_can_be_named(self, tmp_path, published) -> None:
        grow(FORMS[published.form], tmp_path)
        for spec in (published.train, published.test):
            assert len(open_labelled(spec.replace("ROOT", str(tmp_path))))

    def test_training_and_test_frames_of_published_experiments_are_apart(self, tmp_path) -> None:
        for number, published in enumerate(datasets_page.PUBLISHED):
            root = tmp_path / str(number)
            grow(FORMS[published.form], root)
            train, test = (
                {frame.visible for frame in open_labelled(spec.replace("ROOT", str(root))).frames}
                for spec in (published.train, published.test)
            )
            assert not train & test
