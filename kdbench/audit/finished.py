"""A finished run, read from its folder or from a row of the leaderboard, and the plan that trains it again. No torch here."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench.audit import diff
from kdbench.config import places, run_config
from kdbench.errors import RunError, UserError, hint, reason
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.plan.spec import Spec
from kdbench.report import records
from kdbench.report.leaderboard import CSV
from kdbench.store import ids as ids_
from kdbench.store import teachers as teachers_
from kdbench.store.folder import CONFIG, PLUGIN, RESULT, SPEC, RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """A run that has finished.

    Attributes:
        id: its id.
        result: its result.json, or the cells of its row that are not empty.
        folder: the run's folder, with its configuration; None if only a row of it exists.
    """

    id: str
    result: Mapping[str, Any]
    folder: Path | None = None


def find(word: str, runs: Path, board: Path) -> FinishedRun:
    """The finished run that a word means.

    Args:
        word: a run folder, or an id or the beginning of one, in `runs` or among the rows of the leaderboard in `board`.
        runs: the folder of all runs.
        board: the folder of the leaderboard; it need not exist.

    Raises:
        UserError: there is no such run, the word is ambiguous, or the run has not finished.
    """
    path = places.user_path(word)
    if "/" in word or (path / CONFIG).is_file():
        if not (path / CONFIG).is_file():
            raise UserError(f"'{word}' is not a run folder (it has no {CONFIG})")
        return _in_folder(path.resolve(), board)
    ids = ids_.run_ids(runs)
    id_in_runs = ids_.one(word, ids)
    if id_in_runs and _is_finished(RunFolder(runs, id_in_runs).typed_result()):
        return _in_folder(runs / id_in_runs, board)
    rows = _rows(board)
    id_in_rows = ids_.one(word, rows)
    if id_in_rows and _is_finished(rows[id_in_rows]):
        packed = _is_packed(RunFolder(runs, id_in_rows))
        return FinishedRun(id_in_rows, rows[id_in_rows], runs / id_in_rows if packed else None)
    if id_in_runs:
        return _in_folder(runs / id_in_runs, board)  # which raises: it has not finished
    if id_in_rows:
        raise UserError(f"the run '{id_in_rows}' has failed; there is nothing to reproduce")
    end = hint(ids_.nearest_run(word, [*ids, *rows]), "see all with: kdbench status --all")
    raise UserError(f"no run in {runs} and no row in {board / CSV} has an id that starts with '{word}'{end}")


def _is_finished(result: Mapping[str, Any] | None) -> bool:
    return result is not None and result.get("status") == "finished"


def _is_packed(folder: RunFolder) -> bool:
    """True if a folder is as `kdbench export` packs it: a configuration whose result is a row of the leaderboard.

    The folder of a run that is not done yet has a spec too, and its configuration may be of another machine than the row.
    """
    return (folder / CONFIG).is_file() and not any((folder / name).exists() for name in (RESULT, SPEC))


def _in_folder(path: Path, board: Path) -> FinishedRun:
    folder = RunFolder(path.parent, path.name)
    folder.check_links()
    if _is_packed(folder):
        result: Mapping[str, Any] | None = _rows(board).get(path.name)
        if result is None:
            raise UserError(
                f"the run '{path.name}' has no result yet and no row in {board / CSV}, so there is nothing to reproduce; "
                "name another leaderboard with --board"
            )
    else:
        result = _checked(folder)
    if not _is_finished(result):
        raise UserError(f"the run '{path.name}' has failed ({result.get('error')}); there is nothing to reproduce")
    return FinishedRun(path.name, result, path)


def _checked(folder: RunFolder) -> Mapping[str, Any]:
    """The result of a run's folder.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    try:
        return folder.checked(RESULT)
    except FileNotFoundError:
        raise UserError(f"the run '{folder.path.name}' has no result yet; there is nothing to reproduce") from None
    except (OSError, ValueError) as error:
        raise UserError(f"the {RESULT} of the run '{folder.path.name}' cannot be used: {reason(error)}") from None


