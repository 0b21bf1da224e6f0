"""Error messages: one sentence with the wrong word and the nearest valid one."""

from __future__ import annotations

import difflib
import gc
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Invalid input. The command line prints the message and exits with status 2."""


class RunError(Exception):
    """A run that cannot continue (a loss that is not finite, a teacher that is not the one claimed)."""


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that is most similar to `word`, or None if none is similar."""
    word, by_lower = word.lower(), {v.lower(): v for v in valid}
    close = difflib.get_close_matches(word, by_lower, n=10, cutoff=0.5)

    def likeness(other: str) -> tuple[float, bool]:  # of equally similar words, the one with two letters exchanged
        return difflib.SequenceMatcher(None, other, word).ratio(), sorted(other) == sorted(word)

    return by_lower[max(close, key=likeness)] if close else None


def reason(error: BaseException) -> str:
    """The reason for an error of the system, of memory or of a parser, as the end of a sentence: "permission denied"."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return str(error) or type(error).__name__


def file_and_reason(error: OSError) -> str:
    """An error of the file system as a sentence: the file, if one is known, and the system's reason."""
    if error.filename is None:
        return reason(error)
    name, half = str(error.filename), _LONGEST_NAME // 2
    return f"{name if len(name) <= _LONGEST_NAME else f'{name[:half]}…{name[-half:]}'}: {reason(error)}"


_LONGEST_NAME = 200
"""Characters of a file's name in a sentence; the middle of a longer one is left out."""

LISTED = 8
"""Valid words up to this number are listed in the message itself."""


def unknown(kind: str, word: str, valid: Iterable[str], see: str = "") -> UserError:
    """The error for a word that is not in `valid`.

    Args:
        kind: kind of word that was expected ("method", "parameter of CRD").
        see: the command that lists all valid words; it is named if there are more than `LISTED`.
    """
    valid = sorted(valid)
    guess = nearest(word, valid)
    listed = len(valid) <= LISTED or (not see and not guess)
    if listed and valid != [guess]:
        every = f"valid: {', '.join(valid)}" if valid else ""
    else:
        every = f"see all with: {see}" if see and not listed else ""
    return UserError(f"unknown {kind} '{word}'{hint(guess, every)}")


def shortened(text: str, most: int = 200) -> str:
    """The beginning of a text that someone else wrote, for a message that is to stay one sentence."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def hint(guess: str | None, every: str = "") -> str:
    """The end of a message about an unknown word, with the semicolon before it: the nearest word, and where all are listed.

    Args:
        guess: the nearest valid word, if there is one.
        every: a clause about all valid words, such as "see all with: kdbench list methods".
    """
    if not guess:
        return f"; {every}" if every else ""
    return f"; did you mean '{guess}'?" + (f" {every[0].upper()}{every[1:]}" if every else "")


def require(holds: bool, sentence: str) -> None:
    """Raise ValueError with a sentence unless a condition holds; for the values of settings."""
    if not holds:
        raise ValueError(sentence)


@contextmanager
def loading_torch() -> Iterator[None]:
    """A block that imports torch, without the garbage collector, which finds nothing there and takes a tenth of the time.

    Raises:
        RunError: there is too little memory for it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    except (ImportError, MemoryError, OSError) as error:
        unmapped = any(words in str(error) for words in ("failed to map segment", "Cannot allocate memory"))
        if not unmapped and not isinstance(error, MemoryError):
            raise
        reason = str(error) or "nothing more can be allocated"
        raise RunError(f"there is too little memory to load torch{memory_limit()}: {reason}") from None
    finally:
        if was_on:
            gc.enable()


def memory_limit() -> str:
    """The limit of this process's memory as the end of a sentence (" (ulimit -v is 2000000 kB)"); "" if there is none."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if limit == resource.RLIM_INFINITY else f" (ulimit -v is {limit // 1024} kB)"
