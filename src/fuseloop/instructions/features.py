"""What a text encoder sees of a text: its words, their neighbours and their letters, as numbers of buckets.

The numbers come from CRC-32, so that they are the same everywhere and for ever; there is no list of words.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

LONGEST = 1000
"""Characters of the longest text that counts as an instruction."""

_LONGEST_WORD = 40
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PART = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+(?:'[^\W_{_CJK}]+)*")
_IS_CJK = re.compile(rf"[{_CJK}]")


class Unit(NamedTuple):
    """A word, or two neighbouring characters of a script without spaces.

    Attributes:
        text: As it is compared: normal form, lower case, no accents, every digit a zero.
        start: Where it begins among the characters of the normal form.
        end: Where it ends there.
    """

    text: str
    start: int
    end: int


def normal_form(text: str) -> str:
    r"""A text in Unicode's NFKC form and in lower case, without control characters; spaces are single.

    >>> normal_form("  Ｄetect\tPEDESTRIANS\x00 ")
    'detect pedestrians'
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join("".join(_kept(one) for one in text).split())


@lru_cache(maxsize=4096)
def _kept(character: str) -> str:
    """A character; a space for a control character, and nothing for one that is not seen or not known."""
    category = unicodedata.category(character)
    return " " if category == "Cc" else "" if category in ("Cf", "Cs", "Co", "Cn") else character


@lru_cache(maxsize=65536)
def plain(word: str) -> str:
    """A word without accents, every digit a zero.

    >>> plain("détección"), plain("yolov8")
    ('deteccion', 'yolov0')
    """
    bare = "".join(one for one in unicodedata.normalize("NFKD", word) if not unicodedata.combining(one))
    return "".join("0" if one.isdigit() else one for one in bare)[:_LONGEST_WORD]


def units(text: str) -> list[Unit]:
    """The words of a text in normal form; of Chinese every pair of neighbours, or a character alone.

    >>> [unit.text for unit in units("检测行人 at night")]
    ['检测', '测行', '行人', 'at', 'night']
    """
    found = []
    for match in _PART.finditer(text):
        part, start = match.group(), match.start()
        if _IS_CJK.match(part):
            pairs = [(at, part[at : at + 2]) for at in range(max(1, len(part) - 1))]
            found += [Unit(pair, start + at, start + at + len(pair)) for at, pair in pairs]
        else:
            found.append(Unit(plain(part), start, match.end()))
    return found


def is_cjk(word: str) -> bool:
    """Whether a unit is of a script without spaces."""
    return bool(_IS_CJK.match(word))


@lru_cache(maxsize=65536)
def _numbers(word: str) -> tuple[int, ...]:
    """Hashes of a word, and of three to five letters in a row with its ends marked."""
    if is_cjk(word):
        return tuple(_hash(f"c{part}") for part in dict.fromkeys((word, *word)))
    marked = f"<{word}>"
    parts = (marked[at : at + size] for size in (3, 4, 5) for at in range(len(marked) - size + 1))
    return (_hash(f"w{word}"), *(_hash(f"g{part}") for part in parts))


@lru_cache(maxsize=65536)
def _pair(first: str, second: str) -> int:
    return _hash(f"b{first} {second}")


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))


def features(words: Sequence[str], buckets: int) -> list[int]:
    """Numbers of the buckets of the words of a text, as `units` gives them."""
    return [number % buckets for number in _all_numbers(words)]


def _all_numbers(words: Sequence[str]) -> Iterator[int]:
    for word in words:
        yield from _numbers(word)
    for first, second in pairwise(words):
        if not is_cjk(first) or not is_cjk(second):
            yield _pair(first, second)
