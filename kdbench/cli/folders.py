"""The folders of a command, from an option or from the environment."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


def add_runs(parser: Any) -> None:
    """Add the option --runs; `parser` may be a group of options."""
    parser.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the option --data."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the datasets (default: KDBENCH_DATA)")


def add_leaderboard(parser: argparse.ArgumentParser, option: str, purpose: str) -> None:
    """Add an option for the folder of a leaderboard, which is leaderboard/ by default.

    Args:
        purpose: beginning of its help, such as "folder to write".
    """
    parser.add_argument(
        option, type=Path, default=Path("leaderboard"), metavar="DIR", help=f"{purpose} (default: leaderboard/)"
    )


def runs(arguments: argparse.Namespace) -> Path:
    """The folder of the runs: --runs, KDBENCH_RUNS, or runs/ in the current folder."""
    return _folder(arguments.runs, "KDBENCH_RUNS") or Path("runs").resolve()


def data(arguments: argparse.Namespace) -> Path | None:
    """The folder of the datasets: --data or KDBENCH_DATA, or None."""
    return _folder(arguments.data, "KDBENCH_DATA")


def _folder(given: Path | None, variable: str) -> Path | None:
    from kdbench.config import places  # not for --help and typos, which are to be fast

    text = str(given) if given else os.environ.get(variable)
    return places.user_path(text).resolve() if text else None
