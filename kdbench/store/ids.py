"""Ids of runs: which there are in a folder, and which one a word means."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from kdbench.errors import UserError, nearest
from kdbench.store import studies
from kdbench.store.folder import REPRODUCED


def one(word: str, ids: Iterable[str]) -> str | None:
    """The run that a word means: its id, or the beginning of no other's; None if there is none.

    Raises:
        UserError: it begins the ids of several.
    """
    begun = beginning(word, ids)
    if len(begun) > 1:
        more = f" and {len(begun) - 3} others" if len(begun) > 3 else ""
        raise UserError(f"'{word}' begins the ids of {len(begun)} runs: {', '.join(begun[:3])}{more}; say more of one")
    return begun[0] if begun else None


def beginning(word: str, ids: Iterable[str]) -> list[str]:
    """The ids that begin with a word; if it ends where a part of an id does, only those (seed 1, not seed 10)."""
    begun = [id_ for id_ in ids if id_.startswith(word)]
    if word in begun:
        return [word]
    return [id_ for id_ in begun if id_[len(word)] == "-"] or begun


def short_names(ids: Collection[str]) -> dict[str, str]:
    """By id, the short beginning that means this run: without the hash, or with as much of it as is needed."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for id_ in ids:
        alike[id_.rpartition("-")[0]].append(id_)
    found: dict[str, str] = {}
    for start, same in alike.items():
        ends = [id_[len(start) :] for id_ in same]
        longest = max(map(len, ends))
        length = 0 if start and len(same) == 1 else 5
        while len({end[:length] for end in ends}) < len(ends) and length < longest:
            length += 1
        found |= {id_: start + end[:length] if start else id_ for id_, end in zip(same, ends, strict=True)}
    return found


def folder(word: str, runs: Path) -> Path:
    """The folder of the one run that a word means, in `runs`.

    Raises:
        UserError: there is none, or several.
    """
    known = run_ids(runs)
    found = one(run_name(word, runs), known)
    if found is None:
        raise no_run(word, known, runs)
    return runs / found


def nearest_run(word: str, ids: Iterable[str]) -> str | None:
    """The id whose beginning is most like a word: the end of an id is hard to type."""
    by_start = {id_[: len(word)]: id_ for id_ in ids}
    return by_start.get(nearest(word, by_start) or "")


def no_run(word: str, ids: Iterable[str], runs: Path) -> UserError:
    """The error for a word that begins none of `ids`."""
    guess = nearest_run(word, ids)
    hint = f"did you mean '{guess}'? " if guess else ""
    return UserError(f"'{word}' begins the id of no run in {runs}; {hint}See all with: kdbench status --all")


def run_name(word: str, runs: Path) -> str:
    """The shell completes names to paths: those of folders in `runs` are as good as their names."""
    path = Path(word).expanduser()
    return path.name if "/" in word and path.resolve().parent == runs.resolve() else word


def run_ids(runs: Path) -> list[str]:
    """The names of the folders in `runs` that may be runs, in order; none if there is no such folder."""
    try:
        with os.scandir(runs) as entries:
            names = [e.name for e in entries if e.name[0] != "." and e.is_dir()]
    except OSError:
        return []
    return sorted(name for name in names if name not in (studies.FOLDER, REPRODUCED))
