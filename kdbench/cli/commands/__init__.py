"""The commands of `kdbench`, one module each: its arguments, its help, and what it prints.

A command module has `SUMMARY` (one line for `kdbench --help`), `DETAILS` (shown below its options), `add_arguments(parser)`
and `run(arguments)`, which returns the exit status. Work is imported in `run`, so that `kdbench --help` and the error for a
typo appear at once.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Protocol, cast

NAMES = (
    "run", "status", "logs", "cancel", "list", "show", "data", "leaderboard", "reproduce", "export", "submit", "diff", "power",
    "tune", "transfer", "weights", "latency", "doctor",
)  # fmt: skip
"""All commands, in the order of `kdbench --help`."""

WORK = ("run", "cancel", "leaderboard", "reproduce", "export", "submit", "tune", "transfer", "weights")
"""Commands that do more than show something: they do it to the end, even if nobody reads what they print any more."""


class Command(Protocol):
    """The interface of a command module."""

    SUMMARY: str
    DETAILS: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, arguments: argparse.Namespace) -> int: ...


def load(name: str) -> Command:
    """The module of a command in `NAMES`."""
    return cast(Command, import_module(f"kdbench.cli.commands.{name}"))
