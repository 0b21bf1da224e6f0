"""Differences of the rows of a table from its baseline, in accuracy and in anything else that runs measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kdbench.report.stats.intervals import Interval, paired_difference
from kdbench.report.stats.significance import holm, paired_p

BySeed = Callable[[str], Mapping[int, float]]
"""The values of one row, by seed, of a key of the results."""


class Differences:
    """Differences from the baseline, paired by seed; each key is computed once, on first use.

    Args:
        rows: the function of each row of the table, by the row's name.
        baseline: name of the baseline's row; None if no run of it has finished, and then there are no differences.
    """

    def __init__(self, rows: Mapping[str, BySeed], baseline: str | None):
        self._rows = rows
        self._baseline = baseline
        self._by_key: dict[str, dict[str, tuple[Interval | None, float | None]]] = {}

    def interval(self, row: str, key: str) -> Interval | None:
        """Mean difference and interval over the common seeds; None for the baseline and without a common seed."""
        return self._of_all(key)[row][0]

    def p(self, row: str, key: str) -> float | None:
        """p value of the paired t test, Holm-corrected over the rows of the table; None without a test."""
        return self._of_all(key)[row][1]

    def _of_all(self, key: str) -> dict[str, tuple[Interval | None, float | None]]:
        if key not in self._by_key:
            base = self._rows[self._baseline](key) if self._baseline is not None else {}
            values = {name: of(key) for name, of in self._rows.items() if name != self._baseline}
            raw = {name: p for name, each in values.items() if (p := paired_p(each, base)) is not None}
            corrected = dict(zip(raw, holm(list(raw.values())), strict=True))
            intervals = {name: paired_difference(each, base) for name, each in values.items()}
            self._by_key[key] = {
                name: (interval if interval.n else None, corrected.get(name)) for name, interval in intervals.items()
            }
            if self._baseline is not None:
                self._by_key[key][self._baseline] = None, None
        return self._by_key[key]
