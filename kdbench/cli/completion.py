"""Completion of the command line by the shell, with argcomplete: the words that may follow. No torch here.

The shell starts kdbench for each press of the tab key, so only what the word at hand needs is imported.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from kdbench.cli import arguments as arguments_
from kdbench.cli import commands

REQUESTED = "_ARGCOMPLETE"
"""The environment variable by which the shell asks for completions."""

Names = Callable[[], Iterable[str]]


def answer() -> None:
    """Write the completions of the shell's current line where argcomplete's shell function reads them, and end the process."""
    try:
        from argcomplete.finders import CompletionFinder
    except ImportError:  # registered by the argcomplete of another environment
        raise SystemExit(1) from None
    typed = os.environ.get("COMP_LINE", "").split()
    only = [word for word in typed[1:2] if word in commands.NAMES]
    parser, parser_of = arguments_.parsers(only or commands.NAMES)
    for command, each in parser_of.items():
        for action in each._actions:
            if not action.option_strings and action.dest in ("words", "kind", "dataset"):
                action.completer = _completer(command, action.dest)  # type: ignore[attr-defined]

    class Finder(CompletionFinder):
        def _get_completions(self, comp_words: list[str], *others: Any) -> list[str]:
            own = parser_of.get(comp_words[1]) if len(comp_words) > 1 else None
            words = _options_first(comp_words, own) if own else comp_words
            completions: list[str] = super()._get_completions(words, *others)
            return completions

    Finder()(parser)


def _options_first(typed: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The words of a command, with its options before its other words.

    argparse takes no more of `nargs="*"` after an option that follows them; `arguments.parse` does.
    """
    takes_value = {text for action in parser._actions if action.nargs != 0 for text in action.option_strings}
    options: list[str] = []
    others: list[str] = []
    for before, word in pairwise(typed[1:]):
        is_option = word.startswith("-") or before in takes_value
        (options if is_option else others).append(word)
    return [*typed[:2], *others, *options] if typed[-1] in takes_value else [*typed[:2], *options, *others]


