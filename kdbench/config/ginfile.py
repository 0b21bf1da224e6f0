"""Reads gin files without running anything: gin's own parser, with every binding checked and its origin recorded.

gin itself accepts a misspelt macro, a binding that nothing uses and a value of the wrong type in silence; here each is a
`UserError` before anything starts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from gin import config_parser

from kdbench.config import places, signature
from kdbench.config.fields import PLAIN, misfit, not_plain
from kdbench.config.signature import SCHEDULE_NAMES, Signature
from kdbench.config.syntax import Macro, Reference, label, statements, value_in
from kdbench.errors import UserError, hint, nearest, unknown

COMMAND_LINE = "command line"
SCHEDULE = "Train.schedule"
"""The one parameter whose value is a reference to a configurable."""
DEEPEST = 50
"""Macros that may be made of each other."""


@dataclass(frozen=True)
class Binding:
    """`Configurable.parameter = value`, and where it is set ("recipe/smoke.gin:12" or "command line")."""

    configurable: str
    parameter: str
    value: Any
    origin: str

    @property
    def key(self) -> str:
        return f"{self.configurable}.{self.parameter}"


def read(path: Path, configurables: Mapping[str, Signature], owner: str) -> dict[str, Binding]:
    """All bindings of a gin file and of the files it includes, by key; a file's own replace those that it includes.

    Args:
        configurables: the configurables that the file may bind.
        owner: owner of the file, for the error about a foreign binding ("the method 'kd'").

    Raises:
        UserError: an error in the file, with file and line.
    """
    bindings, macros, used = _read(path, configurables, owner, ())
    resolved = {
        key: replace(b, value=checked(b.key, _expand(b.value, macros, b.origin), configurables, f"{b.origin}: "))
        for key, b in bindings.items()
    }
    for name, (_, where) in macros.items():
        if name not in used:
            near = _near_parameter(name, configurables)
            raise UserError(f"{where}: nothing uses '{name}'{hint(near)}")
    return resolved


_Macros = dict[str, tuple[Any, str]]


def _read(
    path: Path, configurables: Mapping[str, Signature], owner: str, parents: tuple[Path, ...]
) -> tuple[dict[str, Binding], _Macros, set[str]]:
    if path in parents:
        raise UserError(f"{label(path)} includes itself")
    bindings: dict[str, Binding] = {}
    macros: _Macros = {}
    used: set[str] = set()
    own: set[str] = set()
    for statement in statements(path):
        if isinstance(statement, config_parser.BlockDeclaration):
            continue
        where = f"{label(path)}:{statement.location.line_num}"
        if isinstance(statement, config_parser.IncludeStatement):
            if own:
                raise UserError(f"{where}: includes must come first, before the file's own bindings")
            included = _read(places.included(statement.filename, path), configurables, owner, (*parents, path))
            bindings |= included[0]
            macros |= included[1]
            used |= included[2]
            continue
        if isinstance(statement, config_parser.ImportStatement):
            raise UserError(
                f"{where}: imports are not allowed in kdbench gin files; methods are discovered by file name"
            )
        if statement.scope:
            raise UserError(f"{where}: gin scopes ('{statement.scope}/') are not supported")
        name = f"{statement.selector}.{statement.arg_name}" if statement.arg_name else statement.selector
        if name in own:
            raise UserError(f"{where}: '{name}' is bound twice in this file")
        own.add(name)
        used.update(_macros_in(statement.value))
        if not statement.arg_name:
            macros[name] = (statement.value, where)
            continue
        check_name(statement.selector, statement.arg_name, configurables, owner, where)
        bindings[name] = Binding(statement.selector, statement.arg_name, statement.value, where)
    return bindings, macros, used


def includes(path: Path) -> list[Path]:
    """The files that a gin file includes itself."""
    return [
        places.included(statement.filename, path)
        for statement in statements(path)
        if isinstance(statement, config_parser.IncludeStatement)
    ]


def check_name(
    configurable: str, parameter: str, configurables: Mapping[str, Signature], owner: str, where: str
) -> None:
    """Refuse a binding whose configurable or parameter does not exist, or is not the file's to bind."""
    if configurable not in configurables:
        if configurable in Configurables():
            raise UserError(
                f"{where}: {owner} binds {configurable}.{parameter}, which does not belong to it; "
                f"it may bind {_listed(configurables)}"
            )
        error = unknown("configurable", configurable, [*configurables])
        raise UserError(f"{where}: {error} ({owner} may bind {_listed(configurables)})")
    check_parameter(configurable, parameter, configurables[configurable], f"{where}: ")


def check_parameter(configurable: str, parameter: str, declared: Signature, where: str = "", see: str = "") -> None:
    """Refuse a parameter that a configurable does not have; `see` is the command that lists all of them."""
    if parameter in declared.parameters:
        return
    if parameter in declared.attributes:
        raise UserError(
            f"{where}{configurable}.{parameter} is a constant of the class, not a parameter; for a parameter, declare it "
            f"in the class body as '{parameter}: float', without a value"
        )
    if parameter in declared.declarations:
        raise UserError(
            f"{where}{configurable}.{parameter} is declared as {declared.declarations[parameter]}, which is not the type of "
            f"a parameter; a parameter is {PLAIN}"
        )
    raise UserError(f"{where}{unknown(f'parameter of {configurable}', parameter, declared.parameters, see)}")


