"""Which runs of a plan are still to be done, and their folders made ready for whichever process does them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench.config import places
from kdbench.plan.spec import Spec
from kdbench.store.folder import RunFolder


def open_runs(specs: Sequence[Spec], runs: Path, rerun: bool = False) -> list[Spec]:
    """The specs that are to be done, in order.

    A teacher that is there for others only is left out when none of those that need it is to be done, and is not repeated
    with `rerun`.
    """
    states = {spec.id: RunFolder(runs, spec.id).state() for spec in specs}
    asked = [s for s in specs if not s.is_teacher and (rerun or states[s.id] != "finished")]
    needed = {spec.teacher_run for spec in asked}
    teachers = [s for s in specs if s.is_teacher and s.id in needed and states[s.id] != "finished"]
    return teachers + asked


def outdated(specs: Sequence[Spec], runs: Path) -> list[Spec]:
    """The finished runs that were made by another version of their method's file than the one that is there now."""
    found = []
    for spec in specs:
        folder = RunFolder(runs, spec.id)
        made_by = (folder.result() or {}).get("provenance.method_sha256") if folder.state() == "finished" else None
        if made_by and made_by != places.file_sha256(places.sources()[spec.source]):
            found.append(spec)
    return found


def ask(specs: Sequence[Spec], runs: Path, rerun: bool = False) -> None:
    """Put the runs down in their folders, where whoever does them finds them."""
    for spec in specs:
        folder = RunFolder(runs, spec.id)
        failed = folder.state() == "failed"
        fresh = rerun and not spec.is_teacher
        folder.enqueue(spec.plain(), "fresh" if fresh else "resume" if failed else None)


def results(specs: Sequence[Spec], runs: Path) -> list[dict[str, Any]]:
    """The results that there are of these runs, in order."""
    return [result for spec in specs if (result := RunFolder(runs, spec.id).result())]
