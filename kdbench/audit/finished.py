"""A finished run as it is stored, in its folder or as a row of the leaderboard, and what trains it again. No torch here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench.audit import diff
from kdbench.errors import RunError, UserError
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.plan.spec import Spec
from kdbench.report import records
from kdbench.report.leaderboard import CSV
from kdbench.store import ids as ids_
from kdbench.store.folder import CONFIG, RESULT, SPEC, RunFolder
from kdbench.store.ids import run_ids


@dataclass(frozen=True)
class Stored:
    """A finished run.

    Attributes:
        id: its own.
        result: its result.json, or the cells of its row that are not empty.
        folder: of the run, with its configuration; None for a row alone.
    """

    id: str
    result: Mapping[str, Any]
    folder: Path | None = None


def find(word: str, runs: Path, board: Path) -> Stored:
    """The finished run that a word means.

    Args:
        word: a run folder, or an id or its beginning, in `runs` or among the rows of the leaderboard in `board`.

    Raises:
        UserError: there is none, there are several, or it has not finished.
    """
    path = Path(word).expanduser()
    if "/" in word or (path / CONFIG).is_file():
        if not (path / CONFIG).is_file():
            raise UserError(f"'{word}' is no run folder: there is no {CONFIG} in it")
        return _of_folder(path.resolve(), board)
    ids = run_ids(runs)
    run = ids_.one(word, ids)
    if run and _finished(RunFolder(runs, run).result()):
        return _of_folder(runs / run, board)
    rows = _rows(board)
    row = ids_.one(word, rows)
    if row and _finished(rows[row]):
        return Stored(row, rows[row], runs / row if _is_packed(RunFolder(runs, row)) else None)
    if run:
        return _of_folder(runs / run, board)  # which says why it cannot be had
    if row:
        raise UserError(f"the run '{row}' has failed; there is nothing to reproduce")
    guess = ids_.nearest_run(word, [*ids, *rows])
    hint = f"did you mean '{guess}'? " if guess else ""
    raise UserError(
        f"'{word}' begins the id of no run in {runs} and of no row in {board / CSV}; {hint}"
        "See all with: kdbench status --all"
    )


def _finished(result: Mapping[str, Any] | None) -> bool:
    return result is not None and result.get("status") == "finished"


def _is_packed(folder: RunFolder) -> bool:
    """Whether this is how `kdbench export` packs a run: with its configuration, and without what is only its row's to tell.

    In a run that is still to be done there is a spec too, and its configuration may be of another machine than the row.
    """
    return (folder / CONFIG).is_file() and not any((folder / name).exists() for name in (RESULT, SPEC))


def _of_folder(path: Path, board: Path) -> Stored:
    folder = RunFolder(path.parent, path.name)
    result: Mapping[str, Any] | None = folder.result()
    if _is_packed(folder):
        result = _rows(board).get(path.name)
        if result is None:
            raise UserError(
                f"the run '{path.name}' has no result yet, and there is no row of it in {board / CSV} (--board names "
                "another leaderboard); there is nothing to reproduce"
            )
    if result is None:
        raise UserError(f"the run '{path.name}' has no result yet; there is nothing to reproduce")
    if not _finished(result):
        raise UserError(f"the run '{path.name}' has failed ({result.get('error')}); there is nothing to reproduce")
    return Stored(path.name, result, path)


def _rows(board: Path) -> dict[str, dict[str, str]]:
    path = board / CSV
    if not path.is_file():
        return {}
    frame, _ = records.from_csv(path.read_bytes(), str(path))
    cells = (dict(zip(frame.columns, row, strict=True)) for row in frame.to_numpy().tolist())
    return {row["run"]: {key: cell for key, cell in row.items() if cell} for row in cells}


@dataclass(frozen=True)
class Again:
    """What trains a stored run once more.

    Attributes:
        spec: with the stored configuration and machine, as far as they are known.
        remarks: what is different now, a sentence each.
        teacher: its teacher's run, as the command means it now; None without one.
    """

    spec: Spec
    remarks: tuple[str, ...]
    teacher: Spec | None


def again(stored: Stored) -> Again:
    """What its command means now, with the values that it ran with.

    Raises:
        UserError: its command means nothing here.
        RunError: it is known by its row alone, and its command means another run now.
    """
    specs = _planned(stored)
    (planned,) = (spec for spec in specs if not spec.is_teacher)
    teacher = next((spec for spec in specs if spec.id == planned.teacher_run), None)
    now = bindings(planned.config)
    remarks: tuple[str, ...] = ()
    if stored.folder is None:
        if planned.id != stored.id:
            raise RunError(_changed_row(stored, planned))
        then = {"Machine.gpus": stored.result.get("provenance.gpus", "1")}
    else:
        text = (stored.folder / CONFIG).read_text(encoding="utf-8")
        then, remarks = bindings(text), _changed(stored, stored.folder, planned)
        if planned.id != stored.id:
            planned = replace(_as_stored(planned, stored), config=text)
    # What stands apart from the result; of what an older kdbench did not have, the values of now.
    machine = {key: then.get(key, value) for key, value in now.items() if key.startswith(("Machine.", "Measures."))}
    if machine["Machine.threads"] == "0" and stored.result.get("provenance.threads"):
        machine["Machine.threads"] = str(stored.result["provenance.threads"])  # what torch chose then
    machine["Machine.log"] = "''"
    return Again(with_machine(planned, machine), remarks, teacher)


def bindings(text: str) -> dict[str, str]:
    """The lines of a resolved configuration by key, values as they are written."""
    pairs = (line.partition(" = ") for line in text.splitlines() if line and not line.startswith("#"))
    return {key: value for key, equals, value in pairs if equals}


def with_machine(spec: Spec, machine: Mapping[str, str]) -> Spec:
    """The same run on another machine: with these lines in the place of all of the same configurables."""
    replaced = ("# kdbench run", *(f"{key.partition('.')[0]}." for key in machine))
    kept = [line for line in spec.config.splitlines() if not line.startswith(replaced)]
    lines = [*"\n".join(kept).strip().splitlines(), *(f"{key} = {machine[key]}" for key in sorted(machine))]
    device = machine["Machine.device"].strip("'\"")
    return replace(spec, config="\n".join(lines) + "\n", gpus=int(machine["Machine.gpus"]), device=device)


def _planned(stored: Stored) -> list[Spec]:
    command = str(stored.result.get("provenance.command", ""))
    try:
        words = shlex.split(command)[2:]
        request = request_.parse([word for word in words if "=" in word])
        specs = expand.plan(request)
    except (UserError, ValueError) as error:
        commit = stored.result.get("provenance.commit")
        at = f"; it ran at commit {commit}" if commit else ""
        raise UserError(f"the command of the run '{stored.id}' means nothing here: {error}{at}") from None
    if not command or sum(not spec.is_teacher for spec in specs) != 1:
        raise UserError(f"the run '{stored.id}' does not say which command makes it")
    return specs


def _changed(stored: Stored, folder: Path, planned: Spec) -> tuple[str, ...]:
    """How the stored values differ from those that the command means now, a sentence each."""
    differences = [
        each
        for each in diff.compare(diff.of_run("stored", folder, stored.result), diff.of_spec("now", planned))
        if each.whose not in (diff.MACHINE, diff.MEASURES)
        and each.parameter != "protocol"  # which follows from the others
    ]
    found = [f"{each.parameter} was {each.a} and is {each.b} now" for each in differences]
    if planned.id == stored.id:
        values = [each for each in found if "." in each.partition(" ")[0]]
        edited = (
            f"{CONFIG} of '{stored.id}' is not what it ran with; what is trained is what its id and command stand for"
        )
        return (edited, *values) if values else ()
    other = f"the command of '{stored.id}' means another run now, {planned.id}; what is trained is the stored one"
    equal = "no value differs, but the version of the results or the teacher does"
    return (other, *(found or [equal]))


def _changed_row(stored: Stored, planned: Spec) -> str:
    same = stored.result["protocol"] == planned.protocol
    what = "the method's own values, or its teacher," if same else "values that all methods share"
    commit = stored.result.get("provenance.commit")
    where = f"; check out commit {commit}" if commit else ""
    return (
        f"the command of the row '{stored.id}' means another run now ({planned.id}), because {what} have changed, "
        f"and without its folder the values it ran with are not known{where}"
    )


def _as_stored(planned: Spec, stored: Stored) -> Spec:
    result = stored.result
    return replace(
        planned,
        id=stored.id,
        protocol=result["protocol"],
        recipe=result["recipe"],
        teacher=result.get("teacher"),
        teacher_run=result.get("teacher.run"),
        overrides=json.loads(result["overrides"]),
        own_overrides=json.loads(result["method.parameters"]),
        control=json.loads(result.get("control") or "{}"),
    )
