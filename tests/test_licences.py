"""LICENSES.md lists every dependency, none of which has terms that reach into this library or forbid a use."""

import re
import sys
from importlib.metadata import distribution

import pytest

from tools import licences

LEDGER = (licences.ROOT / "LICENSES.md").read_text(encoding="utf-8")
ROWS = {
    licences.canonical(row[0]): row[1:]
    for row in re.findall(r"^\| ([^|]+) \| (\d\S*) \| ([^|]+) \| (.*) \|$", LEDGER, re.M)
}
USERS, DEVELOPERS = licences.declared()


@pytest.mark.parametrize("name", [*USERS, *DEVELOPERS])
def test_every_declared_dependency_is_listed_with_version_licence_and_purpose(name):
    assert name in ROWS, f"pin {name} in constraints.txt and run `make licences`"
    _, licence, purpose = ROWS[name]
    assert licence != "not stated"
    assert purpose, f"pyproject.toml should say in a comment what {name} is for"


@pytest.mark.parametrize("name", ROWS)
def test_every_listed_licence_is_accepted(name):
    assert licences.accepted(ROWS[name][1])


def test_the_ledger_is_the_one_that_the_command_makes():
    rows = [row for _, rows in licences.tables() for row in rows]
    pinned = all(distribution(row.name).version.split("+")[0] == row.version for row in rows)
    if not pinned or sys.version_info < (3, 11):
        pytest.skip("made from what constraints.txt pins for Python 3.11 and newer; other packages are installed")
    assert licences.ledger() == LEDGER, "run `make licences`"


@pytest.mark.parametrize(
    "licence",
    ["GPL-3.0-only", "AGPL-3.0", "GNU General Public License v3 (GPLv3)", "PolyForm Noncommercial", "CC BY-NC 4.0"],
)
def test_copyleft_and_restricted_licences_are_refused(licence):
    assert not licences.accepted(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "Apache-2.0",
        "MPL-2.0 AND MIT",
        "LGPL-3.0-or-later",
        "GNU Lesser General Public License v3 (LGPLv3)",
        "ISC",
    ],
)
def test_permissive_and_file_wise_licences_are_accepted(licence):
    assert licences.accepted(licence)


def test_what_the_dependencies_need_is_followed_through_their_extras():
    """lightning-fabric asks for fsspec[http], which alone brings aiohttp."""
    assert "aiohttp" in licences.needed_by(["lightning-fabric"])
    assert "aiohttp" not in licences.needed_by(["fsspec"])


def test_a_licence_that_only_its_file_names_is_read_there():
    assert licences.licence_of("faster-coco-eval") == "Apache License Version 2.0"


@pytest.mark.parametrize("name", ["torchvision", "opencv-python", "pycocotools"])
def test_no_dependency_brings_what_is_not_wanted(name):
    """torchvision does not import beside every torch; two wheels of OpenCV overwrite each other."""
    assert name not in licences.needed_by(USERS)


def test_a_refused_licence_fails_the_command(monkeypatch, capsys):
    monkeypatch.setattr(licences, "licence_of", lambda name: "GPL-3.0-only" if name == "rich" else "MIT")
    assert licences.main(["--check"]) == 1
    assert "rich: GPL-3.0-only" in capsys.readouterr().out
