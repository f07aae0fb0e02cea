"""The score report as files: whole or not there, of any names, self-contained, every link of it resolved."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from fuseloop.errors import ImageError
from fuseloop.metrics.evaluate import Evaluation
from fuseloop.pairs.images import Picture, read_image, write_image
from fuseloop.reports import score
from fuseloop.reports.score import ScoredImages, check_score_report, is_plain_png, shown, thumbnail, write_score_report
from tests.reports.conftest import FRAMES, KEYS, METHODS, evaluation, evaluations, images

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Document(HTMLParser):
    """Reads a page and refuses what is not well-formed."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"{page} leaves {self.open} open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)


def pages(report: Path) -> list[Path]:
    return [report, *sorted((report.parent / "frames").iterdir())]


def text_of(element: str) -> str:
    return re.sub(r"\s+", " ", element)


class TestPages:
    def test_there_is_a_page_for_each_frame_and_every_page_is_well_formed(self, report):
        assert [page.name for page in pages(report)] == ["index.html", *(f"{n:04d}.html" for n in range(1, 13))]
        for page in pages(report):
            assert Document(page).elements

    def test_every_link_and_file_is_there(self, report):
        seen = set()
        for page in pages(report):
            document = Document(page)
            ids = {attributes.get("id") for _, attributes in document.elements}
            for tag, attributes in document.elements:
                for name in ("href", "src"):
                    target = attributes.get(name)
                    if target is None or target == "data:,":
                        continue
                    parts = urlsplit(target)
                    assert not parts.scheme, target
                    assert not parts.netloc, target
                    if parts.path:
                        assert (page.parent / unquote(parts.path)).is_file(), f"{page.name}: <{tag}> {target}"
                        seen.add((page.parent / unquote(parts.path)).resolve())
                    else:
                        assert parts.fragment in ids, f"{page.name}: {target}"
        # Thumbnails of the sources and methods are reached by the script; all else is on a page.
        every = {path.resolve() for path in report.parent.rglob("*") if path.is_file()}
        assert {path.parts[-3] for path in every - seen} == {"thumbnails"}

    def test_nothing_comes_from_elsewhere(self, report):
        for path in report.parent.rglob("*"):
            if path.suffix in (".html", ".css", ".js"):
                text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
                assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|import\(", text), path

    def test_names_are_text_and_never_markup_or_file_names(self, report):
        for page in pages(report):
            document = Document(page)
            assert {tag for tag, _ in document.elements}.isdisjoint({"i"})
            assert all(not attributes for attributes in document.all("b"))
            for method in METHODS:
                assert method in document.text
        for frame, page in zip(FRAMES, pages(report)[1:], strict=True):
            assert frame in Document(page).text
        assert all(re.fullmatch(r"[a-zA-Z0-9_.-]+", path.name) for path in report.parent.rglob("*"))

    def test_pictures_have_texts_buttons_names_and_tables_heads(self, report):
        for page in pages(report):
            document = Document(page)
            assert all("alt" in attributes for attributes in document.all("img"))
            assert all(attributes.get("type") == "button" for attributes in document.all("button"))
            assert all(attributes.get("scope") for attributes in document.all("th"))
            assert document.elements[0] == ("html", {"lang": "en"} | dict(document.elements[0][1]))
            assert sum(1 for _ in document.all("h1")) == 1

    def test_frames_lead_to_their_neighbours(self, report):
        first, *_, last = pages(report)[1:]
        assert [one["href"] for one in Document(first).all("a") if one.get("rel")] == ["0002.html"]
        assert [one["href"] for one in Document(last).all("a") if one.get("rel")] == ["0011.html"]
        assert 'rel="prev" href="0001.html"' in pages(report)[2].read_text(encoding="utf-8")

    def test_the_table_has_means_intervals_and_the_best(self, report):
        found = evaluations()
        text = Document(report).text
        for one in found.values():
            summary = one.summary("en")
            assert f"{abs(summary.mean):.3f}" in text
            assert f"± {summary.std:.3f}" in text
        assert text.count("∞") >= len(found)
        best = [attributes for attributes in Document(report).all("td") if "best" in (attributes.get("class") or "")]
        assert {attributes.get("data-metric") for attributes in best} >= {"0", "1", "2", "4"}

    def test_the_convention_really_used_is_named(self, report):
        document = Document(report)
        assert "default *" in text_of(document.text)
        heads = [one["title"] for one in document.all("th") if one.get("data-metric")]
        assert heads[0] == "EN, higher is better, convention cddfuse"
        assert heads[-1] == "Qcv, lower is better, convention default"

    def test_the_metrics_of_the_mean_ranks_are_counted(self, report):
        assert re.search(r"Mean ranks are of \d+( of \d+)? metrics", report.read_text("utf-8"))

    def test_undefined_values_are_counted_with_their_reason(self, report):
        text = text_of(Document(report).text)
        assert text.count("fused and <infrared> image differ by a constant") == len(METHODS)
        assert "fused and <infrared> image differ by a constant" in Document(pages(report)[2]).text

    def test_the_same_scores_give_the_same_files(self, report, scored, tmp_path):
        again = write_score_report(tmp_path / "again", evaluations(), scored, convention="cddfuse")
        for path in report.parent.rglob("*"):
            if path.is_file():
                assert (again.parent / path.relative_to(report.parent)).read_bytes() == path.read_bytes()


class TestShapes:
    """Folders of other kinds than several methods on the same frames."""

    def write(self, tmp_path: Path, found: dict[str, Evaluation], pictures: ScoredImages) -> Path:
        page = write_score_report(tmp_path / "out", found, pictures, convention="default")
        for one in pages(page):
            Document(one)
        return page

    def data(self, page: Path) -> dict:
        text = (page.parent / "assets" / "data.js").read_text("ascii")
        return json.loads(text.removeprefix("window.REPORT = ").rstrip(";\n"))

    def test_a_single_method_has_no_comparison(self, tmp_path, scored):
        page = self.write(tmp_path, {METHODS[0]: evaluation(0)}, scored)
        assert not self.data(page)["compared"]
        assert "Differences" not in Document(page).text

    def test_a_single_frame_has_no_intervals(self, tmp_path, scored):
        one = {method: evaluation(0, FRAMES[:3]).only(FRAMES[:1]) for method in METHODS[:2]}
        page = self.write(tmp_path, one, scored)
        assert "±" not in Document(page).text
        assert len(pages(page)) == 2

    def test_a_method_that_lacks_a_frame_is_shown_without_it(self, tmp_path, scored):
        found = {METHODS[0]: evaluation(0), METHODS[1]: evaluation(1).only(FRAMES[3:])}
        page = self.write(tmp_path, found, scored)
        assert "no score" not in Document(pages(page)[4]).text
        assert Document(pages(page)[1]).text.count("no score") == 1 + len(KEYS)
        assert "9 frames that every method has" in text_of(Document(page).text)

    def test_an_image_that_could_not_be_scored_is_not_read(self, tmp_path, scored):
        broken = dict.fromkeys(FRAMES[:3], tmp_path / "broken.png") | {
            name: scored.fused[METHODS[1]][name] for name in FRAMES[3:]
        }
        (tmp_path / "broken.png").write_bytes(b"no image")
        pictures = ScoredImages(scored.infrared, scored.visible, {**scored.fused, METHODS[1]: broken})
        page = self.write(tmp_path, {METHODS[0]: evaluation(0), METHODS[1]: evaluation(1).only(FRAMES[3:])}, pictures)
        assert not list((page.parent / "images" / "0001").glob("method-02*"))

    def test_the_baseline_is_the_one_asked_for(self, tmp_path, scored):
        page = write_score_report(tmp_path / "out", evaluations(), scored, convention="default", baseline=METHODS[1])
        assert self.data(page)["baseline"] == 1
        with pytest.raises(ValueError, match="there is no method 'other'"):
            write_score_report(tmp_path / "2", evaluations(), scored, convention="default", baseline="other")

    def test_methods_without_a_common_frame_are_shown_uncompared(self, tmp_path, scored):
        found = {METHODS[0]: evaluation(0).only(FRAMES[:6]), METHODS[1]: evaluation(1).only(FRAMES[6:])}
        pictures = ScoredImages(scored.infrared, scored.visible, {METHODS[0]: scored.fused[METHODS[0]], METHODS[1]: {
            name: scored.fused[METHODS[1]][name] for name in FRAMES[6:]
        }})  # fmt: skip
        page = self.write(tmp_path, found, pictures)
        assert not self.data(page)["compared"]
        assert "no score" in Document(pages(page)[1]).text

    def test_frames_follow_the_order_of_the_images(self, tmp_path, scored):
        found = {METHODS[0]: evaluation(0).only(FRAMES[:4][::-1])}
        assert self.data(self.write(tmp_path, found, scored))["frames"] == list(FRAMES[:4])

    def test_names_that_are_not_unicode_are_written_readably(self, tmp_path):
        strange = ("a\udcff", "b", "c")
        page = self.write(tmp_path, {"m": evaluation(0, strange)}, images(tmp_path / "in", strange, ("m",)))
        assert "a\\udcff" in Document(pages(page)[1]).text

    def test_no_method_and_a_frame_without_files_are_errors(self, tmp_path, scored):
        with pytest.raises(ValueError, match="at least one method"):
            self.write(tmp_path, {}, scored)
        with pytest.raises(ValueError, match="no infrared file for the frame 'other'"):
            self.write(tmp_path, {METHODS[0]: evaluation(0, ("other", "b", "c"))}, scored)
        with pytest.raises(ValueError, match="no file of 'other' for the frame"):
            self.write(tmp_path, {"other": evaluation(0)}, scored)
        assert not (tmp_path / "out").exists()


class TestImages:
    def test_copies_are_exact_and_keep_the_colour(self, report, scored):
        for number, name in (("0001", FRAMES[0]), ("0012", FRAMES[-1])):
            for slot, path in (("visible", scored.visible[name]), ("method-03", scored.fused[METHODS[2]][name])):
                copy = read_image(report.parent / "images" / number / f"{slot}.png")
                np.testing.assert_array_equal(copy.pixels, read_image(path).pixels)

    def test_plain_files_are_copied_byte_by_byte_and_others_written_anew(self, tmp_path):
        pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        write_image(tmp_path / "plain.png", Picture(pixels))
        plain = (tmp_path / "plain.png").read_bytes()
        assert is_plain_png(plain)
        for name, other in (
            ("alpha.png", Picture(pixels, pixels[..., 0])),
            ("deep.png", Picture(pixels * np.uint16(9))),
        ):
            write_image(tmp_path / name, other)
            assert not is_plain_png((tmp_path / name).read_bytes())
        # A browser would follow this chunk, and show other levels than were scored.
        gamma = struct.pack(">I4sII", 4, b"gAMA", 100_000, zlib.crc32(b"gAMA" + struct.pack(">I", 100_000)))
        assert not is_plain_png(plain[:33] + gamma + plain[33:])
        write_image(tmp_path / "photo.jpg", Picture(pixels))
        for content in ((tmp_path / "photo.jpg").read_bytes(), plain[:40], b"", b"\x89PNG\r\n\x1a\n"):
            assert not is_plain_png(content)

    def test_files_of_other_formats_become_png(self, tmp_path):
        pictures = images(tmp_path / "in", FRAMES[:3], METHODS[:1])
        content = (read_image(pictures.infrared[FRAMES[0]]), tmp_path / "odd.tif")
        write_image(content[1], content[0])
        odd = ScoredImages({**pictures.infrared, FRAMES[0]: content[1]}, pictures.visible, pictures.fused)
        page = write_score_report(tmp_path / "out", {METHODS[0]: evaluation(0, FRAMES[:3])}, odd, convention="default")
        copy = page.parent / "images" / "0001" / "infrared.png"
        assert is_plain_png(copy.read_bytes())
        np.testing.assert_array_equal(read_image(copy).pixels, content[0].pixels)

    def test_thumbnails_are_small_and_look_the_same(self):
        pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8).repeat(100, 0).repeat(100, 1)
        small = thumbnail(pixels, 80)
        assert small.shape == (60, 80, 3)
        np.testing.assert_allclose(small, pixels[5::10, 5::10], atol=1)
        assert thumbnail(pixels, 800) is pixels
        assert thumbnail(np.zeros((1, 4000), np.uint8), 100).shape == (1, 100)

    def test_8_bit_images_are_shown_as_they_are(self):
        pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
        assert shown(Picture(pixels, alpha=pixels), Path("x"), "infrared")[0] is pixels

    def test_16_bit_infrared_is_spread_and_the_page_says_so(self):
        pixels = np.linspace(7000, 9000, 64 * 64).reshape(64, 64).astype(np.uint16)
        mapped, note = shown(Picture(pixels), Path("x"), "infrared")
        assert (mapped.min(), mapped.max(), mapped.dtype) == (0, 255, np.uint8)
        assert note == "16-bit, shown from 7001 (black) to 8998 (white)"

    def test_16_bit_fused_images_keep_their_levels(self):
        pixels = np.array([[0, 257, 65535]], np.uint16)
        assert shown(Picture(pixels), Path("x"), "fused")[0].tolist() == [[0, 1, 255]]

    def test_float_images_in_the_unit_range_keep_their_levels_and_others_are_spread(self):
        inside = np.array([[0.0, 0.5, 1.0]], np.float32)
        assert shown(Picture(inside), Path("x"), "fused")[0].tolist() == [[0, 128, 255]]
        beyond = np.linspace(-3, 5, 5000, dtype=np.float32).reshape(50, 100)
        mapped, note = shown(Picture(beyond), Path("x"), "visible")
        assert (mapped.min(), mapped.max()) == (0, 255)
        assert note.startswith("float, shown from -2.99")

    def test_the_rule_of_the_scores_is_followed_when_given(self):
        pixels = np.array([[0, 500, 1000]], np.uint16)
        assert shown(Picture(pixels), Path("x"), "infrared", "range:0,1000")[0].tolist() == [[0, 128, 255]]
        with pytest.raises(ImageError, match="x: the float values go from"):
            shown(Picture(np.full((2, 2), 3, np.float32)), Path("x"), "infrared", "full")


