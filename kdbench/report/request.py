"""The words behind `kdbench leaderboard`: the columns of its tables, the baseline of their differences, or the axes of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdbench import words as words_
from kdbench.config import BASELINE
from kdbench.errors import UserError, hint, nearest
from kdbench.report.tables.axes import Axes, axes
from kdbench.report.tables.columns import find

_KEYS = ("columns", "baseline", "rows")


@dataclass(frozen=True)
class Request:
    """The contents of a leaderboard.

    Attributes:
        columns: columns of the tables (kdbench.report.tables.columns); None for the default set.
        baseline: the method that differences are taken from; with axes, "" stands for that of the README.
        axes: rows and columns of a grid of accuracies (kdbench.report.tables.grids); None for the tables alone.
    """

    columns: tuple[str, ...] | None = None
    baseline: str = BASELINE
    axes: Axes | None = None

    def words(self) -> list[str]:
        """The words of the tables, without a grid: those that `parse` takes."""
        columns = [f"columns={','.join(self.columns)}"] if self.columns else []
        return columns + ([f"baseline={self.baseline}"] if self.baseline != BASELINE else [])


def parse(words: Sequence[str]) -> Request:
    """The request of `columns=A,B baseline=METHOD`, or of `rows=AXIS columns=AXIS baseline=METHOD`.

    Raises:
        UserError: another word, an unknown column or axis, or words that cannot be combined.
    """
    values = words_.selections(words, _KEYS, _unknown_key)
    if len(values.get("baseline", ())) > 1:
        raise UserError(f"'baseline' takes one value, not {len(values['baseline'])}")
    if "rows" in values:
        if "columns" not in values:
            raise UserError("with rows=, columns= must name the other axis, such as rows=method columns=student")
        return Request(None, values.get("baseline", ("",))[0], axes(values["rows"], values["columns"]))
    for name in values.get("columns", ()):
        find(name)
    return Request(values.get("columns"), values.get("baseline", (BASELINE,))[0])


def _unknown_key(key: str) -> UserError:
    every = "valid: baseline=METHOD, rows=method, columns=accuracy,delta. See: kdbench leaderboard --help"
    return UserError(f"unknown selection '{key}'{hint(nearest(key, _KEYS), every)}")
