"""CSV manifests: every frame by its own files; mistakes are named with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.manifest import manifest_splits, read_manifest
from fuseloop.errors import ConfigurationError, LabelError, PairError
from tests.datasets.trees import FORMS, grow


def manifest(folder: Path, text: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_frames_come_in_their_order_with_files_beside_the_manifest(tmp_path) -> None:
    path = manifest(tmp_path, "\ufeffvisible, infrared ,boxes\nb/9.png,a/9.png,\n\nb/1.png, a/1.png ,l/x.txt\n")
    first, second = read_manifest(path)
    assert (first.name, first.infrared, first.boxes) == ("9", tmp_path / "a/9.png", None)
    assert (second.name, second.visible, second.boxes) == ("1", tmp_path / "b/1.png", tmp_path / "l/x.txt")


def test_paths_may_be_absolute_or_hold_commas_in_quotes(tmp_path) -> None:
    path = manifest(tmp_path, 'infrared,visible\n/a/b.png,"c, d.png"\n')
    assert read_manifest(path)[0].infrared == Path("/a/b.png")
    assert read_manifest(path)[0].visible == tmp_path / "c, d.png"


class TestSplits:
    TEXT = "infrared,visible,split\na1.png,b1.png,train\na2.png,b2.png,val\na3.png,b3.png,train\na4.png,b4.png,\n"

    @pytest.mark.parametrize(
        ("split", "names"), [("train", ["b1", "b3"]), ("val", ["b2"]), ("train+val", ["b1", "b2", "b3"])]
    )
    def test_a_split_has_its_lines(self, tmp_path, split, names) -> None:
        assert [frame.name for frame in read_manifest(manifest(tmp_path, self.TEXT), split)] == names

    def test_they_are_listed(self, tmp_path) -> None:
        assert manifest_splits(manifest(tmp_path, self.TEXT)) == ["train", "val"]

    def test_one_must_be_named(self, tmp_path) -> None:
        with pytest.raises(ConfigurationError, match=r"has the splits train, val; say which, as in .*pairs\.csv:train"):
            read_manifest(manifest(tmp_path, self.TEXT))

    def test_one_that_is_not_there_is_told(self, tmp_path) -> None:
        with pytest.raises(PairError, match="no frame of the split 'test'; its splits are train, val"):
            read_manifest(manifest(tmp_path, self.TEXT), "train+test")
        with pytest.raises(PairError, match="it has no column split"):
            read_manifest(manifest(tmp_path, "infrared,visible\na,b\n"), "train")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: the columns are none; expected infrared and visible"),
        ("infrared,boxes\na,b\n", ":1: the columns are infrared, boxes; expected"),
        ("infrared,visible,label\na,b,c\n", ":1: the columns are infrared, visible, label; expected .* name, boxes"),
        ("infrared,visible,visible\na,b,c\n", ":1: the columns"),
        ("infrared,visible\na,b\nc,\n", ":3: the cell visible is empty"),
        ("infrared,visible\na,b\nc,d,e\n", ":3: has more cells than there are columns"),
        ("infrared,visible\na/1.png,b/1.png\na/2.png,c/1.png\n", ":3: is called '1' as is line 2; give a column name"),
        ('infrared,visible\na,"b\n', ": is no CSV file"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, text, complaint) -> None:
    with pytest.raises(ConfigurationError, match=rf"pairs\.csv{complaint}"):
        read_manifest(manifest(tmp_path, text))


def test_what_is_not_there_or_empty_is_told(tmp_path) -> None:
    with pytest.raises(PairError, match=r"pairs\.csv: cannot be read \(No such file"):
        read_manifest(tmp_path / "pairs.csv")
    with pytest.raises(PairError, match="has no line below its columns"):
        read_manifest(manifest(tmp_path, "infrared,visible\n"))


def test_text_in_another_encoding_is_told(tmp_path) -> None:
    (tmp_path / "pairs.csv").write_bytes("infrared,visible\nä,b\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="is no CSV file in UTF-8"):
        read_manifest(tmp_path / "pairs.csv")


def test_a_file_that_a_manifest_names_and_that_is_missing_breaks_its_frame(tmp_path) -> None:
    spec = grow(FORMS["a manifest"], tmp_path)
    (tmp_path / "d" / "2.png").unlink()
    with pytest.raises(LabelError, match=r"d/2\.png: does not exist"):
        open_labelled(spec)
    assert [pair.name for pair in open_labelled(spec, on_error="skip")] == ["1", "10"]


def test_a_cell_that_is_empty_is_not_labelled(tmp_path) -> None:
    spec = grow(FORMS["a manifest"], tmp_path)
    path = tmp_path / "pairs.csv"
    path.write_text(path.read_text().replace("c/2.xml", "").replace("e/10.png", ""))
    pairs = open_labelled(spec)
    assert [pair.boxes is None for pair in pairs] == [False, True, False]
    assert [pair.saliency is None for pair in pairs] == [False, False, True]
