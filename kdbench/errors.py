"""Error messages: one sentence with the wrong word and the nearest valid one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Invalid input. The command line prints the message and exits with status 2."""


class RunError(Exception):
    """A run that cannot continue (a loss that is not finite, a teacher that is not the one claimed)."""


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that is most similar to `word`, or None if none is similar."""
    by_lower = {v.lower(): v for v in valid}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def unknown(kind: str, word: str, valid: Iterable[str], see: str = "") -> UserError:
    """The error for a word that is not in `valid`.

    Args:
        kind: kind of word that was expected ("method", "parameter of CRD").
        see: the command that lists all valid words; without it they are listed here when none is near.
    """
    valid = sorted(valid)
    guess = nearest(word, valid)
    text = f"unknown {kind} '{word}'"
    if guess:
        text += f"; did you mean '{guess}'?"
    elif valid and not see:
        text += f"; valid: {', '.join(valid)}"
    if see:
        text += f"{' ' if guess else '; '}See all with: {see}"
    return UserError(text)


def require(holds: bool, sentence: str) -> None:
    """Raise ValueError with a sentence unless a condition holds; for the values of settings."""
    if not holds:
        raise ValueError(sentence)
