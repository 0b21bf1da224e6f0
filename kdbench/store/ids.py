"""Ids of runs: the ids in a folder, and the one that a prefix stands for."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from kdbench.config import places
from kdbench.errors import UserError, hint, nearest
from kdbench.plan.spec import is_run_name
from kdbench.store import studies
from kdbench.store.folder import REPRODUCED


def one(prefix: str, ids: Iterable[str]) -> str | None:
    """The run that a prefix stands for: an id, or the prefix of no other; None if no id starts with it.

    Raises:
        UserError: several ids start with it.
    """
    matches = matching(prefix, ids)
    if len(matches) > 1:
        more = f" and {len(matches) - 3} more" if len(matches) > 3 else ""
        raise UserError(f"'{prefix}' is ambiguous; it matches {len(matches)} runs: {', '.join(matches[:3])}{more}")
    return matches[0] if matches else None


def matching(prefix: str, ids: Iterable[str]) -> list[str]:
    """The ids that start with a prefix; if it ends at the end of one of their parts, only those (seed 1, not seed 10)."""
    matches = [id_ for id_ in ids if id_.startswith(prefix)]
    if prefix in matches:
        return [prefix]
    return [id_ for id_ in matches if id_[len(prefix)] == "-"] or matches


def short_names(ids: Collection[str]) -> dict[str, str]:
    """By id, a short prefix that stands for this run alone: without the hash, or with as much of it as is needed."""
    by_start: defaultdict[str, list[str]] = defaultdict(list)
    for id_ in ids:
        by_start[id_.rpartition("-")[0]].append(id_)
    names: dict[str, str] = {}
    for start, same in by_start.items():
        ends = [id_[len(start) :] for id_ in same]
        longest = max(map(len, ends))
        length = 0 if start and len(same) == 1 else 5
        while len({end[:length] for end in ends}) < len(ends) and length < longest:
            length += 1
        names |= {id_: start + end[:length] if start else id_ for id_, end in zip(same, ends, strict=True)}
    return names


def folder(prefix: str, runs: Path) -> Path:
    """The folder of the one run in `runs` that a prefix stands for.

    Raises:
        UserError: no id starts with it, or several do.
    """
    ids = run_ids(runs)
    id_ = one(run_name(prefix, runs), ids)
    if id_ is None:
        raise no_run(prefix, ids, runs)
    return runs / id_


def nearest_run(prefix: str, ids: Iterable[str]) -> str | None:
    """The run whose id starts most like a mistyped prefix; the hash at the end of an id is hard to type."""
    by_start = {id_[: len(prefix)]: id_ for id_ in ids}
    return by_start.get(nearest(prefix, by_start) or "")


def no_run(prefix: str, ids: Iterable[str], runs: Path) -> UserError:
    """The error for a prefix that none of `ids` starts with."""
    end = hint(nearest_run(prefix, ids), "see all with: kdbench status --all")
    return UserError(f"no run in {runs} has an id that starts with '{prefix}'{end}")


def run_name(word: str, runs: Path) -> str:
    """The name of a run, given as such or as the path of a folder in `runs`, to which the shell completes names."""
    path = places.user_path(word)
    return path.name if "/" in word and path.resolve().parent == runs.resolve() else word


def run_ids(runs: Path) -> list[str]:
    """The names of the folders in `runs` that may be runs, in order; none if there is no such folder.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = [entry.name for entry in os.scandir(runs) if is_run_name(entry.name) and _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name not in (studies.FOLDER, REPRODUCED))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where one may not look
        return False
