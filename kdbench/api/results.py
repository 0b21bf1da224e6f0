"""Results: read from folders and files as typed tables, and ranked as the leaderboard ranks them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import BASELINE, places
from kdbench.errors import UserError
from kdbench.words import printable

if TYPE_CHECKING:
    import pandas as pd

    from kdbench.report.tables.tables import Table


def load_results(runs: str | Path) -> pd.DataFrame:
    """The results of a folder of runs, or of a leaderboard's `results.csv`, a row for each run.

    docs/results.md describes the columns. Runs that were only made to teach others have the purpose "teacher".
    Numbers that may be missing are nullable; results that cannot be read are skipped with a warning.

    Raises:
        UserError: `runs` does not exist, or is not a file of results.
    """
    from kdbench.report import folders, purposes, records

    path = places.user_path(runs)
    if path.is_file():
        committed, messages = records.from_csv(path.read_bytes(), str(path))
        rows = records.canonical(committed)
    elif path.is_dir():
        reading = folders.read_runs(path)
        rows, messages = records.frame(reading.results), reading.messages
    else:
        raise UserError(f"there is no folder of runs and no file of results at {path}")
    for message in messages:
        warnings.warn(printable(message), stacklevel=2)
    return typed(purposes.filled(rows))


def tables(
    results: pd.DataFrame | Iterable[Mapping[str, Any]], baseline: str = BASELINE, columns: Iterable[str] | None = None
) -> list[pd.DataFrame]:
    """The leaderboard's tables of results: one for each protocol, dataset and student, with ranks and differences.

    Args:
        results: the results of `load_results` or `run`, or some of their rows; or results as `result.json` holds them.
        baseline: the method that differences are taken from.
        columns: names of columns (`kdbench list columns`); None for those that the leaderboard shows.

    Returns:
        Data frames with a row for each method and teacher, in the columns of `tables.csv`: a mean over the seeds is under the
        column's name, its 95 % interval under `NAME.low` and `NAME.high`. `attrs` has the "title" and the "notes" of a table.

    Raises:
        UserError: no table has the baseline, or a column is unknown.
    """
    from kdbench.report.formats import tidy_csv

    names = None if columns is None else list(columns)
    return [_frame(table, tidy_csv.document([table], names)) for table in _summarised(results, baseline)]


def make_tables(results: pd.DataFrame | Iterable[Mapping[str, Any]], baseline: str = BASELINE) -> list[Table]:
    """The tables as objects of kdbench.report; kept for programs that were written before `tables`."""
    warnings.warn("kdbench.make_tables is deprecated; use kdbench.tables", DeprecationWarning, stacklevel=2)
    return _summarised(results, baseline)


def _summarised(results: pd.DataFrame | Iterable[Mapping[str, Any]], baseline: str) -> list[Table]:
    import pandas as pd

    from kdbench.report.tables.tables import summarise

    if isinstance(results, pd.DataFrame):
        results = [{key: v for key, v in row.items() if pd.notna(v)} for row in results.to_dict("records")]
    return summarise(results, baseline)


_COUNTS = ("rank", "n", "failed")
_TEXTS = (
    *("dataset", "student", "recipe", "protocol", "method", "parameters", "teacher", "purpose", "baseline"),
    *("marks", "notes", "config", "commits", "runs"),
)
"""Columns of a table that hold no means."""


def _frame(table: Table, text: str) -> pd.DataFrame:
    import pandas as pd

    strings = pd.read_csv(io.StringIO(text), dtype="string", keep_default_na=False, na_values=[""])
    kinds = {**dict.fromkeys(_TEXTS, "string"), **dict.fromkeys(_COUNTS, "Int64")}
    frame = strings.astype({name: kinds.get(name, "float64") for name in strings.columns})
    frame.attrs = {"title": table.title, "notes": list(table.notes)}
    return frame


def typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of text with the types that kdbench.store.result declares."""
    from kdbench.store.result import dtype

    frame = rows.mask(rows == "").astype("string")
    for name in frame.columns:
        kind = dtype(name)  # pandas does not convert the text "True"
        frame[name] = frame[name].str.lower() == "true" if kind == "boolean" else frame[name].astype(kind)
    return frame
