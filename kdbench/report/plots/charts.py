"""The plots of one table: cost, curves, severity, exits and early exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from kdbench.report.plots.series import Costs, Point, Series, labels, pareto
from kdbench.report.plots.style import Style, annotate_point, footer, frame, height, line_labels, plain, view
from kdbench.report.stats.intervals import Interval
from kdbench.report.tables.columns import compact
from kdbench.report.tables.notes import stamps
from kdbench.report.tables.tables import Table

DEPLOYED = "deployed"
ACCURACY = "test accuracy, % (95 % interval over seeds)"
_CUT = "Intervals that leave the plot are wider than the distance between all means."
_FRONT = "Grey steps: the Pareto front of the means, regardless of their intervals; no other method is as cheap and as accurate."
_ALIKE = "There are more methods than markers: some share one and differ in colour and dashes."
_MOVED = "Points at the same position are shifted sideways a little, to separate their intervals."
_LEAVES = "Each image leaves at the first classifier that is sure enough: largest probability of at least {}."
_LOG_FROM = 8  # the largest cost over the smallest, from which the axis is logarithmic

Styles = Mapping[str, Style]


def cost(table: Table, costs: Costs, styles: Styles) -> Figure:
    """Accuracy against the cost of training, and the Pareto front."""
    series = sorted(costs.series, key=lambda one: (-round(one.points[0].y.mean, 6), one.label))
    points = [one.points[0] for one in series]
    tall = height(len(series) + 1)
    figure, axes = frame("Accuracy against cost of training", _about(table, series), tall)
    front = pareto([(point.x.mean, round(point.y.mean, 6)) for point in points])
    cheapest, dearest = min(point.x.mean for point in points), max(point.x.mean for point in points)
    if dearest >= _LOG_FROM * cheapest:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(cheapest / 1.6, dearest * 1.25)
    else:
        margin = (dearest - cheapest) or dearest
        axes.set_xlim(cheapest - 0.16 * margin, dearest + 0.06 * margin)
    axes.set_ylim(*view([point.y for point in points]))
    steps = [points[i] for i in front]
    axes.step(
        [*(point.x.mean for point in steps), axes.get_xlim()[1]],
        [*(point.y.mean for point in steps), steps[-1].y.mean],
        where="post", color="0.6", linewidth=1.4, zorder=1,
    )  # fmt: skip
    for one, point in zip(series, points, strict=True):
        axes.errorbar(
            point.x.mean, point.y.mean, point.y.half_width, point.x.half_width, linewidth=0, elinewidth=0.8,
            capsize=2, **styles[one.label].kwargs(6.5), zorder=3,
        )  # fmt: skip
    _numbers(axes, costs.axis)
    line_labels(axes, [(one.label, styles[one.label], None) for one in series], tall)
    _front_labels(figure, axes, [(series[i].label, points[i]) for i in front], points)
    shapes = {(styles[one.label].marker, styles[one.label].filled) for one in series}
    _finish(axes, table, series, ACCURACY, [_FRONT, *[_ALIKE] * (len(shapes) < len(series)), _CUT])
    return figure


def _front_labels(figure: Figure, axes: Axes, front: Sequence[tuple[str, Point]], points: Sequence[Point]) -> None:
    """Names at the points of the front, where they overlap nothing: all names are next to the axes as well."""
    figure.draw_without_rendering()
    places = axes.transData.transform([(point.x.mean, point.y.mean) for point in points])
    taken: list[Bbox] = []
    for label, point in reversed(front):
        for above in (True, False):  # the front is never above on the left, nor below on the right
            text = annotate_point(axes, label, (point.x.mean, point.y.mean), above)
            box = text.get_window_extent()
            inside = (
                axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            )
            if inside and not box.padded(5).count_contains(places) and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def curves(table: Table, series: Sequence[Series], styles: Styles) -> Figure:
    """Validation accuracy against images seen, with bands over seeds."""
    tall = height(len(series))
    figure, axes = frame("Validation accuracy in training", _about(table, series), tall)
    axes.set_ylim(*view([point.y for one in series for point in one.points]))
    for one in series:
        style = styles[one.label]
        x, y = [point.x.mean for point in one.points], [point.y.mean for point in one.points]
        half = [point.y.half_width or 0.0 for point in one.points]
        if any(half):
            low, high = ([a + sign * b for a, b in zip(y, half, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=style.colour, alpha=0.16 if len(series) < 9 else 0.07, linewidth=0)
        axes.plot(x, y, linestyle=style.dashes, linewidth=1.3, markevery=-(-len(x) // 10), **style.kwargs(4.5))
    axes.set_xlim(0, max(point.x.mean for one in series for point in one.points) * 1.01)
    _numbers(axes, "images seen in training")
    _beside_ends(axes, series, styles, tall)
    _finish(axes, table, series, "validation accuracy, % (95 % interval over seeds)", [_CUT])
    return figure


def severity(table: Table, series: Sequence[Series], styles: Styles) -> Figure:
    """Accuracy against the severity of corruptions."""
    tall = height(len(series))
    figure, axes = frame("Accuracy on corrupted images", _about(table, series), tall)
    _lines(axes, series, styles, sideways=0.3)
    steps = sorted({point.x.mean for one in series for point in one.points})
    axes.set_xlim(-0.3, steps[-1] + 0.3)
    axes.set_xticks(steps, ["clean" if step == 0 else f"{step:.0f}" for step in steps])
    axes.set_xlabel("severity, mean over all corruptions")
    _beside_ends(axes, series, styles, tall, sideways=0.3)
    _finish(axes, table, series, ACCURACY, [*[_MOVED] * (len(series) > 1), _CUT])
    return figure


def exits(table: Table, series: Sequence[Series], styles: Styles) -> Figure:
    """Accuracy of each exit against its FLOPs; the deployed network has a ring."""
    tall = height(len(series))
    figure, axes = frame("Exits: accuracy against FLOPs", _about(table, series), tall, above=0.5)
    x = [point.x.mean for one in series for point in one.points]
    span = (max(x) - min(x)) or max(x)
    sideways = min(0.03 * span, 0.4 * _narrowest(x, span))
    _lines(axes, series, styles, sideways)
    for one, move in zip(series, _moves(len(series), sideways), strict=True):
        for point in one.points:
            if point.name == DEPLOYED:
                axes.plot(point.x.mean + move, point.y.mean, "o", markersize=11, color="black", fillstyle="none")
    axes.set_xlim(min(x) - 0.06 * span, max(x) + 0.06 * span)
    _numbers(axes, "FLOPs of one image")
    names = {(point.x.mean, point.name) for one in series for point in one.points}
    if len(names) <= 10:  # of networks that differ the names would cover each other
        above = axes.secondary_xaxis("top")
        places = sorted({place for place, _ in names})
        above.xaxis.set_major_locator(FixedLocator(places))
        texts = [plain(", ".join(sorted(name for at, name in names if at == place))) for place in places]
        above.set_xticks(places, texts, rotation=30, ha="left", rotation_mode="anchor", fontsize=8)
    _beside_ends(axes, series, styles, tall, sideways)
    _finish(axes, table, series, ACCURACY, ["Ring: the deployed network.", *[_MOVED] * (len(series) > 1), _CUT])
    return figure


def early_exit(table: Table, series: Sequence[Series], styles: Styles) -> Figure:
    """Accuracy against mean FLOPs of an image that leaves early; each point is a confidence."""
    tall = height(len(series))
    figure, axes = frame("Early exit: accuracy against mean FLOPs", _about(table, series), tall)
    _lines(axes, series, styles, sideways=0.0)
    x = [point.x.mean for one in series for point in one.points]
    margin = 0.06 * ((max(x) - min(x)) or max(x))
    axes.set_xlim(min(x) - margin, max(x) + margin)
    _numbers(axes, "mean FLOPs of an image")
    _beside_ends(axes, series, styles, tall)
    _finish(axes, table, series, ACCURACY, [_LEAVES.format(", ".join(_confidences(series))), _CUT])
    return figure


def _confidences(series: Sequence[Series]) -> list[str]:
    return sorted({point.name for one in series for point in one.points}, key=float)


def _narrowest(x: Sequence[float], span: float) -> float:
    places = sorted(set(x))
    return min([b - a for a, b in pairwise(places) if b - a > 1e-3 * span], default=span)


def _lines(axes: Axes, series: Sequence[Series], styles: Styles, sideways: float) -> None:
    axes.set_ylim(*view([point.y for one in series for point in one.points]))
    for one, move in zip(series, _moves(len(series), sideways), strict=True):
        style = styles[one.label]
        axes.errorbar(
            [point.x.mean + move for point in one.points], [point.y.mean for point in one.points],
            [point.y.half_width or 0.0 for point in one.points], linestyle=style.dashes, linewidth=1.2,
            elinewidth=0.7, capsize=1.5, **style.kwargs(),
        )  # fmt: skip


def _moves(count: int, sideways: float) -> list[float]:
    """The offset of each of so many series, so that together they are `sideways` wide."""
    return [sideways * (i / (count - 1) - 0.5) if count > 1 else 0.0 for i in range(count)]


def _beside_ends(axes: Axes, series: Sequence[Series], styles: Styles, tall: float, sideways: float = 0.0) -> None:
    ends = [(one, one.points[-1], move) for one, move in zip(series, _moves(len(series), sideways), strict=True)]
    line_labels(
        axes, [(one.label, styles[one.label], (end.x.mean + move, end.y.mean)) for one, end, move in ends], tall
    )


def _numbers(axes: Axes, label: str) -> None:
    """The x axis with its label; thousands and more as in the tables."""
    top = axes.get_xlim()[1]
    if top >= 1e4:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    elif axes.get_xscale() == "log":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label)


def _short(value: float) -> str:
    for unit, sign in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.6g}{sign}"
    return compact(value)


def _about(table: Table, series: Sequence[Series]) -> str:
    """`digits · resnet8 · recipe quick · protocol 21286f2e · n = 3 seeds`."""
    counts = sorted({point.y.n for point in chain.from_iterable(one.points for one in series)})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{plain(table.title, 110)} · n = {n} seed{'s' * (counts[-1] > 1)}"


def _finish(axes: Axes, table: Table, series: Sequence[Series], y: str, notes: Sequence[str]) -> None:
    axes.set_ylabel(y)
    axes.grid(color="0.92", linewidth=0.6)
    low, high = axes.get_ylim()
    cut = any(not low <= end <= high for one in series for p in one.points for end in _ends(p.y))
    shown = {one.label for one in series}
    pairs = [(row, name) for row, name in zip(table.rows, labels(table.rows), strict=True) if name in shown]
    stamped = stamps([row for row, _ in pairs], [name for _, name in pairs])
    single = [one.label for one in series if any(p.y.half_width is None for p in one.points)]
    alone = [f"n = 1, no interval: {', '.join(single)}."] if single else []
    footer(axes, [note for note in notes if cut or note != _CUT] + alone + list(stamped))


def _ends(value: Interval) -> tuple[float, float]:
    return value.mean - (value.half_width or 0.0), value.mean + (value.half_width or 0.0)
