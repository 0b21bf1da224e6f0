"""Target accuracies: whether a run never reached one, or nobody looked; in a record both are an empty cell."""

from __future__ import annotations

from kdbench.report.records import Record, number

IMAGES, SECONDS = "convergence.images.", "convergence.seconds."
_TENS = range(10, 100, 10)
"""The targets of runs without `convergence.highest`, unless the user set others, which no record says."""


def target(key: str) -> float | None:
    """The validation accuracy in percent whose time or images a key of the results is; None for other keys."""
    last = key.removeprefix(IMAGES).removeprefix(SECONDS)
    try:
        return float(last) if last != key else None
    except ValueError:
        return None


def never_reached(record: Record, accuracy: float) -> bool:
    """True if the validation accuracy of a run was measured, and was below `accuracy` at the end of each epoch."""
    highest = number(record, "convergence.highest")
    if highest is not None:
        return highest < accuracy
    if number(record, "convergence.auc") is None:  # no validation split, or from before there was convergence
        return False
    reached = [value for key in record if (value := target(key)) is not None and number(record, key) is not None]
    seen = max([*reached, number(record, "accuracy.val") or 0.0])
    # A target that it certainly passed and does not record was not asked for, and then perhaps the others were not either.
    usual = all(number(record, f"{IMAGES}{ten}") is not None for ten in _TENS if ten <= seen)
    return usual and accuracy in _TENS and accuracy > seen
