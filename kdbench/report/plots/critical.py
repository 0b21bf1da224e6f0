"""The critical-difference diagram over several tables (J. Demšar, JMLR 7, 2006, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from kdbench.report.plots import style
from kdbench.report.tables.notes import stamps
from kdbench.report.tables.overall import Overview, verdict

_ROW = 0.24  # inches from one name to the next
_BAR = 0.14  # inches from one bar to the next


def groups(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """First and last of each largest run of methods that are not told apart: their ranks differ by less than `difference`.

    Args:
        ranks: average ranks, rising.
    """
    found: list[tuple[int, int]] = []
    for i, rank in enumerate(ranks):
        last = max(j for j in range(i, len(ranks)) if j == i or ranks[j] - rank < difference)
        if last > i and (not found or last > found[-1][1]):
            found.append((i, last))
    return found


def diagram(found: Overview) -> Figure:
    """Average ranks on one axis, 1 (best) on the left; bars join what is not told apart."""
    ranks = [standing.rank for standing in found.standings]
    k, n, width = len(ranks), len(found.tables), style.WIDTH
    bars = groups(ranks, found.critical_difference)
    left = (k + 1) // 2
    names = style.short(standing.method for standing in found.standings)
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
    _critical(axes, found.critical_difference, place, k)
    for level, (first, last) in enumerate(bars):
        y = base - 0.14 - _BAR * level
        axes.plot([place(ranks[first]) - 0.05, place(ranks[last]) + 0.05], [y, y], color="black", linewidth=3.5,
                  solid_capstyle="butt")  # fmt: skip
    for i, standing in enumerate(found.standings):
        best = i < left
        row = i if best else k - 1 - i
        y = base - depth - _ROW * row - 0.1
        end = -0.15 if best else width + 0.15
        axes.plot([place(standing.rank)] * 2 + [end], [base, y, y], color="0.35", linewidth=0.8, clip_on=False)
        name = names[standing.method]
        text = f"{name}  {standing.rank:.2f}" if best else f"{standing.rank:.2f}  {name}"
        axes.annotate(text, (end, y), (-3 if best else 3, 0), "data", "offset points",
                      ha="right" if best else "left", va="center", annotation_clip=False)  # fmt: skip
    _title(axes, found, n, k, -tall)
    return figure


def _critical(axes, difference, place, k) -> None:  # type: ignore[no-untyped-def]
    shown = min(difference, k - 1)
    y, end = -0.25, place(1 + shown)
    axes.plot([0, end], [y, y], color="black", linewidth=1.2)
    for x in (0, end) if shown == difference else (0,):
        axes.plot([x, x], [y - 0.05, y + 0.05], color="black", linewidth=1.2)
    more = "" if shown == difference else " (longer than the axis: nothing is told apart)"
    axes.annotate(f"critical difference {difference:.2f}{more}", (end / 2, y + 0.06), ha="center", va="bottom",
                  fontsize=8)  # fmt: skip


def _title(axes, found: Overview, n: int, k: int, bottom: float) -> None:  # type: ignore[no-untyped-def]
    about = f"{k} methods, {n} tables · {verdict(found.test)}"
    for text, up, weight in (("Average ranks over tables", 20, "bold"), (about, 7, "normal")):
        axes.annotate(text, (0, 1), (0, up), "axes fraction", "offset points", ha="left", va="bottom", weight=weight)
    titles = "; ".join(style.plain(f"{t.dataset} · {t.student} · {t.protocol}") for t in found.tables)
    why = "Left out, because not in all of these tables, or with several teachers in one"
    left_out = [f"{why}: {', '.join(found.left_out)}."] if found.left_out else []
    lines = [line for standing in found.standings for line in standing.lines]
    names = [standing.method for standing in found.standings for _ in standing.lines]
    bars = f"Bars join what is not told apart (Nemenyi, 95 %). Tables: {titles}."
    style.footer(axes, [bars, *left_out, *stamps(lines, names)])
