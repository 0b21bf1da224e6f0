"""Output that cannot fail: what cannot be shown is not shown, and the work continues."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def lenient() -> Iterator[None]:
    """Inside the block no error of standard output or standard error reaches what prints there.

    Such an error is that of a reader that has ended (`head`, `tee`), a full disk behind a redirection, or a character that
    the output's encoding lacks. Nor does the interpreter report it at its end, with an exit status of its own.
    """
    before = sys.stdout, sys.stderr
    lenient_ = [_Lenient(stream) for stream in before]
    sys.stdout, sys.stderr = lenient_
    try:
        yield
    finally:
        for stream in lenient_:
            stream.finish()
        sys.stdout, sys.stderr = before


class _Lenient:
    """A text stream that drops what it cannot show.

    Args:
        stream: the stream to write to; None, as Python has it for a closed descriptor, drops everything.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        # A stream that was closed raises ValueError.
        with contextlib.suppress(OSError, ValueError):
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "replace").decode(error.encoding))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def finish(self) -> None:
        """Drop what is still in the buffer and cannot be written, which the interpreter would try again at its end."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
