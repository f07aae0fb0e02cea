"""What was understood, in words and bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fuseloop.errors import ConfigurationError
from fuseloop.instructions.intents import ATTRIBUTES, INTENTS
from fuseloop.instructions.match import InstructionMatch

BAR = 20  # characters of a share of one
SHOWN = 200  # characters of a text that are shown


def shown(text: str) -> str:
    """A text on one line, without what a terminal would obey, cut where it is long."""
    line = "".join(one if one.isprintable() else " " for one in text)
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}… ({len(line):,} characters)"


def describe(text: str, match: InstructionMatch) -> str:
    """What was understood of a text: a line for each share, and what it rests on.

    >>> print(describe("detection=1", InstructionMatch({"detection": 1.0}, 1.0)))
    detection=1
      detection     ████████████████████ 100 %  objects are to be found by a detector
      confidence    1.00
    """
    lines = [shown(text)]
    if match.understood:
        lines += [_share(name, share) for name, share in match.mixture.items()]
    else:
        lines.append(f"  not understood: {match.reason}; the image stays neutral")
    lines.append(f"  {'confidence':13} {match.confidence:.2f}")
    lines += [f"  {name:13} {share:.2f}  {ATTRIBUTES[name]}" for name, share in match.attributes.items()]
    if match.matched_terms:
        lines.append(f"  {'known words':13} {', '.join(match.matched_terms)}")
    if match.language:
        lines.append(f"  {'language':13} {match.language}")
    return "\n".join(lines)


def _share(name: str, share: float) -> str:
    bar = "█" * max(1, round(BAR * share))
    return f"  {name:13} {bar:{BAR}} {share:4.0%}".replace("%", " %") + f"  {INTENTS[name]}"


def parse_instruction(text: str) -> str | Mapping[str, float]:
    """A text, or the mixture that "detection=0.7,view=0.3" means.

    >>> parse_instruction("detection=0.7, view=0.3")
    {'detection': 0.7, 'view': 0.3}
    >>> parse_instruction("find x = y")
    'find x = y'
    """
    shares = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        if not equals or len(name.split()) != 1:
            return text
        try:
            shares[name.strip()] = float(number)
        except ValueError:
            return text
    return shares


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        ConfigurationError: It cannot be read, is no UTF-8, or has no lines.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no text in UTF-8 (byte {error.start})") from error
    kept = [line for line in lines if line.strip()]
    if not kept:
        raise ConfigurationError(f"{path} has no lines; write an instruction on each")
    return kept
