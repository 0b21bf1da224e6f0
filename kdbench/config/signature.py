"""The parameters of configurables, read without importing torch: method files are parsed, not run.

So `kdbench run CORSD.margn=2` is answered at once. Settings and schedules need no torch and are simply inspected.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kdbench.config import contract, optimisers, places, schedules, settings, switches
from kdbench.config.cluster import Cluster
from kdbench.config.fields import field_type
from kdbench.errors import UserError, shortened


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
        declarations: annotations that declare no parameter (buffers, modules), by name.
        needs_classes: of a method, the place where it reads a single class for each image ("methods/NAME.py:119"), and so
            cannot be trained on mixed images; "" where labels go nowhere but into `Method.cross_entropy`.
        functions: names of the functions that a method's class defines.
    """

    name: str
    parameters: dict[str, Parameter]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    summary: str = ""
    declarations: dict[str, str] = dataclasses.field(default_factory=dict)
    needs_classes: str = ""
    functions: frozenset[str] = frozenset()


SHARED_BY_GROUP: dict[str, tuple[type, ...]] = {
    "dataset": (settings.Dataset, switches.Labels, settings.Defaults),
    "recipe": (
        *(
            settings.Split,
            settings.Augment,
            switches.Strong,
            switches.ResizedCrop,
            switches.Mix,
            switches.SecondTask,
            settings.Train,
        ),
        *optimisers.OPTIMISERS.values(),
        *schedules.SCHEDULES,
    ),
    "sweep": (settings.Sweep,),
    "method": (switches.Control, switches.Teaching, settings.Search),
    "command line": (switches.Selection, switches.Parallel),
    "machine": (settings.Machine,),
    "measures": (settings.Measures,),
    "cluster": (Cluster,),
}
"""The configurables that the files of a group may bind; the file of a method also binds its class."""

SCHEDULE_NAMES = tuple(cls.__name__ for cls in schedules.SCHEDULES)
OPTIMISER_NAMES = {cls.__name__: name for name, cls in optimisers.OPTIMISERS.items()}
"""The value of `Train.optimiser` that chooses an optimiser, by the name of its settings."""


@cache
def shared() -> dict[str, Signature]:
    """Every configurable of the harness by name."""
    return {cls.__name__: _inspect(cls) for group in SHARED_BY_GROUP.values() for cls in group}


def of_group(group: str) -> dict[str, Signature]:
    """The configurables that the gin files of a group may bind, by name."""
    return {cls.__name__: shared()[cls.__name__] for cls in SHARED_BY_GROUP[group]}


def of_runs() -> dict[str, Signature]:
    """The configurables of kdbench that the configuration of a run may bind, by name; its method's class comes in addition."""
    others = (settings.Defaults, settings.Search)
    groups = ("dataset", "recipe", "method", "command line", "machine", "measures")
    return {
        cls.__name__: shared()[cls.__name__] for group in groups for cls in SHARED_BY_GROUP[group] if cls not in others
    }


def _inspect(cls: type) -> Signature:
    hints = typing.get_type_hints(cls)
    parameters = {field.name: Parameter(hints[field.name], field.default) for field in dataclasses.fields(cls)}
    return Signature(cls.__name__, parameters, summary=(inspect.getdoc(cls) or "").split("\n")[0])


class _Class(NamedTuple):
    """A class of a method file, with the file."""

    node: ast.ClassDef
    tree: ast.Module
    path: Path


