"""The look of the plots: one style per method, a frame with a title, labels next to the axes, and reproducible bytes.

Methods also differ in marker and line style, so that a plot can be read in grey; the colours are those of Okabe and
Ito (Color Universal Design, 2008), without the yellow. Text is never read as mathematics: names are drawn as they are.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from kdbench.report.stats.intervals import Interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "<", "X", ">", "*", "d")  # h and p look like o when they are small
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (8, 2, 1, 2, 1, 2)))
WIDTH = 5.6
"""Inches of the axes, without the labels next to them."""

_LINE = 0.185  # inches between two labels
_SETTINGS: Any = {  # the keys of matplotlib's own type differ from version to version
    **{"font.family": ["DejaVu Sans"], "font.size": 9, "text.usetex": False, "text.parse_math": False},
    **{"svg.hashsalt": "kdbench", "svg.fonttype": "path", "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.formatter.use_mathtext": False, "axes.unicode_minus": True, "axes.grid": False, "axes.axisbelow": True},
}
_OVER = [withStroke(linewidth=2.5, foreground="white")]


@dataclass(frozen=True)
class Style:
    """The look of one method."""

    colour: str
    marker: str
    dashes: Any
    filled: bool

    def kwargs(self, size: float = 5.5) -> dict[str, Any]:
        """Keyword arguments for `plot` and `errorbar`, without the line style."""
        face = self.colour if self.filled else "white"
        size *= 1.5 if self.marker == "*" else 1.0  # else nobody sees whether it is filled
        return {
            **{"color": self.colour, "marker": self.marker, "markersize": size},
            **{"markerfacecolor": face, "markeredgecolor": self.colour, "markeredgewidth": 1.0},
        }


def styles(names: Iterable[str], first: str) -> dict[str, Style]:
    """A style for each name, so that a method looks the same in all plots; `first` is black and solid.

    The most frequent names come first, then by alphabet: there are seven colours, and the methods that are compared most
    often get one each. Marker, filling and dashes together repeat after 110 names.
    """
    count = Counter(names)
    by_name = {first: Style("black", "o", "-", filled=True)}
    for i, name in enumerate(sorted(count.keys() - {first}, key=lambda name: (-count[name], name)), start=1):
        by_name[name] = Style(
            COLOURS[(i - 1) % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
            DASHES[i % len(DASHES)],
            filled=i // len(MARKERS) % 2 == 0,
        )
    return by_name


@contextmanager
def settings() -> Iterator[None]:
    """Our settings, and nothing of the user's matplotlibrc."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        yield


def plain(text: str, most: int = 64) -> str:
    """One line of at most so many characters, none of which XML forbids; the middle of longer texts is left out.

    Users choose the names, and one of ten thousand characters would make a plot wider than a PNG can be.
    """
    text = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    end = most // 3  # the end has the parameters
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def short(names: Iterable[str]) -> dict[str, str]:
    """Each name as `plain` text, as short as keeps them distinct: two may differ only in a parameter in their middle."""
    names, most = set(names), 64
    while most < 512 and len({plain(name, most) for name in names}) < len(names):
        most *= 2
    return {name: plain(name, most) for name in names}


def height(labels: int) -> float:
    """Inches of axes with this many labels next to them."""
    return max(3.4, _LINE * labels + 0.2)


def frame(title: str, about: str, tall: float, above: float = 0.0) -> tuple[Figure, Axes]:
    """A figure with one pair of axes under a title.

    Args:
        about: the line below the title.
        tall: inches of the axes.
        above: inches between axes and title, for ticks above the axes.
    """
    wide, figure = WIDTH + 3.0, Figure(figsize=(WIDTH + 3.0, tall + 1.4))
    axes = figure.add_axes((0.7 / wide, 0.6 / (tall + 1.4), WIDTH / wide, tall / (tall + 1.4)))
    for text, up, weight in ((title, 20, "bold"), (about, 7, "normal")):
        axes.annotate(
            plain(text, 140),
            (0, 1),
            (0, up + 72 * above),
            "axes fraction",
            "offset points",
            ha="left",
            va="bottom",
            weight=weight,
        )
    return figure, axes


