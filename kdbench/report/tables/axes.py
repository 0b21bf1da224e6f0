"""The axes of a grid of accuracies (kdbench.report.tables.grids): one is the method, the other one students, datasets, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

from kdbench.errors import UserError, unknown

Axis = Literal["method", "student", "dataset", "dataset,student"]
BOTH: Axis = "dataset,student"
AXES: tuple[Axis, ...] = ("method", "student", "dataset", BOTH)


class Axes(NamedTuple):
    """The two axes of a grid; one of them is the method."""

    rows: Axis
    columns: Axis

    @property
    def setting(self) -> Axis:
        """The axis that is not the method."""
        return self.columns if self.rows == "method" else self.rows

    @property
    def name(self) -> str:
        """The name of the grid's files, without their ending: "method-by-student"."""
        return f"{self.rows}-by-{self.columns}".replace(",", "-")

    @property
    def title(self) -> str:
        """The axes as a title: "Method × student", "Method × dataset and student"."""
        return f"{self.rows.capitalize()} × {self.columns}".replace(",", " and ")


EVERY = tuple(Axes(*pair) for one in AXES[1:] for pair in (("method", one), (one, "method")))
"""All grids that there can be."""


def axes(rows: Sequence[str], columns: Sequence[str]) -> Axes:
    """The axes of these names; dataset and student can share one.

    Raises:
        UserError: a name is unknown, or not exactly one of the axes is the method.
    """
    for name in (*rows, *columns):
        if name not in AXES:
            raise unknown("axis", name, AXES[:-1])
    pair = ",".join(sorted(rows)), ",".join(sorted(columns))
    if (pair[0] == "method") == (pair[1] == "method") or not {*pair} <= {*AXES}:
        raise UserError(
            "one axis must be method and the other one student, dataset or dataset,student, not "
            f"rows={','.join(rows)} columns={','.join(columns)}"
        )
    return Axes(cast(Axis, pair[0]), cast(Axis, pair[1]))
