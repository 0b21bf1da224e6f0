"""Run folders → results: what can be used is read, what cannot is named, and what has not changed is left alone."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from kdbench.files import write_atomically
from kdbench.report import records
from kdbench.report.records import NAMES, STATES, is_number_column
from kdbench.store.folder import CONFIG, RESULT, SPEC

INDEX = ".board.json"

Stamp = list[int]
"""Of a file: when it was written (nanoseconds), its size, and its inode, which is another one after every atomic write."""


@dataclass(frozen=True)
class Reading:
    """What a folder of runs holds.

    Attributes:
        results: those that were read, by the names of their folders in order; not those that were known.
        messages: a sentence for each `result.json` that cannot be used.
        stamps: of all that can be used, read now or known before, by run.
        open: runs that have no result yet.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    open: int = 0


def read_runs(runs: Path, known: Mapping[str, Stamp] | None = None) -> Reading:
    """The results in all run folders; no folder at all has no runs.

    Args:
        known: what need not be read again, by run, unless its file has another stamp now.
    """
    found, known = Reading([], [], {}), known or {}
    unended = 0
    for name in sorted(entry.name for entry in os.scandir(runs) if entry.is_dir()) if runs.is_dir() else []:
        path = f"{runs}/{name}/{RESULT}"
        try:
            stamp = _stamp(path)
            if known.get(name) != stamp:
                result = _parsed(path)
                if reason := _defect(result, name):
                    raise _Unusable(reason)
                found.results.append(result)
            found.stamps[name] = stamp
        except FileNotFoundError:
            unended += any(os.path.exists(f"{runs}/{name}/{file}") for file in (SPEC, CONFIG))
        except _Unusable as error:
            found.messages.append(f"{path} was skipped: {error}")
        except (OSError, ValueError, RecursionError) as error:
            found.messages.append(f"{path} was skipped: it cannot be read ({type(error).__name__}: {error})")
    return Reading(found.results, found.messages, found.stamps, unended)


class _Unusable(Exception):
    """A file that is there and is no result of its folder's run."""


def _stamp(path: str) -> Stamp:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("it is no file")
    return [status.st_mtime_ns, status.st_size, status.st_ino]


def _parsed(path: str) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read(), parse_constant=_no_number)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _defect(result: Any, folder: str) -> str | None:
    """Why this is not the result of the run in `folder`, or None if it is. Keys of other versions are welcome."""
    if not isinstance(result, dict):
        return "it is not a JSON object"
    missing = [key for key in NAMES if not isinstance(result.get(key), str) or not result[key].strip()]
    missing += [] if type(result.get("seed")) is int else ["seed"]
    if missing:
        return f"it is not the result of a run; it lacks {', '.join(missing)}"
    if result.get("status") not in STATES:
        return f"its status is {result.get('status')!r}, not one of {', '.join(STATES)}"
    for key, value in result.items():
        if is_number_column(key) and not _is_number(value):
            return f"its {key} is {value!r}, which is no number"
    # A copied folder would count twice, or not, depending on which is read last.
    return None if result["run"] == folder else f"it is the result of run '{result['run']}', not of this folder's"


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or null for what was not measured."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def known(runs: Path, board: bytes) -> dict[str, Stamp]:
    """What the rows in `board` hold of these runs already, as `remember` has left it; nothing if they are others now.

    The index saves time and says nothing that the folders do not: without it, or if it is damaged, all is read.
    """
    try:
        index = json.loads((runs / INDEX).read_bytes())
        if index["rows"] != _identity(board):
            return {}
        stamps: dict[str, Stamp] = dict(index["runs"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return stamps


def remember(runs: Path, board: bytes, stamps: Mapping[str, Stamp]) -> None:
    """Keep what `known` gives; where nothing can be written, all is read again the next time."""
    content = json.dumps({"rows": _identity(board), "runs": stamps}, separators=(",", ":")).encode()
    path = runs / INDEX
    try:
        if runs.is_dir() and not (path.is_file() and path.read_bytes() == content):
            write_atomically(path, content, lasting=False)
    except OSError:
        pass


def _identity(board: bytes) -> str:
    """Of the rows, and of the code that makes rows of results."""
    digest = hashlib.sha256(board)
    for source in (__file__, records.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()
