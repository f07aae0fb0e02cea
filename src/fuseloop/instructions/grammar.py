"""A grammar of instructions, and of what is none: the sentences from which the text encoder learns.

The rules of a language are a YAML file in `words`. A rule lists alternatives between bars; `(a|b)` is a choice within
one, and `{name}` stands for another rule:

>>> rules = Rules({"greet": "hello {who} | good (morning|night)", "who": "you"})
>>> sorted({rules.expand("greet", Random(seed))[0] for seed in range(20)})
['good morning', 'good night', 'hello you']

Rules named as an attribute (`night`, `people`, ...) give the sentence that attribute. Typing errors are added to what
the rules give.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any, TypeAlias

import yaml

from fuseloop.errors import ConfigurationError
from fuseloop.instructions.features import normal_form, units
from fuseloop.instructions.intents import ATTRIBUTES, INTENTS, LANGUAGES
from fuseloop.instructions.spelling import NEIGHBOURS

SHARES = {"english": 0.46, "german": 0.18, "spanish": 0.18, "chinese": 0.18}
"""Share of each language among the sentences."""

KINDS = {"instruction": 0.5, "mixed": 0.14, "nonsense": 0.3, "noise": 0.06}
"""Share of each kind among the sentences."""

MIXED: dict[str, tuple[float, float]] = {
    "both_intents": (0.5, 0.5),
    "first_more": (0.7, 0.3),
    "but_keep": (0.7, 0.3),
    "negated": (0.0, 1.0),
}
"""Rules that combine two purposes, and the share of each."""

MISTYPED = 0.4
"""Share of the sentences that have typing errors."""

_TOKEN = re.compile(r"\{(\w+)\}|([(|)])|([^{}(|)]+)")

Node: TypeAlias = "str | tuple[Node, ...] | list[Node]"
"""A text, a sequence, or a list of alternatives; a name of a rule is a text that begins with "{"."""


@dataclass(frozen=True)
class Sentence:
    """A sentence and what it means.

    Attributes:
        text: What is written.
        mixture: Share of each intent; empty where it is no instruction.
        attributes: Attributes that it mentions.
        language: One of `LANGUAGES`; empty where it is in none.
    """

    text: str
    mixture: Mapping[str, float]
    attributes: frozenset[str]
    language: str


class Rules:
    """Rules by name.

    Args:
        rules: The alternatives of each, as the module says.
        outer: Where names lead that are not among these.

    Raises:
        ConfigurationError: A bracket or brace has no partner.
    """

    def __init__(self, rules: Mapping[str, str], outer: Rules | None = None) -> None:
        self._outer = outer
        self._rules = {name: _parse(name, text) for name, text in rules.items()}

    def expand(
        self, name: str, random: Random, given: Mapping[str, tuple[Rules, str]] | None = None
    ) -> tuple[str, set[str]]:
        """A random text of a rule.

        Args:
            name: The rule.
            random: What draws.
            given: Names that lead to a rule of other rules.

        Returns:
            The text, and the names of the rules that it went through.

        Raises:
            ConfigurationError: A rule does not exist.
        """
        parts: list[str] = []
        used: set[str] = set()
        self._write(self._find(name), random, given or {}, parts, used)
        return tidy("".join(parts)), used

    def _write(
        self,
        node: Node,
        random: Random,
        given: Mapping[str, tuple[Rules, str]],
        parts: list[str],
        used: set[str],
    ) -> None:
        if isinstance(node, list):
            self._write(random.choice(node), random, given, parts, used)
        elif isinstance(node, tuple):
            for part in node:
                self._write(part, random, given, parts, used)
        elif not node.startswith("{"):
            parts.append(node)
        elif (name := node[1:]) in given:
            rules, other = given[name]
            rules._write(rules._find(other), random, {}, parts, used)
        else:
            used.add(name)
            self._write(self._find(name), random, given, parts, used)

    def texts(self, chosen: Callable[[str], bool]) -> Iterator[str]:
        """The texts in the rules of chosen names, without names and choices."""
        nodes = [rule for name, rule in self._rules.items() if chosen(name)]
        while nodes:
            node = nodes.pop()
            if not isinstance(node, str):
                nodes += node
            elif not node.startswith("{"):
                yield node

    def _find(self, name: str) -> Node:
        if name in self._rules:
            return self._rules[name]
        if self._outer is None:
            raise ConfigurationError(f"the grammar has no rule {name!r}")
        return self._outer._find(name)


def _parse(name: str, text: str) -> Node:
    """The tree of a rule."""
    opened: list[list[Node]] = [[]]  # the alternatives so far of every open bracket, the rule itself being the first
    sequences: list[list[Node]] = [[]]  # and the alternative that is being read
    end = 0
    for match in _TOKEN.finditer(text):
        word, mark, plain = match.groups()
        if match.start() != end:
            break
        if mark == "(":
            opened.append([])
            sequences.append([])
        elif mark == "|":
            opened[-1].append(tuple(sequences[-1]))
            sequences[-1] = []
        elif mark == ")" and len(opened) > 1:
            alternatives: Node = [*opened.pop(), tuple(sequences.pop())]
            sequences[-1].append(alternatives)
        elif mark:
            break
        else:
            sequences[-1].append("{" + word if word else plain)
        end = match.end()
    if end != len(text) or len(opened) > 1:
        raise ConfigurationError(f"rule {name!r} has a bracket or brace without a partner: {text[:end][-20:]!r}")
    return [*opened[0], tuple(sequences[0])]


_CJK = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef"
_BESIDE_CJK = re.compile(rf"(?<=[{_CJK}]) +| +(?=[{_CJK}])")


def tidy(text: str) -> str:
    """Without spaces at the ends, in a row, before a comma, or beside Chinese characters."""
    text = re.sub(r" +(?=[,.?!;](?: |$))", "", " ".join(text.split()))
    return _BESIDE_CJK.sub("", text)


class Grammar:
    """Draws sentences of one language.

    Args:
        language: Its name.
        tree: Its rules by name, and under `intents` those of each intent.

    Attributes:
        function_words: Words that say nothing of the purpose.
    """

    def __init__(self, language: str, tree: Mapping[str, Any]) -> None:
        self.language = language
        self.function_words: tuple[str, ...] = tuple(tree["function_words"].split())
        own = {name: rule for name, rule in tree.items() if name not in ("function_words", "intents")}
        self._rules = Rules(own)
        self._intents = {intent: Rules(tree["intents"][intent], self._rules) for intent in INTENTS}

    def instruction(self, random: Random) -> Sentence:
        """An instruction with one purpose."""
        intent = random.choice(list(INTENTS))
        return self._sentence(self._intents[intent].expand("frames", random), {intent: 1.0})

    def mixed(self, random: Random) -> Sentence:
        """An instruction with two purposes, alike or one above the other, or one that denies the first."""
        how = random.choice(list(MIXED))
        first, second = random.sample(list(INTENTS), 2)
        if how == "but_keep" and first != "view" and random.random() < 0.6:
            second = "view"  # what an image is mostly kept as is good to look at
        given = {"a": (self._intents[first], "clause"), "b": (self._intents[second], "clause")}
        if how == "but_keep":
            given = {"be": (self._intents[second], "be")}
        text = self._intents[first].expand(how, random, given)
        shares = zip((first, second), MIXED[how], strict=True)
        return self._sentence(text, {intent: share for intent, share in shares if share})

    def nonsense(self, random: Random) -> Sentence:
        """What is no instruction."""
        text, _ = self._rules.expand("nonsense", random)
        return Sentence(text, {}, frozenset(), self.language)

    def texts(self, attribute: str = "") -> Iterator[str]:
        """The texts in all rules, or in those of an attribute."""
        for rules in (self._rules, *self._intents.values()):
            yield from rules.texts(lambda name: not attribute or says(name, attribute))

    def _sentence(self, written: tuple[str, set[str]], mixture: Mapping[str, float]) -> Sentence:
        text, used = written
        found = {name for name in ATTRIBUTES if any(says(rule, name) for rule in used)}
        return Sentence(text, mixture, frozenset(found), self.language)


def says(rule: str, attribute: str) -> bool:
    """Whether a rule of this name gives a sentence the attribute."""
    return rule == attribute or rule.startswith(f"{attribute}_")


class Sentences:
    """Draws sentences of all languages, with typing errors."""

    def __init__(self) -> None:
        self.grammars = {language: Grammar(language, _rules_of(language)) for language in LANGUAGES}
        self._noise = _text("noise.txt").splitlines()

    def draw(self, random: Random, mistyped: float = MISTYPED) -> Sentence:
        """A sentence.

        Args:
            random: What draws.
            mistyped: Share of the sentences that have typing errors.
        """
        kind = random.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "noise":
            return Sentence(self._noise_line(random), {}, frozenset(), "")
        grammar = self.grammars[random.choices(list(SHARES), list(SHARES.values()))[0]]
        draw: Callable[[Random], Sentence] = getattr(grammar, kind)
        sentence = draw(random)
        if random.random() >= mistyped:
            return sentence
        return Sentence(mistype(sentence.text, random), sentence.mixture, sentence.attributes, sentence.language)

    def words(self, attribute: str = "") -> set[str]:
        """Every word of the rules, or of those of an attribute, as it is compared."""
        texts = (text for grammar in self.grammars.values() for text in grammar.texts(attribute))
        return {unit.text for text in texts for unit in units(normal_form(text))}

    def _noise_line(self, random: Random) -> str:
        """Code, numbers, other scripts, letters at random."""
        if random.random() < 0.4:
            return random.choice(self._noise)
        letters = random.choice((string.ascii_lowercase, "asdfghjklqwertzuiop", string.digits, string.printable))
        words = ["".join(random.choices(letters, k=random.randint(1, 9))) for _ in range(random.randint(1, 5))]
        return " ".join(words)


@cache
def _rules_of(language: str) -> Any:
    """The content of the file of a language."""
    quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # not everywhere
    return yaml.load(_text(f"{language}.yaml"), quick)


def _text(name: str) -> str:
    return (files("fuseloop.instructions") / "words" / name).read_text(encoding="utf-8")


# Typing errors

_SPELT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


def mistype(text: str, random: Random) -> str:
    """A text with one to three typing errors in words of at least four letters, or one among Chinese characters."""
    if "\u4e00" <= max(text, default="") <= "\u9fff" and not any(
        word.isascii() and len(word) > 3 for word in text.split()
    ):
        return _mistype_characters(text, random)
    if random.random() < 0.15:
        text = text.translate(_SPELT)
    words = text.split(" ")
    for _ in range(random.choice((1, 1, 1, 2, 2, 3))):
        long = [index for index, word in enumerate(words) if len(word) > 3]
        if not long:
            break
        index = random.choice(long)
        if random.random() < 0.1 and index + 1 < len(words):
            words[index : index + 2] = [words[index] + words[index + 1]]
        else:
            words[index] = mistype_word(words[index], random)
    return " ".join(words)


def mistype_word(word: str, random: Random) -> str:
    """A word with two letters swapped, one left out, one doubled, one beside the right key, or a space within."""
    at = random.randrange(len(word) - 1)
    before, here, after, rest = word[:at], word[at], word[at + 1], word[at + 2 :]
    kind = random.randrange(9)
    if kind < 2:
        return before + after + here + rest
    if kind < 4:
        return before + here + rest
    if kind < 6:
        return before + here + here + after + rest
    if kind < 8:
        return before + random.choice(NEIGHBOURS.get(here.lower(), here)) + after + rest
    return f"{before}{here} {after}{rest}"


def _mistype_characters(text: str, random: Random) -> str:
    if len(text) < 5:
        return text
    at = random.randrange(len(text) - 1)
    return random.choice(
        (
            text[:at] + text[at + 1 :],
            text[: at + 1] + text[at] + text[at + 1 :],
            text[:at] + text[at + 1] + text[at] + text[at + 2 :],
            text[: at + 1] + " " + text[at + 1 :],
        )
    )
