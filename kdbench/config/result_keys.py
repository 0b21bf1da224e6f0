"""The keys that measures add to a result, and their columns, as the MEASURES tables declare them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kdbench.config import extensions, places
from kdbench.config.extensions import Extension
from kdbench.errors import UserError, unknown

TYPES = ("float", "int")

RESERVED = (
    "accuracy", "control", "cost", "data", "exits", "measures", "method", "origin", "provenance", "reproduced", "seconds",
    "teacher", "transfer", "tuning", "weights",
)  # fmt: skip
"""First parts of the keys that kdbench itself writes: no measure of a plug-in has one of these names."""

_COLUMN: dict[str, type | tuple[type, ...]] = {
    "key": str, "title": str, "about": str, "digits": (int, type(None)), "scale": (int, float), "better": str,
    "spread": bool, "optional": bool, "taught": bool, "worth": int,
}  # fmt: skip
"""What a column may declare: fields of `kdbench.report.tables.columns.Column`. The first three it must; its unit is the key's."""


class Key(NamedTuple):
    """One key of a result, or a family of them.

    Attributes:
        type: "float" or "int"; a value may also be None.
        unit: unit of the value ("percent", "nats").
        meaning: one line.
    """

    type: str
    unit: str
    meaning: str


def declared() -> dict[str, Key]:
    """The keys that measures return, with their declarations; a key that ends in `.*` is a family (`robustness.noise.*`).

    Raises:
        UserError: a declaration that is not right, or a key that two measures declare.
    """
    return {key: fact for facts in by_measure().values() for key, fact in facts.items()}


def by_measure() -> Mapping[str, Mapping[str, Key]]:
    """The declared keys of each measure, by its name."""
    return _by_measure(tuple(places.roots()))


def is_declared(key: str, keys: Mapping[str, Key]) -> bool:
    """True if a key of a result is one of `keys`, or belongs to one of their families."""
    return key in keys or any(family.endswith(".*") and key.startswith(family[:-1]) for family in keys)


def columns() -> Mapping[str, Mapping[str, Any]]:
    """The fields of each declared column of the leaderboard (`_COLUMN`), and its unit, by name.

    Raises:
        UserError: a column that is not right, or that two measures declare.
    """
    return _columns(tuple(places.roots()))


@cache
def _columns(roots: tuple[Path, ...]) -> Mapping[str, Mapping[str, Any]]:
    every: dict[str, dict[str, Any]] = {}
    owner: dict[str, Path] = {}
    for measure in extensions.members("measure").values():
        keys = by_measure()[measure.name]
        for name, facts in measure.options.get("columns", {}).items():
            where = f"{measure.path}: the column '{name}'"
            if name in every:
                raise UserError(f"the column '{name}' is declared twice: {owner[name]} and {measure.path}")
            _check_column(name, facts, keys, where)
            every[name], owner[name] = {**facts, "unit": keys[facts["key"]].unit}, measure.path
    return every


def _check_column(name: Any, facts: Any, keys: Mapping[str, Key], where: str) -> None:
    if not isinstance(name, str) or not places.is_name(name.removesuffix(".*")):
        raise UserError(f"{where}: a name is made of letters, digits and underscores; that of a family ends in .*")
    for word in ("key", "title", "about"):
        if not isinstance(facts, dict) or word not in facts:
            raise UserError(f"{where} has no '{word}'")
    for word, value in facts.items():
        if word not in _COLUMN:
            raise UserError(f"{where}: {unknown('field', str(word), _COLUMN)}")
        if not isinstance(value, _COLUMN[word]):
            raise UserError(f"{where}: '{word}' cannot be {value!r}")
    if facts["key"] not in keys:
        raise UserError(f"{where}: {unknown('key', facts['key'], keys)}")
    if name.endswith(".*") != facts["key"].endswith(".*"):
        raise UserError(f"{where}: its name must end in .* if its key does, and only then")
    if facts.get("better", "") not in ("higher", "lower", ""):
        raise UserError(f"{where}: 'better' must be 'higher', 'lower' or '', not {facts['better']!r}")


@cache
def _by_measure(roots: tuple[Path, ...]) -> Mapping[str, Mapping[str, Key]]:
    owner: dict[str, Path] = {}
    result: dict[str, Mapping[str, Key]] = {}
    for measure in extensions.members("measure").values():
        keys = _keys(measure)
        for key in keys:
            if key in owner:
                raise UserError(f"the key '{key}' is declared twice: {owner[key]} and {measure.path}")
            owner[key] = measure.path
        result[measure.name] = keys
    return result


def _keys(measure: Extension) -> dict[str, Key]:
    if measure.origin != places.BUILT_IN and measure.name in RESERVED:
        raise UserError(f"{measure.path}: kdbench itself writes '{measure.name}.*'; give the measure another name")
    keys: dict[str, Key] = {}
    for key, facts in measure.options.get("keys", {}).items():
        where = f"{measure.path}: the key {key!r}"
        if not isinstance(key, str) or not isinstance(facts, tuple) or not all(isinstance(f, str) for f in facts):
            raise UserError(f"{where} must be a string with (type, unit, meaning)")
        if len(facts) != 3 or facts[0] not in TYPES:
            raise UserError(f"{where} must have (type, unit, meaning), with type {' or '.join(TYPES)}, not {facts!r}")
        if measure.origin != places.BUILT_IN and not key.startswith(f"{measure.name}."):
            raise UserError(f"{where} must begin with '{measure.name}.', the name of the measure")
        keys[key] = Key(*facts)
    if not keys:
        raise UserError(f"{measure.path}: the measure '{measure.name}' declares no 'keys'")
    return keys
