"""Methods against the method that they change: variants, and methods whose docstring has the entry Base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench.config import about
from kdbench.report.stats.intervals import paired_difference
from kdbench.report.stats.significance import holm, paired_p
from kdbench.report.tables.rows import Row


def note(rows: Sequence[Row], names: Sequence[str], baseline: str) -> Iterator[str]:
    """A sentence with the difference of each row from its base, paired by seed; none where no row has its base in the table.

    Rows with values of their own are left out, and those whose base is the baseline of the table: its columns have them.

    Args:
        names: of the rows, in their order.
        baseline: the method that the differences of the table are from.
    """
    name_of = dict(zip(map(id, rows), names, strict=True))
    pairs = [(row, base) for row in rows if (base := _base(row, rows, baseline))]
    texts, p_values = [], []
    for row, base in pairs:
        difference = paired_difference(row.by_seed, base.by_seed)
        if difference.n:
            half = "" if difference.half_width is None else f" ± {difference.half_width:.2f}"
            mean = round(difference.mean, 2) + 0.0  # no minus before 0
            texts.append(f"{name_of[id(row)]} minus {name_of[id(base)]} {mean:+.2f}{half}")
            p_values.append(paired_p(row.by_seed, base.by_seed))
    if not texts:
        return
    tested = [p for p in p_values if p is not None]
    corrected = iter(holm(tested))
    shown = [
        text if p is None else f"{text} (p {_p(next(corrected))})" for text, p in zip(texts, p_values, strict=True)
    ]
    over = f"; p Holm-corrected over these {len(tested)}" if len(tested) > 1 else ""
    yield f"differences from the method that each changes, paired by seed: {', '.join(shown)}{over}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _base(row: Row, rows: Sequence[Row], baseline: str) -> Row | None:
    """The row of the method that this one changes: that with the same teacher, or else the only one."""
    method = row.runs[0]["method"]
    base = about.base(method)
    if not base or base == baseline or method == baseline or not (row.has_defaults_of(method) and row.accuracy):
        return None
    bases = [other for other in rows if other.has_defaults_of(base) and other.accuracy]
    alike = [other for other in bases if other.teacher == row.teacher] or bases
    return alike[0] if len(alike) == 1 else None