def _rows(board: Path) -> dict[str, dict[str, str]]:
    """The rows of a leaderboard by run id, without empty cells."""
    path = board / CSV
    if not path.is_file():
        return {}
    frame, _ = records.from_csv(path.read_bytes(), str(path))
    cells = (dict(zip(frame.columns, row, strict=True)) for row in frame.to_numpy().tolist())
    return {row["run"]: {key: cell for key, cell in row.items() if cell} for row in cells}


@dataclass(frozen=True)
class Retraining:
    """The plan that trains a finished run again.

    Attributes:
        spec: the run, with the configuration and machine that it ran with, as far as they are recorded.
        changes: differences from the recorded run, a sentence each.
        teachers: the runs of its teachers, and of theirs, that its command plans now, teachers first.
    """

    spec: Spec
    changes: tuple[str, ...]
    teachers: tuple[Spec, ...]


def retraining(run: FinishedRun, runs: Path | None = None) -> Retraining:
    """Plan a finished run again: its command as it resolves now, with the values that it ran with.

    Args:
        runs: where `teacher=RUN` of its command is looked up; by default the folder that the run lies in.

    Raises:
        UserError: its command does not resolve here, or its configuration does not parse.
        RunError: only its row exists, and its command resolves to another run now.
    """
    runs = runs or (run.folder.parent if run.folder else None)
    specs = _planned(run, runs)
    (planned,) = (spec for spec in specs if not spec.is_teacher)
    teachers = tuple(spec for spec in specs if spec.is_teacher)
    now = run_config.parse(planned.config, planned.id).values
    changes: tuple[str, ...] = ()
    if run.folder is None:
        if planned.id != run.id:
            raise RunError(_changed_row(run, planned))
        recorded: Mapping[str, Any] = _machine_in(run.result)
    else:
        config = run_config.read(run.folder / CONFIG)
        recorded, changes = config.values, _changes(run, run.folder, planned)
        if planned.id != run.id:
            planned = replace(_with_identity(planned, run), config=run_config.write(config.values))
    # Values that do not affect the result. One that the run's kdbench did not have yet takes today's value.
    machine = {key: recorded.get(key, value) for key, value in now.items() if key.startswith(("Machine.", "Measures."))}
    if machine["Machine.threads"] == 0 and (threads := _whole(run.result, "provenance.threads")):
        machine["Machine.threads"] = threads  # the number that torch chose then
    machine["Machine.log"] = ""
    spec = with_machine(planned, machine)
    # Refuses, before anything starts, what a stored configuration must not hold.
    run_config.trainable(spec.config, spec.id, spec.source)
    return Retraining(spec, changes, teachers)


def _whole(result: Mapping[str, Any], key: str) -> int | None:
    """The positive integer in an entry of a result or a cell of a row; None without one."""
    try:
        value = int(str(result.get(key, "")))
    except ValueError:
        return None
    return value if 0 < value < 2**31 else None


