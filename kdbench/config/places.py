"""The roots in which methods, gin files and extensions are searched: kdbench's own, the user's folders, other packages.

A root is a folder laid out like this repository: `methods/NAME.py`, `gin/GROUP/NAME.gin`, `slurm/NAME.gin`. The user names
further roots with `--plugins DIR` or KDBENCH_PLUGINS; a package offers one through the entry-point group `kdbench.methods`.
Roots of users may also have the folders of `kdbench.config.extensions`: `backbones/`, `readers/`, `measures/`, `launchers/`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from functools import cache
from importlib import invalidate_caches
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from kdbench.errors import UserError, shortened, unknown

GROUPS = {
    "method": "methods",
    "control": "controls",
    "dataset": "datasets",
    "recipe": "recipes",
    "sweep": "sweeps",
    "cluster": "clusters",
}
"""The kinds of gin files and the word for `kdbench list`."""

CLUSTERS = "slurm"
"""The folder of a root's cluster profiles; the other groups are folders of gin/."""

FOLDERS = ("methods", "gin", CLUSTERS, "backbones", "readers", "measures", "launchers")
"""The folders of a root; one of them makes a folder a root."""

BUILT_IN = "built in"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def own_root() -> Path:
    """The root that comes with kdbench: inside the package in a wheel, next to it in a clone."""
    package = Path(__file__).resolve().parents[1]
    bundled = package / "bundled"
    return bundled if bundled.is_dir() else package.parent


@cache
def roots() -> dict[Path, str]:
    """All roots, kdbench's own first, and where each comes from: "built in", the plug-in folder, or "package NAME".

    Raises:
        UserError: a plug-in folder does not exist or has none of `FOLDERS`, or an entry point does not name a package.
    """
    origins = {own_root(): BUILT_IN}
    for text in filter(None, os.environ.get("KDBENCH_PLUGINS", "").split(os.pathsep)):
        root = user_path(text).resolve()
        if not any((root / folder).is_dir() for folder in FOLDERS):
            *first, last = (f"{folder}/" for folder in FOLDERS)
            raise UserError(
                f"the plug-in folder '{text}' has no {', '.join(first)} or {last} in it (--plugins, KDBENCH_PLUGINS)"
            )
        origins.setdefault(root, str(root))
    for entry in entry_points(group="kdbench.methods"):
        spec = find_spec(entry.value)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"the installed plug-in '{entry.name}' names '{entry.value}', which is not a package")
        origins.setdefault(Path(next(iter(spec.submodule_search_locations))), f"package {entry.value}")
    return origins


def root_of(path: Path) -> Path | None:
    """The root that a file lies in; None if it lies in none."""
    # A plug-in folder may lie inside kdbench's own root, so the innermost root counts.
    inside = [root for root in roots() if path.is_relative_to(root)]
    return max(inside, key=lambda root: len(root.parts), default=None)


def origin(path: Path) -> str:
    """The origin of a file, as in the values of `roots`."""
    root = root_of(path)
    return BUILT_IN if root is None else roots()[root]


def is_users(path: Path) -> bool:
    """True if a file lies in a folder for what users add, of any root: a method, a backbone, a measure."""
    return any(path.is_relative_to(root / folder) for root in roots() for folder in FOLDERS)


def short(path: Path) -> str:
    """A file's name from its root's folder on: "mykd/methods/order.py"; it names no folder of this machine above that."""
    root = root_of(path)
    if root is None:
        return path.name
    within = path.relative_to(root)
    return str(within if roots()[root] == BUILT_IN else root.name / within)


def add_plugins(folders: list[str]) -> None:
    """Add plug-in folders to the environment, so that jobs started from here also find them."""
    every = list(filter(None, os.environ.get("KDBENCH_PLUGINS", "").split(os.pathsep)))
    every += [str(user_path(folder).resolve()) for folder in folders]
    if every:
        os.environ["KDBENCH_PLUGINS"] = os.pathsep.join(dict.fromkeys(every))
    invalidate_caches()  # of the import system: a plug-in may have just been written
    roots.cache_clear()
    members.cache_clear()
    sources.cache_clear()
    misnamed.cache_clear()


@cache
def members(group: str) -> dict[str, Path]:
    """The gin files of one group by name. Controls are methods too: gin/control/ holds the gin files of both groups.

    Raises:
        UserError: two files have the same name.
    """
    return _collect(_gin_folders(group), ".gin", group)


def _gin_folders(group: str) -> tuple[str, ...]:
    return {"cluster": (CLUSTERS,), "method": ("gin/method", "gin/control")}.get(group, (f"gin/{group}",))


