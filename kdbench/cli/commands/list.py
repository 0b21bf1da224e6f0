"""`kdbench list`: the names that can be selected."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdbench.errors import unknown

KINDS = ("methods", "students", "datasets", "recipes", "sweeps", "clusters", "columns")

SUMMARY = "list the names that can be selected"
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
        for name, description in members(each):
            table.add_row(name, description)
        console().print(table)
        if not kind:
            print()
    return 0


def members(kind: str) -> list[tuple[str, str]]:
    """The names of a kind, each with a description of one line, which may be empty."""
    from kdbench.backbones import registry
    from kdbench.config import places

    if kind == "students":
        return [(name, "") for name in registry.NAMES]
    if kind == "columns":
        from kdbench.report.tables.columns import COLUMNS

        return [(column.name, f"{column.title.replace('{}', '…')}: {column.about}") for column in COLUMNS]
    group = {plural: group for group, plural in places.GROUPS.items()}[kind]
    return [(name, _description(group, name, path)) for name, path in sorted(places.members(group).items())]


def _description(group: str, name: str, path: Path) -> str:
    from kdbench.config import resolve, signature

    if group == "method" and not resolve.is_variant(name):
        method = signature.of_method(name)
        return method.summary + (" [teacher]" if method.attributes.get("needs_teacher") else "")
    return path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip()
