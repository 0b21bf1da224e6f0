"""The figures of a leaderboard, `OUT/plots/`, with the reasons for those that are not drawn.

They follow from the records and the epochs of the run folders. Another version of matplotlib may give other bytes, so
`kdbench leaderboard --check` ignores them. Each holds the checksum of its results.csv.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdbench.config import BASELINE
from kdbench.errors import UserError
from kdbench.report import records
from kdbench.report.plots import series
from kdbench.report.plots.series import Series, labels
from kdbench.report.tables import overall
from kdbench.report.tables.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kdbench.report.plots.style import Style

PLOTS = "plots"
COST, CURVES, SEVERITY, EXITS, EARLY = "cost", "curves", "severity", "exits", "early-exit"
CRITICAL = "critical-difference"
NAMES = (COST, CURVES, SEVERITY, EXITS, EARLY, CRITICAL)
KINDS = ("svg", "png")
_PLACE = re.compile(r".*-.*-[0-9a-f]+(~\d+)?")
_LACKING = {
    COST: "no cost that can be compared",
    CURVES: "no run folder of theirs has a validation curve",
    SEVERITY: "not measured",
    EXITS: "the FLOPs are not known",
    EARLY: "not measured",
}


@dataclass
class Drawn:
    """The files of all figures, and a sentence for each figure or row that is not drawn."""

    files: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def check_matplotlib() -> None:
    """Raises UserError if matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError("plots need matplotlib, which is not installed: pip install 'kdbench[plots]'") from None


def write(tables: Sequence[Table], runs: Path, out: Path, sha256: str = "") -> Drawn:
    """Draw all tables into `out`/plots, one folder each; figures of an earlier call that are not drawn any more are removed.

    Args:
        runs: the folder of all runs, for their epochs.
        sha256: checksum of the results.csv of the tables; "" for none.
    """
    from kdbench.report.plots import style

    drawn = Drawn()
    with style.settings():
        for place, figure in _figures(tables, runs, drawn.messages):
            for kind, content in style.files(figure, sha256 and f"SHA-256 of results.csv: {sha256}").items():
                path = out / PLOTS / f"{place}.{kind}"
                records.write(path, content)
                drawn.files.append(path)
    for path in set(paths(out)) - set(drawn.files):
        path.unlink()
        if path.parent != out / PLOTS and not any(path.parent.iterdir()):
            path.parent.rmdir()
    return drawn


def paths(out: Path) -> list[Path]:
    """The files of figures of the leaderboard `out`, by their names: the user may keep other files there."""
    plots = out / PLOTS
    folders = [
        folder
        for folder in plots.glob("*")
        if not folder.is_symlink() and folder.is_dir() and _PLACE.fullmatch(folder.name)
    ]
    of_tables = [
        folder / f"{name}.{kind}" for folder in folders for name in NAMES if name != CRITICAL for kind in KINDS
    ]
    return sorted(filter(Path.is_file, of_tables + [plots / f"{CRITICAL}.{kind}" for kind in KINDS]))


class _Plot(NamedTuple):
    """A figure of one table, before it is drawn.

    Attributes:
        data: data of the plot; without any it is not drawn.
        reason: reason why there are no data; "" where another sentence gives it.
        expected: names of the rows that should be in it.
    """

    name: str
    data: list[Series]
    draw: Callable[[], Figure]
    reason: str
    expected: list[str]


def _figures(tables: Sequence[Table], runs: Path, messages: list[str]) -> Iterator[tuple[str, Figure]]:
    from kdbench.report.plots import critical, style

    styles = style.styles((name for table in tables for name in _expected(table)), BASELINE)
    without_folders = []
    for table, place in zip(tables, places(tables), strict=True):
        expected = _expected(table)
        if not expected:
            messages.append(f"{place}: nothing is drawn: no run has finished")
            continue
        failed = [name for name in labels(table.rows) if name not in expected]
        if failed:
            messages.append(f"{place}: left out: {', '.join(failed)}: no run has finished")
        curves = series.curves(table, runs)
        if not curves.folders:
            without_folders.append(place)
        for plot in _plots(table, curves, styles):
            absent = sorted(set(plot.expected) - {one.label for one in plot.data})
            if plot.data:
                yield f"{place}/{plot.name}", plot.draw()
                if absent:
                    messages.append(f"{place}: {plot.name} leaves out {', '.join(absent)}: {_LACKING[plot.name]}")
            elif plot.reason:
                messages.append(f"{place}: {plot.name} is not drawn: {plot.reason}")
    if without_folders:
        messages.append(f"{CURVES} are left out, because no run folder is in {runs}: {', '.join(without_folders)}")
    over = overall.aggregate(tables)
    if over:
        yield CRITICAL, critical.diagram(over)
    else:
        messages.append(f"{CRITICAL} is not drawn: no two tables share two methods")


def _plots(table: Table, curves: series.Curves, styles: Mapping[str, Style]) -> list[_Plot]:
    from kdbench.report.plots import charts

    expected = _expected(table)
    costs, severities, exits = series.costs(table), series.severities(table), series.exits(table, charts.DEPLOYED)
    early = series.early_exits(table)
    return [
        _Plot(
            COST,
            costs.series,
            lambda: charts.cost(table, costs, styles),
            "its runs come from several devices, or from an unknown one, and have no cost.flops_training",
            expected,
        ),
        _Plot(
            CURVES,
            curves.series,
            lambda: charts.curves(table, curves.series, styles),
            "no run has a validation accuracy in its epochs" if curves.folders else "",
            expected,
        ),
        _Plot(
            SEVERITY,
            severities,
            lambda: charts.severity(table, severities, styles),
            "no run has measured corruptions",
            expected,
        ),
        _Plot(
            EXITS,
            exits,
            lambda: charts.exits(table, exits, styles),
            "no method has exits of which the FLOPs are known",
            _expected(table, exits=True),
        ),
        _Plot(
            EARLY,
            early,
            lambda: charts.early_exit(table, early, styles),
            "",  # the sentence on exits says enough
            _expected(table, exits=True),
        ),
    ]


def _expected(table: Table, exits: bool = False) -> list[str]:
    """The rows that have an accuracy, and also exits if `exits`."""
    pairs = zip(labels(table.rows), table.rows, strict=True)
    return [name for name, row in pairs if row.accuracy and (row.exits or not exits)]


def places(tables: Sequence[Table]) -> list[str]:
    """The folder of each table, such as `digits-resnet8-21286f2e`; its name is short enough for any file system."""
    names: list[str] = []
    for table in tables:
        parts = (re.sub(r"[^A-Za-z0-9._-]", "_", text)[:64] for text in (table.dataset, table.student, table.protocol))
        name = "-".join(parts).lstrip(".")
        taken = sum(other == name or other.startswith(f"{name}~") for other in names)
        names.append(f"{name}~{taken + 1}" if taken else name)
    return names
