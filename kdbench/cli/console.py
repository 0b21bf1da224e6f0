"""The consoles of the command line, and their width."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from kdbench.cli.printing import warn
from kdbench.words import printable_lines

PIPE_WIDTH = 10_000
"""Columns where the output is not a terminal: lines and ids stay whole there, for programs and for log files."""


class PrintableConsole(Console):
    """A console that prints no character that a terminal would act on, whatever the text of a table or a line holds."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))


def console(stderr: bool = False) -> Console:
    """A console without markup and highlighting, so that text is printed as it is.

    The stream alone decides whether it is a terminal: FORCE_COLOR and the like colour no pipe, in which programs look for ids.

    Args:
        stderr: print to standard error.
    """
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    terminal = PrintableConsole(highlight=False, markup=False, stderr=stderr, force_terminal=is_terminal)
    if not terminal.is_terminal:
        terminal.width = PIPE_WIDTH
    return terminal


def print_left_out(sentences: Iterable[str]) -> None:
    """Print a line on standard error for each file that a request leaves out because of an error in it."""
    for sentence in sentences:
        warn(f"left out: {sentence}")


def print_sentences(sentences: Iterable[str]) -> None:
    """Print a line on standard error for each sentence about what a command has read."""
    for sentence in sentences:
        warn(sentence)