def _machine_in(result: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `Machine` that a row records."""
    recorded: dict[str, Any] = {"Machine.gpus": _whole(result, "provenance.gpus") or 1}
    for name in ("compile", "deterministic"):
        if f"provenance.{name}" in result:
            recorded[f"Machine.{name}"] = str(result[f"provenance.{name}"]) == "True"
    if result.get("provenance.compile_mode") == "reduce-overhead":
        recorded["Machine.compile"] = "reduce-overhead"
    return recorded


def with_machine(spec: Spec, machine: Mapping[str, Any]) -> Spec:
    """This run, planned for another machine.

    Args:
        machine: values by key. They replace all values of the configurables that they name; "Machine.device" and
            "Machine.gpus" must be among them.
    """
    replaced = {key.partition(".")[0] for key in machine}
    values = run_config.parse(spec.config, spec.id).values
    kept = {key: value for key, value in values.items() if key.partition(".")[0] not in replaced}
    config = run_config.write({**kept, **machine})
    return replace(spec, config=config, gpus=machine["Machine.gpus"], device=machine["Machine.device"])


def _planned(run: FinishedRun, runs: Path | None) -> list[Spec]:
    """The plan of the run's command: the run and, where it needs any, its teachers'."""
    command = str(run.result.get("provenance.command", ""))
    try:
        request = request_.parse(_words(command))
        specs = expand.plan(request, teachers_.finder(runs) if runs else None)
    except (UserError, ValueError) as error:
        raise UserError(f"the command of the run '{run.id}' cannot be resolved here: {error}{_remedy(run)}") from None
    if not command or sum(not spec.is_teacher for spec in specs) != 1:
        raise UserError(f"the run '{run.id}' does not record the command that produced it")
    return specs


def _words(command: str) -> list[str]:
    """The selections and bindings of a stored command.

    A word without "=" belongs to the one before it: earlier versions did not quote the path of a teacher.

    Raises:
        ValueError: a quote in it is not closed.
    """
    words: list[str] = []
    for word in itertools.takewhile(lambda each: each != "--plugins", shlex.split(command)[2:]):
        if "=" in word or not words:
            words.append(word)
        else:
            words[-1] += f" {word}"
    return words


def _remedy(run: FinishedRun) -> str:
    """The end of a sentence about a command that does not resolve: where its files are, or the commit it ran at."""
    own = run.result.get("provenance.own_files")
    if own and run.folder and (run.folder / PLUGIN).is_dir():
        folder = shlex.quote(str(run.folder / PLUGIN))
        return f"; the run has files of its own ({own}), which are stored with it: pass --plugins {folder}"
    if own:
        return f"; the run has files of its own ({own}): pass their folder with --plugins DIR"
    commit = run.result.get("provenance.commit")
    return f"; it ran at commit {commit}" if commit else ""


def _changes(run: FinishedRun, folder: Path, planned: Spec) -> tuple[str, ...]:
    """Differences of the stored values from those that the run's command resolves to now, a sentence each."""
    differences = [
        difference
        for difference in diff.compare(diff.of_run("stored", folder, run.result), diff.of_spec("now", planned))
        if difference.owner not in (diff.MACHINE, diff.MEASURES)
        and difference.parameter != "protocol"  # which follows from the others
    ]
    sentences = [f"{each.parameter} was {each.a} and is now {each.b}" for each in differences]
    if planned.id == run.id:
        values = [sentence for sentence in sentences if "." in sentence.partition(" ")[0]]
        edited = (
            f"the {CONFIG} of '{run.id}' was edited after the run; kdbench trains the configuration that its id and "
            "command stand for"
        )
        return (edited, *values) if values else ()
    other = f"the command of '{run.id}' now resolves to another run, {planned.id}; kdbench trains the stored one"
    equal = "no value differs, but the version of the results or the teacher does"
    return (other, *(sentences or [equal]))


def _changed_row(run: FinishedRun, planned: Spec) -> str:
    same = run.result["protocol"] == planned.protocol
    what = "the method's own values, or its teacher," if same else "values that all methods share"
    commit = run.result.get("provenance.commit")
    remedy = f"; check out commit {commit}" if commit else ""
    return (
        f"the command of the row '{run.id}' now resolves to another run ({planned.id}), because {what} have changed, "
        f"and without its folder the values it ran with are unknown{remedy}"
    )


def _with_identity(planned: Spec, run: FinishedRun) -> Spec:
    """`planned` under the id, protocol, teacher and overrides that the finished run has recorded.

    Raises:
        UserError: the result does not record them, or not as kdbench does.
    """
    result = run.result
    recorded = {
        "id": run.id,
        "protocol": result.get("protocol"),
        "recipe": result.get("recipe"),
        "teacher": result.get("teacher"),
        "teacher_runs": str(result["teacher.run"]).split(",") if result.get("teacher.run") else [],
        "overrides": _object(run, "overrides"),
        "own_overrides": _object(run, "method.parameters"),
        "control": _object(run, "control"),
    }
    return Spec.from_plain({**planned.plain(), "teacher_folders": {}, **recorded})


def _object(run: FinishedRun, key: str) -> Any:
    """The JSON object that an entry of a result holds as text."""
    try:
        return json.loads(run.result.get(key) or "{}")
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"the result of the run '{run.id}' has no readable '{key}'") from None