@cache
def sources() -> dict[str, Path]:
    """The Python files of all methods by name."""
    return _collect(("methods",), ".py", "method file")


def _collect(folders: tuple[str, ...], suffix: str, kind: str) -> dict[str, Path]:
    by_name: dict[str, Path] = {}
    for path in (p for root in roots() for folder in folders for p in sorted((root / folder).glob(f"*{suffix}"))):
        if not is_name(path.stem) or not path.is_file():
            continue
        if path.stem in by_name:
            raise UserError(f"the {kind} '{path.stem}' is defined twice: {by_name[path.stem]} and {path}")
        by_name[path.stem] = path
    return by_name


def is_name(word: str) -> bool:
    """True if a word can name a member: letters, digits and underscores, beginning with a letter."""
    return _NAME.fullmatch(word) is not None


@cache
def misnamed(group: str) -> dict[Path, str]:
    """The files of a group that their names leave out, each with a sentence that says how to rename it.

    Hidden files and helpers (_NAME.py) are left out on purpose.

    Args:
        group: a group of gin files (for methods, the Python files count too), or another folder of a root.
    """
    kinds = [(folder, ".gin") for folder in _gin_folders(group)] if group in GROUPS else [(group, ".py")]
    kinds += [("methods", ".py")] * (group == "method")
    places = ((path, suffix) for root in roots() for folder, suffix in kinds for path in (root / folder).glob("*"))
    return {path: _renamed(path, suffix) for path, suffix in sorted(places) if _is_misnamed(path, suffix)}


def _is_misnamed(path: Path, suffix: str) -> bool:
    if path.name.startswith((".", "_")) or path.suffix.lower() != suffix or not path.is_file():
        return False
    return not is_name(path.stem) or path.suffix != suffix


def _renamed(path: Path, suffix: str) -> str:
    stem = re.sub("[^A-Za-z0-9_]+", "_", path.stem)
    other = f" to {stem}{suffix}" if is_name(stem) else ""
    rule = "a name is made of letters, digits and underscores, and begins with a letter"
    if is_name(path.stem):
        rule = f"its ending must be {suffix}"
    return f"rename {short(path)}{other} ({rule})"


def no_member(group: str, name: str, valid: Iterable[str], see: str) -> UserError:
    """The error for a name that no file of a group has; a file that its name leaves out is mentioned.

    Args:
        group: see `misnamed`.
        valid, see: as in `errors.unknown`.
    """
    sentences = misnamed(group)
    for path, sentence in sentences.items():
        if _bare(path.stem) == _bare(name):
            return UserError(f"the {group} '{name}' cannot be used: {sentence}")
    error = unknown(group, name, valid, see)
    return UserError(f"{error} (left out: {'; '.join(sentences.values())})") if sentences else error


def _bare(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def other_case(name: str, names: Iterable[str]) -> str | None:
    """The name that differs from `name` by upper and lower case alone."""
    return next((other for other in names if other != name and other.lower() == name.lower()), None)


def member(group: str, name: str) -> Path:
    """The gin file `name` of a group.

    Raises:
        UserError: there is none; the sentence names the nearest.
    """
    try:
        return members(group)[name]
    except KeyError:
        raise no_member(group, name, members(group), f"kdbench list {GROUPS[group]}") from None


def user_path(word: str | Path) -> Path:
    """The path that a word of the user's means, with `~` as the shell takes it.

    Raises:
        UserError: no file system can have such a path.
    """
    path = Path(os.path.expanduser(word))  # Path.expanduser fails for a user that does not exist
    if "\0" in str(path) or len(os.fsencode(path)) > LONGEST_PATH or any(len(os.fsencode(p)) > 255 for p in path.parts):
        raise UserError(f"{shortened(repr(str(word)))} cannot be a path: it is too long, or has a zero byte in it")
    return path


LONGEST_PATH = 4000
"""Bytes of a path at most; Linux allows 4096, and something is appended to most."""


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def included(name: str, from_file: Path) -> Path:
    """The file that `include 'GROUP/NAME.gin'` (or `'slurm/NAME.gin'`) in `from_file` means.

    Raises:
        UserError: no root has it, or it is not such a name.
    """
    group, _, file = name.partition("/")
    if not is_name(group) or not file.endswith(".gin") or not is_name(file.removesuffix(".gin")):
        raise UserError(f"{from_file.name} includes {shortened(repr(name))}; an include is written as 'GROUP/NAME.gin'")
    profile = name.startswith(f"{CLUSTERS}/")
    for root in roots():
        path = root / name if profile else root / "gin" / name
        if path.is_file():
            return path
    raise UserError(
        f"{from_file.name} includes '{name}', which was not found in any {CLUSTERS if profile else 'gin'}/ folder"
    )