@cache
def of_method(name: str) -> Signature:
    """The method class in methods/NAME.py, read from its source.

    Raises:
        UserError: the file does not parse, holds no method class, or several, or one that is not as the contract has it.
    """
    path = places.sources()[name]
    tree = parse(path)
    contract.check_imports(tree, path)
    try:
        classes = [each for each in _classes(tree, path) if _is_method(each)]
        if len(classes) != 1:
            names = ", ".join(each.node.name for each in classes)
            lines = ", ".join(str(each.node.lineno) for each in classes)
            hint = f"{names} (lines {lines}); begin the name of what it only builds on with _" if classes else "none"
            raise UserError(f"{path} must define exactly one public subclass of Method, but defines {hint}")
        line_of_descent = _line_of_descent(classes[0])
    except RecursionError:
        raise UserError(f"{path}: its method class extends itself") from None
    parameters: dict[str, Parameter] = {}
    attributes: dict[str, Any] = {}
    declarations: dict[str, str] = {}
    for each in line_of_descent:
        contract.check_class(each.node, each.tree, each.path)
        _read_class(each.node, parameters, attributes, declarations)
    contract.check_whole(line_of_descent, attributes)
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    needs_classes = next(filter(None, (_reads_classes(each) for each in line_of_descent)), "")
    functions = {f.name for each in line_of_descent for f in each.node.body if isinstance(f, ast.FunctionDef)}
    return Signature(
        classes[0].node.name, parameters, attributes, summary, declarations, needs_classes, frozenset(functions)
    )


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a Python file, which is read and not run.

    Raises:
        UserError: it does not parse, or cannot be read.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except SyntaxError as error:
        line = f" (line {error.lineno})" if error.lineno else ""
        raise UserError(f"{path} does not parse: {error.msg}{line}") from None
    except Exception as error:  # not UTF-8, zero bytes, nested too deeply, or anything else that the parser raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} does not parse: {shortened(reason)}") from None


def _classes(tree: ast.Module, path: Path) -> Iterator[_Class]:
    yield from (_Class(node, tree, path) for node in tree.body if isinstance(node, ast.ClassDef))


def _is_method(cls: _Class) -> bool:
    return not cls.node.name.startswith("_") and _base(cls) is not None


def _line_of_descent(cls: _Class) -> list[_Class]:
    """A method class behind those that it extends."""
    base = _base(cls)
    return [*(_line_of_descent(base) if isinstance(base, _Class) else []), cls]


def _base(cls: _Class) -> _Class | Literal["Method"] | None:
    """The class that `cls` extends: "Method" itself, a class of this or another method file, or None."""
    for base in cls.node.bases:
        if isinstance(base, ast.Attribute) and base.attr == "Method":
            return "Method"
        if not isinstance(base, ast.Name):
            continue
        if base.id == "Method":
            return "Method"
        for other in _classes(cls.tree, cls.path):
            if other.node.name == base.id and _base(other):
                return other
        for statement in cls.tree.body:
            if not isinstance(statement, ast.ImportFrom):
                continue
            module = statement.module or ""
            names = [alias.name for alias in statement.names if (alias.asname or alias.name) == base.id]
            if module == "kdbench.method" and names == ["Method"]:
                return "Method"
            if module.startswith("kdbench.methods.") and names:
                file = places.sources().get(module.rsplit(".", 1)[1])
                for other in _classes(parse(file), file) if file else ():
                    if other.node.name == names[0]:
                        return other
    return None


def _read_class(
    node: ast.ClassDef, parameters: dict[str, Parameter], attributes: dict[str, Any], declarations: dict[str, str]
) -> None:
    """Add what the body of one class declares to what the classes before it do."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and statement.value is None and isinstance(statement.target, ast.Name):
            annotation = ast.unparse(statement.annotation)
            if (type_ := field_type(annotation)) is not None:
                parameters[statement.target.id] = Parameter(type_, dataclasses.MISSING)
            else:
                declarations[statement.target.id] = annotation
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = _literal(statement.value)
            if value is not dataclasses.MISSING:
                attributes.update({target.id: value for target in targets if isinstance(target, ast.Name)})


def _reads_classes(cls: _Class) -> str:
    """The place where a method reads labels other than to pass them to `Method.cross_entropy`; "" if it does not."""
    passed_on = {
        id(argument)
        for call in ast.walk(cls.node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "cross_entropy"
        and isinstance(call.func.value, ast.Name) and call.func.value.id == "self"
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
    }  # fmt: skip
    for node in ast.walk(cls.node):
        if isinstance(node, ast.Attribute) and node.attr in ("labels", "train_labels") and id(node) not in passed_on:
            return f"{cls.path.parent.name}/{cls.path.name}:{node.lineno}"
    return ""


def _literal(node: ast.expr | None) -> Any:
    try:
        return dataclasses.MISSING if node is None else ast.literal_eval(node)
    except Exception:  # whatever the expression leads to: an unhashable key, an overflow, too deep a nesting
        return dataclasses.MISSING
