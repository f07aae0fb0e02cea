"""The score report in a browser: what people see, press and drag does what it says, without a complaint."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuseloop.reports.score import write_score_report
from tests.reports.conftest import FRAMES, KEYS, METHODS, evaluations
from tools import report_figure
from tools.browser import Page, find_chromium

HELPERS = """
window.all = (selector) => [...document.querySelectorAll(selector)];
window.texts = (selector) => all(selector).map((one) => one.textContent.trim());
window.choose = (selector, value) => {
  const one = document.querySelector(selector);
  one.value = value;
  for (const kind of ["input", "change"]) one.dispatchEvent(new Event(kind, { bubbles: true }));
};
"""
SHOW_IMAGES = """Promise.all(all("img[src]").map((image) => { image.loading = "eager"; return image.decode(); }))
  .then(() => true, () => false)"""


@pytest.fixture
def page(browser: Page) -> Page:
    """The browser on a screen of 1280 pixels, light, without earlier complaints."""
    browser.problems.clear()
    browser.resize(1280, 900)
    browser.prefer(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    return browser


@pytest.fixture
def index(page: Page, report: Path) -> Page:
    page.open(report.as_uri())
    page.run(HELPERS)
    return page


@pytest.fixture
def frame(page: Page, report: Path) -> Page:
    """The page of the second frame."""
    page.open((report.parent / "frames" / "0002.html").as_uri())
    page.run(HELPERS)
    return page


class TestFirstPage:
    def test_it_is_drawn_without_a_complaint_with_all_its_images(self, index):
        assert index.run(SHOW_IMAGES)
        assert index.problems == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_has_two_schemes(self, index, scheme):
        index.prefer(prefers_color_scheme=scheme)
        ground, ink = (
            np.array([int(level) for level in re.findall(r"\d+", index.run(f"getComputedStyle(document.body).{name}"))])
            for name in ("backgroundColor", "color")
        )
        assert (ground.mean() > ink.mean()) == (scheme == "light")
        assert abs(ground.mean() - ink.mean()) > 180

    @pytest.mark.parametrize("width", [1280, 390])
    def test_nothing_is_wider_than_the_screen(self, index, width):
        index.resize(width, 844, phone=width < 400)
        assert index.run("document.documentElement.scrollWidth") == width

    def test_names_are_text(self, index):
        assert index.run("texts('#means tbody th')") == list(METHODS)
        assert index.run("all('#means th b, svg b, #frames i').length") == 0
        assert tuple(index.run("texts('#frames .name')")) == FRAMES

    def test_a_click_on_a_head_sorts_the_methods_best_first_and_a_second_one_turns_them(self, index):
        for key, best_first in (("en", -1), ("qcv", 1)):
            head = f"#means th[data-metric='{KEYS.index(key)}']"
            means = {name: one.summary(key).mean for name, one in evaluations().items()}
            expected = sorted(METHODS, key=lambda name: best_first * means[name])
            index.click(f"{head} button")
            assert index.run("texts('#means tbody th')") == expected
            falling = "descending" if best_first < 0 else "ascending"
            assert index.run(f'document.querySelector("{head}").ariaSort') == falling
            index.click(f"{head} button")
            assert index.run("texts('#means tbody th')") == expected[::-1]
        assert index.run("all('#means th[aria-sort=ascending], #means th[aria-sort=descending]').length") == 1

    def test_the_numbers_below_the_means_can_be_chosen(self, index):
        seen = "all('#means small').filter((one) => one.checkVisibility()).map((one) => one.className)"
        assert {*index.run(seen)} >= {"interval"}
        index.click("#spread input[value=std]")
        assert not {*index.run(seen)} & {"interval", "place"}
        assert {*index.run(seen)} >= {"std"}

    def test_metrics_can_be_left_out_everywhere(self, index):
        index.run("document.querySelector('#pick').open = true")
        index.click("#pick input[value='1']")
        assert index.run("all('#means thead th').filter((one) => one.checkVisibility()).length") == 2 + len(KEYS) - 1
        assert index.run("all('#profile svg > line.rule').length") == len(KEYS) - 1
        assert index.run("all('#differences tbody tr').length") == len(KEYS) - 1
        assert index.run("texts('#shown')") == ["4 of 5"]

    def test_ranks_have_a_mark_and_an_interval_for_each_method(self, index):
        assert index.run("all('#ranks .method circle.mark').length") == len(METHODS)
        assert index.run("all('#ranks .method line').length") == len(METHODS)
        index.run("choose('#rank-metric', '0')")
        means = {name: one.summary("en").mean for name, one in evaluations().items()}
        assert index.run("texts('#ranks .method title')") == sorted(METHODS, key=lambda name: -means[name])

    def test_the_profile_has_a_line_for_each_method_and_a_mark_for_each_mean(self, index):
        assert index.run("all('#profile .method path.line').length") == len(METHODS)
        assert index.run("all('#profile .method circle.mark').length") == len(METHODS) * len(KEYS)
        # The better end is above, also where lower is better.
        last = "all('#profile .method circle:last-of-type').map((one) => Number(one.getAttribute('cy')))"
        means = [one.summary("qcv").mean for one in evaluations().values()]
        assert np.argsort(index.run(last)).tolist() == np.argsort(means).tolist()

    def test_a_method_can_be_highlighted(self, index):
        index.click("#profile .legend button:nth-child(2)")
        assert index.run("all('#profile .lit .method.on').map((one) => one.dataset.method)") == ["1"]
        assert index.run("all('#profile .legend button').map((one) => one.ariaPressed)") == ["false", "true", "false"]

    def test_differences_turn_with_the_baseline(self, index):
        assert index.run("all('#differences tbody tr').length") == len(KEYS)
        assert index.run("all('#differences .whisker .mark').length") == (len(METHODS) - 1) * len(KEYS)
        before = index.run("texts('#differences tbody tr:first-child .difference b')")
        index.run("choose('#baseline', '1')")
        after = index.run("texts('#differences tbody tr:first-child .difference b')")
        assert before[0].lstrip("▲▼○ +−") == after[0].lstrip("▲▼○ +−")
        assert before[0][0] != after[0][0] or before[0][0] == "○"

    def test_worst_and_best_frames_lead_to_their_pages(self, index, report):
        index.run("choose('#by-metric', '4')")
        index.run("choose('#by-method', '1')")
        values = evaluations()[METHODS[1]].values["qcv"]
        worst = index.run("all('#worst a').map((one) => one.getAttribute('href'))")
        assert worst == [f"frames/{place + 1:04d}.html" for place in np.argsort(values)[::-1][:6]]
        assert index.run("all('#best img').every((one) => one.alt !== null)")
        assert index.run("texts('#worst a:first-child b')") == [f"Qcv {values.max():.3f}"]

    def test_worst_and_best_can_be_by_the_difference_of_two_methods(self, index):
        found = evaluations()
        for method, versus in ((2, 0), (0, 2)):
            index.run(f"choose('#by-method', '{method}')")
            index.run(f"choose('#versus', '{versus}')")
            gap = found[METHODS[method]].values["en"] - found[METHODS[versus]].values["en"]
            for row, place in (("best", gap.argmax()), ("worst", gap.argmin())):
                assert index.run(f"all('#{row} a')[0].getAttribute('href')") == f"frames/{place + 1:04d}.html"
                sign = "+" if gap[place] > 0 else "−"
                assert index.run(f"texts('#{row} a:first-child b')") == [f"EN {sign}{abs(gap[place]):.3f}"]

    def test_a_frame_is_found_by_its_name(self, index):
        index.run("choose('#find', 'STREET #12 ')")
        assert index.run("texts('#frames li:not([hidden])')") == [FRAMES[11]]
        assert index.run("texts('#found')") == ["1 of 12"]


class TestOtherFolders:
    @pytest.mark.parametrize(("methods", "frames"), [(1, 12), (3, 1), (1, 1)])
    def test_pages_of_a_single_method_or_frame_are_drawn_without_a_complaint(
        self, page, scored, tmp_path, methods, frames
    ):
        found = {name: evaluations()[name].only(FRAMES[:frames]) for name in METHODS[:methods]}
        for address in write_score_report(tmp_path / "out", found, scored, convention="default").parent.rglob("*.html"):
            page.open(address.as_uri())
            page.run(HELPERS)
            assert page.run(SHOW_IMAGES)
        assert page.problems == []


TRANSFORMS = "all('.view img').map((one) => getComputedStyle(one).transform)"


class TestFramePage:
    def test_it_is_drawn_without_a_complaint_with_all_its_images(self, frame):
        assert frame.run(SHOW_IMAGES)
        assert frame.run("all('.panels img').length") == 2 + len(METHODS)
        assert frame.problems == []

    def test_nothing_is_wider_than_a_phone(self, frame):
        frame.resize(390, 844, phone=True)
        assert frame.run("document.documentElement.scrollWidth") == 390

    def test_the_slider_moves_the_divider_between_the_two_chosen_images(self, frame):
        frame.run("choose('#left', '0')")
        frame.run("choose('#right', '3')")
        assert [name.rsplit("/", 1)[1] for name in frame.run("all('#stage img').map((one) => one.src)")] == [
            "infrared.png", "method-02.png",
        ]  # fmt: skip
        frame.run("choose('#split', '20')")
        assert frame.run("getComputedStyle(document.querySelector('.over')).clipPath") == "inset(0px 0px 0px 20%)"
        x, y = frame.centre("#stage")
        frame.drag((x, y), (x + 50, y), (x + 100, y))
        assert float(frame.run("document.querySelector('#split').value")) > 55
        frame.click("#swap")
        assert frame.run("all('#stage img')[0].src").endswith("method-02.png")

    def test_all_images_zoom_and_move_together(self, frame):
        assert {*frame.run(TRANSFORMS)} == {"matrix(1, 0, 0, 1, 0, 0)"}
        frame.click("#in")
        zooms = [text.split("(")[1].split(",")[0] for text in frame.run(TRANSFORMS)]
        assert {*zooms} == {"1.5"}
        assert len(zooms) == 2 + 2 + len(METHODS)
        state = "[state.zoom, state.x, state.y]"
        before = frame.run(state)
        x, y = frame.centre(".panels figure:nth-child(2) .view")
        frame.drag((x, y), (x - 10, y - 5), (x - 20, y - 10))
        after = frame.run(state)
        assert after[0] == before[0]
        assert after[1] > before[1]
        assert after[2] > before[2]
        frame.click("#fit")
        assert {*frame.run(TRANSFORMS)} == {"matrix(1, 0, 0, 1, 0, 0)"}

    def test_the_wheel_alone_does_not_zoom(self, frame):
        frame.mouse("mouseWheel", *frame.centre(".panels .view"), deltaX=0, deltaY=-120)
        assert frame.run("state.zoom") == 1

    def test_the_wheel_zooms_with_ctrl_at_the_pointer(self, frame):
        x, y = frame.centre(".panels .view")
        frame.mouse("mouseWheel", x, y, deltaX=0, deltaY=-120, modifiers=2)
        zoom, left, top = frame.run("[state.zoom, state.x, state.y]")
        assert zoom > 1.3
        # The middle of the image stayed in the middle.
        assert left + 0.5 / zoom == pytest.approx(0.5, abs=0.02)
        assert top + 0.5 / zoom == pytest.approx(0.5, abs=0.02)

    def test_arrow_keys_move_a_zoomed_image_that_has_the_focus(self, frame):
        frame.run("document.querySelector('.panels .view').focus()")
        frame.press("+")
        before = frame.run("state.x")
        frame.press("ArrowRight")
        assert frame.run("state.x") > before
        assert frame.run("location.pathname").endswith("0002.html")

    def test_keys_lead_to_the_neighbours_which_show_the_same_part_of_the_same_images(self, frame):
        frame.run("choose('#left', '1')")
        frame.run("choose('#split', '30')")
        frame.click("#in")
        frame.run("document.activeElement.blur()")
        before = frame.run("[state.left, state.split, state.zoom, state.x]")
        frame.press("ArrowRight")
        frame.wait_for_load()
        assert frame.run("location.pathname").endswith("0003.html")
        assert frame.run("[state.left, state.split, state.zoom, state.x]") == pytest.approx(before, abs=1e-3)
        frame.press("ArrowLeft")
        frame.wait_for_load()
        assert frame.run("location.pathname").endswith("0002.html")
        frame.press("Escape")
        frame.wait_for_load()
        assert frame.run("location.pathname").endswith("index.html")
        assert frame.problems == []

    def test_the_difference_of_the_two_images_can_be_shown(self, frame):
        frame.click("#subtract")
        assert frame.run("getComputedStyle(document.querySelector('.over')).mixBlendMode") == "difference"
        assert frame.run("document.querySelector('#subtract').ariaPressed") == "true"

    def test_values_have_their_places_and_undefined_ones_their_reason(self, frame):
        assert frame.run("all('#values tbody tr').length") == len(KEYS)
        cells = frame.run("texts('#values tbody tr:nth-child(3) td')")
        assert cells == ["undefinedfused and <infrared> image differ by a constant"] * len(METHODS)
        value = evaluations()[METHODS[0]].values["en"][1]
        assert frame.run("texts('#values tbody td b')")[0].lstrip("−") == f"{abs(value):.3f}"


def test_a_complaint_of_a_page_is_noticed(page: Page, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<script>missing()</script><img src='missing.png'>")
    page.open((tmp_path / "index.html").as_uri())
    page.run("1")
    assert any("missing is not defined" in problem for problem in page.problems)
    assert any("ERR_FILE_NOT_FOUND" in problem for problem in page.problems)


class TestFigure:
    """The picture of the documents, made by tools/report_figure.py."""

    def test_it_is_made_by_the_command_that_stands_beside_it(self):
        root = Path(report_figure.__file__).parents[1]
        text = (root / "docs" / "score.md").read_text(encoding="utf-8")
        assert "](figures/report.jpg)" in text
        assert "python -m tools.report_figure docs/figures/report.jpg" in text

    def test_the_command_draws_two_pages_beside_each_other(self, tmp_path, monkeypatch):
        if find_chromium() is None:
            pytest.skip("no Chromium is installed")
        for name, value in {"SEEDS": (1, 2), "HEIGHT": 48, "WIDTH": 64, "METRICS": ("en", "qabf")}.items():
            monkeypatch.setattr(report_figure, name, value)
        report_figure.main(tmp_path / "figures" / "x.jpg")
        with Image.open(tmp_path / "figures" / "x.jpg") as picture:
            left, right = picture.crop((0, 0, 600, 800)), picture.crop((picture.width - 600, 0, picture.width, 800))
            assert np.mean(left) > 200
            assert np.mean(right) < 100
