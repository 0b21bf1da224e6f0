"""Notes that a reader needs before comparing the rows of a table: failures, missing intervals, unequal conditions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kdbench.report.records import Record, is_foreign
from kdbench.report.stats.power import (
    POWER,
    degrees_of_freedom,
    detectable,
    pooled,
    sd_interval,
    seeds_needed_text,
    size_text,
)
from kdbench.report.tables import bases, origins, revisions
from kdbench.report.tables.rows import UNEVEN, Row, with_values

UNCOMMITTED = "†"
OTHER_DATA = "‡"
OTHER_MEASURES = "§"
UNEVEN_TIMES = "¶"
EXAMPLES = (1.0, 0.5)
"""Differences, in points, for which a note says how many seeds they need."""


FEW_DEGREES = 10
"""Degrees of freedom below which a pooled sd is so uncertain that its interval is given."""

_MACHINE = {
    "device": "devices",
    "gpus": "numbers of processes",
    "runs_per_gpu": "numbers of runs on a GPU",
    "threads": "numbers of threads",
    "instructions": "instruction sets",
}
"""Facts of `provenance.*` that times depend on, in the plural; older records lack some."""
_ARITHMETIC = ("compile", "compile_mode", "deterministic", "arithmetic", "variables")
"""Facts of `provenance.*` that results depend on; older records lack them."""


def annotate(rows: list[Row], base: Row | None, baseline: str) -> tuple[list[Row], list[str]]:
    """The rows with their marks, and the notes that belong below them, as plain text.

    Args:
        base: the row that differences are taken from, if there is one.
        baseline: its method.
    """
    names = _names(rows)
    uncommitted = [any(record.get("provenance.clean", "").lower() == "false" for record in row.runs) for row in rows]
    data = _groups(rows, "data.sha256")
    other_data = _unusual(data, len(rows))
    measures = {key: _groups(rows, key, finished=True) for key in ("measures.version", "measures.images")}
    unusual = [_unusual(groups, len(rows)) for groups in measures.values()]
    other_measures = [any(at) for at in zip(*unusual, strict=True)]

    notes = [*stamps(rows, names), *origins.notes(rows, names), *_failures(rows, names)]
    if any(uncommitted):
        notes.append(f"{UNCOMMITTED} with uncommitted changes in the code")
    notes += [*_code(rows, names), *_doubts(rows, names)]
    if any(other_data):
        notes.append(f"{OTHER_DATA} not the same data: data.sha256 " + _listed(data, names, 8))
    if any(other_measures):
        versions = (f"{key} {_listed(groups, names)}" for key, groups in measures.items() if len(groups) > 1)
        notes.append(f"{OTHER_MEASURES} not measured in the same way: {'; '.join(versions)}")
    single = [name for name, row in zip(names, rows, strict=True) if row.accuracy and row.accuracy.n == 1]
    if single:
        notes.append(f"n = 1: no interval, no p value and no rank ({_shortened(single)})")
    if not all(row.is_of_teachers for row in rows):
        notes += [*_comparison(rows, names, base, baseline), *bases.note(rows, names, baseline)]
    notes += [*_conditions(rows, names), *_excluded(rows, names), *_power(rows, baseline)]
    marks = [
        UNCOMMITTED * a + OTHER_DATA * b + OTHER_MEASURES * c + UNEVEN_TIMES * row.has_uneven_times + origins.mark(row)
        for a, b, c, row in zip(uncommitted, other_data, other_measures, rows, strict=True)
    ]
    return [replace(row, marks=mark) for row, mark in zip(rows, marks, strict=True)], notes


def _code(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """Runs of other code than the reader would expect."""
    moved = [name for name, row in zip(names, rows, strict=True) if any(map(_other_commit, row.runs))]
    if moved:
        yield f"not run at the commit of their submission: {_shortened(moved)}"
    for name, row in zip(names, rows, strict=True):
        versions = revisions.versions(row.finished)
        if len(versions) > 1:
            seeds = "; ".join(f"{sha256[:8]} for {_of_seeds(records)}" for sha256, records in versions.items())
            yield f"{name}: made by different versions of its method file: provenance.method_sha256 {seeds}"


def _doubts(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """Teachers that their runs found near chance."""
    for name, row in zip(names, rows, strict=True):
        if doubts := dict.fromkeys(record["teacher.doubt"] for record in row.finished if record.get("teacher.doubt")):
            yield f"{name}: {next(iter(doubts))}"


def _of_seeds(records: Sequence[Record]) -> str:
    return f"seed{'s' * (len(records) > 1)} {', '.join(record['seed'] for record in records)}"


def _conditions(rows: list[Row], names: list[str]) -> Iterator[str]:
    """Budgets and devices that differ."""
    seen = _groups(rows, "images_seen", finished=True)
    if len(seen) > 1 and max(map(float, seen)) > 1.01 * min(map(float, seen)):
        yield f"not the same budget: images seen {_listed(seen, names)}"
    if any(row.has_uneven_times for row in rows):
        yield (
            f"{UNEVEN_TIMES} training times of the seeds differ by more than a factor of {UNEVEN:g}, so they do not compare "
            "methods: Train s and Images/s are only shown if columns= selects them"
        )
    for fact, plural in _MACHINE.items():
        groups = _groups(rows, f"provenance.{fact}", finished=True)
        if len(groups) > 1:
            yield f"times come from different {plural}: {_listed(groups, names)}"
    for fact in _ARITHMETIC:
        groups = _groups(rows, f"provenance.{fact}", finished=True)
        if len(groups) > 1:
            yield f"not computed with the same settings: provenance.{fact} {_listed(groups, names)}"
    lacking = [f"{name} {row.lack_of_cores:.1f}" for name, row in zip(names, rows, strict=True) if row.lack_of_cores]
    if lacking:
        yield (
            "other processes used cores that the runs needed, so times do not compare methods: Train s and Images/s are only "
            f"shown if columns= selects them (cores lacking at most: {_shortened(lacking)})"
        )
    if readers := [name for name, row in zip(names, rows, strict=True) if row.read_its_teacher]:
        yield (
            "some runs read a teacher's outputs that another run had computed, so times do not compare methods: Train s and "
            f"Images/s are only shown if columns= selects them ({_shortened(readers)})"
        )


def _excluded(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """Runs that do not count."""
    for name, row in zip(names, rows, strict=True):
        for records, reason in (
            ([r for r in row.superseded if not is_foreign(r)], "a newer run of the same seed counts"),
            ([r for r in row.superseded if is_foreign(r)], "another run of the same seed counts"),
            (row.teachers, "trained as a teacher for students of the same architecture"),
        ):
            if records:
                yield f"{name}: excluded, because {reason}: {', '.join(record['run'] for record in records)}"


def _other_commit(record: Mapping[str, str]) -> bool:
    submitted = record.get("provenance.commit_submitted")
    return bool(submitted) and submitted != record.get("provenance.commit")


def _names(rows: list[Row]) -> list[str]:
    """A name of each row for the notes: the method, with its teacher where several rows share the method."""
    count = Counter(row.method for row in rows)
    return [
        row.method if count[row.method] == 1 else f"{row.method} with {row.teacher or 'no teacher'}" for row in rows
    ]


def _groups(rows: list[Row], key: str, finished: bool = False) -> dict[str, list[int]]:
    """The values of a column, sorted, each with the places of the rows that have it."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        for value in sorted(
            {record[key] for record in row.runs if record.get(key) and (not finished or record not in row.failed)}
        ):
            places[value].append(i)
    return dict(sorted(places.items()))