def _completer(command: str, argument: str) -> Callable[..., list[str]]:
    def complete(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        from kdbench.config import places
        from kdbench.errors import UserError

        with suppress(UserError, OSError):  # of a plug-in's files: a message cannot be shown here
            places.add_plugins(parsed_args.plugins)
            return words(command, argument, prefix, parsed_args)
        return []

    return complete


def words(command: str, argument: str, prefix: str, parsed: argparse.Namespace) -> list[str]:
    """The words that can stand where the user has typed `prefix`.

    Args:
        command: name of the command.
        argument: name of its positional argument.
        parsed: the arguments before it.

    Raises:
        UserError: a file that declares the names has an error.
    """
    if argument == "kind":
        return _starting(prefix, _kinds(command))
    if argument == "dataset":
        return _starting(prefix, _members("dataset"))
    key, equals, text = prefix.partition("=")
    keys = _KEYS.get(command, ())
    if equals:
        values = _values_of_parameter(key) if "." in key else _VALUES.get(key, _none)() if key in keys else ()
        return _in_list(f"{key}=", text, values, key in _SINGLE)
    completions = _starting(prefix, (f"{key}=" for key in keys if not _is_given(key, parsed)))
    if command in _BARE:
        completions += _in_list("", prefix, _BARE[command](parsed), command != "tune")
    if command in _TAKE_BINDINGS and prefix[:1].isupper():
        completions += _parameters(prefix, only="Dataset" if command == "data" else None)
    return completions


def _starting(prefix: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


def _in_list(before: str, text: str, values: Iterable[str], single: bool) -> list[str]:
    """Completions of the last item of `A,B`; items that are there already are left out."""
    *given, last = [text] if single else text.split(",")
    head = before + "".join(f"{item}," for item in given)
    return [head + value for value in values if value.startswith(last) and value not in given]


def _is_given(key: str, parsed: argparse.Namespace) -> bool:
    return any(word.startswith(f"{key}=") for word in getattr(parsed, "words", None) or ())


def _parameters(prefix: str, only: str | None) -> list[str]:
    """Names of parameters such as "Train.epochs=", of the configurables that start with `prefix`."""
    from kdbench.config import bindings

    every = bindings.overridable()
    names = (f"{owner}.{name}=" for owner in every if only in (None, owner) for name in every[owner].parameters)
    return _starting(prefix, names)


def _values_of_parameter(key: str) -> list[str]:
    """The values of a parameter that takes one of a few."""
    from kdbench.config import bindings

    owner, _, name = key.rpartition(".")
    signature = bindings.overridable().get(owner)
    type_ = signature.parameters[name].type if signature and name in signature.parameters else None
    if type_ is bool:
        return ["True", "False"]
    return [str(value) for value in get_args(type_)] if get_origin(type_) is Literal else []


def _kinds(command: str) -> Sequence[str]:
    kinds: Sequence[str] = commands.load(command).KINDS  # type: ignore[attr-defined]  # of list and data
    return kinds


def _members(group: str) -> Iterable[str]:
    from kdbench.config import places

    return sorted(places.members(group))


def _methods() -> Iterable[str]:
    from kdbench.config import about
    from kdbench.plan import method_words

    return [*_members("method"), method_words.ALL, *(f"{about.PREFIX}{family}" for family in method_words.families())]


def _extensions(kind: str) -> Iterable[str]:
    from kdbench.config import extensions

    return extensions.members(kind)


def _columns() -> Iterable[str]:
    from kdbench.report.tables import axes, columns

    return [*axes.AXES, *(column.name.removesuffix("*") for column in columns.every())]


def _axes() -> Iterable[str]:
    from kdbench.report.tables import axes

    return axes.AXES


def _states() -> Iterable[str]:
    from kdbench.launch.status import STATES

    return STATES


def _logs() -> Iterable[str]:
    from kdbench.config.loggers import LOGGERS

    return LOGGERS


def _none() -> Iterable[str]:
    return ()


def _runs(parsed: argparse.Namespace) -> Iterable[str]:
    from kdbench.cli import folders
    from kdbench.store import ids

    return ids.run_ids(folders.runs(parsed))


def _methods_and_runs(parsed: argparse.Namespace) -> Iterable[str]:
    return [*_members("method"), *_runs(parsed)]


_SINGLE = ("sweep", "executor", "cluster", "baseline", "rows")
"""Keys that take one of the names, and no list of them."""
_OF_RUNS = (
    *("methods", "dataset", "student", "teacher", "recipe", "seeds", "sweep"),
    *("executor", "workers", "runs_per_gpu", "gpus", "cluster", "log"),
)
_OF_FILTER = ("methods", "dataset", "student", "seeds", "state")
_KEYS: dict[str, Sequence[str]] = {
    "run": (*_OF_RUNS, "baseline"),
    "show": _OF_RUNS,
    "tune": (*_OF_RUNS, "trials"),
    "diff": _OF_RUNS,
    "leaderboard": ("columns", "baseline", "rows"),
    "power": ("difference", "baseline"),
    "status": _OF_FILTER,
    "cancel": _OF_FILTER,
    "transfer": _OF_FILTER,
    "latency": _OF_FILTER,
}
"""The keys of each command's selections; tests compare them with what the commands accept."""
_VALUES: dict[str, Names] = {
    "methods": _methods,
    "baseline": partial(_members, "method"),
    "dataset": partial(_members, "dataset"),
    "student": partial(_extensions, "backbone"),
    "teacher": partial(_extensions, "backbone"),
    "recipe": partial(_members, "recipe"),
    "sweep": partial(_members, "sweep"),
    "cluster": partial(_members, "cluster"),
    "executor": partial(_extensions, "launcher"),
    "log": _logs,
    "state": _states,
    "columns": _columns,
    "rows": _axes,
}
"""The names that a key's values are taken from."""
_BARE: dict[str, Callable[[argparse.Namespace], Iterable[str]]] = {
    "tune": lambda parsed: _methods(),
    "diff": _methods_and_runs,
    **dict.fromkeys(("status", "logs", "cancel", "reproduce", "transfer", "latency"), _runs),
}
"""The words without "=" that a command takes."""
_TAKE_BINDINGS = ("run", "show", "tune", "diff", "data")
