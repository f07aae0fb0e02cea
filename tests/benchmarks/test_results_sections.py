"""Each section compares what it says."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.results.images import Image
from benchmarks.results.looks import Look
from benchmarks.results.sections import LIGHTS, POWER, SECTIONS
from benchmarks.results.study import Study
from fuseloop.errors import ConfigurationError
from fuseloop.fusers.loop_weights import read_loop, write_loop
from fuseloop.metrics import METRICS
from fuseloop.networks.vfn import VFN
from tests.benchmarks.conftest import NETWORKS, seeds


@pytest.fixture(scope="module")
def texts(study) -> dict[str, str]:
    """Every section, of everything looked at once."""
    study.looks.gather([one for section in SECTIONS.values() for one in section.needs(study)])
    return {name: section.text(study) for name, section in SECTIONS.items()}


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text, as rows of cells."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("| ").split(" | ")] for row in block.splitlines()] for block in blocks]


def rows(table: list[list[str]]) -> list[str]:
    return [row[0] for row in table[2:]]


def cell(table: list[list[str]], row: str, column: str) -> float:
    (found,) = [line for line in table[2:] if line[0] == row]
    return float(found[table[0].index(column)].split("<br>")[0].strip("*"))


def test_every_section_is_written(texts):
    assert all(texts.values())
    assert not [name for name, text in texts.items() if "undefined" in text]


def test_what_can_be_detected_follows_from_the_intervals(study, texts):
    (table,) = tables(texts["detectable"])
    assert rows(table) == [
        "`yolov5s`, mAP50:95",
        "`segformer-b0`, mIoU",
        "`ctdnet-18`, F mean",
        "`rtdetr`, mAP50:95",
    ]
    files = list(study.loops.values())
    pairs = {
        "max and vfn": ([Image("max")], [Image("vfn")]),
        "strength 0.25 and 0.5 of a loop": (
            [Image(files[0], "segformer-b0", strength=0.25)],
            [Image(files[0], "segformer-b0", strength=0.5)],
        ),
        "vfn + RSC and vfn": ([Image(file, "segformer-b0") for file in files], [Image("vfn")]),
    }
    for label, sides in pairs.items():
        looks = ([Look(image, "segformer-b0") for image in images] for images in sides)
        found = study.figures.difference(*looks, "mIoU").interval
        half = (found.high - found.low) / 2
        shown = next(row for row in table if row[0] == "`segformer-b0`, mIoU")[table[0].index(label)]
        assert shown == f"± {half:.3f}"
    assert f"{POWER * half:.3f} in mIoU of `segformer-b0`" in texts["detectable"].replace("\n", " ")


def test_the_loop_stands_beside_its_fusion_network_with_every_training(study, texts):
    scores, differences = tables(texts["loop"])
    expected = ["infrared", "visible", "max", "vfn", "vfn + RSC", "vfn + RSC, seed0", "vfn + RSC, seed1"]
    assert rows(scores) == expected
    assert rows(differences) == [row for row in expected if row != "vfn"]
    assert scores[0][1:4] == ["mAP50<br>yolov5s", "mAP75<br>yolov5s", "mAP50:95<br>yolov5s"]
    column = "mIoU<br>segformer-b0"
    mean = np.mean([cell(scores, f"vfn + RSC, seed{seed}", column) for seed in (0, 1)])
    assert cell(scores, "vfn + RSC", column) == pytest.approx(mean, abs=0.001)
    gain = cell(scores, "vfn + RSC", column) - cell(scores, "vfn", column)
    assert cell(differences, "vfn + RSC", column) == pytest.approx(gain, abs=0.0011)
    looks = [Look(image, "segformer-b0") for image in study.customised("segformer-b0")]
    found = study.figures.difference(looks, [Look(Image("vfn"), "segformer-b0")], "mIoU").interval
    verdict = "a gain" if found.low > 0 else "a loss" if found.high < 0 else "neither gain nor loss is shown"
    line = f"* `segformer-b0`: mIoU {found.value:+.4f}, {found.low:+.4f} to {found.high:+.4f}: {verdict}"
    assert line in texts["loop"].splitlines()


def test_networks_that_the_loop_never_saw_are_apart(texts):
    scores, _ = tables(texts["unseen"])
    assert {column.split("<br>")[1] for column in scores[0][1:]} == {"rtdetr"}
    assert "rtdetr" not in texts["loop"]


def test_the_swap_matrix_has_each_image_seen_by_each_network(study, texts):
    scores, to_neutral, to_own = tables(texts["swap"])
    assert rows(scores) == ["neutral", "for yolov5s", "for segformer-b0", "for ctdnet-18"]
    assert rows(to_neutral) == rows(to_own) == rows(scores)[1:]
    for made_for in ("yolov5s", "ctdnet-18"):
        looks = [Look(image, "segformer-b0") for image in study.customised(made_for)]
        expected = study.figures.mean(looks, "mIoU").value
        assert cell(scores, f"for {made_for}", "mIoU<br>segformer-b0") == pytest.approx(expected, abs=0.0005)
    own = cell(scores, "for segformer-b0", "mIoU<br>segformer-b0")
    swapped = cell(scores, "for yolov5s", "mIoU<br>segformer-b0")
    assert swapped != own
    assert cell(to_own, "for yolov5s", "mIoU<br>segformer-b0") == pytest.approx(swapped - own, abs=0.0011)
    assert next(row for row in to_own if row[0] == "for segformer-b0")[2] == "", "nothing to compare"


def test_fusion_quality_is_of_the_images_of_all_trainings(study, texts):
    scores, differences = tables(texts["quality"])
    assert rows(scores) == ["max", "vfn", "for yolov5s", "for segformer-b0", "for ctdnet-18"]
    assert {"MI", "Qabf", "Qcb", "Qcv ↓", "Qc", "CC"} <= set(scores[0])
    made = [study.looks.quality(image).values["qabf"].mean() for image in study.customised("yolov5s")]
    assert cell(scores, "for yolov5s", METRICS["qabf"].name) == pytest.approx(np.mean(made), abs=0.0005)
    gain = np.mean(made) - study.looks.quality(Image("vfn")).values["qabf"].mean()
    assert cell(differences, "for yolov5s", METRICS["qabf"].name) == pytest.approx(gain, abs=0.0005)


def test_complex_scenes_are_compared_at_the_same_light(study, texts):
    scores, differences = tables(texts["light"])
    assert rows(scores)[:4] == ["1, visible", "1, max", "1, vfn", "1, vfn + RSC"]
    assert [row for row in rows(scores) if row.endswith(", vfn")] == [
        f"{light:g}, vfn" for light in (1.0, *reversed(LIGHTS))
    ]
    column = "F mean<br>ctdnet-18"
    look = Look(Image(next(iter(study.loops.values())), "ctdnet-18", light=0.4), "ctdnet-18")
    assert cell(scores, "0.4, vfn + RSC", column) == pytest.approx(study.figures.of(look, "F/mean").value, abs=0.0005)
    gain = cell(scores, "0.4, vfn + RSC", column) - cell(scores, "0.4, vfn", column)
    assert cell(differences, "0.4, vfn + RSC", column) == pytest.approx(gain, abs=0.0011)


def test_ablations_are_compared_to_the_main_run(study, texts):
    scores, differences = tables(texts["ablations"])
    assert rows(scores) == ["vfn", "main", "no-bank"]
    assert rows(differences) == ["vfn", "no-bank"]
    gain = cell(scores, "no-bank", "mIoU<br>segformer-b0") - cell(scores, "main", "mIoU<br>segformer-b0")
    assert cell(differences, "no-bank", "mIoU<br>segformer-b0") == pytest.approx(gain, abs=0.0011)


def test_a_variant_around_another_fusion_network_stands_beside_its_own_neutral_image(data, runs, tmp_path):
    loop = read_loop(runs / "ablations" / "no-bank" / "best.safetensors")
    write_loop(tmp_path / "best.safetensors", VFN().eval(), loop.compensation)
    ablations = {"main": seeds(runs)["seed0"], "other": str(tmp_path / "best.safetensors")}
    study = Study({"ctdnet-18": NETWORKS["ctdnet-18"]}, ablations=ablations, data=data, limit=2)
    study.looks.gather(SECTIONS["ablations"].needs(study))
    scores, differences = tables(SECTIONS["ablations"].text(study))
    assert rows(scores) == ["vfn", "main", "other", "other, neutral"]
    assert rows(differences) == ["vfn", "other"]
    column = "F mean<br>ctdnet-18"
    assert cell(scores, "other, neutral", column) != cell(scores, "vfn", column)


def test_rivals_look_with_their_own_networks_at_their_own_images(study, texts):
    scores, _ = tables(texts["rivals"])
    retrained, together = "vfn, network retrained on its images", "fusion network and network trained together"
    assert rows(scores) == ["vfn", "vfn + RSC", retrained, together]
    column = "mAP50<br>yolov5s"
    assert cell(scores, retrained, column) == cell(scores, "vfn", column), "its detector is the same here"
    look = Look(Image(study.rivals[1].fusion), "yolov5s, joint")
    assert cell(scores, together, column) == pytest.approx(study.figures.of(look, "mAP50").value, abs=0.0005)
    assert "mIoU<br>segformer-b0" in scores[0]


def test_feedbacks_are_compared_to_that_of_the_frame(texts):
    scores, differences = tables(texts["feedback"])
    half = "frame, first look of half the size"
    assert rows(scores) == ["vfn", "frame", half, "previous", "profile"]
    column = "F mean<br>ctdnet-18"
    for row in (half, "previous", "profile"):
        gain = cell(scores, row, column) - cell(scores, "frame", column)
        assert cell(differences, row, column) == pytest.approx(gain, abs=0.0011)
    gain = cell(scores, "frame", column) - cell(scores, "vfn", column)
    assert cell(differences, "frame", column) == pytest.approx(gain, abs=0.0011)


def test_sections_say_what_they_lack(data, runs):
    study = Study(NETWORKS, data=data)
    lacking = {name: section.lacks(study) for name, section in SECTIONS.items()}
    assert [name for name, why in lacking.items() if not why] == ["networks", "detectable"]
    assert lacking["loop"] == "there is no trained closed loop; give --loops"
    assert SECTIONS["unseen"].lacks(replace(study, loops=seeds(runs))) == "there is no other network; give --unseen"
    with pytest.raises(ConfigurationError, match="there is no run 'main' among other; say which is --main"):
        SECTIONS["ablations"].lacks(replace(study, ablations={"other": seeds(runs)["seed0"]}))


def test_without_a_loop_chance_is_told_by_the_fusers_that_there_are(data):
    study = Study(NETWORKS, data=data, limit=2)
    study.looks.gather(SECTIONS["detectable"].needs(study))
    text = SECTIONS["detectable"].text(study)
    assert "a paired difference between max and vfn" in text
    assert "loop" not in text
