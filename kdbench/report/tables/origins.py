"""Marks and notes for rows whose runs were done by somebody else, and merged.

Such runs are seeds of a row like those of this machine. Under one protocol, the initial weights, the batches and the
augmentations of a seed are computed from the seed on the CPU and are the same everywhere, and `--merge` refuses rows with other
images or another budget; what differs between machines is rounding. So seeds of several machines have one mean, and differences
are paired by seed across machines. Three things keep them apart: another teacher's weights make another row, a run of this
machine counts before another one of its seed, and a run that `kdbench reproduce` has contradicted counts as failed. Times depend
on the machine; the notes on devices and cores cover them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench.report.records import (
    ACCURACY,
    ORIGIN,
    REPRODUCED,
    VERDICT,
    Record,
    is_confirmed,
    is_contradicted,
    is_foreign,
    number,
)
from kdbench.report.tables.rows import Row

UNCONFIRMED = "○"
CONFIRMED = "●"
CONTRADICTED = "×"
SIGNS = (UNCONFIRMED, CONFIRMED, CONTRADICTED)


def mark(row: Row) -> str:
    """The sign of a row; "" if all of its runs are of this machine."""
    foreign = [record for record in row.runs if is_foreign(record)]
    if any(map(is_contradicted, foreign)):
        return CONTRADICTED
    if all(map(is_confirmed, foreign)):
        return CONFIRMED if foreign else ""
    return UNCONFIRMED


def notes(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """A note for each sign in a table: the runs, where they are from, and how they came out here."""
    runs = [(name, record) for name, row in zip(names, rows, strict=True) for record in row.runs if is_foreign(record)]
    confirmed = [(name, record) for name, record in runs if is_confirmed(record)]
    contradicted = [(name, record) for name, record in runs if is_contradicted(record)]
    waiting = [(name, record) for name, record in runs if not is_confirmed(record) and not is_contradicted(record)]
    if waiting:
        example = waiting[0][1]["run"]
        yield (
            f"{UNCONFIRMED} done elsewhere and not confirmed on this machine: {_listed(waiting)}; to confirm one: kdbench "
            f"reproduce {example}"
        )
    if confirmed:
        yield f"{CONFIRMED} done elsewhere and confirmed by kdbench reproduce on this machine: {_outcomes(confirmed)}"
    if contradicted:
        yield (
            f"{CONTRADICTED} done elsewhere and contradicted by kdbench reproduce on this machine, and so not counted: "
            f"{_outcomes(contradicted)}"
        )


def unconfirmed(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """A note for a section that shows rows without their signs: those that nobody has confirmed on this machine."""
    if named := dict.fromkeys(name for name, row in zip(names, rows, strict=True) if mark(row) == UNCONFIRMED):
        yield f"done elsewhere, at least in part, and not confirmed on this machine: {', '.join(named)}"


def label(record: Record) -> str:
    """Where a run of somebody else is from and how it came out here; "" for a run of this machine."""
    if not is_foreign(record):
        return ""
    verdict = record.get(VERDICT, "")
    return f"from {record[ORIGIN]}, " + (f"{verdict} here: {outcome(record)}" if verdict else "not confirmed here")


def outcome(record: Record) -> str:
    """How a run of somebody else came out on this machine: "99.72 % there, 97.72 % here, 2026-11-27"."""
    accuracy, difference = number(record, ACCURACY), number(record, f"{REPRODUCED}.difference")
    if record.get(f"{REPRODUCED}.identical") == "True" and not is_contradicted(record):
        how = "bit-identical weights"
    elif accuracy is None or difference is None:
        how = "no accuracy to compare"
    else:
        how = f"{accuracy:.2f} % there, {accuracy + difference:.2f} % here"
    return f"{how}, {record.get(f'{REPRODUCED}.at', '')[:10]}"


def _listed(runs: Sequence[tuple[str, Record]]) -> str:
    by_place: dict[tuple[str, str], list[str]] = {}
    for name, record in runs:
        by_place.setdefault((name, record[ORIGIN]), []).append(record["seed"])
    texts = [
        f"{name}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}, from {origin}"
        for (name, origin), seeds in by_place.items()
    ]
    return _first(texts)


def _outcomes(runs: Sequence[tuple[str, Record]]) -> str:
    return _first(
        [f"{name}, seed {record['seed']}, from {record[ORIGIN]} ({outcome(record)})" for name, record in runs]
    )


def _first(texts: Sequence[str], most: int = 8) -> str:
    rest = len(texts) - most
    return "; ".join(texts) if rest <= 1 else f"{'; '.join(texts[:most])}; and {rest} others"
