"""The two ways to print a text: every command prints through them, or through `kdbench.cli.console`."""

from __future__ import annotations

import sys

from kdbench.words import printable, printable_lines


def print_text(text: object = "", *, end: str = "\n", stderr: bool = False) -> None:
    """Print a text of one or more lines at once, without characters that a terminal would act on.

    Args:
        stderr: print to standard error.
    """
    print(printable_lines(str(text)), end=end, file=sys.stderr if stderr else sys.stdout, flush=True)


def warn(sentence: object) -> None:
    """Print a sentence on standard error, in one line."""
    print(f"kdbench: {printable(str(sentence))}", file=sys.stderr, flush=True)
