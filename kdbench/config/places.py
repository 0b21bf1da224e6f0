"""Where methods and gin files are found: kdbench's own root, the user's folders, and other packages.

A root is a folder laid out like this repository: `methods/NAME.py`, `gin/GROUP/NAME.gin`, `slurm/NAME.gin`. The user names
further roots with `--plugins DIR` or KDBENCH_PLUGINS; a package offers one through the entry-point group `kdbench.methods`.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from kdbench.errors import UserError, unknown

GROUPS = {"method": "methods", "dataset": "datasets", "recipe": "recipes", "sweep": "sweeps", "cluster": "clusters"}
"""The kinds of gin files and the word for `kdbench list`."""

CLUSTERS = "slurm"
"""The folder of a root's cluster profiles; the other groups are folders of gin/."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def own_root() -> Path:
    """The root that comes with kdbench: inside the package in a wheel, beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    bundled = package / "bundled"
    return bundled if bundled.is_dir() else package.parent


@cache
def roots() -> tuple[Path, ...]:
    """All roots, kdbench's own first.

    Raises:
        UserError: a folder that the user named is none, or holds none of methods/, gin/ and slurm/.
    """
    found = [own_root()]
    for text in filter(None, os.environ.get("KDBENCH_PLUGINS", "").split(os.pathsep)):
        root = Path(text).expanduser().resolve()
        if not any((root / folder).is_dir() for folder in ("methods", "gin", CLUSTERS)):
            raise UserError(
                f"the plug-in folder '{text}' has no methods/, gin/ or slurm/ in it (--plugins, KDBENCH_PLUGINS)"
            )
        found.append(root)
    for entry in entry_points(group="kdbench.methods"):
        spec = find_spec(entry.value)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"the installed plug-in '{entry.name}' names '{entry.value}', which is not a package")
        found.append(Path(next(iter(spec.submodule_search_locations))))
    return tuple(dict.fromkeys(found))


def add_plugins(folders: list[str]) -> None:
    """Put further roots of the user's into the environment, where jobs started from here find them too."""
    known = list(filter(None, os.environ.get("KDBENCH_PLUGINS", "").split(os.pathsep)))
    known += [str(Path(folder).expanduser().resolve()) for folder in folders]
    if known:
        os.environ["KDBENCH_PLUGINS"] = os.pathsep.join(dict.fromkeys(known))
    roots.cache_clear()
    members.cache_clear()
    sources.cache_clear()


@cache
def members(group: str) -> dict[str, Path]:
    """The gin files of one group by name.

    Raises:
        UserError: two roots have a file of the same name.
    """
    return _collect(CLUSTERS if group == "cluster" else f"gin/{group}", ".gin", group)


@cache
def sources() -> dict[str, Path]:
    """The Python files of all methods by name."""
    return _collect("methods", ".py", "method file")


def _collect(folder: str, suffix: str, kind: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in roots():
        for path in sorted((root / folder).glob(f"*{suffix}")):
            if not _NAME.fullmatch(path.stem):
                continue
            if path.stem in found:
                raise UserError(f"the {kind} '{path.stem}' is there twice: {found[path.stem]} and {path}")
            found[path.stem] = path
    return found


def member(group: str, name: str) -> Path:
    """The gin file `name` of a group.

    Raises:
        UserError: there is none; the sentence names the nearest.
    """
    try:
        return members(group)[name]
    except KeyError:
        raise unknown(group, name, members(group), f"kdbench list {GROUPS[group]}") from None


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def included(name: str, from_file: Path) -> Path:
    """The file that `include 'GROUP/NAME.gin'` (or `'slurm/NAME.gin'`) in `from_file` means.

    Raises:
        UserError: no root has it.
    """
    profile = name.startswith(f"{CLUSTERS}/")
    for root in roots():
        path = root / name if profile else root / "gin" / name
        if path.is_file():
            return path
    raise UserError(f"{from_file.name} includes '{name}', which is in no {CLUSTERS if profile else 'gin'}/ folder")
