"""The parameters of configurables, read without importing torch: method files are parsed, not run.

So `kdbench run CORSD.margn=2` is answered at once. Settings and schedules need no torch and are simply inspected.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import types
import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from kdbench.config import places, schedules, settings, switches
from kdbench.config.cluster import Cluster
from kdbench.config.switches import KINDS
from kdbench.errors import UserError, hint, nearest, unknown


@dataclass(frozen=True)
class Parameter:
    """One parameter: its type, or Any where the annotation cannot be checked, and its default if it has one."""

    type: Any
    default: Any


@dataclass(frozen=True)
class Signature:
    """One configurable.

    Attributes:
        name: name in gin files.
        parameters: parameters by name, in order.
        attributes: literal class attributes (a method's `needs_teacher`, `images_per_anchor`).
        summary: first line of the docstring.
    """

    name: str
    parameters: dict[str, Parameter]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    summary: str = ""


SHARED_BY_GROUP: dict[str, tuple[type, ...]] = {
    "dataset": (settings.Dataset, settings.Defaults),
    "recipe": (settings.Split, settings.Augment, switches.Strong, settings.SGD, settings.Train, *schedules.SCHEDULES),
    "sweep": (settings.Sweep,),
    "method": (switches.Control, switches.Teaching, settings.Search),
    "command line": (switches.Selection, switches.Parallel),
    "machine": (settings.Machine,),
    "measures": (settings.Measures,),
    "cluster": (Cluster,),
}
"""The configurables that the files of a group may bind; the file of a method also binds its class."""

SCHEDULE_NAMES = tuple(cls.__name__ for cls in schedules.SCHEDULES)


@cache
def shared() -> dict[str, Signature]:
    """Every configurable of the harness by name."""
    return {cls.__name__: _inspect(cls) for group in SHARED_BY_GROUP.values() for cls in group}


def of_group(group: str) -> dict[str, Signature]:
    """The configurables that the gin files of a group may bind, by name."""
    return {cls.__name__: shared()[cls.__name__] for cls in SHARED_BY_GROUP[group]}


def _inspect(cls: type) -> Signature:
    hints = typing.get_type_hints(cls)
    parameters = {field.name: Parameter(hints[field.name], field.default) for field in dataclasses.fields(cls)}
    return Signature(cls.__name__, parameters, summary=(inspect.getdoc(cls) or "").split("\n")[0])


@cache
def of_method(name: str) -> Signature:
    """The method class in methods/NAME.py, read from its source.

    Raises:
        UserError: the file does not parse, or holds no method class, or several.
    """
    path = places.sources()[name]
    tree = parse(path)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and _is_method(node, tree)]
    if len(classes) != 1:
        count = "none" if not classes else ", ".join(node.name for node in classes)
        raise UserError(f"{path} must define exactly one public subclass of Method, but defines {count}")
    parameters, attributes = _of_class(classes[0], tree)
    for kind in attributes.get("views", ()):
        if kind not in KINDS:
            raise UserError(f"{path}: {unknown('view', str(kind), KINDS)}")
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    return Signature(classes[0].name, parameters, attributes, summary)


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a Python file, which is read and not run.

    Raises:
        UserError: it does not parse.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path} does not parse: {error}") from None


def _is_method(node: ast.ClassDef, tree: ast.Module) -> bool:
    return not node.name.startswith("_") and _base(node, tree) is not None


def _base(node: ast.ClassDef, tree: ast.Module) -> tuple[ast.ClassDef, ast.Module] | Literal["Method"] | None:
    """The class that `node` extends: "Method" itself, a class of this or another method file, or None."""
    for base in node.bases:
        if not isinstance(base, ast.Name):
            continue
        if base.id == "Method":
            return "Method"
        for statement in tree.body:
            if isinstance(statement, ast.ClassDef) and statement.name == base.id and _base(statement, tree):
                return statement, tree
            if not isinstance(statement, ast.ImportFrom) or not (statement.module or "").startswith("kdbench.methods."):
                continue
            if base.id in [alias.asname or alias.name for alias in statement.names]:
                other_file = places.sources().get((statement.module or "").rsplit(".", 1)[1])
                other = parse(other_file) if other_file else ast.Module([], [])
                for candidate in other.body:
                    if isinstance(candidate, ast.ClassDef) and candidate.name == base.id:
                        return candidate, other
    return None


def _of_class(node: ast.ClassDef, tree: ast.Module) -> tuple[dict[str, Parameter], dict[str, Any]]:
    base = _base(node, tree)
    parameters, attributes = _of_class(*base) if isinstance(base, tuple) else ({}, {})
    parameters, attributes = dict(parameters), dict(attributes)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__" and statement.args.kwonlyargs:
            first = statement.args.kwonlyargs[0].arg
            raise UserError(
                f"the method class {node.name} has parameters in __init__; declare them as fields ('{first}: float' in the "
                "class body) and build modules in setup(self), see docs/adding-a-method.md"
            )
        if isinstance(statement, ast.AnnAssign) and statement.value is None and isinstance(statement.target, ast.Name):
            if (type_ := field_type(ast.unparse(statement.annotation))) is not None:
                parameters[statement.target.id] = Parameter(type_, dataclasses.MISSING)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = _literal(statement.value)
            if value is not dataclasses.MISSING:
                attributes.update({target.id: value for target in targets if isinstance(target, ast.Name)})
    return parameters, attributes


_FIELD_NAMES = {"Literal": Literal, "Any": Any}


def field_type(annotation: str) -> Any | None:
    """The type of a method's parameter, or None if the annotation declares something else (a buffer, a module).

    Parameters are numbers, strings, bools, None, choices (`Literal`) and tuples, lists or dicts of these.
    """
    try:
        type_ = eval(annotation, {"__builtins__": builtins, **_FIELD_NAMES})
    except Exception:
        return None  # the file's own names, such as Tensor
    return type_ if _is_plain(type_) else None


def _is_plain(type_: Any) -> bool:
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType, tuple, list, dict):
        return all(_is_plain(argument) for argument in arguments if argument is not Ellipsis)
    return type_ in (int, float, str, bool, None, type(None), tuple, list, dict, Any)


def _literal(node: ast.expr | None) -> Any:
    try:
        return dataclasses.MISSING if node is None else ast.literal_eval(node)
    except ValueError:
        return dataclasses.MISSING


def misfit(value: Any, type_: Any) -> str | None:
    """The reason why `value` does not fit a parameter of `type_` ("takes a number, not 'ten'"), or None if it does."""
    if _fits(value, type_):
        return None
    origin = get_origin(type_)
    if origin is Literal:
        options = [str(option) for option in get_args(type_)]
        return f"takes {' or '.join(repr(o) for o in options)}, not {value!r}{hint(nearest(str(value), options))}"
    return f"takes {_describe(type_)}, not {value!r}"


_LISTS = (tuple, list, dict)


def takes_list(type_: Any) -> bool:
    """Whether a parameter of `type_` can hold several items."""
    return any(option in _LISTS or get_origin(option) in _LISTS for option in (type_, *get_args(type_)))


def _fits(value: Any, type_: Any) -> bool:
    if type_ is Any:
        return True
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
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
    if origin in (tuple, list):
        return f"a list, each item {_describe(arguments[0])}"
    return _WORDS.get(type_, str(type_))
