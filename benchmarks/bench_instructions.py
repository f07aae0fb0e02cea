"""What the text encoder makes of sentences that were written apart from its grammar.

The sentences are those of tests/oracles/paraphrases.yaml, which its grammar and its training have never seen. One is
right when the largest share of its mixture is the intent that its writer meant; one that is no instruction is right
when it is rejected. Intervals are Wilson's, of 95 %.

python -m benchmarks.bench_instructions --cases my_sentences.yaml --wrong
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.pages import ROOT, commit, markdown
from fuseloop.errors import ConfigurationError
from fuseloop.instructions import INTENTS, HashedEncoder, InstructionMatch, read_encoder, shipped_encoder

CASES = ROOT / "tests" / "oracles" / "paraphrases.yaml"
PAGE = ROOT / "docs" / "instructions.md"
NONE = "none"
ANSWERS = (*INTENTS, NONE)
KINDS = ("clean", "typo", "brand")
Z = 1.959964

KEYS = {
    "instructions.clean": "share of the instructions without typing errors whose intent is right",
    "instructions.clean_low": "lower end of its interval",
    "instructions.typo": "the same with typing errors",
    "instructions.typo_low": "lower end of its interval",
    "instructions.brand": "the same where a brand or model is named",
    "instructions.brand_low": "lower end of its interval",
    "instructions.rejected": "share of the nonsense that is rejected",
    "instructions.rejected_low": "lower end of its interval",
    "instructions.sentences": "how many sentences these are",
}


class Case(NamedTuple):
    """A sentence and what its writer meant: one of `ANSWERS`, and the shares of a mixture where it has several."""

    text: str
    intent: str
    language: str
    kind: str
    mixture: Mapping[str, float] = {}


class Scored(NamedTuple):
    """A case and what was understood."""

    case: Case
    match: InstructionMatch

    @property
    def answer(self) -> str:
        return self.match.intent or NONE

    @property
    def right(self) -> bool:
        return self.answer == self.case.intent


def read_cases(path: Path) -> list[Case]:
    """The sentences of a file: a list of {text, intent, language, kind, mixture}, the last one optional.

    Raises:
        ConfigurationError: There is no such file, or an entry is not of this form.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} does not exist; give sentences with --cases") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{path} is no list of sentences")
    return [_case(path, number, entry) for number, entry in enumerate(entries, 1)]


def _case(path: Path, number: int, entry: Any) -> Case:
    try:
        case = Case(str(entry["text"]), *(str(entry[key]) for key in Case._fields[1:4]), entry.get("mixture") or {})
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: entry {number} lacks text, intent, language or kind: {entry}") from error
    if case.intent not in ANSWERS or case.kind not in KINDS:
        raise ConfigurationError(
            f"{path}: entry {number} has intent {case.intent!r} and kind {case.kind!r}; intents are "
            f"{', '.join(ANSWERS)}, kinds {', '.join(KINDS)}"
        )
    return case