def footer(axes: Axes, sentences: Sequence[str]) -> None:
    """Sentences below the axes."""
    text = "\n".join(textwrap.fill(plain(sentence, 2000), 110) for sentence in sentences)
    axes.annotate(
        text, (0, 0), (0, -38), "axes fraction", "offset points", ha="left", va="top", fontsize=7.5, color="0.3"
    )


def line_labels(axes: Axes, entries: Sequence[tuple[str, Style, tuple[float, float] | None]], tall: float) -> None:
    """Labels on the right of the axes, each with its marker and line style; the limits of the axes must be set.

    Args:
        entries: label, style, and the point (in data coordinates) that a thin line leads to; without points the labels
            are in the order given, from the top.
    """
    step, shown = _LINE / tall, short(label for label, _, _ in entries)
    wanted = [1.0 - step * i if at is None else _fraction(axes, at[1]) for i, (_, _, at) in enumerate(entries)]
    order = sorted(range(len(entries)), key=lambda i: (-wanted[i], i))
    for i, y in zip(order, apart([wanted[i] for i in order], step), strict=True):
        label, style, at = entries[i]
        if at is not None:
            axes.annotate(
                "", at, (1.035, y), "data", "axes fraction", annotation_clip=False,
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.65", "shrinkA": 0, "shrinkB": 2},
            )  # fmt: skip
        axes.plot(
            [1.04, 1.075, 1.11], [y] * 3, transform=axes.transAxes, clip_on=False, linestyle=style.dashes,
            linewidth=1.2, markevery=[1], **style.kwargs(),
        )  # fmt: skip
        axes.annotate(
            shown[label], (1.125, y), xycoords="axes fraction", va="center", annotation_clip=False, fontsize=8.5
        )


def _fraction(axes: Axes, y: float) -> float:
    low, high = axes.get_ylim()
    return (y - low) / (high - low)


def apart(wanted: Sequence[float], step: float) -> list[float]:
    """Places between 0 and 1 near the wanted ones (falling), at least `step` from each other."""
    groups: list[list[float]] = []  # each is placed as one block around the mean of what it holds
    for place in wanted:
        groups.append([min(max(place, 0.0), 1.0)])
        while len(groups) > 1 and _block(groups[-2], step)[-1] - _block(groups[-1], step)[0] < step - 1e-12:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [place for group in groups for place in _block(group, step)]


def _block(group: Sequence[float], step: float) -> list[float]:
    span = step * (len(group) - 1)
    top = sum(group) / len(group) + span / 2
    top = max(min(top, 1.0), min(span, 1.0))
    return [top - step * i for i in range(len(group))]


def view(values: Sequence[Interval]) -> tuple[float, float]:
    """Limits of an axis of accuracies: all means, and as much of the intervals as keeps the means distinct."""
    means = [value.mean for value in values]
    span = max(max(means) - min(means), 1.0)
    low = min(value.mean - min(value.half_width or 0.0, span) for value in values)
    high = max(value.mean + min(value.half_width or 0.0, span) for value in values)
    margin = 0.04 * (high - low) or 1.0
    return max(low - margin, -1.0), min(high + margin, 101.0)


def annotate_point(axes: Axes, label: str, at: tuple[float, float], above: bool) -> Any:
    """A label on the upper left of a point, or else on the lower right, in white outlines."""
    return axes.annotate(
        plain(label), at, (-5, 5) if above else (5, -5), "data", "offset points", ha="right" if above else "left",
        va="bottom" if above else "top", fontsize=8, path_effects=_OVER, zorder=9,
    )  # fmt: skip


def files(figure: Figure, about: str = "") -> dict[str, bytes]:
    """The figure as SVG and PNG; the same figure gives the same bytes.

    Args:
        about: text for the metadata of both.
    """
    contents = {}
    for kind, unset in (("svg", ("Date", "Creator")), ("png", ("Software",))):
        buffer, metadata = io.BytesIO(), dict.fromkeys(unset) | ({"Description": about} if about else {})
        figure.savefig(buffer, format=kind, dpi=150, bbox_inches="tight", pad_inches=0.12, metadata=metadata)
        contents[kind] = buffer.getvalue()
    return contents
