"""The requirements on a method file, checked in its source: hooks, fields, literals and imports. Nothing is executed.

`kdbench.config.signature` calls this; each error names file, line and class, and says what is wanted.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdbench.config import fields, places
from kdbench.config.switches import KINDS
from kdbench.errors import UserError, nearest, unknown

HOOKS: dict[str, tuple[str, ...]] = {
    "losses": ("batch",), "setup": (), "sample": ("anchors", "streams"),
    "sample_after": ("before", "anchors", "streams"), "phases": (), "prepare": ("batches",),
    "after_step": ("batch",), "after_epoch": ("epoch",), "optimisers": ("parameters", "settings"),
    "update": ("terms", "update"), "exits": ("images",), "deployed": (),
}  # fmt: skip
"""The functions of `kdbench.method.Method` that a method may define, with their parameters after `self`."""

LITERALS = ("needs_teacher", "images_per_anchor", "views", "passes")
"""Class attributes of `Method` that are read from the source."""

OWN_NAMES = frozenset(
    {
        *HOOKS, "add_peer", "become_teacher", "cross_entropy", "fields", "info", "networks", "peers", "stage_shapes", "student",
        "teach", "teach_images", "teacher", "teachers", "untrained",
        "apply", "buffers", "children", "compile", "cpu", "cuda", "double", "eval", "float", "forward", "half", "modules",
        "parameters", "state_dict", "to", "train", "training", "type", "zero_grad",
    }
)  # fmt: skip
"""Names that no field can have: those of `Method`, and the likeliest of torch's modules."""

_CONTRACT = Path(__file__).parents[1] / "method"
_DOCS = "see docs/adding-a-method.md"


def check_class(node: ast.ClassDef, tree: ast.Module, path: Path) -> None:
    """Check the body of one method class: its hooks, fields and literals.

    Raises:
        UserError: the first thing in it that is not as the contract has it.
    """
    for statement in node.body:
        where = f"{path}:{statement.lineno}"
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            _check_function(statement, node.name, where)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            _check_annotated(statement, statement.target.id, node.name, tree, where)
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    _check_assigned(target.id, statement.value, node.name, where)


def _check_function(function: ast.FunctionDef | ast.AsyncFunctionDef, cls: str, where: str) -> None:
    arguments, name = function.args, function.name
    if name == "__init__":
        first = f"'{arguments.kwonlyargs[0].arg}: float'" if arguments.kwonlyargs else "'weight: float'"
        has = "has parameters in __init__" if arguments.kwonlyargs else "has an __init__, which cannot have parameters"
        raise UserError(
            f"{where}: the method class {cls} {has}; declare them as fields ({first} in the "
            f"class body) and build modules in setup(self), {_DOCS}"
        )
    decorators = {decorator.id for decorator in function.decorator_list if isinstance(decorator, ast.Name)}
    if name not in HOOKS or decorators & {"staticmethod", "classmethod"}:
        return
    positional = [*arguments.posonlyargs, *arguments.args]
    given = 1 + len(HOOKS[name])
    fits = len(positional) - len(arguments.defaults) <= given and (given <= len(positional) or arguments.vararg)
    if not fits or None in arguments.kw_defaults or isinstance(function, ast.AsyncFunctionDef):
        wanted = ", ".join(("self", *HOOKS[name]))
        raise UserError(f"{where}: {cls}.{name} must be 'def {name}({wanted})', not '{_head(function)}'")


def _head(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    kind = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    return f"{kind} {function.name}({ast.unparse(function.args)})"


def _check_annotated(statement: ast.AnnAssign, name: str, cls: str, tree: ast.Module, where: str) -> None:
    annotation = ast.unparse(statement.annotation)
    type_ = fields.field_type(annotation)
    if name in LITERALS and statement.value is None:
        raise UserError(f"{where}: '{name}' of {cls} has no value; write one, such as {name} = {_EXAMPLES[name]}")
    if name in LITERALS or (statement.value is not None and type_ is None):
        _check_assigned(name, statement.value, cls, where)
    elif statement.value is not None:
        raise UserError(
            f"{where}: the field '{name}' of {cls} has a value; write '{name}: {annotation}' here, and "
            f"'{cls}.{name} = {ast.unparse(statement.value)}' in the method's gin file (for a constant, leave out the type)"
        )
    elif type_ is not None and name in OWN_NAMES:
        raise UserError(
            f"{where}: the field '{name}' of {cls} has a name that every method uses itself; choose another"
        )
    elif type_ is None:
        _check_type(annotation, name, cls, tree, where)


_EXAMPLES = {"needs_teacher": "True", "images_per_anchor": "2", "views": "('recipe', 'strong')", "passes": "4"}


def _check_type(annotation: str, name: str, cls: str, tree: ast.Module, where: str) -> None:
    """Refuse an annotation that was meant for a field; those of tensors and modules declare no field."""
    nodes = list(ast.walk(ast.parse(annotation)))
    names = {each.id for each in nodes if isinstance(each, ast.Name)}
    modules = {each.value.id for each in nodes if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name)}
    unexplained = names - modules - defined(tree) - set(fields.NAMES) - set(dir(builtins))
    for word in sorted(unexplained):
        if guess := nearest(word, ("float", "int", "str", "bool", "tuple", "list", "dict", *fields.NAMES)):
            raise UserError(f"{where}: the field '{name}' of {cls}: unknown type '{word}'; did you mean '{guess}'?")
    if names and names <= {*dir(builtins), *fields.NAMES} - defined(tree):
        raise UserError(f"{where}: the field '{name}' of {cls} is {annotation}, but a parameter is {fields.PLAIN}")


