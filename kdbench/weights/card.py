"""The model card of a student: Markdown with the front matter that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kdbench.errors import UserError
from kdbench.report import folders, records
from kdbench.report.formats.markdown import code, escape
from kdbench.report.stats.intervals import Interval
from kdbench.report.tables import tables
from kdbench.report.tables.rows import Row
from kdbench.run import checkpoint, student_file
from kdbench.run.student_facts import Facts
from kdbench.store.folder import CHECKPOINT, RunFolder
from kdbench.words import count, shortest

_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")


class Line(NamedTuple):
    """A run's line of its table: the runs of the same protocol, method, values and teacher in the same folder.

    Attributes:
        row: the line.
        baseline: the method that its difference is taken from.
        counts: the run is one of those behind the mean.
    """

    row: Row
    baseline: str
    counts: bool


def check_license(name: str | None) -> None:
    """Refuse what cannot be the identifier of a licence.

    Raises:
        UserError: it has other characters than those of identifiers such as apache-2.0.
    """
    if name is not None and not _LICENSE.fullmatch(name):
        raise UserError(f"--license takes an identifier such as mit, apache-2.0 or cc-by-4.0, not '{name}'")


def text(folder: RunFolder, facts: Facts, license: str | None = None, file: str | None = None) -> str:
    """The model card of a finished run.

    The interval is over the seeds of the run's line in its folder of runs, and there is none for a single seed.

    Args:
        facts: those of its student.
        license: identifier of the licence of the weights; without one the card names none.
        file: name of the file with the weights next to the card, for the example.

    Raises:
        UserError: the run has not finished.
    """
    result = student_file.finished(folder)
    sections = {
        "Results": _results(folder, result, facts),
        "Use": _use(facts, file),
        "Data": _data(result, facts),
        "Teacher": _teacher(result),
        "Method": _method(folder, result),
        "Cost": _cost(result),
        "Reproducing it": _reproducing(result, facts),
    }
    title = f"{escape(facts.student)} trained with {escape(facts.method)} on {escape(facts.dataset)}"
    intro = (
        f"An image classifier of {facts.classes} classes: the student of the run {code(facts.run)} of kdbench, which compares "
        "knowledge-distillation methods under one protocol."
    )
    body = "\n".join(f"\n## {heading}\n\n{content}" for heading, content in sections.items())
    return f"{_front_matter(facts, license)}\n# {title}\n\n{intro}\n{body}\n"


def _front_matter(facts: Facts, license: str | None) -> str:
    """YAML, of which JSON is a part."""
    entries: dict[str, Any] = {
        "license": license,
        "library_name": "kdbench",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "kdbench", facts.method, facts.student],
        "datasets": [facts.dataset],
        "metrics": ["accuracy"],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items() if value is not None]
    return "\n".join(["---", *lines, "---", ""])


def _table(rows: Mapping[str, str | None]) -> str:
    """A Markdown table of two columns, without rows that have no value; cells are Markdown."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items() if value)])


def _results(folder: RunFolder, result: Mapping[str, Any], facts: Facts) -> str:
    own = f"Top-1 accuracy of these weights on the test set, after the last epoch: **{facts.accuracy:.2f} %**."
    line = line_of(folder, result)
    if line is None:
        return f"{own} The results of its runs were not available, so this card gives no interval."
    row, runs = line.row, count(len(line.row.finished), "run")
    seeds = ", ".join(map(str, row.by_seed))
    if row.accuracy is None or row.accuracy.half_width is None:
        over = f"n = 1 (seed {seeds}): one run gives no interval."
    else:
        over = (
            f"Over {runs} of the same protocol, method, values and teacher (seeds {seeds}): **{_interval(row.accuracy)} %**, "
            "the mean ± the half-width of its 95 % t interval. The mean, and not this seed, is what to compare."
        )
    difference = row.difference
    if difference is not None and difference.half_width is not None:
        over += (
            f" Difference from {escape(line.baseline)}, paired by seed: {_interval(difference, sign='+')} points"
            f"{f' (p = {row.p:.3f}, Holm-corrected)' if row.p is not None else ''}."
        )
    if not line.counts:
        over += " This run is not among them: a later one of its seed replaced it, or it was trained as a teacher."
    if result.get("selected_on_test"):
        over += " The test set was measured after every epoch (`Selection.on_test`), so it was not held out."
    return f"{own} {over}"


