"""The consoles of the command line, and their width."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console

PIPE_WIDTH = 200
"""Columns where the output is not a terminal, so that programs such as grep see whole lines."""


def console(stderr: bool = False, pipe_width: int | None = PIPE_WIDTH) -> Console:
    """A console without markup and highlighting, so that text is printed as it is.

    Args:
        stderr: print to standard error.
        pipe_width: columns where the output is not a terminal; None for COLUMNS, or 80.
    """
    terminal = Console(highlight=False, markup=False, stderr=stderr)
    if terminal.is_terminal or pipe_width is None:
        return terminal
    return Console(highlight=False, markup=False, stderr=stderr, width=pipe_width)


def print_left_out(sentences: Iterable[str]) -> None:
    """Print a line on standard error for each file that a request leaves out because of an error in it."""
    for sentence in sentences:
        print(f"kdbench: left out: {sentence}", file=sys.stderr)


def print_sentences(sentences: Iterable[str]) -> None:
    """Print a line on standard error for each sentence about what a command has read."""
    for sentence in sentences:
        print(f"kdbench: {sentence}", file=sys.stderr)
