"""The runs of a plan that have no result when the command that was to do them ends, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.errors import UserError
from kdbench.plan.spec import Spec
from kdbench.store import lease
from kdbench.store.folder import CANCELLED, SPEC, RunFolder
from kdbench.store.owner import Owner
from kdbench.words import count

LISTED = 3
"""Ids that a sentence lists."""
ELSEWHERE = 3
"""Exit status if other processes still do some of the runs, and all others have finished: repeating the command later is enough.

A status of its own, because nothing has failed and nothing is lost, yet a script must not read a result now.
"""


@dataclass
class Unfinished:
    """Runs without a result, by the reason.

    Attributes:
        removed: their folders are gone.
        cancelled: cancelled while the command ran, or one of their teachers was.
        left: no process does them: a process lost their lease, or was stopped.
        elsewhere: other processes do them, or train their teachers: ids by process.
    """

    removed: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    elsewhere: dict[Owner, list[str]] = field(default_factory=dict)

    @property
    def ids(self) -> set[str]:
        """The ids of all of them."""
        return {*self.removed, *self.cancelled, *self.left}.union(*self.elsewhere.values())

    @property
    def status(self) -> int:
        """The exit status: 0 if no run is without a result, `ELSEWHERE` if other processes do all that are, else 1."""
        if self.removed or self.cancelled or self.left:
            return 1
        return ELSEWHERE if self.elsewhere else 0

    def sentences(self, runs: Path, how: str = "the same command with --wait waits for it") -> list[str]:
        """A sentence for each reason.

        Args:
            runs: the folder of all runs.
            how: how to wait for other processes, a clause.
        """
        sentences = []
        if self.removed:
            sentences.append(f"{_are(self.removed)} lost: the folder was removed from {runs} meanwhile")
        if self.cancelled:
            sentences.append(f"{_are(self.cancelled)} cancelled; the same command requests it again")
        if self.left:
            sentences.append(f"{_are(self.left)} unfinished, and no process is doing it; the same command resumes it")
        for owner, ids in self.elsewhere.items():
            sentences.append(f"{_are(ids)} still being done by {owner}; {how}")
        return sentences


def unfinished(specs: Sequence[Spec], runs: Path) -> Unfinished:
    """Those of some runs that have no result, or are to be repeated and have not been."""
    without = Unfinished()
    open_ = [spec for spec in specs if _lacks_result(RunFolder(runs, spec.id))]
    chains = {spec.id: [spec.id, *_open_teachers(spec, runs)] for spec in open_}
    folders = {RunFolder(runs, id_).path for chain in chains.values() for id_ in chain}
    owners = lease.owners(sorted(folders))
    for id_, chain in chains.items():
        owner = next((owners[path] for run in chain if (path := RunFolder(runs, run).path) in owners), None)
        if not RunFolder(runs, id_).path.is_dir():
            without.removed.append(id_)
        elif any((RunFolder(runs, run) / CANCELLED).exists() for run in chain):
            without.cancelled.append(id_)
        elif owner:
            without.elsewhere.setdefault(owner, []).append(id_)
        else:
            without.left.append(id_)
    return without


def _lacks_result(folder: RunFolder) -> bool:
    return folder.is_open() or folder.state() == "absent"


def _open_teachers(spec: Spec, runs: Path) -> list[str]:
    """The ids of the teachers of a run, and of theirs, that have no result."""
    ids = []
    for id_ in spec.teacher_runs:
        folder = RunFolder(runs, id_)
        plain = folder.read(SPEC)
        if plain is None or not _lacks_result(folder):
            continue
        ids.append(id_)
        with contextlib.suppress(UserError):  # a damaged one, as if it had no teachers
            ids += _open_teachers(Spec.from_plain(plain), runs)
    return ids


def _are(ids: Sequence[str]) -> str:
    listed = ", ".join(ids[:LISTED]) + (f" and {len(ids) - LISTED} more" if len(ids) > LISTED else "")
    return f"{count(len(ids), 'run')} ({listed}) {'is' if len(ids) == 1 else 'are'}"
