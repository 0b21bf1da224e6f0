"""The bindings of gin files by group and of the command line, each checked against what it may bind. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from kdbench import words
from kdbench.config import fields, ginfile, optimisers, places, signature, space, syntax
from kdbench.config.ginfile import Binding
from kdbench.errors import UserError, shortened

_FILES_ONLY = {"Defaults": "dataset", "Sweep": "sweep", "Control": "method", "Teaching": "method", "Search": "method"}
"""Configurables that the command line cannot bind, and whose gin file can."""


def overridable() -> Mapping[str, signature.Signature]:
    """The configurables that the command line may bind."""
    return ginfile.Configurables(without=_FILES_ONLY)


_ONE_VALUE = ("Machine", "Measures", "Cluster")
"""Configurables that do not define a result: several values would be the same run several times."""


def of_command_line(texts: Iterable[str], place: str = " on the command line") -> list[Binding]:
    """The command line's bindings; `KD.temperature=1,2` makes one for each value, in a row.

    Args:
        place: where they are, for the message about a key that is given twice.

    Raises:
        UserError: a name or value that cannot be, or a key given twice.
    """
    configurables = overridable()
    bindings: dict[str, list[Binding]] = {}
    for text in texts:
        configurable = text.partition("=")[0].rpartition(".")[0]
        if configurable in _FILES_ONLY:
            raise UserError(f"{configurable}.* can be bound in a {_FILES_ONLY[configurable]}'s gin file only")
        values = _values(text, configurables)
        key = values[0].key
        if key in bindings:
            remedy = "" if configurable in _ONE_VALUE else f"; to compare values, pass a list ({key}=A,B)"
            raise UserError(f"{key} is given twice{place}{remedy}")
        bindings[key] = values
    return [binding for values in bindings.values() for binding in values]


def of_sweep(name: str) -> list[Binding]:
    """The bindings that gin/sweep/NAME.gin has for its runs (`Sweep.bindings`), with the file as their origin.

    Raises:
        UserError: see `of_command_line`, or an item that is not a binding.
    """
    listed = of_group("sweep", name).get("Sweep.bindings")
    if listed is None:
        return []
    for text in listed.value:
        key, equals, _ = text.partition("=")
        if not equals or "." not in key or not text.isprintable():
            raise UserError(f"{listed.origin}: {shortened(repr(text))} is not a binding such as 'Train.epochs=5'")
    try:
        parsed = of_command_line(listed.value, place="")
    except UserError as error:
        raise UserError(f"{listed.origin}: {error}") from None
    return [replace(binding, origin=listed.origin) for binding in parsed]


def _values(text: str, configurables: Mapping[str, signature.Signature]) -> list[Binding]:
    """The binding of a word, or one for each item where the parameter does not take the comma-separated list itself."""
    try:
        return [ginfile.parse_override(text, configurables)]
    except UserError:
        key, _, written = text.partition("=")
        configurable, _, parameter = key.strip().rpartition(".")
        items = words.listed_values(written)
        owner = configurables.get(configurable)
        if len(items) < 2 or configurable in _ONE_VALUE or owner is None or parameter not in owner.parameters:
            raise
        if fields.takes_list(owner.parameters[parameter].type) and not all(item[0] in "([" for item in items):
            raise
    return list(dict.fromkeys(ginfile.parse_override(f"{key}={item}", configurables) for item in items))


@cache
def of_file(group: str, path: Path, name: str) -> dict[str, Binding]:
    """The bindings of a gin file that may bind the configurables of `group`.

    Args:
        name: name of the file for messages, which say "the GROUP 'NAME'".

    Raises:
        UserError: the file has an error, or binds a schedule or an optimiser that it does not use.
    """
    bindings = ginfile.read(path, signature.of_group(group), f"the {group} '{name}'")
    for binding in bindings.values():
        in_file_itself = binding.origin.startswith(f"{syntax.label(path)}:")
        if in_file_itself and is_unused(binding, bindings):
            chosen = _SCHEDULE if binding.configurable in signature.SCHEDULE_NAMES else _OPTIMISER
            if chosen in bindings or chosen == _OPTIMISER:
                value = bindings[chosen].value if chosen in bindings else optimisers.USUAL
                raise UserError(f"{binding.origin}: nothing uses {binding.key}: {chosen} is {value!r}")
    return bindings


_SCHEDULE, _OPTIMISER = "Train.schedule", "Train.optimiser"


def is_unused(binding: Binding, bound: Mapping[str, Binding]) -> bool:
    """True if a binding belongs to a schedule or an optimiser other than the one that `bound` chooses, by key."""
    name = binding.configurable
    if name in signature.SCHEDULE_NAMES:
        return _SCHEDULE not in bound or bound[_SCHEDULE].value.name != name
    if name in signature.OPTIMISER_NAMES:
        chosen = bound[_OPTIMISER].value if _OPTIMISER in bound else optimisers.USUAL
        return bool(signature.OPTIMISER_NAMES[name] != chosen)
    return False


def of_group(group: str, name: str) -> dict[str, Binding]:
    """The bindings of gin/GROUP/NAME.gin, or of slurm/NAME.gin for the group cluster."""
    return of_file(group, places.member(group, name), name)


def member(name: str) -> Path:
    """The gin file of a method or control.

    Raises:
        UserError: there is none: the nearest name, or what is missing of a method that has a Python file alone.
    """
    every, source = places.members("method"), places.sources().get(name)
    if name in every:
        return every[name]
    if source is None:
        raise places.no_member("method", name, [*every, "all"], "kdbench list methods")
    root = source.parents[1]
    own = signature.of_method(name)
    values = " and ".join(f"{own.name}.{parameter} = …" for parameter in own.parameters)
    holds = f", with {values}" if values else "; a comment line is enough, because the class has no fields"
    alike = places.other_case(name, every)
    case = f"; {every[alike]} differs from that by case alone" if alike else ""
    raise UserError(
        f"the method '{name}' has {source} but no gin file: write {root}/gin/method/{name}.gin{holds}{case}"
    )


def method_source(name: str) -> str:
    """The method file that `name` uses: its own, or that of the gin file that its gin file includes (a variant)."""
    path = member(name)
    for _ in range(8):
        if path.stem in places.sources():
            return path.stem
        bases = ginfile.includes(path)
        if not bases:
            break
        path = bases[0]
    alike = places.other_case(name, places.sources())
    case = f"; {places.sources()[alike]} differs from that by case alone" if alike else ""
    raise UserError(
        f"the method '{name}' has a gin file but no methods/{name}.py, and includes no other method's gin file{case}"
    )


def is_variant(name: str) -> bool:
    """True if a method is another one's class with other values: a gin file without a Python file."""
    return name not in places.sources()


def of_method(name: str) -> dict[str, Binding]:
    """The bindings of a method's gin file: the method's own parameters, `Control.*` and `Teaching.*`."""
    return _method_file(name, member(name))[0]


def search_space(name: str) -> space.Space:
    """The values that `kdbench tune` may choose from, by parameter, as the method's gin file declares them."""
    return _method_file(name, member(name))[1]


@cache
def _method_file(name: str, path: Path) -> tuple[dict[str, Binding], space.Space]:
    own = signature.of_method(method_source(name))
    configurables = {own.name: own, **signature.of_group("method")}
    bindings = ginfile.read(path, configurables, f"the method '{name}'")
    search = space.of_file(path, bindings, own)
    return {key: binding for key, binding in bindings.items() if key != space.KEY}, search
