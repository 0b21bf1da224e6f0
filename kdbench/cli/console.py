"""The one console of the command line, and its width."""

from __future__ import annotations

from rich.console import Console

PIPE_WIDTH = 200
"""Columns where the output is not a terminal: lines keep their length for tools such as grep."""


def console(stderr: bool = False) -> Console:
    """A console for standard output (or error) without markup and highlighting, so that text is printed as it is."""
    plain = Console(highlight=False, markup=False, stderr=stderr)
    return plain if plain.is_terminal else Console(highlight=False, markup=False, stderr=stderr, width=PIPE_WIDTH)
