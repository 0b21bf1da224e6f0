"""Records: the results of runs as text, and the CSV file of the committed ones.

A cell holds text and nothing else: null is the empty cell, a number is what Python's `repr` writes. The CSV therefore
gives back exactly what went in, and the same records give the same bytes whatever the order of the folders.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import UserError, shortened
from kdbench.files import write_atomically
from kdbench.plan.spec import is_run_name
from kdbench.store.result import LARGEST, is_plausible

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, str]
"""The result of one run as text, by column."""

ACCURACY = "accuracy.last"
"""The column of the accuracy that tables compare: on the test set after the last epoch, percent."""

WEIGHTS = "weights.sha256"

ORIGIN = "origin"
"""The column of the file that a row was merged from; empty for the runs of this machine."""
REPRODUCED = "reproduced"
"""First part of the columns that `kdbench reproduce` adds to merged rows."""
VERDICT = f"{REPRODUCED}.status"
CONFIRMED, CONTRADICTED = "confirmed", "contradicted"

LEADING = [
    *("dataset", "student", "recipe", "overrides", "protocol", "method", "method.parameters", "teacher", "seed"),
    *("run", "purpose", "status", "error", "accuracy.last", "accuracy.best_val", "accuracy.val", "images_seen"),
]
"""The columns that always exist, in this order; all others follow alphabetically."""

ORDER = ["dataset", "student", "protocol", "method", "method.parameters", "teacher", "seed", "run"]
"""Sort order of the records."""

_LATER = ("purpose",)
"""Leading columns that boards of older versions lack; their cells are filled in where they can be derived."""

STATES = ("finished", "failed")
NAMES = ("run", "method", "dataset", "student", "protocol")
"""Columns that no record can lack, in addition to status and seed."""

_WHOLE = re.compile("-?[0-9]+")
_NUMBERS = ("accuracy.", "exits.", "seconds.")
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # not the same in every CSV reader, or not in UTF-8
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Characters that a terminal or an editor would act on instead of showing them."""


def is_number_column(name: str) -> bool:
    """True if a column certainly holds only numbers and empty cells, in every version of kdbench."""
    return name.startswith(_NUMBERS) or name in ("images_seen", "teacher.accuracy")


def number(record: Record, key: str) -> float | None:
    """The number in a cell, or None; one beyond all measuring counts as none, so that sums and squares stay finite."""
    try:
        value = float(record.get(key, ""))
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def scored(record: Record) -> bool:
    """True if this run has a result that can be averaged."""
    return record["status"] == "finished" and number(record, ACCURACY) is not None and not is_contradicted(record)


def is_foreign(record: Record) -> bool:
    """True for a run of somebody else, whose row was merged."""
    return bool(record.get(ORIGIN))


def is_confirmed(record: Record) -> bool:
    """True for a run of somebody else that `kdbench reproduce` has confirmed on this machine."""
    return is_foreign(record) and record.get(VERDICT) == CONFIRMED


def is_contradicted(record: Record) -> bool:
    """True for a run of somebody else that came out differently on this machine."""
    return is_foreign(record) and record.get(VERDICT) == CONTRADICTED


def cell(value: Any) -> str:
    """A JSON value as the text of a cell."""
    if isinstance(value, str):
        return _UNSHOWN.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return float.__repr__(value) if isinstance(value, float) else str(value)  # numpy's own repr names its type


