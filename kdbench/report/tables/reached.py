"""Whether a run never came to a validation accuracy, or nobody looked: in a row both are an empty cell."""

from __future__ import annotations

from kdbench.report.tables.rows import Row, number

IMAGES, SECONDS = "convergence.images.", "convergence.seconds."
_TENS = range(10, 100, 10)
"""What runs without `convergence.highest` were asked for, unless the user said otherwise, which no row tells."""


def accuracy(key: str) -> float | None:
    """The validation accuracy in percent that a key of the results waits for; None if it waits for none."""
    last = key.removeprefix(IMAGES).removeprefix(SECONDS)
    try:
        return float(last) if last != key else None
    except ValueError:
        return None


def never(row: Row, wanted: float) -> bool:
    """Whether the validation accuracy of a run was looked at, and was below `wanted` at the end of each epoch."""
    highest = number(row, "convergence.highest")
    if highest is not None:
        return highest < wanted
    if number(row, "convergence.auc") is None:  # no validation split, or from before there was convergence
        return False
    reached = [value for key in row if (value := accuracy(key)) is not None and number(row, key) is not None]
    seen = max([*reached, number(row, "accuracy.val") or 0.0])
    # What it has certainly seen and does not tell was not asked for, and then the others perhaps neither.
    usual = all(number(row, f"{IMAGES}{ten}") is not None for ten in _TENS if ten <= seen)
    return usual and wanted in _TENS and wanted > seen
