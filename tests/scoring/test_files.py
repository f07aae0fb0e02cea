"""What can be scored is scored, whatever is wrong with the rest."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fuseloop.errors import ConfigurationError
from fuseloop.metrics import score_frame
from fuseloop.pairs.images import Picture, read_image
from fuseloop.scoring.files import INTERRUPTED, Failure, Mapping8, Outcome, Scores, score_files, score_job
from fuseloop.scoring.plan import Job, Plan, plan_folders
from tests.scoring.conftest import save

KEYS = ("en", "vif", "scd")


@pytest.fixture
def plan(folders: Path) -> Plan:
    return plan_folders(folders / "ir", folders / "vis", {"one": folders / "one", "two": folders / "two"})


def pixels(path: Path) -> NDArray[np.uint8]:
    return read_image(path).pixels


def test_every_frame_of_every_method_is_scored_as_alone(plan: Plan):
    scores = score_files(plan, metrics=KEYS, convention="cddfuse", workers=2)
    for method, evaluation in scores.evaluations.items():
        assert evaluation.frames == ("a", "b", "c")
        for index, job in enumerate(plan.jobs):
            images = (pixels(path) for path in (job.infrared, job.visible, job.fused[method]))
            expected = score_frame(*images, metrics=KEYS, convention="cddfuse")
            assert {key: evaluation.values[key][index] for key in KEYS} == {
                key: score.value for key, score in expected.items()
            }
    assert scores.convention == "cddfuse"
    assert scores.failures == []


def test_frames_are_in_the_order_of_the_plan_whichever_ends_first(plan: Plan):
    first_done = threading.Event()

    def read(path: Path) -> Picture:
        if path.stem == "a":
            assert first_done.wait(20)
        return read_image(path)

    seen: list[str] = []

    def report(outcome: Outcome) -> None:
        seen.append(outcome.job.name)
        first_done.set()

    scores = score_files(plan, report, metrics=["en"], read=read, workers=2)
    assert seen[0] == "b"
    assert scores.evaluations["one"].frames == ("a", "b", "c")


def test_an_image_that_cannot_be_read_costs_one_frame_of_one_method(plan: Plan, folders: Path):
    (folders / "two/b.png").write_text("no image")
    scores = score_files(plan, metrics=["en"])
    assert scores.evaluations["one"].frames == ("a", "b", "c")
    assert scores.evaluations["two"].frames == ("a", "c")
    assert [(frame, method) for frame, method, _ in scores.failures] == [("b", "two")]
    assert "two/b.png: is not a PNG" in scores.failures[0].reason


def test_a_source_that_cannot_be_read_costs_a_frame(plan: Plan, folders: Path):
    (folders / "ir/c.png").write_text("")
    scores = score_files(plan, metrics=["en"])
    assert {evaluation.frames for evaluation in scores.evaluations.values()} == {("a", "b")}
    assert scores.failures == [Failure("c", None, f"{folders}/ir/c.png: is empty (0 bytes); get the file again")]


def test_different_sizes_are_named(plan: Plan, folders: Path, noise):
    save(folders / "one/a.png", noise(44, 40))
    save(folders / "vis/b.png", noise(43, 48, 3))
    scores = score_files(plan, metrics=["en"])
    assert [failure[:2] for failure in scores.failures] == [("a", "one"), ("b", None)]
    assert scores.failures[0].reason == "infrared is 48×44, visible is 48×44, one is 40×44; scores need one size"
    assert scores.failures[1].reason == "infrared is 48×44, visible is 48×43; scores need one size"


def test_a_method_without_any_score_is_known_by_name(plan: Plan, folders: Path):
    for path in (folders / "two").iterdir():
        path.write_text("no image")
    scores = score_files(plan, metrics=["en"])
    assert scores.methods == ("one", "two")
    assert list(scores.evaluations) == ["one"]


def test_unknown_names_are_errors_before_anything_is_read(plan: Plan):
    def read(path: Path) -> Picture:
        raise AssertionError("was read")

    with pytest.raises(ConfigurationError, match="did you mean 'qabf'"):
        score_files(plan, metrics=["qapf"], read=read)
    with pytest.raises(ConfigurationError, match="did you mean 'cddfuse'"):
        score_files(plan, convention="cdfuse", read=read)


def test_a_defect_is_not_hidden_and_ends_the_rest(plan: Plan):
    tried: list[str] = []

    def read(path: Path) -> Picture:
        tried.append(path.stem)
        return 1 // 0  # type: ignore[return-value]

    with pytest.raises(ZeroDivisionError):
        score_files(plan._replace(jobs=plan.jobs * 100), metrics=["en"], read=read, workers=1)
    assert len(tried) < 300


def test_an_interruption_keeps_what_is_finished(plan: Plan):
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 1:
            raise KeyboardInterrupt

    jobs = [job._replace(name=f"{job.name}{index}") for index in range(50) for job in plan.jobs]
    many = plan._replace(jobs=jobs)
    with pytest.raises(KeyboardInterrupt):
        score_files(many, report, metrics=["en"], workers=1)
    assert 1 <= len(outcomes) < 150
    scores = Scores.of(many, outcomes, "default", Mapping8())
    assert len(scores.evaluations["one"].frames) == len(outcomes)
    assert {failure.reason for failure in scores.failures} == {INTERRUPTED}
    assert len(scores.failures) == 150 - len(outcomes)


class TestDepth:
    def test_8_bits_are_scored_as_they_are(self, plan: Plan):
        assert score_job(plan.jobs[0], metrics=KEYS) == score_job(
            plan.jobs[0], metrics=KEYS, levels=Mapping8("percentile", "range:3,4", "full")
        )

    @pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 257), (np.float32, 1 / 255)])
    def test_deeper_images_need_an_explicit_mapping(self, plan: Plan, folders: Path, dtype, scale):
        job = plan.jobs[0]
        exact = score_job(job, metrics=KEYS)
        deep = save(folders / "deep.tiff", (pixels(job.infrared) * np.float64(scale)).astype(dtype))
        job = job._replace(infrared=deep)
        refused = score_job(job, metrics=KEYS)
        assert refused.scores == {}
        assert refused.failures[0].method is None
        assert "scores are taken from 8 bits" in refused.failures[0].reason
        assert "--levels infrared=full" in refused.failures[0].reason
        assert score_job(job, metrics=KEYS, levels=Mapping8("full")).scores == exact.scores

    def test_raw_values_are_mapped_between_two_levels(self, plan: Plan, folders: Path):
        job = plan.jobs[0]
        raw = save(folders / "raw.png", 7000 + 10 * pixels(job.infrared).astype(np.uint16))
        mapped = score_job(job._replace(infrared=raw), metrics=KEYS, levels=Mapping8("range:7000,9550"))
        assert mapped.scores == score_job(job, metrics=KEYS).scores

    def test_float_values_that_do_not_fit_the_rule_are_named(self, plan: Plan, folders: Path):
        path = save(folders / "hot.tiff", np.full((44, 48), 291.5, np.float32))
        job = Job("a", plan.jobs[0].infrared, plan.jobs[0].visible, {"mine": path})
        failed = score_job(job, metrics=KEYS, levels=Mapping8(fused="full")).failures[0]
        assert failed.method == "mine"
        assert "hot.tiff: the float values go from 291.5" in failed.reason

    def test_rules_are_for_all_images_or_for_some(self):
        assert Mapping8.parse(["full"]) == ("full", "full", "full")
        assert Mapping8.parse(["infrared=percentile:1,99", "fused=full"]) == ("percentile:1,99", None, "full")
        assert Mapping8.parse([]) == (None, None, None)

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["best"], "levels 'best' are unknown"),
            (["thermal=full"], "infrared=RULE, visible=RULE, fused=RULE"),
            (["full", "infrared=auto"], "two rules for the infrared images: full and auto"),
        ],
    )
    def test_rules_that_make_no_sense_are_errors(self, texts: list[str], message: str):
        with pytest.raises(ConfigurationError, match=message):
            Mapping8.parse(texts)