def frame(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Results as records in canonical form."""
    import pandas as pd

    rows = pd.DataFrame([{cell(key): cell(value) for key, value in r.items()} for r in results], dtype=object)
    return canonical(rows.where(rows.notna(), ""))


def canonical(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort records and columns into the one order that is written; columns of empty cells are left out."""
    rows = _with_columns(rows, set(rows.columns))
    rows = rows[[name for name in rows.columns if name in LEADING or (rows[name] != "").any()]]
    by_number = rows.assign(seed=[int(seed) if seed else 0 for seed in rows["seed"]])
    return rows.loc[by_number.sort_values(ORDER, kind="stable").index].reset_index(drop=True)


def _with_columns(rows: pd.DataFrame, names: set[str]) -> pd.DataFrame:
    """Give records these columns, in the order that is written; new cells are empty."""
    return rows.reindex(columns=LEADING + sorted(names - set(LEADING)), fill_value="").astype(object)


def merge(committed: pd.DataFrame, fresh: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Committed records, replaced by those of the folders.

    Returns:
        The records, and a sentence for each finished one lost to a failure and each merged one lost to a run of this machine.

    Where a folder has no measurement of transfer that is committed for the same weights, the committed one stays.
    """
    import pandas as pd

    state = dict(zip(committed["run"], committed["status"], strict=True))
    messages = [
        f"run '{run}' is committed as finished, but its folder says that it failed; the folder counts"
        for run, status in zip(fresh["run"], fresh["status"], strict=True)
        if status == "failed" and state.get(run) == "finished"
    ]
    origin = dict(zip(committed["run"], committed.get(ORIGIN, [""] * len(committed)), strict=True))
    messages += [
        f"run '{run}' was merged from {origin[run]}, and has been done on this machine now; the row of its folder counts"
        for run in fresh["run"]
        if origin.get(run)
    ]
    kept = committed[~committed["run"].isin(fresh["run"])]
    names = {*committed.columns, *fresh.columns}
    both = [_with_columns(kept, names), _with_transfer(_with_columns(fresh, names), committed)]
    return canonical(pd.concat(both, ignore_index=True)), messages


def _with_transfer(fresh: pd.DataFrame, committed: pd.DataFrame) -> pd.DataFrame:
    """Fill in what only the committed records have of `transfer.json`, a file that folders are copied without."""
    columns = [name for name in committed.columns if name.startswith("transfer.")]
    if not columns or WEIGHTS not in fresh.columns or WEIGHTS not in committed.columns:
        return fresh
    before = committed.set_index(["run", WEIGHTS])[columns]
    before = before.reindex(list(zip(fresh["run"], fresh[WEIGHTS], strict=True)), fill_value="")
    before[fresh[WEIGHTS].to_numpy() == ""] = ""
    stored = before.set_axis(fresh.index)
    return fresh.assign(**{name: fresh[name].where(fresh[name] != "", stored[name]) for name in columns})


def to_csv(rows: pd.DataFrame) -> bytes:
    """The CSV file of records in canonical form."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")  # what pandas does too, by way of a copy of all cells
    writer.writerow(rows.columns)
    writer.writerows(rows.to_numpy().tolist())
    return out.getvalue().encode()


def from_csv(content: bytes, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The records of a CSV file, in the order of the file, and a sentence for each line that cannot be used.

    Args:
        name: name of the file, for the sentences.

    Raises:
        UserError: its first line does not name the columns.
    """
    import pandas as pd

    # What is not UTF-8 becomes surrogates, which no file that kdbench writes has.
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline=""), strict=True)
    csv.field_size_limit(2**31 - 1)
    header: list[str] = []
    rows: list[list[str]] = []
    places: dict[str, int] = {}
    messages: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
            if not cells:
                continue
            if not header:
                header = header_of(cells, name)
                check = _Check(header)
                continue
            run = check(cells)
            if run in places:
                raise ValueError(f"it duplicates the run '{run}' of line {places[run]}")
        except StopIteration:
            break
        except (csv.Error, ValueError) as error:
            messages.append(f"{name}, line {line} is not the result of a run: {error}")
        else:
            places[run] = line
            rows.append(cells)
    if not header:
        raise UserError(f"{name} is not a results file: it is empty")
    return pd.DataFrame(rows, columns=pd.Index(header, dtype=object), dtype=object), messages


def header_of(cells: list[str], name: str) -> list[str]:
    """The columns that the first line of a results file names.

    Raises:
        UserError: it lacks a column that every results file has, or has one twice.
    """
    if _UNSAFE.search("".join(cells)):
        raise UserError(f"{name} is not a results file: its first line is not UTF-8")
    lacking = [column for column in LEADING if column not in (*cells, *_LATER)]
    if lacking:
        raise UserError(f"{name} is not a results file: its first line lacks the column {', '.join(lacking)}")
    twice = [column for column, count in Counter(cells).items() if count > 1]
    if twice:
        raise UserError(f"{name} has the column '{twice[0]}' twice")
    return cells


class _Check:
    """Takes the cells of a line and returns their run."""

    def __init__(self, header: list[str]):
        self._width = len(header)
        self._named = [(header.index(column), column) for column in NAMES]
        self._numbers = [(place, column) for place, column in enumerate(header) if is_number_column(column)]
        self._status, self._seed, self._run = (header.index(column) for column in ("status", "seed", "run"))

    def __call__(self, cells: list[str]) -> str:
        """Raises ValueError, with the reason, if they are not a record."""
        if len(cells) != self._width:
            raise ValueError(f"it has {len(cells)} cells, and the first line has {self._width}")
        if not (text := "".join(cells)).isascii() and _UNSAFE.search(text):
            raise ValueError("it is not UTF-8")
        for place, column in self._named:
            if not cells[place]:
                raise ValueError(f"it has no {column}")
        if not is_run_name(cells[self._run]):
            raise ValueError(f"its run {shortened(repr(cells[self._run]))} cannot be the name of a run")
        if cells[self._status] not in STATES:
            raise ValueError(f"its status is '{cells[self._status]}', not one of {', '.join(STATES)}")
        if not _WHOLE.fullmatch(cells[self._seed]) or not -LARGEST < float(cells[self._seed]) < LARGEST:
            raise ValueError(f"its seed is '{cells[self._seed]}'")
        for place, column in self._numbers:
            if not cells[place]:
                continue
            value = _as_number(cells[place])
            if value is None:
                raise ValueError(f"its {column} is '{cells[place]}', which is not a number")
            if not is_plausible(column, value):
                raise ValueError(f"its {column} is '{cells[place]}', which cannot have been measured")
        return cells[self._run]


def _as_number(text: str) -> float | None:
    """The finite number that a text writes, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def write(path: Path, content: bytes) -> bool:
    """Put `content` in place in one step, so that nobody reads half of it; False if it was there already."""
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomically(path, content, lasting=False)
    return True
