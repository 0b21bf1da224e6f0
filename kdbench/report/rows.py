"""Results as rows of text: reading run folders, and the CSV file of committed rows.

A cell holds text and nothing else: null is the empty cell, a number is what Python's `repr` writes. The CSV therefore
gives back exactly what went in, and the same rows give the same bytes whatever the order of the folders.
"""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.errors import UserError

LEADING = [
    *("dataset", "student", "recipe", "overrides", "protocol", "method", "method.parameters", "teacher", "seed"),
    *("run", "status", "error", "accuracy.last", "accuracy.best_val", "accuracy.val", "images_seen"),
]
"""The columns that always exist, in this order; all others follow alphabetically."""

ORDER = ["dataset", "student", "protocol", "method", "method.parameters", "teacher", "seed", "run"]
"""What rows are sorted by."""

STATES = ("finished", "failed")
_NAMES = ("run", "method", "dataset", "student", "protocol")  # what no row can be without, beside status and seed
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # not the same in every CSV reader, or not in UTF-8


def read_runs(runs: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The results in all run folders, and a sentence for each `result.json` that cannot be used.

    A folder without `result.json` is a run that has not ended, which is no error; no folder at all has no runs.
    """
    results, messages = [], []
    folders = sorted(entry.name for entry in os.scandir(runs) if entry.is_dir()) if runs.is_dir() else []
    for name in folders:
        path = runs / name / "result.json"
        try:
            result = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError) as error:
            reason: str | None = f"it cannot be read ({type(error).__name__}: {error})"
        else:
            reason = _defect(result, name)
        if reason:
            messages.append(f"{path} was skipped: {reason}")
        else:
            results.append(result)
    return results, messages


def _defect(result: Any, folder: str) -> str | None:
    """Why this is not the result of the run in `folder`, or None if it is."""
    if not isinstance(result, dict):
        return "it is not a JSON object"
    missing = [key for key in _NAMES if not isinstance(result.get(key), str) or not result[key].strip()]
    missing += [] if type(result.get("seed")) is int else ["seed"]
    if missing:
        return f"it is not the result of a run; it lacks {', '.join(missing)}"
    if result.get("status") not in STATES:
        return f"its status is {result.get('status')!r}, not one of {', '.join(STATES)}"
    # A copied folder would count twice, or not, depending on which is read last.
    return None if result["run"] == folder else f"it is the result of run '{result['run']}', not of this folder's"


def cell(value: Any) -> str:
    """The text that stands for a JSON value in a cell."""
    if isinstance(value, str):
        return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", value)
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return float.__repr__(value) if isinstance(value, float) else str(value)  # numpy's own repr names its type


def frame(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Results as rows of text in canonical form."""
    return canonical(
        pd.DataFrame([{cell(key): cell(value) for key, value in r.items()} for r in results], dtype=object)
    )


def canonical(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows in the one order of rows and columns that is written; a column of empty cells is left out."""
    rows = rows.reindex(columns=LEADING + sorted(set(rows.columns) - set(LEADING))).astype(object)
    rows = rows.where(rows.notna(), "")
    rows = rows[[name for name in rows.columns if name in LEADING or (rows[name] != "").any()]]
    by_number = rows.assign(seed=[int(seed) if seed else 0 for seed in rows["seed"]])
    return rows.loc[by_number.sort_values(ORDER, kind="stable").index].reset_index(drop=True)


def merge(committed: pd.DataFrame, fresh: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Committed rows, replaced by those of the folders; and a sentence for each finished row lost to a failure."""
    state = dict(zip(committed["run"], committed["status"], strict=True))
    messages = [
        f"run '{run}' is committed as finished, but its folder says that it failed; the folder counts"
        for run, status in zip(fresh["run"], fresh["status"], strict=True)
        if status == "failed" and state.get(run) == "finished"
    ]
    kept = committed[~committed["run"].isin(fresh["run"])]
    return canonical(pd.concat([kept, fresh], ignore_index=True)), messages


def to_csv(rows: pd.DataFrame) -> bytes:
    """The CSV file of rows in canonical form."""
    return rows.to_csv(index=False, lineterminator="\n").encode()


def from_csv(content: bytes, name: str) -> pd.DataFrame:
    """The rows of a CSV file, in the order of the file.

    Raises:
        UserError: it is no CSV file of rows; the sentence calls it `name`.
    """
    try:
        # Without a header pandas takes names as they are: it would rename an empty or doubled one.
        rows = pd.read_csv(
            io.StringIO(content.decode("utf-8-sig"), newline=""), header=None, dtype=str, na_filter=False
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{name} is not a CSV file of runs: {str(error).strip()}") from None
    rows = rows.astype(object).where(rows.notna(), "")
    rows.columns = pd.Index(list(rows.iloc[0]))
    rows = rows.iloc[1:].reset_index(drop=True)
    lacking = [column for column in LEADING if column not in rows.columns]
    if lacking:
        raise UserError(f"{name} lacks the column {', '.join(lacking)}")
    if not rows.columns.is_unique:
        raise UserError(f"{name} has the column '{rows.columns[rows.columns.duplicated()][0]}' twice")
    whole = rows["status"].isin(STATES) & rows["seed"].str.fullmatch(r"-?[0-9]+")
    for column in _NAMES:
        whole &= rows[column] != ""
    if not whole.all():
        at = int((~whole).to_numpy().argmax())
        raise UserError(f"{name} has a row that is no run: number {at + 1}, run '{rows['run'].iloc[at]}'")
    twice = rows["run"][rows["run"].duplicated()]
    if len(twice):
        raise UserError(f"{name} has the run '{twice.iloc[0]}' twice; delete one of the rows")
    return rows


def write(path: Path, content: bytes) -> bool:
    """Put `content` in place in one step, so that nobody reads half of it; False if it was there already."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True
