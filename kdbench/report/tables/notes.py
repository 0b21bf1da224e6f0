"""What a reader must know before comparing the lines of a table: failures, missing intervals, unequal conditions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from kdbench.config.settings import BASELINE
from kdbench.report.stats.power import POWER, detectable, points, pooled, seeds
from kdbench.report.tables.rows import Line, with_values

UNCOMMITTED = "†"
OTHER_DATA = "‡"
OTHER_MEASURES = "§"
ASKED = (1.0, 0.5)
"""Differences, in points, for which a note says how many seeds they need."""


def annotate(lines: list[Line], base: Line | None) -> tuple[list[Line], list[str]]:
    """The lines with their marks, and the notes that belong below them, as plain text.

    Args:
        base: the line that differences are taken to, if there is one.
    """
    names = _names(lines)
    uncommitted = [any(row.get("provenance.clean", "").lower() == "false" for row in line.runs) for line in lines]
    data = _groups(lines, "data.sha256")
    other = _unusual(data, len(lines))
    measures = {key: _groups(lines, key, finished=True) for key in ("measures.version", "measures.images")}
    measured = [any(at) for at in zip(*(_unusual(groups, len(lines)) for groups in measures.values()), strict=True)]

    notes = [*stamps(lines, names), *_failures(lines, names)]
    if any(uncommitted):
        notes.append(f"{UNCOMMITTED} with uncommitted changes in the code")
    moved = [name for name, line in zip(names, lines, strict=True) if any(map(_other_commit, line.runs))]
    if moved:
        notes.append(f"not run at the commit of their submission: {_shortened(moved)}")
    if any(other):
        notes.append(f"{OTHER_DATA} not the same data: data.sha256 " + _listed(data, names, 8))
    if any(measured):
        told = "; ".join(f"{key} {_listed(groups, names)}" for key, groups in measures.items() if len(groups) > 1)
        notes.append(f"{OTHER_MEASURES} not measured in the same way: {told}")
    single = [name for name, line in zip(names, lines, strict=True) if line.accuracy and line.accuracy.n == 1]
    if single:
        notes.append(f"n = 1: no interval, no p value and no rank can be given ({_shortened(single)})")
    notes += _comparison(lines, names, base)
    seen = _groups(lines, "images_seen", finished=True)
    if len(seen) > 1 and max(map(float, seen)) > 1.01 * min(map(float, seen)):
        notes.append("not the same budget: images seen " + _listed(seen, names))
    devices = _groups(lines, "provenance.device", finished=True)
    if len(devices) > 1:
        notes.append("times come from different devices: " + _listed(devices, names))
    for name, line in zip(names, lines, strict=True):
        if line.superseded:
            runs = ", ".join(row["run"] for row in line.superseded)
            notes.append(f"{name}: several runs of one seed, the newest counts; left out: {runs}")
        if line.teachers:
            runs = ", ".join(row["run"] for row in line.teachers)
            notes.append(f"{name}: left out, because made to teach students of its own architecture: {runs}")
    notes += _power(lines)
    marks = [
        UNCOMMITTED * a + OTHER_DATA * b + OTHER_MEASURES * c
        for a, b, c in zip(uncommitted, other, measured, strict=True)
    ]
    return [replace(line, marks=mark) for line, mark in zip(lines, marks, strict=True)], notes


def _other_commit(row: Mapping[str, str]) -> bool:
    submitted = row.get("provenance.commit_submitted")
    return bool(submitted) and submitted != row.get("provenance.commit")


def _names(lines: list[Line]) -> list[str]:
    """What the notes call each line: the method, and its teacher if that is what tells it from another."""
    count = Counter(line.method for line in lines)
    return [
        line.method if count[line.method] == 1 else f"{line.method} with {line.teacher or 'no teacher'}"
        for line in lines
    ]


def _groups(lines: list[Line], key: str, finished: bool = False) -> dict[str, list[int]]:
    """The values of a column, sorted, each with the places of the lines that have it."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, line in enumerate(lines):
        for value in sorted(
            {row[key] for row in line.runs if row.get(key) and (not finished or row not in line.failed)}
        ):
            places[value].append(i)
    return dict(sorted(places.items()))


def _unusual(groups: dict[str, list[int]], n: int) -> list[bool]:
    """For each of n lines, whether it has another value than most."""
    usual = max(groups, key=lambda value: (len(groups[value]), value), default="")
    return [any(i in groups[value] for value in groups if value != usual) for i in range(n)]


def _listed(groups: dict[str, list[int]], names: list[str], length: int | None = None) -> str:
    return "; ".join(f"{value[:length]} for {_shortened([names[i] for i in at])}" for value, at in groups.items())


def _shortened(names: list[str], most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:most])} and {rest} others"


def stamps(lines: list[Line], names: list[str]) -> Iterator[str]:
    """What makes a line something else than a method under the rules: the switches that leave them, and controls."""
    if any(row.get("selected_on_test") == "True" for line in lines for row in line.runs):
        yield "TEST SET USED TO SELECT (Selection.on_test): Best test % is no estimate of the accuracy on new images"
    controls = {
        name: row["control"] for name, line in zip(names, lines, strict=True) for row in line.runs if row.get("control")
    }
    named = [with_values(name, values, short=True) for name, values in controls.items() if values != "{}"]
    if named:
        yield f"controls that change more than a method's own parameters: {', '.join(named)}"


def _failures(lines: list[Line], names: list[str]) -> Iterator[str]:
    for name, line in zip(names, lines, strict=True):
        for row in line.failed:
            why = row["error"] or (
                "no reason was stored" if row["status"] == "failed" else "it has ended without an accuracy"
            )
            yield f"failed: {name}, seed {row['seed']}, run {row['run']}: {why}"


def _comparison(lines: list[Line], names: list[str], base: Line | None) -> Iterator[str]:
    if base is None:
        if any(line.accuracy for line in lines):
            yield f"no differences can be given: no run of {BASELINE} has finished"
        return
    for name, line in zip(names, lines, strict=True):
        if line.accuracy and line.difference and line.difference.n < line.accuracy.n:
            common = f"{line.difference.n} of {line.accuracy.n} seeds"
            yield f"{name}: the difference is over the {common} that {BASELINE} has finished too"
    equal = [
        n for n, line in zip(names, lines, strict=True) if line.difference and line.difference.n > 1 and line.p is None
    ]
    if equal:
        yield f"no p value where all differences to {BASELINE} are equal ({_shortened(equal)})"


def _power(lines: list[Line]) -> Iterator[str]:
    """What the seeds of this table can show, if any line has an interval for its difference."""
    intervals = [line.difference for line in lines if line.difference and line.difference.n >= 2]
    sd = pooled(intervals)
    if sd is None or round(sd, 6) == 0:  # equal differences say nothing about how much seeds scatter
        return
    ns = sorted({interval.n for interval in intervals})
    ends = dict.fromkeys((ns[0], ns[-1]))
    least = " to ".join(points(found) for n in ends if (found := detectable(sd, n)) is not None)
    needs = ", ".join(f"{size:g} {'point needs' if size == 1 else 'points need'} {seeds(sd, size)}" for size in ASKED)
    yield (
        f"power: n = {' to '.join(map(str, ends))} can show differences to {BASELINE} of {least} points "
        f"(95 %, power {100 * POWER:.0f} %, pooled sd {sd:.2f}); {needs} seeds"
    )
