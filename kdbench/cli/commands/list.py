"""`kdbench list`: the names that can be selected."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdbench.cli.printing import print_text
from kdbench.errors import UserError, unknown

KINDS = (
    "methods", "controls", "students", "datasets", "readers", "recipes", "sweeps", "measures", "columns", "launchers",
    "clusters",
)  # fmt: skip

SUMMARY = "list the names that can be selected, and where each comes from"
DETAILS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind", nargs="?", metavar="KIND", help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]} (default: all)"
    )


def run(arguments: argparse.Namespace) -> int:
    from rich.table import Table

    from kdbench.cli.console import console

    kind = arguments.kind
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    for each in [kind] if kind else KINDS:
        table = Table(title=None if kind else each, title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(style="dim", no_wrap=False)
        table.add_column(style="dim", no_wrap=True)
        for heading, rows in _sections(each).items():
            if heading:
                table.add_row(heading, style="bold")
            for row in rows:
                table.add_row(*row)
        console().print(table)
        if not kind:
            print_text()
    return 0


def _sections(kind: str) -> dict[str, list[tuple[str, str, str]]]:
    """The rows of `members` by heading: methods by the word that selects their family, all others under ""."""
    if kind != "methods":
        return {"": members(kind)}
    from kdbench.config import about, defects, places

    rows = {row[0]: row for row in members(kind)}
    unusable = defects.of_methods()
    usable = [name for name in rows if name in places.members("method") and name not in unusable]
    sections = {
        f"{about.PREFIX}{family}": [rows.pop(name) for name in names]
        for family, names in about.families(usable).items()
    }
    return {**sections, **({"left out": list(rows.values())} if rows else {})}


def members(kind: str) -> list[tuple[str, str, str]]:
    """The names of a kind, each with a description of one line and where it comes from (see `places.roots`)."""
    from kdbench.config import defects, extensions, places

    if kind == "columns":
        return _columns()
    for each, facts in extensions.KINDS.items():
        if facts.plural == kind:
            left_out = [
                (path.name, _unusable(reason), places.origin(path)) for path, reason in extensions.broken(each).items()
            ]
            return [*((e.name, e.summary, e.origin) for e in extensions.members(each).values()), *left_out]
    group = {plural: group for group, plural in places.GROUPS.items()}[kind]
    paths, unusable = places.members(group), {}
    if group in ("method", "control"):
        unusable = defects.of_methods()
    if group == "method":
        every = {**places.sources(), **paths}
        paths = {name: path for name, path in every.items() if name not in places.members("control")}
    rows = [
        (name, _unusable(unusable[name]) if name in unusable else _description(group, name, path), places.origin(path))
        for name, path in sorted(paths.items())
    ]
    return rows + [(path.name, _unusable(why), places.origin(path)) for path, why in places.misnamed(group).items()]


def _unusable(reason: str) -> str:
    return f"cannot be used: {reason}"


def _columns() -> list[tuple[str, str, str]]:
    from kdbench.report.tables import columns

    try:
        every = columns.every()
    except UserError as error:  # of a measure's declarations
        return [("–", _unusable(str(error)), "")]
    return [(column.name, f"{column.title.replace('{}', '…')}: {column.about}", "") for column in every]


def _description(group: str, name: str, path: Path) -> str:
    from kdbench.config import bindings, signature

    if group == "method" and not bindings.is_variant(name):
        method = signature.of_method(name)
        return method.summary + (" [teacher]" if method.attributes.get("needs_teacher") else "")
    return path.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].removeprefix("#").strip()
