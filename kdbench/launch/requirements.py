"""The packages that kdbench needs, and those that a part of it needs, as its own metadata declares them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from kdbench.config import places

NEEDED = ""
"""The key of the packages that kdbench cannot do without."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)""")


def by_extra() -> Mapping[str, tuple[str, ...]]:
    """The names of packages by extra, and those that are always needed as `NEEDED`; empty if nothing declares them.

    A clone's pyproject.toml counts before the metadata of an installation, which may be older.
    """
    project = places.own_root() / "pyproject.toml"
    if project.is_file():
        content = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        declared = {NEEDED: content["dependencies"], **content["optional-dependencies"]}
        return {extra: tuple(map(_name, texts)) for extra, texts in declared.items()}
    packages: dict[str, list[str]] = {}
    try:
        for text in requires("kdbench") or ():
            extra = _EXTRA.search(text)
            packages.setdefault(extra[1] if extra else NEEDED, []).append(_name(text))
    except PackageNotFoundError:
        return {}
    return {extra: tuple(names) for extra, names in packages.items()}


def installed_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed. Nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def missing(packages: tuple[str, ...]) -> tuple[str, ...]:
    """The packages of these that are not installed."""
    return tuple(name for name in packages if installed_version(name) is None)


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    return match[0] if match else requirement
