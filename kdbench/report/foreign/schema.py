"""The rows of somebody else against the declared schema: the first cell that no run of kdbench can have written is refused."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kdbench.config import places
from kdbench.errors import UserError, hint, nearest, shortened
from kdbench.plan.spec import COMPARISON, TEACHER
from kdbench.report import records
from kdbench.report.foreign.source import Source
from kdbench.report.records import ACCURACY, NAMES, ORIGIN, REPRODUCED, STATES
from kdbench.store.result import LARGEST, Key, declaration, declared_keys
from kdbench.words import printable

if TYPE_CHECKING:
    import pandas as pd

_MOST_COLUMNS = 1000
_LONGEST_CELL = 20_000
_LONGEST_ORIGIN = 200
_NEEDED = (*NAMES, "status", "seed")
_FINISHED = (ACCURACY, "images_seen")
"""Columns that no finished run lacks."""

_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,99}")
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,25})?(e[+-]?[0-9]{1,3})?")
_PROTOCOL = re.compile(r"[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}(,[0-9a-f]{64})*")
_RUN_END = r"-.+-s{}-[0-9a-f]{{10}}"

Record = records.Record


def rows(source: Source) -> pd.DataFrame:
    """The records in canonical form, each run once, with their origin.

    What others have confirmed is not confirmed here, so their columns `reproduced.*` are left out.

    Raises:
        UserError: a cell, a column or the file is not what kdbench writes; one sentence names the line and the column. Also
            if a run is there twice with different values.
    """
    import pandas as pd

    header, lines = _parsed(source)
    check = _Check(header, source.name)
    by_run: dict[str, Record] = {}
    for number, cells in lines:
        record = check(number, cells)
        before = by_run.setdefault(record["run"], record)
        if before != record:
            column = next(name for name in record if record[name] != before[name])
            raise UserError(
                f"{source.name} contradicts itself: the run '{record['run']}' has {column} '{_short(before[column])}' and "
                f"'{_short(record[column])}' in line {number}; nothing was merged"
            )
    for record in by_run.values():
        earlier = record.get(ORIGIN)
        record[ORIGIN] = shortened(f"{source.origin}, from {earlier}" if earlier else source.origin, _LONGEST_ORIGIN)
    if not by_run:
        raise UserError(f"{source.name} has no rows")
    return records.canonical(pd.DataFrame(list(by_run.values()), dtype=object))


def _parsed(source: Source) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The columns, and the cells of each line with its number."""
    try:
        text = source.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source.name} is not a results file: it is not UTF-8 (byte {error.start:,})") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    csv.field_size_limit(2**31 - 1)  # the file is bounded, and cells are checked one by one

    def lines() -> Iterator[tuple[int, list[str]]]:
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(f"{source.name}, line {number} is not CSV: {error}") from None
            if cells:
                yield number, cells

    every = lines()
    _, header = next(every, (0, None))
    if header is None:
        raise UserError(f"{source.name} is not a results file: it is empty")
    return records.header_of(header, source.name), every


class _Check:
    """Takes the cells of a line and returns the record, or raises UserError."""

    def __init__(self, header: list[str], name: str):
        if len(header) > _MOST_COLUMNS:
            raise UserError(f"{name} has {len(header):,} columns; a results file may have {_MOST_COLUMNS:,}")
        self._name = name
        self._checks = [(column, _check_of(column, name)) for column in header]

    def __call__(self, number: int, cells: list[str]) -> Record:
        if len(cells) != len(self._checks):
            raise UserError(
                f"{self._name}, line {number} has {len(cells)} cells, but the first line has {len(self._checks)}"
            )
        for (column, defect), cell in zip(self._checks, cells, strict=True):
            if cell and (why := defect(cell)):
                raise self._refusal(number, column, f"is '{_short(cell)}', {why}")
        record = {name: cell for (name, _), cell in zip(self._checks, cells, strict=True)}
        self._check_as_a_whole(number, record)
        return {name: cell for name, cell in record.items() if not name.startswith(f"{REPRODUCED}.")}

    def _check_as_a_whole(self, number: int, record: Record) -> None:
        needed = (*_NEEDED, *_FINISHED) if record["status"] == "finished" else _NEEDED
        if empty := [name for name in needed if not record[name].strip()]:
            raise self._refusal(number, empty[0], "is empty")
        start, end = f"{record['method']}-{record['dataset']}", _RUN_END.format(re.escape(record["seed"]))
        if not re.fullmatch(re.escape(start) + end, record["run"]):
            is_not = f"which is not the id of a run of {start} with seed {record['seed']}"
            raise self._refusal(number, "run", f"is '{_short(record['run'])}', {is_not}")

    def _refusal(self, number: int, column: str, why: str) -> UserError:
        return UserError(f"{self._name}, line {number}: {column} {why}; nothing was merged")