def score(cases: Sequence[Case], encoder: HashedEncoder) -> list[Scored]:
    """What the encoder makes of the sentences."""
    matches = encoder.understand([case.text for case in cases])
    return [Scored(*pair) for pair in zip(cases, matches, strict=True)]


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: Wilson, J. Am. Stat. Assoc. 22 (1927)."""
    if not total:
        return 0.0, 1.0
    share, spread = right / total, Z * Z / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / total + spread / total / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


class Share(NamedTuple):
    """How many are right, with the interval."""

    right: int
    total: int

    @classmethod
    def of(cls, scored: Iterable[Scored]) -> Share:
        found = [one.right for one in scored]
        return cls(sum(found), len(found))

    def __str__(self) -> str:
        if not self.total:
            return ""
        low, high = wilson(self.right, self.total)
        return f"{self.right}/{self.total} = {self.right / self.total:.1%} [{low:.1%}, {high:.1%}]"


def table_of_kinds(scored: Sequence[Scored]) -> list[list[str]]:
    """Accuracy of the instructions by language and kind, and rejection of the nonsense."""
    languages = list(dict.fromkeys(one.case.language for one in scored))
    rows = [["language", *KINDS, "all instructions", "nonsense rejected"]]
    for language in [*languages, "all"]:
        here = [one for one in scored if language in (one.case.language, "all")]
        asked, nonsense = _asked(here), [one for one in here if one.case.intent == NONE]
        rows.append([language, *map(str, _of_kinds(asked)), str(Share.of(asked)), str(Share.of(nonsense))])
    return rows


def _asked(scored: Sequence[Scored]) -> list[Scored]:
    """Those that are instructions."""
    return [one for one in scored if one.case.intent != NONE]


def table_of_intents(scored: Sequence[Scored]) -> list[list[str]]:
    """Accuracy by intent and kind."""
    rows = [["meant", *KINDS, "all"]]
    for intent in ANSWERS:
        meant = [one for one in scored if one.case.intent == intent]
        rows.append([intent, *map(str, _of_kinds(meant)), str(Share.of(meant))])
    return rows


def _of_kinds(scored: Sequence[Scored]) -> list[Share]:
    """The share of each of `KINDS`."""
    return [Share.of(one for one in scored if one.case.kind == kind) for kind in KINDS]


def confusion(scored: Sequence[Scored]) -> list[list[str]]:
    """How many sentences of each meaning were taken for which."""
    rows = [["meant, down; understood, across", *INTENTS, "rejected"]]
    for meant in ANSWERS:
        counts = [sum(one.case.intent == meant and one.answer == answer for one in scored) for answer in ANSWERS]
        rows.append([meant, *map(str, counts)])
    return rows


def mixtures_found(scored: Sequence[Scored]) -> Share:
    """Sentences with several intents of which all were found, and no other."""
    found = [set(one.match.mixture) == set(one.case.mixture) for one in scored if len(one.case.mixture) > 1]
    return Share(sum(found), len(found))


def figures(scored: Sequence[Scored]) -> dict[str, float]:
    """The figures of `KEYS` that these sentences have."""
    shares = dict(zip(KINDS, _of_kinds(_asked(scored)), strict=True))
    shares["rejected"] = Share.of(one for one in scored if one.case.intent == NONE)
    values = {}
    for name, share in shares.items():
        if share.total:
            values[f"instructions.{name}"] = share.right / share.total
            values[f"instructions.{name}_low"] = wilson(*share)[0]
    return values | {"instructions.sentences": float(len(scored))}


def page(scored: Sequence[Scored], encoder: HashedEncoder, command: str) -> str:
    """The text of docs/instructions.md."""
    wrong = [one for one in scored if not one.right]
    mixed = str(mixtures_found(scored))
    errors = [["text", "meant", "understood", "confidence"]]
    errors += [
        [one.case.text.replace("|", "\\|"), one.case.intent, one.answer, f"{one.match.confidence:.2f}"] for one in wrong
    ]
    parts = [
        "# What the text encoder understands",
        f"Made by `{command}`, commit {commit()}, encoder {encoder.id}; do not edit by hand. "
        "[instruction.md](instruction.md) says how to use it.",
        (__doc__ or "").strip().split("\n\npython")[0].split("\n\n", 1)[1],
        "## By language and kind",
        markdown(table_of_kinds(scored)),
        "## By meaning",
        markdown(table_of_intents(scored)),
        "## Confusion",
        markdown(confusion(scored)),
    ]
    if mixed:
        parts.append(f"Sentences that ask for several things, of which exactly these were found: {mixed}.")
    if wrong:
        parts += ["## What was mistaken", markdown(errors)]
    return "\n\n".join(parts) + "\n"


def run() -> dict[str, float]:
    """All figures of `KEYS`; writes the page."""
    encoder = shipped_encoder()
    scored = score(read_cases(CASES), encoder)
    PAGE.write_text(page(scored, encoder, "python -m benchmarks instructions"), encoding="utf-8")
    return figures(scored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--weights", type=Path, help="weight file of a text encoder, by default the shipped one")
    parser.add_argument("--page", type=Path, help="write the page there")
    parser.add_argument("--wrong", action="store_true", help="show what was mistaken")
    arguments = parser.parse_args()
    encoder = shipped_encoder() if arguments.weights is None else read_encoder(arguments.weights)
    scored = score(read_cases(arguments.cases), encoder)
    for table in (table_of_kinds(scored), table_of_intents(scored), confusion(scored)):
        print(markdown(table), end="\n\n")
    if arguments.wrong:
        for one in scored:
            if not one.right:
                print(f"{one.case.intent} -> {one.answer} ({one.match.confidence:.2f}): {one.case.text}")
    if arguments.page is not None:
        command = "python -m benchmarks.bench_instructions"
        if arguments.cases != CASES:
            command += f" --cases {arguments.cases}"
        arguments.page.write_text(page(scored, encoder, command), encoding="utf-8")


if __name__ == "__main__":
    main()
