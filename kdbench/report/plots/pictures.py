"""The pictures of a leaderboard, `OUT/plots/`: which there are, and what is not drawn and why.

They follow from the rows and the epochs of the run folders. The same matplotlib gives the same bytes, another one may not, so
`kdbench leaderboard --check` has nothing to say of them. Each holds the checksum of the results.csv that it is of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.config.settings import BASELINE
from kdbench.errors import UserError
from kdbench.report import records
from kdbench.report.plots import series
from kdbench.report.plots.series import Series, labels
from kdbench.report.tables import overall
from kdbench.report.tables.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTS = "plots"
COST, CURVES, SEVERITY, EXITS, CRITICAL = "cost", "curves", "severity", "exits", "critical-difference"
NAMES = (COST, CURVES, SEVERITY, EXITS, CRITICAL)
KINDS = ("svg", "png")
_PLACE = re.compile(r".*-.*-[0-9a-f]+(~\d+)?")
_LACKING = {
    COST: "no cost that can be compared",
    CURVES: "no run folder of theirs has a validation curve",
    SEVERITY: "not measured",
    EXITS: "the FLOPs are not known",
}


@dataclass
class Drawn:
    """What `write` did: the files there are now, and a sentence for each thing that is not drawn."""

    files: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def check_matplotlib() -> None:
    """Raises UserError if matplotlib is not there."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError("pictures need matplotlib, which is not installed: pip install 'kdbench[plots]'") from None


def write(tables: Sequence[Table], runs: Path, out: Path, sha256: str = "") -> Drawn:
    """Draw all tables into `out`/plots, a folder each; pictures of an earlier call that are none any more are removed.

    Args:
        runs: where the folders with the epochs are.
        sha256: of the results.csv that the tables are of; "" for none.
    """
    from kdbench.report.plots import style

    drawn = Drawn()
    with style.settings():
        for place, figure in _figures(tables, runs, drawn.messages):
            for kind, content in style.files(figure, sha256 and f"SHA-256 of results.csv: {sha256}").items():
                path = out / PLOTS / f"{place}.{kind}"
                records.write(path, content)
                drawn.files.append(path)
    for path in set(ours(out)) - set(drawn.files):
        path.unlink()
        if path.parent != out / PLOTS and not any(path.parent.iterdir()):
            path.parent.rmdir()
    return drawn


def ours(out: Path) -> list[Path]:
    """What has a name that only pictures of the leaderboard `out` have: beside them a user may keep others."""
    plots = out / PLOTS
    folders = [folder for folder in plots.glob("*") if folder.is_dir() and _PLACE.fullmatch(folder.name)]
    paths = [folder / f"{name}.{kind}" for folder in folders for name in NAMES if name != CRITICAL for kind in KINDS]
    return sorted(filter(Path.is_file, paths + [plots / f"{CRITICAL}.{kind}" for kind in KINDS]))


def _figures(tables: Sequence[Table], runs: Path, messages: list[str]) -> Iterator[tuple[str, Figure]]:
    from kdbench.report.plots import charts, critical, style

    styles = style.styles((name for table in tables for name in _expected(table)), BASELINE)
    no_folders = []
    for table, place in zip(tables, places(tables), strict=True):
        expected = _expected(table)
        if not expected:
            messages.append(f"{place}: nothing is drawn: no run has finished")
            continue
        failed = [name for name in labels(table.lines) if name not in expected]
        if failed:
            messages.append(f"{place}: left out: {', '.join(failed)}: no run has finished")
        costs, curves = series.costs(table), series.curves(table, runs)
        severities, exits = series.severities(table), series.exits(table, charts.DEPLOYED)
        if not curves.folders:
            no_folders.append(place)
        with_exits = _expected(table, exits=True)
        pictures: list[tuple[str, list[Series], Callable[[], Figure], str, list[str]]] = [
            (COST, costs.series, lambda t=table, c=costs: charts.cost(t, c, styles),  # type: ignore[misc]
             "its runs come from several devices, or from an unknown one, and have no cost.flops_training", expected),
            (CURVES, curves.series, lambda t=table, c=curves: charts.curves(t, c.series, styles),  # type: ignore[misc]
             "no run has a validation accuracy in its epochs" if curves.folders else "", expected),
            (SEVERITY, severities, lambda t=table, s=severities: charts.severity(t, s, styles),  # type: ignore[misc]
             "no run has measured corruptions", expected),
            (EXITS, exits, lambda t=table, s=exits: charts.exits(t, s, styles),  # type: ignore[misc]
             "no method has exits of which the FLOPs are known", with_exits),
        ]  # fmt: skip
        for name, found, draw, why, wanted in pictures:
            if found:
                yield f"{place}/{name}", draw()
            elif why:
                messages.append(f"{place}: {name} is not drawn: {why}")
            absent = sorted(set(wanted) - {one.label for one in found})
            if found and absent:
                messages.append(f"{place}: {name} leaves out {', '.join(absent)}: {_LACKING[name]}")
    if no_folders:
        messages.append(f"{CURVES} are left out, because no run folder is in {runs}: {', '.join(no_folders)}")
    shared = overall.overview(tables)
    if shared:
        yield CRITICAL, critical.diagram(shared)
    else:
        messages.append(f"{CRITICAL} is not drawn: no two tables share two methods")


def _expected(table: Table, exits: bool = False) -> list[str]:
    """The lines that have an accuracy, and exits too if this is asked."""
    pairs = zip(labels(table.lines), table.lines, strict=True)
    return [name for name, line in pairs if line.accuracy and (line.exits or not exits)]


def places(tables: Sequence[Table]) -> list[str]:
    """The folder of each table, such as `digits-resnet8-21286f2e`; its name is short enough for any file system."""
    found: list[str] = []
    for table in tables:
        parts = (re.sub(r"[^A-Za-z0-9._-]", "_", text)[:64] for text in (table.dataset, table.student, table.protocol))
        name = "-".join(parts).lstrip(".")
        taken = sum(other == name or other.startswith(f"{name}~") for other in found)
        found.append(f"{name}~{taken + 1}" if taken else name)
    return found