def line_of(folder: RunFolder, result: Mapping[str, Any]) -> Line | None:
    """The line of a run in the table of its protocol, made of the results in its folder of runs; None if it is in none."""
    frame = records.frame(folders.read_runs(folder.path.parent).results)
    run = folder.path.name
    if run not in set(frame.get("run", ())):
        return None
    same = frame[(frame["protocol"] == result["protocol"]) & (frame["dataset"] == result["dataset"])]
    for table in tables.tables(same):
        for row in table.rows:
            if any(record["run"] == run for record in (*row.runs, *row.superseded, *row.teachers)):
                return Line(row, table.baseline, any(record["run"] == run for record in row.runs))
    return None


def _interval(interval: Interval, sign: str = "") -> str:
    return f"{interval.mean:{sign}.2f} ± {interval.half_width:.2f}"


def _use(facts: Facts, file: str | None) -> str:
    channels, height, width = facts.image_shape
    shape = f"float32 pixels in 0..1 of shape (B, {channels}, {height}, {width}) to logits (B, {facts.classes})"
    if file is None:
        return f"The network takes {shape}; the file's metadata have its normalisation."
    return f'```python\nimport kdbench\n\nstudent = kdbench.load_student("{file}")  # {shape}\n```'


def _data(result: Mapping[str, Any], facts: Facts) -> str:
    names = ", ".join(map(escape, facts.class_names[:20])) + (", …" if len(facts.class_names) > 20 else "")
    return _table(
        {
            "Dataset": escape(facts.dataset),
            "Classes": f"{facts.classes}{f': {names}' if names else ''}",
            "Images": "×".join(map(str, facts.image_shape)) + " (channels, height, width)",
            "Mean, standard deviation": f"{_numbers(facts.mean)}; {_numbers(facts.std)}, for pixels in 0..1",
            "Checksum of images and labels": code(str(result.get("data.sha256") or "not recorded")),
        }
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _teacher(result: Mapping[str, Any]) -> str:
    if not result.get("teacher"):
        return "None: the method has no teacher."
    accuracy = result.get("teacher.accuracy")
    return _table(
        {
            "Teacher": escape(str(result["teacher"])),
            "Accuracy on the test set": f"{accuracy:.2f} %" if accuracy is not None else None,
            "Run": code(result["teacher.run"]) if result.get("teacher.run") else "weights from outside",
            "Checksum of its weights": code(result["teacher.sha256"]) if result.get("teacher.sha256") else None,
            "Doubt": escape(result["teacher.doubt"]) if result.get("teacher.doubt") else None,
        }
    )


def _method(folder: RunFolder, result: Mapping[str, Any]) -> str:
    parameters = checkpoint.load(folder / CHECKPOINT).get("method", {}).get("parameters", {})
    values = {escape(name): escape(str(shortest(value))) for name, value in sorted(parameters.items())}
    recipe = escape(str(result.get("recipe")))
    if (changed := result.get("overrides") or "{}") != "{}":
        recipe += f", changed: {code(changed)}"
    trials = result.get("tuning.trials")
    return _table(
        {
            "Method": escape(str(result["method"])),
            **values,
            "Recipe": recipe,
            "Protocol": code(str(result["protocol"])),
            "Seed": str(result["seed"]),
            "Tuning": f"{count(trials, 'trial')} chose these values" if trials else None,
        }
    )


def _cost(result: Mapping[str, Any]) -> str:
    entries = {
        "Parameters": ("cost.parameters", "{:,}"),
        "FLOPs of one image": ("cost.flops", "{:,}"),
        "Images seen in training": ("images_seen", "{:,}"),
        "Training time": ("seconds.train", "{:,.1f} s"),
        "Energy of the GPUs": ("cost.energy_joules", "{:,.0f} J"),
        "Device": ("provenance.device", "{}"),
    }
    return _table(
        {name: escape(form.format(result[key])) for name, (key, form) in entries.items() if result.get(key) is not None}
    )


def _reproducing(result: Mapping[str, Any], facts: Facts) -> str:
    versions = [
        f"{name} {result[key]}" for name in ("kdbench", "torch", "python") if result.get(key := f"provenance.{name}")
    ]
    commit, clean = result.get("provenance.commit"), result.get("provenance.clean")
    lines = [
        f"    {result.get('provenance.command') or 'the run did not record its command'}",
        "",
        f"{', '.join(map(escape, versions))}"
        + (f"; commit {code(commit)}{'' if clean else ', with uncommitted changes'}" if commit else "")
        + f". {code(f'kdbench reproduce {facts.run}')} retrains the run and compares the weights.",
    ]
    return "\n".join(lines)
