"""What a reader must know before comparing the lines of a table: failures, missing intervals, unequal conditions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

from kdbench.report.lines import Line
from kdbench.settings import BASELINE

UNCOMMITTED = "†"
OTHER_DATA = "‡"


def annotate(lines: list[Line], base: Line | None) -> tuple[list[Line], list[str]]:
    """The lines with their marks, and the notes that belong below them, as plain text.

    Args:
        base: the line that differences are taken to, if there is one.
    """
    names = _names(lines)
    uncommitted = [any(row.get("provenance.clean", "").lower() == "false" for row in line.runs) for line in lines]
    data = _groups(lines, "data.sha256")
    usual = max(data, key=lambda sha: (len(data[sha]), sha), default="")
    other = [len(data) > 1 and any(i in data[sha] for sha in data if sha != usual) for i in range(len(lines))]

    notes = list(_failures(lines, names))
    if any(uncommitted):
        notes.append(f"{UNCOMMITTED} with uncommitted changes in the code")
    if any(other):
        notes.append(f"{OTHER_DATA} not the same data: data.sha256 " + _listed(data, names, 8))
    single = [name for name, line in zip(names, lines, strict=True) if line.accuracy and line.accuracy.n == 1]
    if single:
        notes.append(f"n = 1: no interval can be given ({_shortened(single)})")
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
    marks = [UNCOMMITTED * a + OTHER_DATA * b for a, b in zip(uncommitted, other, strict=True)]
    return [replace(line, marks=mark) for line, mark in zip(lines, marks, strict=True)], notes


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


def _listed(groups: dict[str, list[int]], names: list[str], length: int | None = None) -> str:
    return "; ".join(f"{value[:length]} for {_shortened([names[i] for i in at])}" for value, at in groups.items())


def _shortened(names: list[str], most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:most])} and {rest} others"


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
