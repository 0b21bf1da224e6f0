"""The critical-difference diagram over several tables (J. Demšar, JMLR 7, 2006, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report.plots import style
from kdbench.report.tables.notes import stamps
from kdbench.report.tables.overall import Aggregate, verdict

_ROW = 0.24  # inches from one name to the next
_BAR = 0.14  # inches from one bar to the next


def groups(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """First and last index of each maximal group of methods whose ranks differ by less than `difference`.

    Args:
        ranks: average ranks, rising.
    """
    largest: list[tuple[int, int]] = []
    for i, rank in enumerate(ranks):
        last = max(j for j in range(i, len(ranks)) if j == i or ranks[j] - rank < difference)
        if last > i and (not largest or last > largest[-1][1]):
            largest.append((i, last))
    return largest


def diagram(over: Aggregate) -> Figure:
    """Average ranks on one axis, 1 (best) on the left; bars join methods that are statistically indistinguishable."""
    ranks = [standing.rank for standing in over.standings]
    k, width = len(ranks), style.WIDTH
    bars = groups(ranks, over.separating_difference)
    left = (k + 1) // 2
    names = style.short(standing.method for standing in over.standings)
    depth = 0.25 + _BAR * len(bars)
    tall = 0.75 + depth + _ROW * left
    figure = Figure(figsize=(width + 4, tall + 0.9))
    axes = figure.add_axes((2 / (width + 4), 0.2 / (tall + 0.9), width / (width + 4), tall / (tall + 0.9)))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(-tall, 0)  # inches, downwards from the top
    base = -0.65

    def place(rank: float) -> float:
        return (rank - 1) / (k - 1) * width

    axes.plot([0, width], [base, base], color="black", linewidth=1)
    for rank in range(1, k + 1):
        axes.plot([place(rank)] * 2, [base, base + 0.08], color="black", linewidth=1)
        if (rank - 1) % -(-k // 32) == 0:  # more numbers would run into each other
            axes.annotate(str(rank), (place(rank), base + 0.11), ha="center", va="bottom", fontsize=8)
    _critical(axes, over, place)
    for level, (first, last) in enumerate(bars):
        y = base - 0.14 - _BAR * level
        axes.plot([place(ranks[first]) - 0.05, place(ranks[last]) + 0.05], [y, y], color="black", linewidth=3.5,
                  solid_capstyle="butt")  # fmt: skip
    for i, standing in enumerate(over.standings):
        best = i < left
        row = i if best else k - 1 - i
        y = base - depth - _ROW * row - 0.1
        end = -0.15 if best else width + 0.15
        axes.plot([place(standing.rank)] * 2 + [end], [base, y, y], color="0.35", linewidth=0.8, clip_on=False)
        name = names[standing.method]
        text = f"{name}  {standing.rank:.2f}" if best else f"{standing.rank:.2f}  {name}"
        axes.annotate(text, (end, y), (-3 if best else 3, 0), "data", "offset points",
                      ha="right" if best else "left", va="center", annotation_clip=False)  # fmt: skip
    _title(axes, over)
    return figure


def _critical(axes: Axes, over: Aggregate, place: Callable[[float], float]) -> None:
    difference, k = over.critical_difference, len(over.standings)
    shown = min(difference, k - 1)
    y, end = -0.25, place(1 + shown)
    axes.plot([0, end], [y, y], color="black", linewidth=1.2)
    for x in (0, end) if shown == difference else (0,):
        axes.plot([x, x], [y - 0.05, y + 0.05], color="black", linewidth=1.2)
    more = " (not used: the Friedman test is not significant)" if over.separating_difference == math.inf else ""
    more = more if shown == difference else " (longer than the axis: no two methods differ significantly)"
    axes.annotate(f"critical difference {difference:.2f}{more}", (end / 2, y + 0.06), ha="center", va="bottom",
                  fontsize=8)  # fmt: skip


def _title(axes: Axes, over: Aggregate) -> None:
    about = f"{len(over.standings)} methods, {len(over.tables)} tables · {verdict(over.test)}"
    for text, up, weight in (("Average ranks over tables", 20, "bold"), (about, 7, "normal")):
        axes.annotate(text, (0, 1), (0, up), "axes fraction", "offset points", ha="left", va="bottom", weight=weight)
    titles = "; ".join(style.plain(f"{t.dataset} · {t.student} · {t.protocol}") for t in over.tables)
    why = "Left out, because not in all of these tables, or with several teachers in one"
    left_out = [f"{why}: {', '.join(over.left_out)}."] if over.left_out else []
    rows = [row for standing in over.standings for row in standing.rows]
    names = [standing.method for standing in over.standings for _ in standing.rows]
    bars = f"Bars join methods that are statistically indistinguishable (Nemenyi, 95 %). Tables: {titles}."
    style.footer(axes, [bars, *left_out, *stamps(rows, names)])
