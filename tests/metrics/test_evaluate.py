"""Saved images are scored frame by frame, and every score says whose definition it follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fuseloop.errors import ConfigurationError, ImageError, PairError
from fuseloop.metrics import (
    CONVENTIONS,
    METRICS,
    Evaluation,
    Metric,
    Score,
    metrics_of,
    score_frame,
    score_frames,
    score_methods,
    to_grey,
)
from fuseloop.metrics.functional import Frame, Result, qabf
from fuseloop.metrics.functional.frame import metric
from fuseloop.metrics.functional.windows import is_flat
from fuseloop.metrics.table import SLOW, conventions_used, implied_convention, parse_metrics
from tests.metrics.tester import triple

Pixels = NDArray[np.uint8]


def pixels(seed: int = 0, height: int = 48, width: int = 50) -> tuple[Pixels, Pixels, Pixels]:
    infrared, visible, fused = (
        np.floor(image[0, 0].numpy() * 255 + 0.5).astype(np.uint8) for image in triple(seed, height, width)
    )
    return infrared, visible, fused


def test_a_frame_has_a_score_for_each_metric():
    scores = score_frame(*pixels())
    assert tuple(scores) == metrics_of("default")
    assert scores["qabf"].value == pytest.approx(float(qabf(*triple(0, 48, 50))))


def test_a_convention_that_lacks_a_metric_is_not_claimed_for_it():
    scores = score_frame(*pixels(), metrics=["ssim", "qcb", "qcv"], convention="cddfuse")
    assert {key: score.convention for key, score in scores.items()} == {
        "ssim": "cddfuse",
        "qcb": "default",
        "qcv": "default",
    }


def test_an_undefined_score_says_why():
    infrared, visible, _ = pixels()
    score = score_frame(infrared, visible, visible, metrics=["scd"])["scd"]
    assert math.isnan(score.value)
    assert score.reason == "fused and visible image differ by a constant"


def test_methods_are_scored_as_if_alone():
    infrared, visible, fused = pixels(0, 161, 163)
    methods = {"mean": ((infrared.astype(int) + visible) // 2).astype(np.uint8), "fused": fused}
    scores = score_methods(infrared, visible, methods, convention="cddfuse")
    for method, image in methods.items():
        assert scores[method] == score_frame(infrared, visible, image, convention="cddfuse")


def test_colour_is_scored_by_its_grey_levels():
    infrared, visible, fused = pixels(0, 161, 163)
    colour = np.random.default_rng(0).integers(0, 256, size=(*visible.shape, 3), dtype=np.uint8)
    assert score_frame(infrared, colour, fused) == score_frame(infrared, to_grey(colour), fused)


def test_grey_levels_are_weighted_and_rounded_half_up():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [7, 7, 7], [0, 0, 250]]], np.uint8)
    # .114 · 250 = 28.5 exactly
    assert to_grey(colours).tolist() == [[76, 150, 29, 7, 29]]
    every = np.arange(256, dtype=np.uint8)
    assert (to_grey(np.stack([every] * 3, axis=-1)[None]) == every).all()


def test_conventions_read_grey_levels_as_their_programs_do():
    colours = np.random.default_rng(0).integers(0, 256, size=(300, 300, 3), dtype=np.uint8)
    assert (to_grey(colours, "ivif_zoo") == np.asarray(Image.fromarray(colours).convert("L"))).all()
    default, matlab = to_grey(colours).astype(int), to_grey(colours, "tang").astype(int)
    assert (default != matlab).any()
    assert np.abs(default - matlab).max() == 1
    assert (to_grey(colours, "cddfuse") == default).all()


@metric("cddfuse", "tang", vifb="channel by channel")
def brightness(frame: Frame, convention: str) -> Result:
    """Mean of infrared + 2 visible + 4 fused; undefined where the fused image is flat."""
    infrared, visible, fused = (image.levels.mean(dim=(1, 2, 3)) for image in frame)
    return Result(infrared + 2 * visible + 4 * fused, ((is_flat(frame.fused.levels), "flat"),))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(METRICS, "toy", Metric("Toy", brightness, "higher", (0, 1), "this test"))
    monkeypatch.setitem(METRICS, "sf", Metric("SF", brightness, "higher", (0, 1), "this test"))
    return "toy"


def test_a_metric_reads_grey_as_the_convention_that_it_really_follows(toy: str):
    infrared, visible, _ = pixels()
    every = np.random.default_rng(0).integers(0, 256, size=(300, 300, 3), dtype=np.uint8)
    colour = every[: len(visible), : visible.shape[1]].copy()
    colour[0, 0] = every[to_grey(every) != to_grey(every, "tang")][0]

    def value(fused: Pixels, convention: str) -> float:
        return score_frame(infrared, visible, fused, metrics=[toy], convention=convention)[toy].value

    assert value(colour, "tang") == value(to_grey(colour, "tang"), "default")
    assert value(colour, "tang") != value(colour, "default")
    assert value(colour, "ivif_zoo") == value(colour, "default"), "which it lacks, so all of it is the default"


def test_vifb_scores_the_channels_of_colour_against_those_of_the_visible_image(toy: str):
    infrared, visible, _ = pixels()
    rng = np.random.default_rng(0)
    colour, fused = (rng.integers(0, 256, size=(*visible.shape, 3), dtype=np.uint8) for _ in range(2))

    def score(visible: Pixels, fused: Pixels, key: str = toy) -> Score:
        return score_frame(infrared, visible, fused, metrics=[key], convention="vifb")[key]

    channels = [score(colour[..., c], fused[..., c]).value for c in range(3)]
    assert score(colour, fused).value == pytest.approx(np.mean(channels), rel=1e-12)
    assert score(colour, fused, "sf").value == pytest.approx(np.mean(channels), rel=1e-12), "one wide image"
    assert score(visible, fused).value == pytest.approx(
        np.mean([score(visible, fused[..., c]).value for c in range(3)]), rel=1e-12
    )
    assert score(colour, to_grey(fused)) == score(to_grey(colour), to_grey(fused)), "a grey result has no channels"


def test_a_channel_that_is_undefined_makes_the_mean_undefined(toy: str):
    infrared, visible, fused = pixels()
    colour = np.stack([fused, fused, np.zeros_like(fused)], axis=-1)
    score = score_frame(infrared, visible, colour, metrics=[toy], convention="vifb")[toy]
    assert math.isnan(score.value)
    assert score.reason == "flat"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"metrics": ["qapf"]}, r"no metric 'qapf'; did you mean 'qabf'\?.*ssim"),
        (
            {"convention": "cdfuse"},
            r"no convention 'cdfuse'; did you mean 'cddfuse'\? known are default, cddfuse, tdfusion",
        ),
    ],
)
def test_unknown_names_are_errors_that_help(wanted: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        score_frame(*pixels(), **wanted)  # type: ignore[arg-type]


def test_only_8_bit_images_are_scored():
    infrared, visible, fused = pixels()
    with pytest.raises(ImageError, match=r"infrared.*uint16.*map it to 8 bits"):
        score_frame(infrared.astype(np.uint16), visible, fused)  # type: ignore[arg-type]


def test_an_empty_image_is_an_error():
    infrared, visible, fused = pixels()
    with pytest.raises(ImageError, match=r"visible.*empty"):
        score_frame(infrared, visible[:0], fused)


def test_different_sizes_are_an_error_that_names_them():
    infrared, visible, fused = pixels()
    with pytest.raises(PairError, match="infrared is 50×48, visible is 50×48, mine is 49×48"):
        score_methods(infrared, visible, {"mine": fused[:, 1:]})


def frames(count: int = 3):
    for seed in range(count):
        infrared, visible, fused = pixels(seed)
        yield f"frame{seed}", infrared, visible, {"maximum": fused, "visible": visible}


def test_many_frames_give_their_values_and_a_summary():
    evaluation = score_frames(frames(), metrics=["en", "scd"], convention="cddfuse")["maximum"]
    assert evaluation.frames == ("frame0", "frame1", "frame2")
    expected = [score_frame(*pixels(seed), metrics=["en"])["en"].value for seed in range(3)]
    assert evaluation.values["en"].tolist() == expected
    assert evaluation.summary("en").mean == pytest.approx(np.mean(expected))
    assert evaluation.conventions == {"en": "cddfuse", "scd": "cddfuse"}


def test_undefined_frames_are_named_and_left_out():
    evaluation = score_frames(frames(), metrics=["en", "scd"])["visible"]
    assert set(evaluation.reasons["scd"]) == {"frame0", "frame1", "frame2"}
    assert evaluation.summary("scd").undefined == 3
    assert evaluation.reasons["en"] == {}


def test_methods_are_compared_frame_by_frame():
    found = score_frames(frames(), metrics=["en"])
    gain = found["maximum"].difference(found["visible"], "en")
    assert gain.mean == pytest.approx(float(np.mean(found["maximum"].values["en"] - found["visible"].values["en"])))
    assert gain.count == 3


def test_what_was_scored_differently_is_not_compared():
    default = score_frames(frames(), metrics=["ssim"])["maximum"]
    published = score_frames(frames(), metrics=["ssim"], convention="cddfuse")["maximum"]
    fewer = score_frames(frames(2), metrics=["ssim"])["maximum"]
    for other in (published, fewer):
        with pytest.raises(ValueError, match="same frames and the same convention"):
            default.difference(other, "ssim")


def test_an_error_in_many_frames_names_the_frame():
    infrared, visible, fused = pixels()
    with pytest.raises(PairError, match=r"night7: infrared is 50×48.*49×48"):
        score_frames([("night7", infrared, visible, {"mine": fused[:, 1:]})])


def test_an_evaluation_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one frame"):
        Evaluation.of({})


def test_the_table_can_be_read():
    for key, row in METRICS.items():
        assert row.function.__name__ == key
        assert set(row.conventions) <= set(CONVENTIONS)
        assert all(row.conventions.values())
        assert row.summary.endswith((".", ")."))
        assert row.range[0] < row.range[1]
        assert row.reference


def test_every_convention_says_what_it_reproduces_and_who_publishes_it():
    assert next(iter(CONVENTIONS)) == "default"
    for row in CONVENTIONS.values():
        assert row.implementation
        assert row.tables


@pytest.fixture
def peculiar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that exists under one convention only."""

    @metric(tang="only there", default=False)
    def peculiar(frame: Frame, convention: str) -> Result:
        """One."""
        return Result(frame.fused.levels.new_ones(len(frame.fused.levels)))

    monkeypatch.setitem(METRICS, "peculiar", Metric("Peculiar", peculiar, "higher", (0, 1), "nobody"))


