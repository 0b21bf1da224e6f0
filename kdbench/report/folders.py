"""Run folders → results. Results that cannot be used are named, and those that have not changed are not read again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdbench.errors import reason
from kdbench.files import read_object, read_regular, write_atomically
from kdbench.report import records
from kdbench.report.records import NAMES, ORIGIN, REPRODUCED, STATES, is_number_column
from kdbench.store import transfer
from kdbench.store.folder import CONFIG, RESULT, SPEC, TRANSFER, RunFolder
from kdbench.store.ids import run_ids
from kdbench.store.result import ill_typed

INDEX = ".board.json"
_MOST_BYTES = 256 << 20  # of the index of a million runs

Stamp = list[int]
"""Time of the last write of a file (nanoseconds), its size, and its inode, which every atomic write changes; of `result.json`,
then of `transfer.json` where there is one."""


@dataclass(frozen=True)
class Reading:
    """The results in a folder of runs.

    Attributes:
        results: results that were read now, in the order of the names of their folders.
        messages: a sentence for each `result.json` that cannot be used.
        stamps: stamps of all results that can be used, read now or before, by run.
        open: number of runs that have no result yet.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    open: int = 0


def read_runs(runs: Path, unchanged: Mapping[str, Stamp] | None = None) -> Reading:
    """The results in all run folders; a folder that does not exist has no runs.

    Args:
        unchanged: the stamps of results that were read before, by run; they are read again only if their stamp differs.
    """
    results: list[dict[str, Any]] = []
    messages: list[str] = []
    stamps: dict[str, Stamp] = {}
    before = unchanged or {}
    unfinished = 0
    for name in run_ids(runs):
        path = f"{runs}/{name}/{RESULT}"
        try:
            stamp = _stamp(path) + _stamp_of_transfer(f"{runs}/{name}/{TRANSFER}")
            if before.get(name) != stamp:
                result = _parsed(path)
                if defect := _defect(result, name):
                    raise _Unusable(defect)
                results.append(_measured(result) | transfer.keys(RunFolder(runs, name), result))
            stamps[name] = stamp
        except FileNotFoundError:
            unfinished += any(os.path.exists(f"{runs}/{name}/{file}") for file in (SPEC, CONFIG))
        except _Unusable as error:
            messages.append(f"{path} was skipped: {error}")
        except OSError as error:
            messages.append(f"{path} was skipped: it cannot be read ({type(error).__name__}: {reason(error)})")
        except ValueError as error:
            messages.append(f"{path} was skipped: it cannot be read: {error}")
    return Reading(results, messages, stamps, unfinished)


class _Unusable(Exception):
    """A file that is not the result of its folder's run."""


def _stamp(path: str) -> Stamp:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("it is not a file")
    return [status.st_mtime_ns, status.st_size, status.st_ino]


def _stamp_of_transfer(path: str) -> Stamp:
    try:
        return _stamp(path)
    except (OSError, _Unusable):
        return []


def _parsed(path: str) -> dict[str, Any]:
    return read_object(Path(path))


def _defect(result: dict[str, Any], folder: str) -> str | None:
    """Why this is not the result of the run in `folder`, or None if it is. Keys of other versions are allowed."""
    missing = [key for key in NAMES if not isinstance(result.get(key), str) or not result[key].strip()]
    missing += [] if type(result.get("seed")) is int else ["seed"]
    if missing:
        return f"it is not the result of a run; it lacks {', '.join(missing)}"
    if result.get("status") not in STATES:
        return f"its status is {result.get('status')!r}, not one of {', '.join(STATES)}"
    for key, value in result.items():
        if is_number_column(key) and not _is_number(value):
            return f"its {key} is {value!r}, which is not a number"
    for _, sentence in ill_typed(result):
        return sentence
    # A copied folder would count twice, or not, depending on which is read last.
    return None if result["run"] == folder else f"it is the result of run '{result['run']}', not of this folder's"


def _measured(result: dict[str, Any]) -> dict[str, Any]:
    """A result without columns that only a leaderboard adds: a folder here is of this machine."""
    return {key: value for key, value in result.items() if key.partition(".")[0] not in (ORIGIN, REPRODUCED)}


def _is_number(value: Any) -> bool:
    """True if a value is a number, or null for a missing measurement."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def unchanged(runs: Path, board: bytes) -> dict[str, Stamp]:
    """The stamps of the results that are in the results.csv `board` already, as `remember` saved them; none for another board.

    The index only saves time: without it, or if it is damaged, everything is read.
    """
    try:
        index = read_object(runs / INDEX, _MOST_BYTES)
        if index["rows"] != _identity(board):
            return {}
        stamps: dict[str, Stamp] = dict(index["runs"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return stamps


def remember(runs: Path, board: bytes, stamps: Mapping[str, Stamp]) -> None:
    """Save the stamps for `unchanged`; where nothing can be written, everything is read again the next time."""
    content = json.dumps({"rows": _identity(board), "runs": stamps}, separators=(",", ":")).encode()
    path = runs / INDEX
    try:
        if runs.is_dir() and not (path.is_file() and read_regular(path, _MOST_BYTES) == content):
            write_atomically(path, content, lasting=False)
    except OSError:
        pass


def _identity(board: bytes) -> str:
    """Checksum of the records and of the code that makes records of results."""
    digest = hashlib.sha256(board)
    for source in (__file__, records.__file__, transfer.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()
