"""Carrying a plan out: what is finished is left alone, what failed or never ended is done, teachers come first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench import display, places
from kdbench.plan import Spec
from kdbench.store import RunFolder


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


def inline(specs: Sequence[Spec], runs: Path, data: Path | None) -> list[dict[str, Any]]:
    """Do runs one after the other in this process, and show how they go on.

    Returns:
        Their results, in order; a failed one does not stop the others.
    """
    from kdbench.run import run  # torch: two seconds that a plan with nothing to do must not cost

    results = []
    with display.for_terminal(specs) as shown:
        for spec in specs:
            shown.begin(spec)
            result = run(spec, runs, data, shown.progress)
            shown.end(spec, result)
            results.append(result)
    return results
