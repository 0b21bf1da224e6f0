"""Search spaces: the values that a method's gin file lets `kdbench tune` choose from. No torch and no Optuna here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from kdbench.config import ginfile, syntax
from kdbench.config.fields import misfit
from kdbench.config.signature import Parameter, Signature
from kdbench.errors import UserError, unknown

KINDS = ("linear", "log", "int", "choice")
KEY = "Search.space"
_EXAMPLE = "{'temperature': ('log', 1.0, 16.0)}"


@dataclass(frozen=True)
class Dimension:
    """The values that one parameter may take.

    Attributes:
        kind: "linear" and "log" for numbers between two bounds, "int" for integers, "choice" for one of several.
        options: (low, high), both included, or all options of a choice.
    """

    kind: str
    options: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """True if `value` is in the dimension; a gin file may set a value outside it."""
        if self.kind == "choice":
            return value in self.options
        return isinstance(value, (int, float)) and self.options[0] <= value <= self.options[1]

    def rounded(self, value: Any) -> Any:
        """`value` to three significant digits, within the bounds: what a table and a command can show in full."""
        if self.kind not in ("linear", "log"):
            return value
        low, high = self.options
        return min(max(float(f"{value:.3g}"), low), high)

    def plain(self) -> list[Any]:
        """The dimension as JSON."""
        return [self.kind, *self.options]

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"one of {', '.join(map(repr, self.options))}"
        return f"{self.kind} {self.options[0]:g} to {self.options[1]:g}"


Space = Mapping[str, Dimension]


def of_file(path: Path, bindings: Mapping[str, ginfile.Binding], own: Signature) -> Space:
    """The search space of a method's gin file, by parameter; empty if it has none.

    A variant inherits the space of the file that it includes, except for the parameters that it binds itself: their values
    define the variant.

    Args:
        bindings: all bindings of the file and the files that it includes.
        own: signature of the method's class.

    Raises:
        UserError: an unknown parameter, a kind or an option that does not fit it, or invalid bounds.
    """
    if KEY not in bindings:
        return {}
    where, value = bindings[KEY].origin, bindings[KEY].value
    if not isinstance(value, dict):
        raise UserError(f"{where}: {KEY} takes a dict such as {_EXAMPLE}, not {value!r}")
    space = {name: _dimension(name, entry, own, where) for name, entry in value.items()}
    nearer = set(takewhile(lambda file: file != _file(where), _chain(path)))

    def bound_by_variant(name: str) -> bool:
        binding = bindings.get(f"{own.name}.{name}")
        return binding is not None and _file(binding.origin) in nearer

    return {name: dimension for name, dimension in space.items() if not bound_by_variant(name)}


def _chain(path: Path) -> Iterator[str]:
    """A gin file and the files that it includes, the nearest first."""
    yield syntax.label(path)
    for included in ginfile.includes(path):
        yield from _chain(included)


def _file(origin: str) -> str:
    return origin.rpartition(":")[0]


def _dimension(name: Any, entry: Any, own: Signature, where: str) -> Dimension:
    if name not in own.parameters:
        raise UserError(f"{where}: {KEY}: {unknown(f'parameter of {own.name}', str(name), own.parameters)}")
    place = f"{where}: {KEY}['{name}']"
    if not isinstance(entry, tuple) or not entry or not isinstance(entry[0], str):
        raise UserError(f"{place} takes a kind and its options, such as ('linear', 0.0, 1.0), not {entry!r}")
    kind, *options = entry
    if kind not in KINDS:
        raise UserError(f"{place}: {unknown('kind of search', kind, KINDS)}")
    parameter = own.parameters[name]
    chosen = _choices(options, parameter, place) if kind == "choice" else _bounds(kind, options, parameter, place)
    return Dimension(kind, chosen)


def _choices(options: list[Any], parameter: Parameter, place: str) -> tuple[Any, ...]:
    for option in options:
        # Optuna takes no other, and JSON gives no other back as it was.
        if option is not None and not isinstance(option, (bool, int, float, str)):
            raise UserError(f"{place}: an option is a number, a string, True, False or None, not {option!r}")
        if wrong := misfit(option, parameter.type):
            raise UserError(f"{place}: the parameter {wrong}")
    if len(set(options)) < 2 or len(set(options)) < len(options):
        raise UserError(f"{place}: a choice takes at least two options, all different, not {tuple(options)!r}")
    return tuple(options)


def _bounds(kind: str, options: list[Any], parameter: Parameter, place: str) -> tuple[Any, ...]:
    wanted = int if kind == "int" else (int, float)
    numbers = [o for o in options if isinstance(o, wanted) and not isinstance(o, bool) and math.isfinite(o)]
    if len(options) != 2 or len(numbers) != 2:
        what = "integers" if kind == "int" else "numbers"
        raise UserError(f"{place}: '{kind}' takes two {what}, the lower and the upper bound, not {tuple(options)!r}")
    low, high = options if kind == "int" else map(float, options)
    if not low < high:
        raise UserError(f"{place}: the lower bound {low} is not below the upper bound {high}")
    if kind == "log" and low <= 0:
        raise UserError(f"{place}: the lower bound of 'log' must be above 0, not {low}")
    if wrong := misfit(low, parameter.type):
        raise UserError(f"{place}: the parameter {wrong}")
    return low, high
