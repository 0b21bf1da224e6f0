"""The configuration of a run as plain values: read from config.gin or a spec, and written again from the values.

A stored configuration may come from someone else. It is parsed once, into one literal value for each parameter, and nothing
of its text is used: what is written to another file, and what the process that trains hands to gin, are these values.
Nothing is executed, imported or included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gin
from gin import config_parser
from gin.config import ConfigurableReference

from kdbench.config import fields, ginfile, optimisers, settings, signature, syntax
from kdbench.config.signature import Signature
from kdbench.config.syntax import Reference
from kdbench.errors import UserError, reason
from kdbench.files import read_regular

_PREFIX = "# kdbench "

_SHARED, _OWN = "what all methods share", "the method's own"
_PARTS = {
    **{"Control": _OWN, "Teaching": _OWN},
    **{"Machine": "the machine", "Measures": "what is measured at the end"},
}
_TITLES = (_SHARED, _OWN, _PARTS["Machine"], _PARTS["Measures"])

_NEEDED = (
    settings.Dataset,
    settings.Split,
    settings.Augment,
    settings.Train,
    settings.Machine,
    settings.Measures,
)
"""The settings that every configuration has in full (`settings.from_gin`), in addition to those of its optimiser."""


@dataclass(frozen=True)
class RunConfig:
    """The resolved configuration of one run.

    Attributes:
        values: Python values by key, "Train.epochs": 60.0; `repr` of a value is the text that the file has.
        command: the command that makes this run, "kdbench run methods=…"; None if the file does not record it.
        label: name of the file or run, for messages.
    """

    values: Mapping[str, Any]
    command: str | None = None
    label: str = field(default="the configuration", compare=False)

    def __getitem__(self, key: str) -> Any:
        """The value of a parameter.

        Raises:
            UserError: the configuration does not set it.
        """
        if key not in self.values:
            raise UserError(f"{self.label} does not set {key}")
        return self.values[key]


def read(path: Path) -> RunConfig:
    """The configuration in a file.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, or see `parse`.
    """
    try:
        return parse(read_regular(path).decode(), syntax.label(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{syntax.label(path)} cannot be read: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{syntax.label(path)} does not parse: {error}") from None


@lru_cache(maxsize=256)  # a run asks five times for its own and its teacher's
def parse(text: str, label: str) -> RunConfig:
    """The configuration in a text, also of methods that no longer exist; calls share its values.

    Args:
        label: the name of the file or run, for messages.

    Raises:
        UserError: the text does not parse, or holds more than one literal value for each parameter (such as an import).
    """
    values: dict[str, Any] = {}
    for statement in syntax.statements_in(text, label):
        if not isinstance(statement, config_parser.BindingStatement) or not statement.arg_name:
            raise UserError(f"{label} is not a resolved configuration: it holds more than bindings")
        key, value = f"{statement.selector}.{statement.arg_name}", statement.value
        if statement.scope or "." in statement.selector:
            raise UserError(
                f"{label} is not a resolved configuration: '{key}' is not one parameter of one configurable"
            )
        if key in values:
            raise UserError(f"{label} is not a resolved configuration: it binds {key} twice")
        if isinstance(value, Reference) and key == ginfile.SCHEDULE and value.name in signature.SCHEDULE_NAMES:
            values[key] = value
            continue
        if strange := fields.not_plain(value):
            raise UserError(f"{label} is not a resolved configuration: {key} is {strange}")
        values[key] = value
    return RunConfig(MappingProxyType(values), command_in(text.partition("\n")[0]), label)


def write(values: Mapping[str, Any], command: str = "") -> str:
    """The text of a configuration: its values by part, sorted by key; `parse` returns the same values.

    Args:
        command: the command that makes this run, for the first line; "" leaves it out.
    """
    blocks: dict[str, list[str]] = {title: [f"# {title}"] for title in _TITLES}
    for key, value in sorted(values.items()):
        configurable = key.partition(".")[0]
        usual = _SHARED if configurable in signature.shared() else _OWN
        blocks[_PARTS.get(configurable, usual)].append(f"{key} = {value!r}")
    head = f"# {' '.join(command.splitlines())}\n\n" if command else ""
    return head + "\n\n".join("\n".join(lines) for lines in blocks.values()) + "\n"


def trainable(text: str, label: str, source: str) -> dict[str, Any]:
    """The values of a configuration that is about to be trained, each in its parameter's type.

    Args:
        label: name of the run, for messages.
        source: name of the method file.

    Raises:
        UserError: see `parse`; or a value is missing, does not fit, or belongs neither to the method nor to all runs.
    """
    config = parse(text, label)
    own = signature.of_method(source)
    configurables = {own.name: own, **signature.of_runs()}
    values = {}
    for key, value in config.values.items():
        configurable, _, parameter = key.partition(".")
        ginfile.check_name(configurable, parameter, configurables, f"the run '{label}'", label)
        values[key] = ginfile.checked(key, value, configurables, f"{label}: ")
    optimiser = optimisers.OPTIMISERS[config.values.get("Train.optimiser", optimisers.USUAL)]
    names = [*(cls.__name__ for cls in (*_NEEDED, optimiser)), config[ginfile.SCHEDULE].name]
    for needed in (*(signature.shared()[name] for name in names), own):
        _check_complete(config, needed)
    return values


def _check_complete(config: RunConfig, needed: Signature) -> None:
    for name, parameter in needed.parameters.items():
        if parameter.default is MISSING:
            config[f"{needed.name}.{name}"]  # raises for one that it does not set


def bind(values: Mapping[str, Any]) -> None:
    """Replace all of gin's bindings in this process by these values; gin parses no text."""
    gin.clear_config()
    for key, value in values.items():
        gin.bind_parameter(key, ConfigurableReference(value.name, True) if isinstance(value, Reference) else value)


def command_in(line: str) -> str | None:
    """The command in the first line of a run's configuration, "kdbench run methods=…"; None in any other line.

    For callers that read only this line, of many files.
    """
    return line.removeprefix("# ").strip() if line.startswith(_PREFIX) else None