def _check_of(column: str, name: str) -> Callable[[str], str]:
    """A function that returns why a cell of a column is wrong, or "".

    Raises:
        UserError: kdbench does not declare the column.
    """
    key = declaration(column) if _COLUMN.fullmatch(column) else None
    if key is None or column.endswith("*"):
        shown = _short(column)
        guess = hint(nearest(shown, declared_keys()), "pass the folder of the measure that has it with --plugins")
        raise UserError(f"{name} has the column '{shown}', which kdbench does not declare{guess}")
    form = _FORMS.get(column) or (_is_sha256 if column.endswith("sha256") else None)
    return lambda cell: _text_defect(cell) or _type_defect(cell, key) or (form(cell) if form else "")


def _text_defect(cell: str) -> str:
    if len(cell) > _LONGEST_CELL:
        return f"which has more than {_LONGEST_CELL:,} characters"
    return "which has control characters" if records.cell(cell) != cell else ""


def _type_defect(cell: str, key: Key) -> str:
    if key.type is bool:
        return "" if cell in ("True", "False") else "which is not True or False"
    if key.type is str:
        return ""
    if not (_WHOLE if key.type is int else _NUMBER).fullmatch(cell):
        return f"which is not {'an integer' if key.type is int else 'a number'}"
    value = float(cell)
    least = 0 if key.unit or key.type is int else -LARGEST
    most = 100 if key.unit == "percent" else LARGEST
    return "" if math.isfinite(value) and least <= value <= most else "which cannot have been measured"


def _is_one_of(*words: str) -> Callable[[str], str]:
    return lambda cell: "" if cell in words else f"which is not {' or '.join(words)}"


def _is_name(cell: str) -> str:
    return "" if places.is_name(cell) else "which cannot be a name"


def _is_protocol(cell: str) -> str:
    return "" if _PROTOCOL.fullmatch(cell) else "which is not eight hexadecimal digits"


def _is_sha256(cell: str) -> str:
    return "" if _SHA256.fullmatch(cell) else "which is not a SHA-256"


def _is_object(cell: str) -> str:
    try:
        return "" if isinstance(json.loads(cell), dict) else "which is not a JSON object"
    except (ValueError, RecursionError):
        return "which is not a JSON object"


def _is_past(cell: str) -> str:
    try:
        time = datetime.datetime.fromisoformat(cell)
    except ValueError:
        return "which is not a time in ISO 8601"
    if time.tzinfo is None:
        return "which has no time zone"
    # A day for clocks that differ.
    is_future = time > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    return "which lies in the future" if is_future else ""


_FORMS: dict[str, Callable[[str], str]] = {
    "status": _is_one_of(*STATES),
    "purpose": _is_one_of(COMPARISON, TEACHER),
    "protocol": _is_protocol,
    **dict.fromkeys(("method", "dataset", "student", "recipe"), _is_name),
    **dict.fromkeys(("overrides", "method.parameters", "control"), _is_object),
    **dict.fromkeys(("provenance.started_at", "provenance.finished_at"), _is_past),
}


def _short(text: str) -> str:
    return shortened(printable(text), 60)