def _unusual(groups: dict[str, list[int]], n: int) -> list[bool]:
    """For each of n rows, whether it has another value than most."""
    usual = max(groups, key=lambda value: (len(groups[value]), value), default="")
    return [any(i in groups[value] for value in groups if value != usual) for i in range(n)]


def _listed(groups: dict[str, list[int]], names: list[str], length: int | None = None) -> str:
    return "; ".join(f"{value[:length]} for {_shortened([names[i] for i in at])}" for value, at in groups.items())


def _shortened(names: list[str], most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:most])} and {rest} others"


def stamps(rows: list[Row], names: list[str]) -> Iterator[str]:
    """Warnings that go wherever a row is shown: selection on the test set, and controls that change more than the method."""
    if any(record.get("selected_on_test") == "True" for row in rows for record in row.runs):
        yield "TEST SET USED TO SELECT (Selection.on_test): Best test % is not an estimate of the accuracy on new images"
    controls = {
        name: record["control"]
        for name, row in zip(names, rows, strict=True)
        for record in row.runs
        if record.get("control")
    }
    named = [with_values(name, values, short=True) for name, values in controls.items() if values != "{}"]
    if named:
        yield f"controls that change more than a method's own parameters: {', '.join(named)}"


def _failures(rows: list[Row], names: list[str]) -> Iterator[str]:
    for name, row in zip(names, rows, strict=True):
        for record in row.failed:
            if record in row.contradicted:
                continue
            why = record["error"] or (
                "no reason was recorded" if record["status"] == "failed" else "it ended without an accuracy"
            )
            yield f"failed: {name}, seed {record['seed']}, run {record['run']}: {why}"


def _comparison(rows: list[Row], names: list[str], base: Row | None, baseline: str) -> Iterator[str]:
    if base is None:
        several = sum(row.has_defaults_of(baseline) and row.accuracy is not None for row in rows) > 1
        if any(row.accuracy for row in rows):
            reason = f"{baseline} has several teachers" if several else f"no run of {baseline} has finished"
            yield f"no differences: {reason}"
        return
    for name, row in zip(names, rows, strict=True):
        if row.accuracy and row.difference and row.difference.n < row.accuracy.n:
            common = f"{row.difference.n} of {row.accuracy.n} seeds"
            yield f"{name}: the difference is over the {common} that {baseline} has also finished"
    equal = [n for n, row in zip(names, rows, strict=True) if row.difference and row.difference.n > 1 and row.p is None]
    if equal:
        yield f"no p value where all differences from {baseline} are equal ({_shortened(equal)})"


def _power(rows: list[Row], baseline: str) -> Iterator[str]:
    """The differences that the seeds of this table can detect, if any row has an interval for its difference."""
    intervals = [row.difference for row in rows if row.difference and row.difference.n >= 2]
    sd = pooled(intervals)
    if sd is None or round(sd, 6) == 0:  # equal differences say nothing about how much seeds scatter
        return
    ns = sorted({interval.n for interval in intervals})
    ends = dict.fromkeys((ns[0], ns[-1]))
    least = " to ".join(size_text(size) for n in ends if (size := detectable(sd, n)) is not None)
    needs = ", ".join(
        f"{size:g} {'point needs' if size == 1 else 'points need'} {seeds_needed_text(sd, size)}" for size in EXAMPLES
    )
    freedom = degrees_of_freedom(intervals)
    low, high = sd_interval(sd, freedom)
    few = f", whose own 95 % interval is {low:.2f} to {high:.2f}" if freedom < FEW_DEGREES else ""
    yield (
        f"power: n = {' to '.join(map(str, ends))} can detect differences from {baseline} of {least} points "
        f"(95 %, power {100 * POWER:.0f} %, pooled sd {sd:.2f}{few}); {needs} seeds"
    )
