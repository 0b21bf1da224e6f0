"""Finished runs as teachers: what `teacher=RUN` stands for."""

from __future__ import annotations

from pathlib import Path

from kdbench.config import places, run_config
from kdbench.errors import UserError
from kdbench.plan.spec import TeacherRun
from kdbench.plan.teachers import FindRun
from kdbench.store import ids
from kdbench.store.folder import CONFIG, RESULT, RunFolder


def finder(runs: Path) -> FindRun:
    """Looks up what a word of `teacher=` stands for: an id or the beginning of one in `runs`, or the folder of a run."""

    def find(word: str) -> TeacherRun | None:
        path = places.user_path(word)
        if ("/" in word or (path / CONFIG).is_file()) and path.resolve().parent != runs.resolve():
            return _in(path.resolve(), str(path.resolve()))
        id_ = ids.one(ids.run_name(word, runs), every := ids.run_ids(runs))
        if id_ is None:
            if "-" in word:  # as in ids, and in no name of a backbone
                raise ids.no_run(word, every, runs)
            return None
        return _in(runs / id_, None)

    return find


def _in(path: Path, folder: str | None) -> TeacherRun:
    run = RunFolder(path.parent, path.name)
    if folder:
        run.check_links()
    if not (run / CONFIG).is_file():
        raise UserError(f"'{folder or path.name}' is not a run folder (it has no {CONFIG})")
    if (state := run.state()) != "finished":
        raise UserError(f"the run {path.name} cannot teach: it is {'not finished' if state == 'absent' else state}")
    result = run.typed_result()
    if "method" not in result or "student" not in result:
        raise UserError(f"the run {path.name} cannot teach: its {RESULT} lacks the method or the student")
    source = run_config.read(run / CONFIG).values.get("Dataset.source")
    if not isinstance(source, str):
        raise UserError(f"the run {path.name} cannot teach: its {CONFIG} lacks Dataset.source")
    return TeacherRun(path.name, result["method"], result["student"], source, folder)