class TestWriting:
    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    def write(self, out: Path, scored: ScoredImages, **options: bool) -> Path:
        return write_score_report(out, {METHODS[0]: evaluation(0, FRAMES[:3])}, scored, convention="default", **options)

    def test_an_earlier_report_is_kept_unless_asked(self, tmp_path, scored):
        page = self.write(tmp_path / "out", scored)
        before = page.read_bytes()
        with pytest.raises(ImageError, match="exists already and was kept; use --overwrite"):
            self.write(tmp_path / "out", scored)
        assert page.read_bytes() == before

    def test_an_earlier_report_is_replaced_as_a_whole_when_asked(self, tmp_path, scored):
        self.write(tmp_path / "out", scored)
        (tmp_path / "out" / "frames" / "0099.html").touch()
        page = self.write(tmp_path / "out", scored, overwrite=True)
        assert len(pages(page)) == 4
        assert self.names(tmp_path) == ["out"]

    @pytest.mark.parametrize("name", ["thesis.txt", "index.html"])
    def test_a_folder_of_something_else_is_kept(self, tmp_path, scored, name):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ImageError, match="holds other files"):
            self.write(tmp_path, scored, overwrite=True)
        assert self.names(tmp_path) == [name]

    def test_a_report_with_something_else_beside_it_is_kept(self, tmp_path, scored):
        self.write(tmp_path / "out", scored)
        (tmp_path / "out" / "notes.txt").touch()
        with pytest.raises(ImageError, match="holds other files"):
            check_score_report(tmp_path / "out", overwrite=True)

    def test_an_image_that_is_gone_leaves_nothing(self, tmp_path, scored):
        broken = ScoredImages(scored.infrared, scored.visible, {METHODS[0]: dict(scored.fused[METHODS[0]])})
        broken.fused[METHODS[0]][FRAMES[2]] = tmp_path / "gone.png"
        with pytest.raises(ImageError, match=r"gone\.png: does not exist"):
            self.write(tmp_path / "out", broken)
        assert self.names(tmp_path) == []

    def test_a_failure_at_the_end_leaves_the_earlier_report(self, tmp_path, scored, monkeypatch):
        before = self.write(tmp_path / "out", scored).read_bytes()
        monkeypatch.setattr(score, "undefined_rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            self.write(tmp_path / "out", scored, overwrite=True)
        assert (tmp_path / "out" / "index.html").read_bytes() == before
        assert self.names(tmp_path) == ["out"]

    def test_it_tells_after_every_frame(self, tmp_path, scored):
        calls: list[int] = []
        write_score_report(
            tmp_path / "out", {METHODS[0]: evaluation(0)}, scored, convention="default", report=lambda: calls.append(1)
        )
        assert len(calls) == len(FRAMES)
