"""The axes of a grid of accuracies (kdbench.report.tables.grids): one is the method, the other one the student or the dataset."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

from kdbench.errors import UserError, unknown

Axis = Literal["method", "student", "dataset"]
AXES: tuple[Axis, ...] = ("method", "student", "dataset")


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
        return f"{self.rows}-by-{self.columns}"


EVERY = tuple(Axes(*pair) for one in AXES[1:] for pair in (("method", one), (one, "method")))
"""All grids that there can be."""


def axes(rows: str, columns: str) -> Axes:
    """The axes of these names.

    Raises:
        UserError: one is unknown, or not exactly one of them is the method.
    """
    for name in (rows, columns):
        if name not in AXES:
            raise unknown("axis", name, AXES)
    if (rows == "method") == (columns == "method"):
        raise UserError(
            f"one axis must be method and the other one student or dataset, not rows={rows} columns={columns}"
        )
    return Axes(cast(Axis, rows), cast(Axis, columns))