@pytest.mark.usefixtures("peculiar")
def test_a_metric_without_a_default_is_scored_only_where_it_exists():
    assert "peculiar" in metrics_of("tang")
    assert set(metrics_of("tang")) - {"peculiar"} == set(metrics_of("default"))
    assert score_frame(*pixels(), convention="tang")["peculiar"] == Score(1.0, "tang")
    assert "peculiar" not in score_frame(*pixels(), convention="cddfuse")
    with pytest.raises(ConfigurationError, match=r"Peculiar has no definition under 'cddfuse'.*tang"):
        score_frame(*pixels(), metrics=["peculiar"], convention="cddfuse")


def test_metrics_can_be_named_in_text():
    assert parse_metrics("vif, EN,vif", "default") == ("vif", "en")
    assert parse_metrics("ms-ssim,Qte (Cvejic)", "default") == ("ms_ssim", "qte_cvejic")
    assert parse_metrics("all", "tang") == metrics_of("tang")
    assert set(metrics_of("default")) - set(parse_metrics("fast", "default")) == set(SLOW)
    assert "te" in parse_metrics("ivif_zoo", "ivif_zoo")
    assert parse_metrics("tdfusion,en", "cddfuse")[-1] != "en", "named already"
    with pytest.raises(ConfigurationError, match="did you mean 'qabf'"):
        parse_metrics("en,qapf", "default")
    with pytest.raises(ConfigurationError, match="no metric is named"):
        parse_metrics(",", "default")


def test_the_smallest_side_is_that_of_the_convention():
    @metric("tdfusion", minimum_side={"default": 60, "tang": 2}, tang="smaller")
    def choosy(frame: Frame, convention: str) -> Result:
        """One."""
        return Result(frame.fused.levels.new_ones(len(frame.fused.levels)))

    frame = Frame.of(*triple())
    assert choosy.of(frame, "tang").reason() is None
    for convention in ("default", "tdfusion"):
        assert choosy.of(frame, convention).reason() == "the shorter side has 48 pixels, choosy needs 60"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_metrics_of_a_convention_imply_it(convention: str):
    assert implied_convention(convention.upper()) == convention
    assert set(conventions_used(parse_metrics(convention, convention), convention).values()) == {convention}
    assert implied_convention(f"{convention},en") == "default"


def test_a_single_text_of_metrics_is_not_read_letter_by_letter():
    assert list(conventions_used("en", "default")) == ["en"]
