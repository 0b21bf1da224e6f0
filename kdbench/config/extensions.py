"""Backbones, dataset readers, measures and launchers, found by their place. No torch here: files are read, not run.

Each is declared in a table at the top level of its file, a literal such as

    READERS = {"digits": "read", "cifar10": ("read", {"needs_folder": True})}

An entry is the name of a class or function of the file, or that and its options. Tables are read in kdbench's own rooms
and, in every plug-in root, in a folder for each kind. The file itself is imported when one of its members is used.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdbench.config import places, signature
from kdbench.errors import UserError, unknown

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kind:
    """A kind of extension.

    Attributes:
        table: name of the literal that declares them.
        room: folder of the package kdbench.
        folder: folder of a plug-in root.
        plural: word for `kdbench list`.
        options: types of the options of an entry, by name; None for a class whose keyword arguments they are.
    """

    table: str
    room: str
    folder: str
    plural: str
    options: Mapping[str, type] | None


KINDS = {
    "backbone": Kind("BACKBONES", "backbones", "backbones", "students", None),
    "reader": Kind(
        "READERS",
        "data/readers",
        "readers",
        "readers",
        {"needs_folder": bool, "classes": int, "present": str, "files": tuple, "takes": tuple},
    ),
    "measure": Kind("MEASURES", "measures", "measures", "measures", {"keys": dict, "columns": dict}),
    "launcher": Kind("LAUNCHERS", "launch", "launchers", "launchers", {}),
}


@dataclass(frozen=True)
class Extension:
    """One member of a kind.

    Attributes:
        object: name of its class or function in the file.
        options: options of its entry.
        summary: first line of the file's docstring.
        origin: "built in", the plug-in folder, or "package NAME".
    """

    kind: str
    name: str
    path: Path
    object: str
    options: Mapping[str, Any]
    summary: str
    origin: str


def members(kind: str) -> Mapping[str, Extension]:
    """All members of a kind by name, kdbench's own first; those of files in `broken` are left out.

    Raises:
        UserError: a name that two files declare.
    """
    return _members(kind, tuple(places.roots()))[0]


def broken(kind: str) -> Mapping[Path, str]:
    """The files of a kind that do not parse or whose table is not right, each with a sentence that names file and error."""
    return _members(kind, tuple(places.roots()))[1]


def member(kind: str, name: str, word: str | None = None) -> Extension:
    """One member of a kind.

    Args:
        word: the kind as the user knows it ("teacher"), for the sentence.

    Raises:
        UserError: see `members`; or there is none of this name, and the sentence names the nearest and the broken files. Of a
            library's models only `kdbench.backbones.registry.check` knows the names.
    """
    every, word = members(kind), word or kind
    if name in every:
        return every[name]
    if kind == "backbone" and (library := library_of(name)):
        return _of_library(name, library)
    for path, sentence in broken(kind).items():
        if name == path.stem or re.search(
            rf"(['\"]){re.escape(name)}\1", path.read_text(encoding="utf-8", errors="replace")
        ):
            raise UserError(f"the {word} '{name}' cannot be used: {sentence}")
    error = unknown(word, name, every, f"kdbench list {KINDS[kind].plural}")
    others = "; ".join(broken(kind).values())
    raise UserError(f"{error} (left out: {others})") if others else error


LIBRARIES = ("torchvision", "timm")
"""Packages whose models are backbones by the name LIBRARY/MODEL."""


def library_of(name: str) -> str | None:
    """The library of a backbone's name such as "timm/resnet18"; None for any other name."""
    library, _, model = name.partition("/")
    return library if library in LIBRARIES and model and "/" not in model else None


def is_backbone(name: str) -> bool:
    """True for the name of a member, and for one that is made like a library's."""
    return name in members("backbone") or library_of(name) is not None


def _of_library(name: str, library: str) -> Extension:
    file = _PACKAGE / "backbones" / "library.py"
    return Extension("backbone", name, file, "LibraryModel", {"model": name}, f"model of {library}", places.BUILT_IN)