def _listed(configurables: Mapping[str, Signature]) -> str:
    *first, last = [f"{name}.*" for name in configurables]
    return f"{', '.join(first)} and {last}" if first else last


class Configurables(Mapping[str, Signature]):
    """All configurables by name, including those of all methods; a method file that does not parse is skipped.

    A method's file is parsed when its class is asked for, and all are only to list the names: parsing a hundred files takes
    longer than all else that a plan needs.

    Args:
        without: names that are left out.
    """

    def __init__(self, without: Collection[str] = ()):
        self._without = without

    def __getitem__(self, name: str) -> Signature:
        if name in self._without:
            raise KeyError(name)
        if name in signature.shared():
            return signature.shared()[name]
        for source, text in self._texts.items():
            if f"class {name}" in text and (method := _method(source)) and method.name == name:
                return method
        raise KeyError(name)

    @cached_property
    def _texts(self) -> dict[str, str]:
        return {source: _text(path) for source, path in places.sources().items()}

    def __iter__(self) -> Iterator[str]:
        methods = (method.name for source in places.sources() if (method := _method(source)))
        return (name for name in dict.fromkeys([*signature.shared(), *methods]) if name not in self._without)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _method(source: str) -> Signature | None:
    try:
        return signature.of_method(source)
    except UserError:
        return None


def _near_parameter(name: str, configurables: Mapping[str, Signature]) -> str | None:
    full = {p: f"{c}.{p}" for c, s in configurables.items() for p in s.parameters}
    guess = nearest(name, full)
    return full[guess] if guess else None


def _macros_in(value: Any) -> set[str]:
    if isinstance(value, Macro):
        return {value.name}
    if isinstance(value, dict):
        value = (*value, *value.values())
    if isinstance(value, (list, tuple)):
        return set().union(*map(_macros_in, value))
    return set()


def _expand(value: Any, macros: _Macros, where: str, within: Set[str] = frozenset()) -> Any:
    if isinstance(value, Macro):
        if value.name not in macros:
            raise UserError(f"{where}: {unknown('macro', value.name, macros)}")
        if value.name in within:
            raise UserError(f"{where}: the macro '{value.name}' is made of itself")
        if len(within) >= DEEPEST:
            raise UserError(f"{where}: the macro '{value.name}' is part of more than {DEEPEST} others")
        return _expand(macros[value.name][0], macros, where, {*within, value.name})
    if isinstance(value, (list, tuple)):
        return tuple(_expand(item, macros, where, within) for item in value)
    if isinstance(value, dict):
        expanded = {key: _expand(item, macros, where, within) for key, item in value.items()}
        if any(isinstance(key, Macro) for key in value):
            raise UserError(f"{where}: a macro cannot be a key")
        return expanded
    return value


def checked(key: str, value: Any, configurables: Mapping[str, Signature], where: str = "") -> Any:
    """`value` in the parameter's own type (1 becomes 1.0 where a number is wanted, a list a tuple).

    Raises:
        UserError: it does not fit.
    """
    configurable, parameter = key.split(".")
    type_ = configurables[configurable].parameters[parameter].type
    if key == SCHEDULE:
        name = value.name if isinstance(value, Reference) else str(value)
        if not isinstance(value, Reference) or name not in SCHEDULE_NAMES:
            error = unknown("schedule", name, [f"@{schedule}()" for schedule in SCHEDULE_NAMES])
            raise UserError(f"{where}{key}: {error}")
        return value
    wrong = misfit(value, type_)
    if wrong or isinstance(value, Reference):
        raise UserError(f"{where}{key} {wrong or 'does not accept a configurable reference'}")
    if strange := not_plain(value):
        raise UserError(f"{where}{key} cannot be {strange}")
    return _in_type(value, type_)


def _in_type(value: Any, type_: Any) -> Any:
    if isinstance(value, (list, tuple)):
        item = get_args(type_)[0] if get_args(type_) else None
        return tuple(_in_type(v, item) for v in value)
    wants_float = type_ is float or (float in get_args(type_) and int not in get_args(type_))
    return float(value) if wants_float and isinstance(value, int) and not isinstance(value, bool) else value


def parse_override(text: str, configurables: Mapping[str, Signature]) -> Binding:
    """`Configurable.parameter=value` from the command line; strings and schedules need no quotes.

    Raises:
        UserError: unknown name, or a value that does not parse or fit.
    """
    key, _, written = text.partition("=")
    configurable, _, parameter = key.strip().rpartition(".")
    if configurable not in configurables:
        raise unknown("configurable", configurable, configurables, "kdbench show")
    check_parameter(configurable, parameter, configurables[configurable], see="kdbench show")
    key, written = key.strip(), written.strip()
    bare = written.removeprefix("@").removesuffix("()")
    if key == SCHEDULE:
        value: Any = Reference(bare) if bare in SCHEDULE_NAMES else written
    else:
        value = value_in(written)
    if isinstance(value, Macro):
        raise UserError(f"{key}: macros ('{written}') belong in gin files, not on the command line")
    return Binding(configurable, parameter, checked(key, value, configurables), COMMAND_LINE)
