"""The words of the command line: commands, their options, and the errors for unknown ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from kdbench.cli import commands
from kdbench.errors import UserError, nearest
from kdbench.version import __version__


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments that the words behind `kdbench` make.

    Raises:
        UserError: an unknown command or option.
        SystemExit: help was requested, and is printed.
    """
    parser, parser_of = _parsers()
    if words and not words[0].startswith("-") and words[0] not in parser_of:
        guess = nearest(words[0], parser_of)
        hint = f"; did you mean '{guess}'?" if guess else f"; valid: {', '.join(parser_of)}."
        raise UserError(f"unknown command '{words[0]}'{hint} See: kdbench --help")
    arguments, rest = parser.parse_known_args(words)
    if hasattr(arguments, "words"):  # argparse does not accept selections after an option that follows selections
        arguments.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        raise _unknown_option(rest[0], arguments.command, parser_of.get(arguments.command, parser))
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(0)
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse with errors in our style: one sentence, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the whole command line, and that of each command."""
    parser = _Parser(
        prog="kdbench",
        description="Compares knowledge-distillation methods under one protocol.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="More about a command: kdbench COMMAND --help\n"
        "Exit status: 0 if all runs finished, 1 if one failed, 2 for invalid input.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kdbench {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    return parser, {name: _add(subparsers, name) for name in commands.NAMES}


def _add(subparsers: argparse._SubParsersAction[_Parser], name: str) -> argparse.ArgumentParser:
    module = commands.load(name)
    parser = subparsers.add_parser(
        name,
        help=module.SUMMARY,
        description=module.SUMMARY,
        epilog=module.DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with your own methods/ and gin/ (also KDBENCH_PLUGINS)",
    )
    module.add_arguments(parser)
    return parser


def _unknown_option(option: str, command: str | None, parser: argparse.ArgumentParser) -> UserError:
    name = f"kdbench {command}" if command else "kdbench"
    valid = [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
    guess = nearest(option.split("=")[0], valid)
    hint = f"; did you mean '{guess}'?" if guess else "."
    return UserError(f"unknown option '{option}' of {name}{hint} See: {name} --help")
