"""The sentence about an error that ended a run: what went wrong, and where in the user's own code."""

from __future__ import annotations

import traceback
from pathlib import Path

from kdbench.config import places
from kdbench.errors import RunError, UserError


def sentence(error: BaseException) -> str:
    """One line about an error: ours are sentences, others need their name; then the innermost line of a plug-in or method.

    Sentences that a method of kdbench itself raises are left as they are.
    """
    # gin adds the call in which an error was raised, in lines of its own.
    text = " ".join(str(error).partition("\n  In call to configurable")[0].split())
    ours = isinstance(error, (RunError, UserError))
    where = _place(error, built_in=not ours)
    return (text if ours else f"{type(error).__name__}: {text}".rstrip(": ")) + (f" ({where})" if where else "")


def _place(error: BaseException, built_in: bool) -> str | None:
    """Function, file and line of the innermost frame in a file that users write."""
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    for code, line in reversed(frames):
        path = Path(code.co_filename)
        if places.is_users(path) and (built_in or places.origin(path) != places.BUILT_IN):
            return f"{code.co_qualname}, {places.short(path)}:{line}"
    return None
