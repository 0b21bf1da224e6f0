"""The section "Over all tables": how methods that several tables share do over these tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from kdbench.config.settings import BASELINE
from kdbench.report.stats.across import Friedman, Improvement, average_ranks, critical_difference, friedman, improvement
from kdbench.report.stats.significance import ALPHA
from kdbench.report.tables.cells import Strip
from kdbench.report.tables.columns import NONE
from kdbench.report.tables.notes import stamps
from kdbench.report.tables.rows import Line, with_values
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import Table


@dataclass(frozen=True)
class Standing:
    """One method over all tables of the overview.

    Attributes:
        rank: mean of the ranks by mean accuracy.
        improvement: over the baseline; None for the baseline itself and without it.
        lines: one a table.
    """

    method: str
    rank: float
    improvement: Improvement | None
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Overview:
    """Methods that several tables share, the lowest average rank first.

    Attributes:
        critical_difference: of the average ranks, at α = 0.05.
        left_out: methods of these tables that are not in all of them, or have several lines in one.
    """

    tables: list[Table]
    standings: list[Standing]
    test: Friedman
    critical_difference: float
    left_out: list[str]


def overview(tables: Sequence[Table]) -> Overview | None:
    """The largest block of two tables or more and two methods or more without a gap; None if there is none."""
    lines = [_by_method(table) for table in tables]
    chosen, methods = _block(lines)
    if not methods:
        return None
    rows = [[_mean(lines[i][method]) for method in methods] for i in chosen]
    ranks = average_ranks(rows)
    standings = [
        Standing(
            method, rank, _improvement(method, [lines[i] for i in chosen]), tuple(lines[i][method] for i in chosen)
        )
        for method, rank in zip(methods, ranks, strict=True)
    ]
    n, k = len(chosen), len(methods)
    every = {_label(line) for i in chosen for line in tables[i].lines}
    return Overview(
        tables=[tables[i] for i in chosen],
        standings=sorted(standings, key=lambda standing: (standing.rank, standing.method)),
        test=friedman(ranks, n),
        critical_difference=critical_difference(k, n),
        left_out=sorted(every - set(methods)),
    )


def _label(line: Line) -> str:
    """The method with its own parameters, whoever taught it."""
    return with_values(line.runs[0]["method"], line.runs[0]["method.parameters"], short=True)


def _by_method(table: Table) -> dict[str, Line]:
    """The lines with a result, but for methods that have several."""
    count = Counter(_label(line) for line in table.lines if line.accuracy)
    return {_label(line): line for line in table.lines if line.accuracy and count[_label(line)] == 1}


def _block(lines: Sequence[dict[str, Line]]) -> tuple[list[int], list[str]]:
    best: tuple[list[int], list[str]] = [], []
    # Many tables hold the same methods, so that few pairs differ.
    shared = (one & other for one, other in dict.fromkeys(combinations(map(frozenset, lines), 2)))
    for common in dict.fromkeys(shared):
        methods = sorted(common)
        holding = [i for i, found in enumerate(lines) if found.keys() >= common]
        # Of two blocks of one size the one with more tables says more.
        if len(methods) > 1 and (len(methods) * len(holding), len(holding)) > (
            len(best[0]) * len(best[1]),
            len(best[0]),
        ):
            best = holding, methods
    return best


def _mean(line: Line) -> float:
    return round(line.accuracy.mean, 6) if line.accuracy else 0.0


def _improvement(method: str, lines: Sequence[dict[str, Line]]) -> Improvement | None:
    if method == BASELINE or any(BASELINE not in found for found in lines):
        return None
    return improvement([(list(f[method].by_seed.values()), list(f[BASELINE].by_seed.values())) for f in lines])


def section(found: Overview) -> Section:
    """What the board shows of it."""
    standings = found.standings
    return Section(
        "Over all tables",
        (Span(_what(found)),),
        (
            Strip("Method", [standing.method for standing in standings], number=False),
            Strip("Average rank", [f"{standing.rank:.2f}" for standing in standings]),
            Strip(f"P(better than {BASELINE})", [_probability(standing.improvement) for standing in standings]),
        ),
        notes=tuple(_notes(found, len(found.tables), len(standings))),
    )


def _what(found: Overview) -> str:
    titles = "; ".join(f"{t.dataset} · {t.student} · {t.protocol}" for t in found.tables)
    return (
        f"The {len(found.standings)} methods that these {len(found.tables)} tables share: {titles}. Average rank: by mean "
        f"accuracy in each table, 1 is best. P(better than {BASELINE}): the probability that a run of the method is ahead of "
        f"one of {BASELINE}, mean over the tables, with a 95 % bootstrap interval."
    )


def _probability(found: Improvement | None) -> str:
    if found is None:
        return NONE
    interval = "" if found.low is None or found.high is None else f" ({found.low:.2f} to {found.high:.2f})"
    return f"{found.probability:.2f}{interval}"


def verdict(test: Friedman) -> str:
    """What the Friedman test says, in words."""
    above, below = test.freedom
    p = f"p = {test.p:.3f}" if test.p >= 0.0005 else "p < 0.001"
    statistic = f"F({above}, {below}) = {test.f:.2f}, {p}" if test.f < math.inf else "one order in all tables"
    differ = "the methods differ" if test.p <= ALPHA else "no difference between the methods is shown"
    return f"Friedman test: {statistic}: {differ}"


def _notes(found: Overview, n: int, k: int) -> list[str]:
    lines = [line for standing in found.standings for line in standing.lines]
    names = [standing.method for standing in found.standings for _ in standing.lines]
    notes = [*stamps(lines, names), verdict(found.test)]
    difference = f"critical difference {found.critical_difference:.2f} (Nemenyi, 95 %)"
    if found.critical_difference >= k - 1:
        notes.append(
            f"{difference}: average ranks over {n} tables cannot differ by more than {k - 1}, and so tell nothing apart"
        )
    else:
        notes.append(f"{difference}: average ranks that differ by less are not told apart")
    single = sorted({name for name, line in zip(names, lines, strict=True) if line.accuracy and line.accuracy.n == 1})
    if single:
        notes.append(f"n = 1 in some table: no interval can be given ({', '.join(single)})")
    if found.left_out:
        notes.append(
            f"left out, because not in all of these tables, or with several teachers in one: {', '.join(found.left_out)}"
        )
    return notes
