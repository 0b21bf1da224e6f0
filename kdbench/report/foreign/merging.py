"""Records and the checked rows of somebody else → one set of records, or a contradiction between the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.errors import UserError, shortened
from kdbench.report import records
from kdbench.report.records import ACCURACY, ORIGIN, REPRODUCED, WEIGHTS, Record, number
from kdbench.words import count, printable

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1.0
"""Percentage points by which the accuracies of one run may differ between machines: they round differently, and training
amplifies that. A choice, not a measurement."""

_STARTED = "provenance.started_at"
_OF_THE_BOARD = ("purpose", ORIGIN, REPRODUCED)
"""Columns, or their first parts, that a leaderboard adds to what a run recorded."""
_LATER = "transfer"
"""First part of the columns that may be measured long after the run."""

_OF_A_RUN = (
    *("dataset", "student", "protocol", "method", "method.parameters", "seed", "images_seen"),
    *("data.sha256", "cost.parameters"),
)
"""Columns that are equal whenever and wherever a run is done."""
_OF_A_PROTOCOL = ("dataset", "data.sha256")
_OF_A_METHOD = ("images_seen", "control", "cost.parameters")
"""Columns that are equal for all seeds of a method with the same parameters and student under one protocol."""


@dataclass(frozen=True)
class Merged:
    """Records with the rows of somebody else.

    Attributes:
        records: in canonical form.
        added: number of rows that are new.
        present: number of rows that were there already.
        messages: a sentence for each row that was there already with other weights, from another execution of its run.
    """

    records: pd.DataFrame
    added: int
    present: int
    messages: list[str]


def merge(own: pd.DataFrame, theirs: pd.DataFrame, name: str) -> Merged:
    """Add the rows of somebody else to the records; what is there already stays as it is.

    Two rows of one run are one execution if they started at the same second: then all that the run recorded must be equal.
    Otherwise two machines did the same run, and their times, versions and last digits differ by right: then what defines the
    run must be equal, and the accuracies must agree to `TOLERANCE`.

    Args:
        own: records in canonical form.
        theirs: as `schema.rows` returns them.
        name: name of the file of these rows, for messages.

    Raises:
        UserError: the two contradict each other.
    """
    import pandas as pd

    here, there = _by_run(own), _by_run(theirs)
    common = [run for run in there if run in here]
    wrong = [sentence for run in common for sentence in _contradictions(here[run], there[run], name)]
    wrong += _of_protocols(here, there, name)
    if wrong:
        more = f" ({count(len(wrong) - 1, 'further contradiction')})" if len(wrong) > 1 else ""
        raise UserError(f"contradiction: {wrong[0]}{more}; nothing was merged")
    new = theirs[[run not in here for run in theirs["run"]]]
    again = [run for run in common if _differs(here[run], there[run])]
    messages = [
        f"the run '{run}' was done twice, with an accuracy of {here[run][ACCURACY] or 'nothing'} here and "
        f"{there[run][ACCURACY] or 'nothing'} in {name}; the one that is here counts"
        for run in again
    ]
    both = records.canonical(pd.concat([own, new], ignore_index=True).fillna(""))
    return Merged(both, len(new), len(common), messages)


def _by_run(rows: pd.DataFrame) -> dict[str, Record]:
    names = list(rows.columns)
    made = (dict(zip(names, cells, strict=True)) for cells in rows.to_numpy().tolist())
    return {record["run"]: record for record in made}


def _is_one_execution(one: Record, other: Record) -> bool:
    return one.get(_STARTED, "") == other.get(_STARTED, "")


def _differs(here: Record, there: Record) -> bool:
    same = here.get(WEIGHTS) and here.get(WEIGHTS) == there.get(WEIGHTS)
    return not _is_one_execution(here, there) and not same


def _contradictions(here: Record, there: Record, name: str) -> Iterator[str]:
    """A sentence for each column in which two rows of one run cannot both be right."""

    def sentence(column: str) -> str:
        mine, yours = (_short(row.get(column, "")) or "nothing" for row in (here, there))
        return f"the run '{there['run']}' has {column} {mine} here and {yours} in {name}"

    if _is_one_execution(here, there):
        for column in dict.fromkeys([*here, *there]):
            mine, yours = here.get(column, ""), there.get(column, "")
            first = column.partition(".")[0]
            if mine != yours and first not in _OF_THE_BOARD and not (first == _LATER and not (mine and yours)):
                yield sentence(column)
        return
    for column in _OF_A_RUN:
        mine, yours = here.get(column, ""), there.get(column, "")
        if mine and yours and mine != yours:
            yield sentence(column)
    accuracies = number(here, ACCURACY), number(there, ACCURACY)
    if None not in accuracies and abs(float(here[ACCURACY]) - float(there[ACCURACY])) > TOLERANCE:
        yield f"{sentence(ACCURACY)}, which differ by more than {TOLERANCE:g} point"


def _of_protocols(here: dict[str, Record], there: dict[str, Record], name: str) -> Iterator[str]:
    """A sentence for each fact that a protocol, or a method under it, has otherwise in the new rows."""
    for group, facts in (
        (("protocol",), _OF_A_PROTOCOL),
        (("protocol", "student", "method", "method.parameters"), _OF_A_METHOD),
    ):
        of_here = _facts(here, group, facts)
        for place, values in _facts(there, group, facts).items():
            (protocol, *of_method), fact = place
            what = f"{of_method[1]} under protocol {protocol}" if of_method else f"protocol {protocol}"
            mine = of_here.get(place, {})
            other = [(value, run) for value, run in values.items() if value not in mine]
            if mine and other:
                value, run = next(iter(mine.items()))
                yield f"{what} has {fact} {_short(value)} here (run '{run}') and {_at(*other[0])} in {name}"
            elif len(other) > 1:
                yield f"{what} has {fact} {_at(*other[0])} and {_at(*other[1])}, both in {name}"


def _at(value: str, run: str) -> str:
    return f"{_short(value)} (run '{run}')"


_Place = tuple[tuple[str, ...], str]
"""The values of the columns that group rows, and the column of a fact."""


def _facts(rows: dict[str, Record], group: tuple[str, ...], facts: tuple[str, ...]) -> dict[_Place, dict[str, str]]:
    """The values of each fact, each with the first finished run that has it."""
    values: dict[_Place, dict[str, str]] = {}
    for run, record in rows.items():
        if record["status"] == "finished":
            for fact in facts:
                if value := record.get(fact, ""):
                    values.setdefault((tuple(record[name] for name in group), fact), {}).setdefault(value, run)
    return values


def _short(text: str) -> str:
    return shortened(printable(text), 60)
