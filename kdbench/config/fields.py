"""The types that a parameter may have: numbers, strings, bools, None, choices, and tuples, lists and dicts of these."""

from __future__ import annotations

import ast
import builtins
import math
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from kdbench.errors import hint, nearest

PLAIN = "a number, a string, a bool, None, Literal[…], or a tuple, list or dict of these"

NAMES = {
    "typing": typing,
    **{name: getattr(typing, name) for name in ("Any", "Dict", "List", "Literal", "Optional", "Tuple", "Union")},
}
"""Names besides Python's own that the annotation of a parameter may contain."""


_OF_TYPES = (
    *(ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant, ast.expr_context),
    *(ast.BinOp, ast.BitOr, ast.UnaryOp, ast.USub),
)
"""The syntax of types: nothing that calls anything, because annotations are evaluated before a run starts."""


def field_type(annotation: str) -> Any | None:
    """The type of a method's parameter, or None if the annotation declares something else (a buffer, a module).

    Parameters are numbers, strings, bools, None, choices (`Literal`) and tuples, lists or dicts of these.
    """
    try:
        if not all(isinstance(node, _OF_TYPES) for node in ast.walk(ast.parse(annotation, mode="eval"))):
            return None
        type_ = eval(annotation, {"__builtins__": builtins, **NAMES})
    except Exception:
        return None  # the file's own names, such as Tensor
    if isinstance(type_, str):  # an annotation in quotes
        return field_type(type_)
    return type_ if _is_plain(type_) else None


def _is_plain(type_: Any) -> bool:
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType, tuple, list, dict):
        return all(_is_plain(argument) for argument in arguments if argument is not Ellipsis)
    return type_ in (int, float, str, bool, None, type(None), tuple, list, dict, Any)


def misfit(value: Any, type_: Any) -> str | None:
    """The reason why `value` does not fit a parameter of `type_` ("takes a number, not 'ten'"), or None if it does."""
    if _fits(value, type_):
        return None
    origin = get_origin(type_)
    if origin is Literal:
        options = [str(option) for option in get_args(type_)]
        return f"takes {' or '.join(repr(o) for o in options)}, not {value!r}{hint(nearest(str(value), options))}"
    return f"takes {_describe(type_)}, not {value!r}"


def not_plain(value: Any) -> str | None:
    """The part of a value that no parameter can hold, in words; None for a value that is as `PLAIN` says.

    Numbers must be finite and integers must have 64 bits at most, as everything that computes with them needs.
    """
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value!r}, which is not finite"
    if value is None or isinstance(value, (bool, str)):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "an integer of more than 64 bits"
    if isinstance(value, dict):
        value = [*value, *value.values()]
    elif not isinstance(value, (tuple, list)):
        return f"{value!r}, which is not {PLAIN}"
    return next(filter(None, map(not_plain, value)), None)


_LISTS = (tuple, list, dict)


def takes_list(type_: Any) -> bool:
    """True if a parameter of `type_` can hold several items."""
    return any(option in _LISTS or get_origin(option) in _LISTS for option in (type_, *get_args(type_)))


def _fits(value: Any, type_: Any) -> bool:
    if type_ is Any:
        return True
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if type_ in (tuple, list):  # values of gin files are always tuples
        return isinstance(value, (tuple, list))
    if origin in (tuple, list):
        return isinstance(value, (tuple, list)) and all(_fits(item, arguments[0]) for item in value)
    if type_ in (None, type(None)):
        return value is None
    if type_ is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if type_ is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, type_) if isinstance(type_, type) else True


_WORDS = {
    float: "a number such as 0.5",
    int: "an integer such as 10",
    bool: "True or False",
    str: "a string",
    type(None): "None",
}


def _describe(type_: Any) -> str:
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is Literal:
        return " or ".join(repr(str(option)) for option in arguments)
    if origin in (tuple, list):
        return f"a list, each item {_describe(arguments[0])}"
    return _WORDS.get(type_, str(type_))
