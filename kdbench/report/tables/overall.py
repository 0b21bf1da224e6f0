"""The section "Over all tables": methods that several tables share, compared over these tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from kdbench.report.stats.across import Friedman, Improvement, average_ranks, critical_difference, friedman, improvement
from kdbench.report.stats.significance import ALPHA
from kdbench.report.tables import origins
from kdbench.report.tables.cells import Cells
from kdbench.report.tables.columns import NONE
from kdbench.report.tables.notes import stamps
from kdbench.report.tables.rows import Row, with_values
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import Table

FEW_SEEDS = 5
"""Seeds below which bootstrap intervals are clearly too narrow."""


@dataclass(frozen=True)
class Standing:
    """One method over several tables.

    Attributes:
        rank: mean of the ranks by mean accuracy.
        improvement: over the baseline; None for the baseline itself and without it.
        rows: one per table.
    """

    method: str
    rank: float
    improvement: Improvement | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Aggregate:
    """Methods that several tables share, the lowest average rank first.

    Attributes:
        critical_difference: critical difference of the average ranks, at α = 0.05 (Nemenyi).
        left_out: methods of these tables that are not in all of them, or have several rows in one.
    """

    tables: list[Table]
    standings: list[Standing]
    test: Friedman
    critical_difference: float
    left_out: list[str]

    @property
    def baseline(self) -> str:
        """The method that the others are compared with."""
        return self.tables[0].baseline

    @property
    def separating_difference(self) -> float:
        """The difference of average ranks from which two methods differ significantly: infinite unless Friedman's test says
        that any do (Demšar, section 3.2.2)."""
        return self.critical_difference if self.test.p <= ALPHA else math.inf


def aggregate(tables: Sequence[Table]) -> Aggregate | None:
    """The comparison over the largest block without a gap: at least two tables and two methods; None without such a block.

    Tables that only hold teachers are not compared.
    """
    tables = [table for table in tables if not table.is_of_teachers]
    by_method = [_by_method(table) for table in tables]
    chosen, methods = _block(by_method)
    if not methods:
        return None
    means = [[_mean(by_method[i][method]) for method in methods] for i in chosen]
    ranks = average_ranks(means)
    standings = [
        Standing(
            method=method,
            rank=rank,
            improvement=_improvement(method, tables[0].baseline, [by_method[i] for i in chosen]),
            rows=tuple(by_method[i][method] for i in chosen),
        )
        for method, rank in zip(methods, ranks, strict=True)
    ]
    n, k = len(chosen), len(methods)
    every = {_label(row) for i in chosen for row in tables[i].rows}
    return Aggregate(
        tables=[tables[i] for i in chosen],
        standings=sorted(standings, key=lambda standing: (standing.rank, standing.method)),
        test=friedman(means),
        critical_difference=critical_difference(k, n),
        left_out=sorted(every - set(methods)),
    )


def _label(row: Row) -> str:
    """The method with its own parameters, without its teacher."""
    return with_values(row.runs[0]["method"], row.runs[0]["method.parameters"], short=True)


def _by_method(table: Table) -> dict[str, Row]:
    """The rows with a result, except of methods that have several."""
    count = Counter(_label(row) for row in table.rows if row.accuracy)
    return {_label(row): row for row in table.rows if row.accuracy and count[_label(row)] == 1}


def _block(by_method: Sequence[dict[str, Row]]) -> tuple[list[int], list[str]]:
    """The places of the tables, and the methods that all of them have."""
    best: tuple[list[int], list[str]] = [], []
    # Many tables hold the same methods, so that few pairs differ.
    shared = (one & other for one, other in dict.fromkeys(combinations(map(frozenset, by_method), 2)))
    for common in dict.fromkeys(shared):
        methods = sorted(common)
        holding = [i for i, rows in enumerate(by_method) if rows.keys() >= common]
        if len(methods) > 1:
            best = max(best, (holding, methods), key=_size)
    return best


def _size(block: tuple[list[int], list[str]]) -> tuple[int, int]:
    """Sort key of a block: among those with equally many rows, the one with more tables is the larger."""
    tables, methods = block
    return len(tables) * len(methods), len(tables)


def _mean(row: Row) -> float:
    return round(row.accuracy.mean, 6) if row.accuracy else 0.0


def _improvement(method: str, baseline: str, by_method: Sequence[dict[str, Row]]) -> Improvement | None:
    if method == baseline or any(baseline not in rows for rows in by_method):
        return None
    return improvement(
        [(list(rows[method].by_seed.values()), list(rows[baseline].by_seed.values())) for rows in by_method]
    )


def section(over: Aggregate) -> Section:
    """The section of a leaderboard."""
    standings = over.standings
    return Section(
        "Over all tables",
        (Span(_intro(over)),),
        (
            Cells("Method", [standing.method for standing in standings], number=False),
            Cells("Average rank", [f"{standing.rank:.2f}" for standing in standings]),
            Cells(f"P(better than {over.baseline})", [_probability(standing.improvement) for standing in standings]),
        ),
        notes=tuple(_notes(over)),
    )


def _intro(over: Aggregate) -> str:
    titles = "; ".join(f"{t.dataset} · {t.student} · {t.protocol}" for t in over.tables)
    return (
        f"The {len(over.standings)} methods that these {len(over.tables)} tables share: {titles}. Average rank: by mean "
        f"accuracy in each table, 1 is best. P(better than {over.baseline}): the probability that a run of the method is more "
        f"accurate than one of {over.baseline}, mean over the tables, with a 95 % bootstrap interval where there is one."
    )


def _probability(better: Improvement | None) -> str:
    if better is None:
        return NONE
    if better.low is None or better.high is None or better.low == better.high:
        return f"{better.probability:.2f}"
    return f"{better.probability:.2f} ({better.low:.2f} to {better.high:.2f})"


def verdict(test: Friedman) -> str:
    """The result of the Friedman test, in words."""
    above, below = test.freedom
    if test.least_p > ALPHA:
        return (
            f"Friedman test: {above + 1} methods in {below // above + 1} tables cannot differ significantly: "
            f"the same order in all tables has p = {test.least_p:.3f} (exact)"
        )
    p = f"p = {test.p:.3f}" if test.p >= 0.0005 else "p < 0.001"
    statistic = f"χ² = {test.chi2:.2f}, {p} (exact)" if test.exact else f"F({above}, {below}) = {test.f:.2f}, {p}"
    order = "the same order in all tables, " if test.f == math.inf else ""
    differ = "at least two methods differ" if test.p <= ALPHA else "no significant difference between the methods"
    return f"Friedman test: {order}{statistic}: {differ}"


def _notes(over: Aggregate) -> list[str]:
    n, k = len(over.tables), len(over.standings)
    rows = [row for standing in over.standings for row in standing.rows]
    names = [standing.method for standing in over.standings for _ in standing.rows]
    notes = [*stamps(rows, names), *origins.unconfirmed(rows, names), verdict(over.test)]
    difference = f"critical difference {over.critical_difference:.2f} (Nemenyi, 95 %)"
    if over.critical_difference >= k - 1:
        notes.append(
            f"{difference}: average ranks over {n} tables cannot differ by more than {k - 1}, "
            "so no two methods differ significantly"
        )
    elif over.separating_difference == math.inf:
        notes.append(f"{difference} is not used, because the Friedman test does not show that any method differs")
    else:
        notes.append(f"{difference}: average ranks that differ by less are statistically indistinguishable")
    improvements = [standing.improvement for standing in over.standings if standing.improvement]
    if any(each.low is not None and each.low == each.high for each in improvements):
        notes.append(
            f"no interval for P(better than {over.baseline}) where the runs of a table do not overlap: "
            "resampling them cannot show how far they scatter"
        )
    fewest = min(row.accuracy.n for row in rows if row.accuracy)
    if 1 < fewest < FEW_SEEDS and any(each.low is not None and each.low != each.high for each in improvements):
        notes.append(f"the bootstrap interval is too narrow with few seeds (n = {fewest})")
    single = sorted({name for name, row in zip(names, rows, strict=True) if row.accuracy and row.accuracy.n == 1})
    if single:
        notes.append(f"n = 1 in some table: no interval can be given ({', '.join(single)})")
    if over.left_out:
        notes.append(
            f"left out, because not in all of these tables, or with several teachers in one: {', '.join(over.left_out)}"
        )
    return notes
