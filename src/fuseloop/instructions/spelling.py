"""Typing errors mended: words that nobody knows become the known ones that they were meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fuseloop.instructions.features import Unit, is_cjk

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_PLACES = {key: (row, column + row / 2) for row, keys in enumerate(_ROWS) for column, key in enumerate(keys)}
NEIGHBOURS = {
    key: "".join(
        other
        for other, (row, column) in _PLACES.items()
        if other != key and abs(row - place[0]) <= 1 and abs(column - place[1]) <= 1
    )
    for key, place in _PLACES.items()
}
"""The keys around each key."""

SHORTEST = 5
"""Letters of the shortest term that a word may be taken for."""


class Spelling:
    """Knows words, and mends others that are one error away from an important one.

    Args:
        terms: Words that others may be taken for.
        words: Words that are right as they are.
    """

    def __init__(self, terms: Iterable[str], words: Iterable[str] = ()) -> None:
        self._terms = frozenset(terms)
        self._words = self._terms | frozenset(words)
        self._near: dict[str, list[str]] = {}
        for term in sorted(self._terms):
            if len(term) >= SHORTEST and not is_cjk(term):
                for part in _without_one(term):
                    self._near.setdefault(part, []).append(term)

    def mend(self, units: Sequence[Unit]) -> list[Unit]:
        """The words of a text, those replaced that are one error from a term: a letter, or a space too many or too few.

        They keep their places in the text.
        """
        mended: list[Unit] = []
        rest = list(units)
        while rest:
            unit = rest.pop(0)
            if unit.text in self._words or is_cjk(unit.text):
                mended.append(unit)
            elif rest and unit.text + rest[0].text in self._terms and not {rest[0].text} & self._terms:
                following = rest.pop(0)
                mended.append(Unit(unit.text + following.text, unit.start, following.end))
            elif term := self._meant(unit.text):
                mended.append(Unit(term, unit.start, unit.end))
            else:
                mended += self._split(unit) or [unit]
        return mended

    def _meant(self, word: str) -> str:
        """The term that is one error away, empty where there is none."""
        if len(word) < SHORTEST - 1:
            return ""
        found = {
            term for part in _without_one(word) for term in self._near.get(part, ()) if one_error_apart(word, term)
        }
        return min(found, key=lambda term: (term[0] != word[0], term), default="")

    def _split(self, unit: Unit) -> list[Unit]:
        """Two known words that were written without a space, one of them a term; nothing where they are not."""
        for at in range(len(unit.text) - 3, 1, -1):
            parts = unit.text[:at], unit.text[at:]
            if all(part in self._words for part in parts) and any(
                part in self._terms and len(part) >= SHORTEST - 1 for part in parts
            ):
                middle = unit.start + at
                return [Unit(parts[0], unit.start, middle), Unit(parts[1], middle, unit.end)]
        return []


def one_error_apart(word: str, other: str) -> bool:
    """Whether two words differ by a letter left out or added, two that are swapped, or a key beside the right one.

    >>> [one_error_apart(word, "detect") for word in ("detct", "deetect", "detecr", "detcet", "debect", "tedect")]
    [True, True, True, True, False, False]
    """
    same = _begin_alike(word, other)
    word, other = word[same:], other[same:]
    same = _begin_alike(word[::-1], other[::-1])
    word, other = word[: len(word) - same], other[: len(other) - same]
    if len(word) == len(other) == 1:
        return word in NEIGHBOURS.get(other, "")
    return len(word) + len(other) == 1 or (len(word) == 2 and word == other[::-1])


def _begin_alike(word: str, other: str) -> int:
    """How many letters two words begin with alike."""
    pairs = enumerate(zip(word, other, strict=False))
    return next((at for at, (one, two) in pairs if one != two), min(len(word), len(other)))


def _without_one(word: str) -> Iterator[str]:
    """A word, and what is left of it without one of its letters; words one error apart share one of these."""
    yield word
    yield from {word[:at] + word[at + 1 :] for at in range(len(word))}
