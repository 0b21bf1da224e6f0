"""The one parser of the words behind a command: bare words, `key=A,B` selections, and `Configurable.parameter=value` bindings."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdbench.errors import UserError, shortened


@dataclass(frozen=True)
class Words:
    """The words of a command, sorted by kind.

    Attributes:
        bare: words without "=", in order.
        values: the values of each `key=A,B`, without duplicates, in order.
        bindings: words whose key has a dot, as they were typed.
    """

    bare: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    bindings: tuple[str, ...]


_APART = "pass each selection and binding as a word of its own"


def parse(
    words: Sequence[str], keys: Collection[str], unknown_key: Callable[[str], UserError], single: Collection[str] = ()
) -> Words:
    """Sort the words of a command.

    Args:
        keys: the keys of selections that the command takes.
        unknown_key: makes the error for a key that is not among them.
        single: the keys that take one value.

    Raises:
        UserError: a key that is unknown, given twice, without a value, or with several where it takes one; a word with
            characters that cannot be printed, such as a line break.
    """
    bare: list[str] = []
    values: dict[str, tuple[str, ...]] = {}
    bindings: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
        if not word.isprintable():
            raise UserError(
                f"{shortened(repr(word))} has a line break or another character that cannot be printed; {_APART}"
            )
        if not equals:
            bare.append(word)
        elif "." in key:
            bindings.append(word)
        elif key not in keys:
            raise unknown_key(key)
        elif key in values:
            raise UserError(f"'{key}' is given twice; pass several values as one comma-separated list ({key}=A,B)")
        else:
            values[key] = tuple(dict.fromkeys(filter(None, text.split(","))))
            if not values[key]:
                raise UserError(f"'{key}=' has no value")
            if key in single and len(values[key]) > 1:
                raise UserError(f"'{key}' takes one value, not {len(values[key])}")
    return Words(tuple(bare), values, tuple(bindings))


def selections(
    words: Sequence[str], keys: Collection[str], unknown_key: Callable[[str], UserError]
) -> Mapping[str, tuple[str, ...]]:
    """The values of each `key=A,B` of a command that takes nothing else.

    Raises:
        UserError: see `parse`; a word without "=" or a binding counts as an unknown key.
    """
    parsed = parse(words, keys, unknown_key)
    for word in (*parsed.bare, *parsed.bindings):
        raise unknown_key(word.partition("=")[0])
    return parsed.values


def whole_number(key: str, text: str, least: int = 0, example: str = "") -> int:
    """The integer that `text` writes.

    Raises:
        UserError: it is not an integer in ASCII digits, or below `least`.
    """
    number = _integer(text)
    if number is None or number < least:
        kind = "a positive integer" if least == 1 else "a non-negative integer" if least == 0 else f"at least {least}"
        raise UserError(f"{key} must be {kind}, such as {example or f'{key}={max(least, 2)}'}, not '{shortened(text)}'")
    return number


def _integer(text: str) -> int | None:
    """The integer that ASCII digits write; None for other text, and for more than 64 bits, which nothing computes with."""
    is_one = text.isascii() and text.isdigit() and len(text) < 20
    return number if is_one and (number := int(text)) < 2**63 else None


_SEEDS = re.compile(r"(?P<first>[0-9]+)(?:(?:-|\.\.)(?P<last>[0-9]+))?")
MOST_SEEDS = 10_000
"""Seeds of one range at most: a longer one is a typing error."""


def seed_numbers(texts: Iterable[str]) -> tuple[int, ...]:
    """The seeds that `seeds=0,1`, `seeds=0-4` or `seeds=0..4,7` lists, each once; a range includes both ends.

    Raises:
        UserError: an item is neither a non-negative integer in ASCII digits nor a range of two such integers.
    """
    seeds: dict[int, None] = {}
    for text in texts:
        match = _SEEDS.fullmatch(text)
        first = _integer(match["first"]) if match else None
        last = _integer(match["last"] or match["first"]) if match else None
        if first is None or last is None:
            raise UserError(
                "seeds must be non-negative integers or ranges, such as seeds=0,1,2 or seeds=0-4, not "
                f"'{shortened(text)}'"
            )
        if last - first >= MOST_SEEDS:
            raise UserError(f"a range of seeds has at most {MOST_SEEDS} of them, not {last - first + 1} ('{text}')")
        if last < first:
            raise UserError(f"a range of seeds begins with its smaller end: seeds={last}-{first}, not '{text}'")
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


def printable(text: str) -> str:
    """Text on one line, without characters that a terminal, a browser or TeX would act on.

    Spaces of all kinds become a blank. Other characters that are not printable (escapes, marks of direction, lone surrogates)
    become an escape as in Python, such as `\\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else _escaped(c) for c in text)


def printable_lines(text: str) -> str:
    """Text of several lines, each as `printable` makes it, but with its tabs."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def count(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {noun}{'s' * (number != 1)}"


def byte_size(number: int) -> str:
    """193 GB, 12.4 MB."""
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


def shortest(value: Any) -> Any:
    """A value for display, its whole floats as integers: 4 for 4.0, also inside lists."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(shortest, value))
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def nine_digits(value: float) -> float:
    """A computed number for a file, to nine significant digits; whole ones keep all of theirs.

    Files are compared byte by byte, and the last digits depend on the versions of the libraries.
    """
    return value if value.is_integer() else float(f"{value:.9g}")


def listed_values(text: str) -> list[str]:
    """The items of `A,B`; commas inside brackets and quotes do not separate.

    Returns:
        The items without surrounding space; empty ones are left out.
    """
    items, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth and not quote:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]
