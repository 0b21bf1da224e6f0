"""Markdown tables of measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float]) -> str:
    """Median and quartiles."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{statistics.median(values):.2f} ({low:.2f}–{high:.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under the head; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---", *["--:"] * (len(head) - 1)], *rows]]
    return "\n".join(lines) + "\n"
