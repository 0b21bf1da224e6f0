"""Tables → `index.html`: one file that needs no server and loads nothing, filled in by Jinja2, which escapes everything."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.errors import UserError
from kdbench.report.formats.markdown import plain
from kdbench.report.formats.page.curves import Curves
from kdbench.report.tables.cells import strips
from kdbench.report.tables.columns import Column, shown
from kdbench.report.tables.rows import Line, Row, scored
from kdbench.report.tables.sections import Section
from kdbench.report.tables.tables import Table

_MISSING = "kdbench leaderboard --html needs Jinja2 and itables: pip install 'kdbench[page]'"
try:
    import jinja2
    from markupsafe import Markup  # which comes with it
except ImportError as error:
    raise UserError(_MISSING) from error

_HERE = Path(__file__).parent
_ABOUT = {
    "#": "1 + the number of rows that are significantly better",
    "Method": "with its own parameters where they are not the usual ones",
    "Teacher": "with its accuracy on the test set, in percent",
    "n": "seeds that have finished",
}


@dataclass(frozen=True)
class Head:
    """The head of a column; `kind` are its classes, among them "down" if the first sort is from high to low."""

    title: str
    about: str
    kind: str


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it is sorted by: an exact number, "" for none; columns of text go by the text."""

    text: str
    value: str


@dataclass(frozen=True)
class Grid:
    """A table as the template takes it."""

    table: Table
    heads: list[Head]
    rows: list[list[Cell]]


def page(
    found: Sequence[Table], runs: Path, content: bytes, columns: Sequence[str] | None, sections: Sequence[Section]
) -> bytes:
    """The whole file; the same rows, run folders and columns give the same bytes.

    Args:
        runs: the folder of all runs, for their curves; of a run that is not there, there is none.
        content: of results.csv.
        columns: that the tables show; None for the default set.
        sections: what stands behind the tables.
    """
    curves = Curves(runs)
    lines = [_line(line, curves) for table in found for line in table.lines]
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    library = _library()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    text = environment.get_template("page.html").render(
        grids=[_grid(table, columns) for table in found],
        sections=sections,
        choices={
            name: sorted({getattr(table, name) for table in found} - {""}) for name in ("dataset", "student", "recipe")
        },
        rows=len(lines),
        runs=sum(len(line["runs"]) for line in lines),
        checksum=hashlib.sha256(content).hexdigest(),
        data=_script_json({"images": curves.images, "lines": lines}),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        # Nothing looser is needed: what DataTables styles, it styles through the CSSOM, which no policy is asked about.
        policy=f"default-src 'none'; style-src {_source(style)}; script-src {_source(library)} {_source(script)}; "
        "base-uri 'none'; form-action 'none'",
    )
    return text.encode()


def _library() -> str:
    """DataTables and what it needs, with the licences, as the package itables brings them: one module.

    Nothing of itables is imported: its own modules are for notebooks.
    """
    package = importlib.util.find_spec("itables")
    if package is None or package.origin is None:
        raise UserError(_MISSING)
    text = (Path(package.origin).parent / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    exported = re.search(r"\bexport ?{[^}]*?([\w$]+) as default\b", text)
    if exported is None:
        raise UserError("kdbench leaderboard --html finds no DataTables in this itables; it is known to work with 2.9")
    # In strings and regular expressions, where alone these stand, \x3c is the same to the script and nothing to HTML.
    text = re.sub(r"<(?=!--|/?script)", r"\\x3c", text, flags=re.IGNORECASE)
    return f"{text}\nwindow.DataTable = {exported[1]};\n"  # what one inline module exports, no other can import


def _grid(table: Table, names: Sequence[str] | None) -> Grid:
    texts = strips(table, names)
    columns: list[Column] = shown(names, table.lines)
    # Before the columns that one selects, a strip each, stands what tells lines apart.
    apart = texts[: len(texts) - len(columns)]
    kinds = {"Method": "name method", "Teacher": "name"}
    heads = [Head(strip.header, _ABOUT[strip.header], kinds.get(strip.header, "number")) for strip in apart]
    heads += [
        Head(column.title, column.about, "number down" if column.better == "higher" else "number") for column in columns
    ]
    rows = []
    for i, line in enumerate(table.lines):
        counts = {"#": line.rank, "n": line.accuracy.n if line.accuracy else 0}
        found = [column.value(line) if line.accuracy else None for column in columns]
        values = [counts.get(strip.header) for strip in apart] + [value and value.mean for value in found]
        rows.append(
            [
                Cell(strip.cells[i], "" if value is None else repr(value))
                for strip, value in zip(texts, values, strict=True)
            ]
        )
    return Grid(table, heads, rows)


def _line(line: Line, curves: Curves) -> dict[str, Any]:
    """What opens below a row. Keys without a value are left out: there may be thousands of runs."""
    asides = [(line.superseded, "superseded by a newer run of this seed"), (line.teachers, "made to teach")]
    runs = [_run(row, "", curves) for row in line.runs]
    runs += [_run(row, why, curves) for rows, why in asides for row in rows]
    exits = ", ".join(f"{name} {value:.2f}" for name, value in line.exits.items())
    return _told({"name": line.name, "config": line.config, "exits": exits}) | {"runs": runs}


def _run(row: Row, aside: str, curves: Curves) -> dict[str, Any]:
    commits = (row.get("provenance.commits") or row.get("provenance.commit", "")).split()
    changed = " with uncommitted changes" if row.get("provenance.clean", "").lower() == "false" else ""
    teacher = row.get("teacher.run") or row["teacher"]
    return _told(
        {
            "id": row["run"],
            "seed": row["seed"],
            "accuracy": row["accuracy.last"] if scored(row) else "",
            "error": "" if scored(row) else row["error"] or "no accuracy",
            "aside": aside,
            "teacher": f"{teacher} ({row['teacher.accuracy']} %)" if row.get("teacher.accuracy") else teacher,
            "commit": ", ".join(commit[:10] for commit in commits) + changed,
            "parameters": "" if row["method.parameters"] == "{}" else row["method.parameters"],
            "overrides": "" if row["overrides"] == "{}" else row["overrides"],
            "command": row.get("provenance.command", ""),
            "curve": curves.of(row["run"]),
        }
    )


def _told(values: dict[str, Any]) -> dict[str, Any]:
    return {key: plain(value) if isinstance(value, str) else value for key, value in values.items() if value}


def _script_json(content: object) -> Any:
    """JSON that nothing in it can end or comment out: in a script element only the characters < > & could."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _source(text: str) -> str:
    """What a content security policy calls an inline element of exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
