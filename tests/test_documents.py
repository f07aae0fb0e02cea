"""The documents lead somewhere: every link of theirs to a file of this project finds it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")]


def links(document: Path) -> list[str]:
    """Targets of links and pictures that are files, without their anchors."""
    text = re.sub(r"`[^`]*`", "", document.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_find_their_files(document):
    assert not [target for target in links(document) if not (document.parent / target).exists()]


def test_the_index_lists_every_document():
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target).resolve() for target in links(index)}
    assert {path for path in (ROOT / "docs").rglob("*.md") if path != index} <= listed
