"""The columns that tables can show, each declared once: for Markdown, the terminal, CSV, LaTeX and `kdbench list columns`.

Columns of a measure are declared by its file, in MEASURES (`kdbench.config.result_keys`); all others here. Rank, method,
teacher and n are in every table and are not columns to select.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from kdbench.config import BASELINE, result_keys
from kdbench.errors import UserError, unknown
from kdbench.report.records import ACCURACY, number
from kdbench.report.stats.intervals import Interval
from kdbench.report.tables import targets
from kdbench.report.tables.rows import Row

NONE = "–"
NOT_MEASURED = "not measured"
NEVER = "never"
FAILED = "failed"
SEE = "kdbench list columns"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: name for `columns=`; that of a family ends in `.*`, for the last part of the key.
        title: its head, with the unit that is shown.
        about: one sentence.
        key: key of the results; "" for a column that is computed from several.
        unit: unit of the value, as in CSV.
        digits: after the point; None for three digits and a prefix (1.68G).
        scale: one unit of the title in units of the value.
        better: "higher" or "lower"; "" if neither is better.
        spread: shown with its interval.
        optional: rows may rightly lack it, and are not "not measured" then.
        taught: nothing to measure without a teacher.
        signed: print a + before gains.
        compares: the column compares another one with the baseline.
        worth: columns worth less are dropped first where the terminal has no room; 0 is never dropped.
        source: the value of a row, where it is not the mean of `key`.
    """

    name: str
    title: str
    about: str
    key: str = ""
    unit: str = "percent"
    digits: int | None = 2
    scale: float = 1.0
    better: Literal["higher", "lower", ""] = "higher"
    spread: bool = True
    optional: bool = False
    taught: bool = False
    signed: bool = False
    compares: bool = False
    worth: int = 3
    source: Callable[[Row], Interval | None] | None = None

    def value(self, row: Row) -> Interval | None:
        """Mean, n and interval in `unit`, or None if the row has none."""
        return self.source(row) if self.source else row.measured(self.key)

    def never(self, row: Row) -> int:
        """Number of seeds that never reached the target accuracy of the column; the value is of the others."""
        target = targets.target(self.key)
        if target is None:
            return 0
        return sum(
            number(record, self.key) is None and targets.never_reached(record, target) for record in row.finished
        )

    def text(self, row: Row) -> str:
        """The text of a cell, with the number of seeds where that is not the n of the row."""
        if row.accuracy is None:
            return FAILED if self.key else NONE
        value, never = self.value(row), self.never(row)
        measured = never + (value.n if value else 0)
        counted = self.key or self.compares  # for `delta` a note below the table says it
        partial = f" (n = {measured})" if counted and measured < row.accuracy.n else ""
        if value is None and never:
            return NEVER + partial
        if value is None:
            absent = not self.key or self.optional or (self.taught and not row.teacher)
            return NONE if absent else NOT_MEASURED
        if self.unit == "probability":
            return "<0.001" if value.mean < 0.001 else f"{value.mean:.3f}"
        half = value.half_width if self.spread else None
        texts = [self._number(value.mean)] + ([] if half is None else [self._number(half).removeprefix("+")])
        # The mean over those that were fast enough says nothing about the others.
        return " ± ".join(texts) + (f" ({value.n} of {measured} reached it)" if never else partial)

    def _number(self, value: float) -> str:
        value /= self.scale
        if self.digits is None:
            return "+" * (self.signed and value > 0) + compact(value)
        if self.unit == "seconds" and value >= 100:
            return f"{value:.0f}"
        return format(
            round(value, self.digits) + 0.0, f"{'+' if self.signed else ''}.{self.digits}f"
        )  # no minus before 0


