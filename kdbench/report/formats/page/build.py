"""Tables → `index.html`: one file that needs no server and loads nothing, filled in by Jinja2, which escapes everything."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.errors import UserError
from kdbench.measures.convergence import Point
from kdbench.report.formats.page.curves import Curves
from kdbench.report.records import Record, is_contradicted, scored
from kdbench.report.tables.cells import cells, legend
from kdbench.report.tables.columns import Column, shown
from kdbench.report.tables.origins import label
from kdbench.report.tables.rows import Row, commits, release
from kdbench.report.tables.sections import Section
from kdbench.report.tables.tables import Table
from kdbench.words import nine_digits, printable

_MISSING = "kdbench leaderboard --html needs Jinja2 and itables: pip install 'kdbench[page]'"
try:
    import jinja2
    from markupsafe import Markup  # which comes with it
except ImportError as error:
    raise UserError(_MISSING) from error

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Head:
    """The head of a column; `kind` are its classes, among them "down" if the first sort is from high to low."""

    title: str
    about: str
    kind: str


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and its sort key: a number of nine digits, "" for none; columns of text are sorted by the text."""

    text: str
    value: str


@dataclass(frozen=True)
class Grid:
    """A table for the template; `teachers` has the teacher of each row, and is empty in a table without any."""

    table: Table
    heads: list[Head]
    rows: list[list[Cell]]
    teachers: list[str]


def page(
    tables: Sequence[Table],
    curve: Callable[[str], Sequence[Point]],
    content: bytes,
    columns: Sequence[str] | None,
    sections: Sequence[Section],
) -> bytes:
    """The whole file; the same records, curves and columns give the same bytes.

    Args:
        curve: gives the validation curve of a run by its id; empty without one.
        content: content of results.csv.
        columns: columns of the tables; None for the default set.
        sections: follow after the tables.
    """
    curves = Curves(curve)
    rows = [_row(row, curves) for table in tables for row in table.rows]
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    library = _library()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    text = environment.get_template("page.html").render(
        grids=[_grid(table, columns) for table in tables],
        sections=sections,
        legend=legend(tables, columns),
        choices={
            name: sorted({getattr(table, name) for table in tables} - {""}) for name in ("dataset", "student", "recipe")
        },
        rows=len(rows),
        runs=sum(len(row["runs"]) for row in rows),
        checksum=hashlib.sha256(content).hexdigest(),
        data=_script_json({"images": curves.images, "rows": rows}),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        # Nothing looser is needed: what DataTables styles, it styles through the CSSOM, which no policy is asked about.
        policy=f"default-src 'none'; style-src {_source(style)}; script-src {_source(library)} {_source(script)}; "
        "base-uri 'none'; form-action 'none'",
    )
    return text.encode()


def _library() -> str:
    """DataTables and its dependencies, with the licences, as bundled in the package itables: one module.

    Nothing of itables is imported: its own modules are for notebooks.
    """
    package = importlib.util.find_spec("itables")
    if package is None or package.origin is None:
        raise UserError(_MISSING)
    text = (Path(package.origin).parent / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    exported = re.search(r"\bexport ?{[^}]*?([\w$]+) as default\b", text)
    if exported is None:
        raise UserError("kdbench leaderboard --html found no DataTables in this version of itables; version 2.9 works")
    # In strings and regular expressions, where alone these stand, \x3c is the same to the script and nothing to HTML.
    text = re.sub(r"<(?=!--|/?script)", r"\\x3c", text, flags=re.IGNORECASE)
    return f"{text}\nwindow.DataTable = {exported[1]};\n"  # what one inline module exports, no other can import


def _grid(table: Table, names: Sequence[str] | None) -> Grid:
    texts = cells(table, names)
    columns: list[Column] = shown(names, table.rows, table.baseline)
    # The columns that one selects follow on those that every table has.
    always = texts[: len(texts) - len(columns)]
    kinds = {"Method": "name method", "Teacher": "name teacher"}
    heads = [Head(each.header, each.about, kinds.get(each.header, "number")) for each in always]
    heads += [
        Head(column.title, column.about, "number down" if column.better == "higher" else "number") for column in columns
    ]
    rows = []
    for i, row in enumerate(table.rows):
        counts = {"#": row.rank, "n": row.accuracy.n if row.accuracy else 0}
        measured = [column.value(row) if row.accuracy else None for column in columns]
        values = [counts.get(each.header) for each in always] + [value and value.mean for value in measured]
        rows.append([Cell(each.texts[i], _sort_key(value)) for each, value in zip(texts, values, strict=True)])
    teachers = next((each.texts for each in always if each.header == "Teacher"), [])
    return Grid(table, heads, rows, teachers)


def _sort_key(value: float | None) -> str:
    if value is None:
        return ""
    return repr(nine_digits(value) if isinstance(value, float) else value)


def _row(row: Row, curves: Curves) -> dict[str, Any]:
    """The details that open below a row. Keys without a value are left out: there may be thousands of runs."""
    asides = [(row.superseded, "superseded by a newer run of this seed"), (row.teachers, "trained as a teacher")]
    runs = [_run(record, "", curves) for record in row.runs]
    runs += [_run(record, why, curves) for records, why in asides for record in records]
    exits = ", ".join(f"{name} {value:.2f}" for name, value in row.exits.items())
    return _without_empty({"name": row.name, "config": row.config, "exits": exits}) | {"runs": runs}


def _run(record: Record, aside: str, curves: Curves) -> dict[str, Any]:
    code = [*(commit[:10] for commit in commits(record)), *filter(None, [release(record)])]
    changed = " with uncommitted changes" if record.get("provenance.clean", "").lower() == "false" else ""
    teacher = record.get("teacher.run") or record["teacher"]
    return _without_empty(
        {
            "id": record["run"],
            "seed": record["seed"],
            "accuracy": record["accuracy.last"] if scored(record) else "",
            "error": "" if scored(record) else record["error"] or ("" if is_contradicted(record) else "no accuracy"),
            "aside": aside,
            "origin": label(record),
            "teacher": f"{teacher} ({record['teacher.accuracy']} %)" if record.get("teacher.accuracy") else teacher,
            "commit": ", ".join(code) + changed,
            "parameters": "" if record["method.parameters"] == "{}" else record["method.parameters"],
            "overrides": "" if record["overrides"] == "{}" else record["overrides"],
            "command": record.get("provenance.command", ""),
            "curve": curves.of(record["run"]),
        }
    )


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: printable(value) if isinstance(value, str) else value for key, value in values.items() if value}


def _script_json(content: object) -> Any:
    """JSON for a script element, in which only the characters < > & could end or comment out the content."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _source(text: str) -> str:
    """The source expression of a content security policy for an inline element of exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
