"""The words of the command line: which commands and options there are, and what is said of a wrong one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from kdbench import __version__
from kdbench.cli import commands
from kdbench.errors import UserError, nearest


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The words behind `kdbench`.

    Raises:
        UserError: an unknown command or option.
        SystemExit: help was asked for, and is printed.
    """
    parser = _parser()
    names = commands.NAMES
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None and words[0] == first and first not in names:
        guess = nearest(first, names)
        hint = f"; did you mean '{guess}'?" if guess else f"; valid: {', '.join(names)}."
        raise UserError(f"unknown command '{first}'{hint} See: kdbench --help")
    arguments, rest = parser.parse_known_args(words)
    if hasattr(arguments, "words"):  # argparse takes no selections behind an option that follows selections
        arguments.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        options = (
            *("--runs", "--data", "--out", "--dry-run", "--rerun", "--check", "--plugins", "--help"),
            *("--all", "--watch", "--json", "--follow", "--board", "--to", "--plots", "--html"),
        )
        guess = nearest(rest[0].split("=")[0], options)
        hint = f"; did you mean '{guess}'?" if guess else "."
        raise UserError(
            f"unknown option '{rest[0]}' of kdbench {arguments.command or ''}{hint} See: kdbench {arguments.command} --help"
        )
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(0)
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse with our kind of error: one sentence, the nearest word, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kdbench",
        description="Compares knowledge-distillation methods under one protocol.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kdbench COMMAND --help says more about each. Exit status: 0 all done, 1 a run failed, 2 wrong input.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kdbench {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        found = subparsers.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        found.add_argument(
            "--plugins",
            action="append",
            default=[],
            metavar="DIR",
            help="a folder with methods/ and gin/ of your own (also KDBENCH_PLUGINS)",
        )
        return found

    for name in commands.NAMES:
        module = commands.load(name)
        module.add_arguments(command(name, module.SUMMARY, module.DETAILS))
    return parser
