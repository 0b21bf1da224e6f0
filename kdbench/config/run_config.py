"""The config.gin of a run: the command in its first line, and all its values. Nothing is executed or imported."""

from __future__ import annotations

import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gin import config_parser

from kdbench.config import ginfile
from kdbench.errors import UserError, reason
from kdbench.files import read_regular

_PREFIX = "# kdbench "


@dataclass(frozen=True)
class RunConfig:
    """The resolved configuration of one run.

    Attributes:
        values: Python values by key, "Train.epochs": 60.0; `repr` of a value is the text that the file has.
        text: the file without the line of the command.
        command: the command that makes this run, "kdbench run methods=…"; None if the file does not record it.
    """

    values: Mapping[str, Any]
    text: str
    command: str | None = None


def read(path: Path) -> RunConfig:
    """The configuration in a file.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, or see `parse`.
    """
    try:
        return parse(read_regular(path).decode(), ginfile.label(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{ginfile.label(path)} cannot be read: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{ginfile.label(path)} does not parse: {error}") from None


def parse(text: str, label: str) -> RunConfig:
    """The configuration in a text, also of methods that no longer exist.

    Args:
        label: the name of the file or run, for messages.

    Raises:
        UserError: the text does not parse, or holds more than bindings (such as an import).
    """
    values = {}
    try:
        for statement in ginfile.statements_in(text):
            if not isinstance(statement, config_parser.BindingStatement) or not statement.arg_name:
                raise UserError(f"{label} is not a resolved configuration: it holds more than bindings")
            values[f"{statement.selector}.{statement.arg_name}"] = statement.value
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError) as error:
        raise UserError(f"{label} does not parse: {ginfile.reason(error)}") from None
    first, _, rest = text.partition("\n")
    command = command_in(first)
    return RunConfig(values, rest.lstrip("\n") if command else text, command)


def command_in(line: str) -> str | None:
    """The command in the first line of a run's configuration, "kdbench run methods=…"; None in any other line.

    For callers that read only this line, of many files.
    """
    return line.removeprefix("# ").strip() if line.startswith(_PREFIX) else None
