"""How the lines of a table differ from its baseline, in accuracy and in whatever else runs measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdbench.report.stats.intervals import Interval, paired_difference
from kdbench.report.stats.significance import holm, paired_p

if TYPE_CHECKING:
    from kdbench.report.tables.rows import Line

ACCURACY = "accuracy.last"


class Differences:
    """Differences of the lines of one table to its baseline, paired by seed; each is worked out once, when it is asked for.

    Args:
        lines: all lines of the table, no two with the same name.
        base: the baseline among them; None if no run of it has finished, and then there are no differences.
    """

    def __init__(self, lines: Sequence[Line], base: Line | None):
        self._lines = {line.name: line for line in lines}
        self._base = base
        self._found: dict[str, dict[str, tuple[Interval | None, float | None]]] = {}

    def of(self, line: Line, key: str = ACCURACY) -> Interval | None:
        """Mean difference and interval over the seeds that both have; None for the baseline and without a common seed."""
        return self._of_all(key)[line.name][0]

    def p(self, line: Line, key: str = ACCURACY) -> float | None:
        """Of the paired t test of this difference, Holm-corrected over the lines of the table; None without a test."""
        return self._of_all(key)[line.name][1]

    def _of_all(self, key: str) -> dict[str, tuple[Interval | None, float | None]]:
        if key not in self._found:
            intervals, raw = {}, {}
            base = self._base.values(key) if self._base else {}
            for name, line in self._lines.items():
                values = {} if self._base and name == self._base.name else line.values(key)
                intervals[name] = paired_difference(values, base)
                if (p := paired_p(values, base)) is not None:
                    raw[name] = p
            corrected = dict(zip(raw, holm(list(raw.values())), strict=True))
            self._found[key] = {
                name: (found if found.n else None, corrected.get(name)) for name, found in intervals.items()
            }
        return self._found[key]
