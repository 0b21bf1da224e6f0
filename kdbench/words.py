"""The one parser of the words behind a command: bare words, `key=A,B` selections, and `Configurable.parameter=value` bindings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdbench.errors import UserError


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


def parse(
    words: Sequence[str], keys: Collection[str], unknown_key: Callable[[str], UserError], single: Collection[str] = ()
) -> Words:
    """Sort the words of a command.

    Args:
        keys: the keys of selections that the command takes.
        unknown_key: makes the error for a key that is not among them.
        single: the keys that take one value.

    Raises:
        UserError: a key that is unknown, given twice, without a value, or with several where it takes one.
    """
    bare: list[str] = []
    values: dict[str, tuple[str, ...]] = {}
    bindings: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
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
    if not text.isascii() or not text.isdigit() or int(text) < least:
        kind = "a positive integer" if least == 1 else "a non-negative integer" if least == 0 else f"at least {least}"
        raise UserError(f"{key} must be {kind}, such as {example or f'{key}={max(least, 2)}'}, not '{text}'")
    return int(text)


def seed_numbers(texts: Iterable[str]) -> tuple[int, ...]:
    """The seeds that `seeds=A,B` lists.

    Raises:
        UserError: one is not a non-negative integer in ASCII digits.
    """
    texts = tuple(texts)
    for text in texts:
        if not text.isascii() or not text.isdigit():
            raise UserError(f"seeds must be non-negative integers, such as seeds=0,1,2, not '{text}'")
    return tuple(map(int, texts))
