"""The words of the command line: commands, their options, and the errors for unknown ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from kdbench.cli import commands
from kdbench.errors import UserError, hint, nearest
from kdbench.version import __version__

DEBUG = "--debug"
"""The option that shows the traceback of an error."""

COMPLETION = "pip install 'kdbench[completion]', then eval \"$(register-python-argcomplete kdbench)\""
"""How a user switches completion on; the second half goes into ~/.bashrc or ~/.zshrc."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments that the words behind `kdbench` make.

    Raises:
        UserError: an unknown command or option.
        SystemExit: help was requested, and is printed.
    """
    parser, parser_of = parsers()
    if words:
        words = {"help": [*words[1:], "--help"], "version": ["--version"]}.get(words[0], words)
        _check_first(words[0], parser, parser_of)
    arguments, rest = parser.parse_known_args(words)
    if hasattr(arguments, "words"):  # argparse does not accept selections after an option that follows selections
        arguments.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        raise _not_taken(rest[0], arguments.command, parser_of)
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(0)
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse with errors in our style: one sentence, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def parsers(
    names: Iterable[str] = commands.NAMES,
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the whole command line, and that of each of its commands `names`."""
    parser = _Parser(
        prog="kdbench",
        description="Compares knowledge-distillation methods under one protocol.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="More about a command: kdbench COMMAND --help\n"
        f"Completion by the tab key: {COMPLETION}\n"
        "Exit status: 0 if all runs finished, 1 if one failed, 2 for invalid input.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kdbench {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    return parser, {name: _add(subparsers, name) for name in names}


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
    parser.add_argument(DEBUG, action="store_true", help="show the traceback of an error, in addition to the sentence")
    module.add_arguments(parser)
    return parser


def _check_first(word: str, parser: argparse.ArgumentParser, parser_of: Mapping[str, argparse.ArgumentParser]) -> None:
    """Refuse a first word that is neither a command nor an option of kdbench itself."""
    if "completion" in word:
        raise UserError(f"shell completion is set up by the shell: {COMPLETION}")
    if word.startswith("-"):
        option = word.partition("=")[0]
        if option in _options(parser):
            return
        if owners := _owners(option, parser_of):
            raise UserError(f"options follow the command, as in kdbench {owners[0]} {option}; {_owned(option, owners)}")
        raise UserError(f"unknown option '{option}'{hint(_nearest_option(option, parser), 'see: kdbench --help')}")
    if word not in parser_of:
        raise UserError(f"unknown command '{word}'{hint(nearest(word, parser_of), 'see: kdbench --help')}")


def _not_taken(word: str, command: str, parser_of: Mapping[str, argparse.ArgumentParser]) -> UserError:
    """The error for an option or a word that a command does not take."""
    see = f"see: kdbench {command} --help"
    if not word.startswith("-"):
        return UserError(f"kdbench {command} does not take '{word}'; {see}")
    option = word.partition("=")[0]
    if owners := _owners(option, parser_of):
        return UserError(f"unknown option '{option}' of kdbench {command}; {_owned(option, owners)}")
    return UserError(
        f"unknown option '{option}' of kdbench {command}{hint(_nearest_option(option, parser_of[command]), see)}"
    )


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [word for action in parser._actions for word in action.option_strings]


def _nearest_option(option: str, parser: argparse.ArgumentParser) -> str | None:
    """The option that is most similar to `option`, compared without the dashes, which all have in common."""
    valid = {word.strip("-"): word for word in _options(parser) if word.startswith("--")}
    return valid.get(nearest(option.strip("-"), valid) or "")


def _owners(option: str, parser_of: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    """The commands that take an option."""
    return [command for command, parser in parser_of.items() if option in _options(parser)]


def _owned(option: str, owners: Sequence[str]) -> str:
    *first, last = (f"kdbench {command}" for command in owners)
    return f"{option} is an option of {', '.join(first)}{' and ' if first else ''}{last}"