def compact(value: float) -> str:
    """Three digits and a prefix: 15.0M."""
    if value < 0:
        return f"-{compact(-value)}".replace("-0", "0")
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{sign}" if value >= 99.95 * unit else f"{value / unit:#.3g}{sign}"
    return f"{value:.0f}"


def _p(row: Row, key: str = ACCURACY) -> Interval | None:
    p, difference = row.p_of(key), row.difference_in(key)
    return None if p is None or difference is None else Interval(difference.n, p, None)


_PERCENT = Column("", "", "")
_COST = Column("", "", "", digits=None, better="lower", spread=False)


@cache
def _of_runs(baseline: str) -> tuple[Column, ...]:
    """The columns of every run; those of differences are from `baseline`."""
    return (
        replace(_PERCENT, name="accuracy", title="Accuracy %", about="top-1 on the test set after the last epoch",
                key=ACCURACY, worth=0),
        replace(_PERCENT, name="delta", title=f"Δ {baseline}", about=f"difference in accuracy from {baseline}, paired by seed",
                unit="points", signed=True, worth=9, source=lambda row: row.difference),
        replace(_PERCENT, name="delta.*", title=f"Δ {baseline} {{}}", unit="of the column", signed=True, compares=True,
                about=f"difference in another column from {baseline}, paired by seed, such as delta.corruptions"),
        Column("p", "p", f"p value of the paired t test of the difference from {baseline}, Holm-corrected over the table",
               unit="probability", digits=3, better="", spread=False, worth=7, source=_p),
        Column("p.*", "p {}", "p value of the difference in another column, corrected over the table, such as p.corruptions",
               unit="probability", digits=3, better="", spread=False, compares=True, source=_p),
        replace(_PERCENT, name="best_val", title="Best val %", about="test accuracy of the epoch that was best on validation",
                key="accuracy.best_val", spread=False, optional=True, worth=6),
        replace(_PERCENT, name="best_test", title="Best test %", about="test accuracy of the epoch that the test set chose",
                key="accuracy.best_test", spread=False, optional=True, worth=10),
        replace(_PERCENT, name="val", title="Val %", about="accuracy on the validation split after the last epoch",
                key="accuracy.val", optional=True),
        replace(_PERCENT, name="second_task", title="Second task %", about="accuracy on the second task (SecondTask.weight)",
                key="accuracy.second_task", optional=True),
        replace(_PERCENT, name="exits.*", title="{} %", about="accuracy of one classifier, such as exits.ensemble",
                key="exits.{}", optional=True),
        replace(_PERCENT, name="transfer.*", title="Transfer {} %", key="transfer.{}",
                about="accuracy on another dataset with frozen features, such as transfer.stl10.linear and transfer.stl10.knn"),
        replace(_COST, name="images", title="Images", about="images through the student in training: the budget",
                key="images_seen", unit="images", better="", worth=4),
        replace(_COST, name="passes", title="Passes", key="passes.per_anchor", unit="images", better="", worth=4, optional=True,
                about="images through the student for each image that a step draws as an anchor"),
        replace(_COST, name="teacher_images", title="Teacher images", about="images through teachers in training",
                key="passes.teachers", unit="images"),
        replace(_COST, name="peer_images", title="Peer images", about="images through networks trained next to the student",
                key="passes.peers", unit="images"),
        replace(_COST, name="train_seconds", title="Train s", about="training without evaluation; it depends on the device",
                key="seconds.train", unit="seconds", digits=1, worth=5),
        replace(_COST, name="evaluate_seconds", title="Evaluate s", about="seconds of the final evaluation",
                key="seconds.evaluate", unit="seconds", digits=1),
        replace(_COST, name="images_per_second", title="Images/s", about="training images per second; it depends on the device",
                key="cost.images_per_second", unit="images per second", better="higher", worth=4),
        replace(_COST, name="flops", title="FLOPs", about="FLOPs of the deployed network for one image",
                key="cost.flops", unit="FLOPs"),
        replace(_COST, name="flops.*", title="FLOPs {}", about="FLOPs up to one exit",
                key="cost.flops.{}", unit="FLOPs", optional=True),
        replace(_COST, name="flops_training", title="FLOPs training", about="FLOPs of the losses of a training step for one image",
                key="cost.flops_training", unit="FLOPs"),
        replace(_COST, name="parameters", title="Parameters", about="parameters of the deployed network",
                key="cost.parameters", unit="parameters"),
        replace(_COST, name="parameters_training", title="Parameters training", about="parameters of all that is trained",
                key="cost.parameters_training", unit="parameters"),
        replace(_COST, name="memory", title="Memory GiB", about="peak memory in training",
                key="cost.peak_memory_bytes", unit="bytes", digits=2, scale=2.0**30),
        replace(_COST, name="energy", title="Energy kJ", about="energy that training took",
                key="cost.energy_joules", unit="joules", digits=1, scale=1e3),
    )  # fmt: skip


def every(baseline: str = BASELINE) -> tuple[Column, ...]:
    """All columns: those of every run, and those that measures declare.

    Args:
        baseline: the method that differences are taken from.

    Raises:
        UserError: a measure declares a column that is not right or exists already.
    """
    declared = tuple(
        Column(**{"name": name, **facts, "key": _format(facts["key"])}) for name, facts in result_keys.columns().items()
    )
    for column in declared:
        if any(column.name == other.name for other in _of_runs(baseline)):
            raise UserError(f"a measure declares the column '{column.name}', which exists already. See: {SEE}")
    return *_of_runs(baseline), *declared


def _format(key: str) -> str:
    """`robustness.noise.{}` for the family `robustness.noise.*`."""
    return f"{key[:-1]}{{}}" if key.endswith(".*") else key


DEFAULT = (
    *("accuracy", "delta", "p", "best_val", "best_test", "images", "passes", "peer_images"),
    *("train_seconds", "images_per_second"),
)
"""A table leaves out those of them that none of its rows has; columns that the user names are always shown."""

_DIFFERING = ("passes", "peer_images")
"""Left out also where all rows that have them are equal."""

_TIMES = ("train_seconds", "images_per_second")


def find(name: str, baseline: str = BASELINE) -> Column:
    """The column of this name; of a family, the member.

    Args:
        baseline: see `every`.

    Raises:
        UserError: there is none; the sentence names the nearest.
    """
    columns = every(baseline)
    for column in columns:
        if column.name == name and not name.endswith("*"):
            return column
        if column.name in (name, f"{name}*"):
            raise UserError(f"the column '{name}' needs a suffix in place of *. See: {SEE}")
    for column in columns:
        last = name.removeprefix(column.name[:-1]) if column.name.endswith("*") else name
        if last != name and column.compares:
            return _compared(column, find(last))
        if last != name:
            return replace(column, name=name, title=column.title.format(last), key=column.key.format(last))
    raise unknown("column", name, [column.name for column in columns], SEE)


def _compared(family: Column, column: Column) -> Column:
    """The member of `delta.*` or `p.*` for a column."""
    name, title = family.name[:-1] + column.name, family.title.format(column.title)
    key = column.key
    if not key:
        raise UserError(f"the column '{name}' cannot be compared: '{column.name}' is itself derived. See: {SEE}")
    if targets.target(key) is not None:
        raise UserError(f"'{name}' would drop the seeds that never reached this accuracy; compare delta.auc, p.auc")
    if family.unit == "probability":
        return replace(family, name=name, title=title, source=lambda row: _p(row, key))
    unit = "points" if column.unit == "percent" else column.unit
    signed = replace(column, name=name, title=title, key="", unit=unit, signed=True, spread=True, compares=True)
    return replace(signed, worth=3, source=lambda row: row.difference_in(key))


def _is_informative(column: Column, rows: Sequence[Row]) -> bool:
    """True for a column of the default set that tells something of these rows."""
    values = [value for row in rows if (value := column.value(row))]
    return bool(values) and (column.name not in _DIFFERING or len({value.mean for value in values}) > 1)


def shown(names: Iterable[str] | None, rows: Sequence[Row], baseline: str = BASELINE) -> list[Column]:
    """The columns of one table: those asked for, or those of the default set that any row has.

    Of the default set, times are left out where they do not compare (`Row.has_comparable_times`), and passes where they are equal.

    Args:
        baseline: see `every`.
    """
    if names is None:
        times = all(row.has_comparable_times for row in rows)
        columns = [find(name, baseline) for name in DEFAULT if times or name not in _TIMES]
        return [column for column in columns if not column.worth or _is_informative(column, rows)]
    # A selection on the test set is always visible, whatever is asked for.
    stamped = [name for name in ("best_test",) if any(find(name).value(row) for row in rows)]
    return [find(name, baseline) for name in dict.fromkeys([*names, *stamped])]