def _check_assigned(name: str, value: ast.expr | None, cls: str, where: str) -> None:
    if name in LITERALS:
        literal = _literal(value)
        fits = {
            "needs_teacher": isinstance(literal, bool),
            "images_per_anchor": isinstance(literal, int) and not isinstance(literal, bool) and literal >= 1,
            "views": isinstance(literal, tuple) and bool(literal),
            "passes": literal is None or (isinstance(literal, int) and not isinstance(literal, bool) and literal >= 1),
        }[name]
        if value is not None and not fits:
            raise UserError(
                f"{where}: '{name}' of {cls} must be a literal such as {_EXAMPLES[name]}, because the file is read without "
                f"running it; it is {ast.unparse(value)}"
            )
        if name == "views":
            for kind in literal:
                if kind not in KINDS:
                    raise UserError(f"{where}: {unknown('view', str(kind), KINDS)}")
    makes = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
    empty = (isinstance(value, ast.List) and not value.elts) or (isinstance(value, ast.Dict) and not value.keys)
    if empty or makes in ("list", "dict", "set", "defaultdict", "deque"):
        raise UserError(
            f"{where}: '{name}' of {cls} is shared by all runs of a process and is in no checkpoint; make it in setup(self), "
            f"as a buffer or module, {_DOCS}"
        )


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else ...
    except Exception:  # see kdbench/config/signature.py
        return ...


def check_whole(classes: Sequence[tuple[ast.ClassDef, ast.Module, Path]], attributes: Mapping[str, Any]) -> None:
    """Check what a method class and the classes that it extends make together: losses, and a teacher where one is asked.

    Args:
        classes: each with its file, the method's own last.
        attributes: their literal class attributes.

    Raises:
        UserError: there are no losses, or a teacher is asked that the class does not declare.
    """
    own, _, path = classes[-1]
    functions = [(f, node, file) for node, tree, file in classes for f in _functions(node, tree)]
    names = {function.name for function, _, _ in functions}
    extends_unread = any(_extends_unread(node, tree, classes) for node, tree, _ in classes)
    if not names & {"losses", "phases"} and not extends_unread:
        guess = nearest("losses", names)
        hint = f"; did you mean '{guess}' to be it?" if guess else "; is it indented as part of the class?"
        raise UserError(f"{path}:{own.lineno}: the method class {own.name} has no losses(self, batch){hint}")
    if attributes.get("needs_teacher") or extends_unread:
        return
    uses = [(attribute, f, node, file) for f, node, file in functions for attribute in _attributes_of_self(f)]
    if any(attribute.attr in ("teachers", "needs_teacher") for attribute, *_ in uses):
        return  # it asks whether there are any
    for attribute, function, node, file in uses:
        if attribute.attr in ("teach", "teach_images", "teacher"):
            raise UserError(
                f"{file}:{attribute.lineno}: {node.name}.{function.name} uses self.{attribute.attr}, but {own.name} declares "
                f"no teacher; write needs_teacher = True in the class body"
            )


def _functions(node: ast.ClassDef, tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The functions of a class, and of the classes of the same file that it mixes in."""
    yield from (statement for statement in node.body if isinstance(statement, ast.FunctionDef))
    for base in node.bases:
        for statement in tree.body:
            if isinstance(base, ast.Name) and isinstance(statement, ast.ClassDef) and statement.name == base.id:
                yield from _functions(statement, tree)


def _extends_unread(node: ast.ClassDef, tree: ast.Module, classes: Sequence[tuple[ast.ClassDef, Any, Any]]) -> bool:
    """True if a class extends one that is neither in its file nor in another method's."""
    local = {statement.name for statement in tree.body if isinstance(statement, ast.ClassDef)}
    read = {*local, "Method", "ABC", *(cls.name for cls, _, _ in classes)}
    return any(ast.unparse(base).rpartition(".")[2] not in read for base in node.bases)


def _attributes_of_self(function: ast.FunctionDef) -> Iterator[ast.Attribute]:
    for each in ast.walk(function):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
            yield each


def defined(tree: ast.Module) -> set[str]:
    """Names that a file imports, defines or assigns outside of functions and classes."""
    names: set[str] = set()
    for statement in ast.walk(tree):
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
        elif isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            names.add(statement.name)
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names


def check_imports(tree: ast.Module, path: Path) -> None:
    """Check that what a method file imports is there, as far as that can be seen without importing it.

    Imports inside functions and `try` are left alone: they may be optional.

    Raises:
        UserError: a package that is not installed, a method file that does not exist, or a name that the contract lacks.
    """
    for statement in tree.body:
        where = f"{path}:{statement.lineno}"
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                _check_package(alias.name, where)
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            _check_package(statement.module, where)
            if statement.module == "kdbench.method":
                names = _contract_names()
                modules = {file.stem for file in _CONTRACT.glob("*.py")}
                for alias in statement.names:
                    if alias.name not in ("*", *names, *modules):
                        raise UserError(f"{where}: {unknown('name of kdbench.method', alias.name, names)}")


def _check_package(module: str, where: str) -> None:
    package = module.partition(".")[0]
    if module.startswith("kdbench.methods."):
        if (name := module.split(".")[2]) not in places.sources():
            raise UserError(f"{where}: {unknown('method file', f'methods/{name}.py', _sources())}")
    elif not _is_installed(package):
        raise UserError(f"{where} imports '{package}', which is not installed here")


def _sources() -> list[str]:
    return [f"methods/{name}.py" for name in places.sources()]


@cache
def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # __main__, and modules that were put there by hand
        return True


@cache
def _contract_names() -> tuple[str, ...]:
    tree = ast.parse((_CONTRACT / "__init__.py").read_text(encoding="utf-8"))
    (names,) = [s.value for s in tree.body if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == "__all__"]
    return tuple(ast.literal_eval(names))