def load(extension: Extension) -> Any:
    """The class or function of an extension; imports its file.

    Raises:
        UserError: the file cannot be imported, or lacks it.
    """
    try:
        target = getattr(importlib.import_module(_module(extension.path)), extension.object, None)
    except Exception as error:
        raise UserError(f"{extension.path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(target):
        raise UserError(f"{extension.path}: '{extension.object}' is neither a class nor a function")
    return target


def _module(path: Path) -> str:
    if path.is_relative_to(_PACKAGE):
        return ".".join(("kdbench", *path.relative_to(_PACKAGE).with_suffix("").parts))
    # Imported here: it asks for the plug-in roots, which are wrong or incomplete until the command line has been parsed.
    from kdbench.config import plugins

    return f"{plugins.package(path.parents[1])}.{path.parent.name}.{path.stem}"


@cache
def _members(kind: str, roots: tuple[Path, ...]) -> tuple[Mapping[str, Extension], Mapping[Path, str]]:
    by_name: dict[str, Extension] = {}
    unusable = dict(places.misnamed(KINDS[kind].folder))
    for path in _files(KINDS[kind], roots):
        try:
            declared = list(_read(kind, path))
        except UserError as error:
            unusable[path] = str(error)
            continue
        for extension in declared:
            if extension.name in by_name:
                first = by_name[extension.name].path
                raise UserError(f"the {kind} '{extension.name}' is defined twice: {first} and {path}")
            by_name[extension.name] = extension
    return by_name, unusable


def _files(kind: Kind, roots: tuple[Path, ...]) -> Iterator[Path]:
    declares = re.compile(rf"^{kind.table}\b", flags=re.MULTILINE)
    for path in sorted((_PACKAGE / kind.room).rglob("*.py")):
        if declares.search(path.read_text(encoding="utf-8")):
            yield path
    for root in roots[1:]:
        yield from (
            path for path in sorted((root / kind.folder).glob("*.py")) if places.is_name(path.stem) and path.is_file()
        )


def _read(kind: str, path: Path) -> Iterator[Extension]:
    tree = signature.parse(path)
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    for name, entry in _table(KINDS[kind].table, path, tree).items():
        name_of, options = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, {})
        where = f"{path}: {KINDS[kind].table}[{name!r}]"
        if not isinstance(name, str) or not places.is_name(name):
            raise UserError(f"{where}: a name is made of letters, digits and underscores, and begins with a letter")
        if not isinstance(name_of, str) or not isinstance(options, dict):
            raise UserError(
                f"{where} must be the name of a class or function, or a pair of that and a dict, not {entry!r}"
            )
        if name_of not in _names(tree):
            raise UserError(f"{where}: {unknown('class or function', name_of, _names(tree))}")
        _check_options(KINDS[kind].options, options, where)
        yield Extension(kind, name, path, name_of, options, summary, places.origin(path))


def _table(table: str, path: Path, tree: ast.Module) -> dict[Any, Any]:
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if not any(isinstance(target, ast.Name) and target.id == table for target in targets):
            continue
        try:
            value = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
        except Exception:  # see kdbench/config/signature.py
            value = None
        if not isinstance(value, dict):
            raise UserError(f"{path}: {table} must be a literal dict, because it is read without running the file")
        return value
    raise UserError(
        f"{path} has no table {table} at its top level; start the file's name with _ if other files only import it"
    )


def _names(tree: ast.Module) -> set[str]:
    """Names that the file defines or imports at its top level."""
    names: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names


def _check_options(types: Mapping[str, type] | None, options: Mapping[Any, Any], where: str) -> None:
    for name, value in options.items():
        if types is None:
            if not isinstance(name, str):
                raise UserError(f"{where}: a keyword argument must be a string, not {name!r}")
        elif name not in types:
            raise UserError(f"{where}: {unknown('option', str(name), types)}")
        elif not isinstance(value, types[name]):
            raise UserError(f"{where}: '{name}' must be a {types[name].__name__}, not {value!r}")
