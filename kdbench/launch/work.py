"""Do runs one after the other. A process leases the run that it does, and leaves alone the runs that others have leased."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import UserError, loading_torch
from kdbench.launch import display
from kdbench.plan.spec import Spec
from kdbench.store import lease
from kdbench.store.folder import CANCELLED, PROGRESS, SPEC, RunFolder
from kdbench.store.lease import Held, Lost

if TYPE_CHECKING:
    from kdbench.launch.worker import Stop
    from kdbench.run.caller import Progress

LOOK = 1.0
"""Seconds between two looks at the runs of other processes, and between two reports of progress."""
LONGEST = 10.0
"""Seconds between two looks at most."""
SHARE = 0.05
"""Share of the time that looking may take."""


def work(
    specs: Sequence[Spec],
    runs: Path,
    data: Path | None,
    shown: display.Display,
    stop: Stop,
    do: Callable[..., dict[str, Any]] | None = None,
    wait: bool = False,
) -> None:
    """Do all of `specs` that are open, except runs of another living process; runs of a dead one are taken over.

    A run waits for its teachers, which are trained here unless another process trains them.

    Args:
        do: replaces `kdbench.run.execute.run`.
        wait: also wait for the runs of other processes, and take over those whose lease goes stale.

    Raises:
        OSError: the disk is full.
        RunError: there is too little memory for torch.
    """
    with loading_torch():  # which the pool does not need
        from kdbench.run.caller import Caller
        from kdbench.run.execute import run
        from kdbench.run.resume import Stopped

    do = do or run
    waiting = {spec.id: spec for spec in specs}
    others = _Others(shown, wait)
    while waiting and not stop.all:
        began, ended = time.monotonic(), False
        for spec in list(waiting.values()):
            folder = RunFolder(runs, spec.id)
            if stop.all:
                break
            if not folder.is_open():
                waiting.pop(spec.id, None)
                continue
            teachers = _missing_teachers(spec, runs)
            if teachers is None:
                waiting.pop(spec.id, None)
                continue
            if teachers:
                others.needed |= {teacher.id for teacher in teachers}
                waiting = {**{teacher.id: teacher for teacher in teachers}, **waiting}
                continue
            try:
                with lease.acquire(folder.path) as held, stop.watching(folder):
                    if folder.is_open():
                        shown.begin(spec)
                        report = _Reporter(spec, RunFolder(runs, spec.id, held.check), shown)
                        shown.end(spec, do(spec, runs, data, Caller(report, stop, held.check)))
                        ended = True
            except Held as error:
                if not others.are_awaited(spec, error):
                    waiting.pop(spec.id, None)
                continue
            except (Stopped, Lost) as error:
                shown.left(spec, str(error) or "stopped; the next kdbench run resumes it")
                if wait and isinstance(error, Lost):
                    continue
            waiting.pop(spec.id, None)
        if waiting and not ended:
            _pause((time.monotonic() - began) / SHARE, stop)


def _pause(seconds: float, stop: Stop) -> None:
    end = time.monotonic() + min(max(seconds, LOOK), LONGEST)
    while not stop.all and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK))


class _Others:
    """The other processes that do runs of this plan, as far as their leases show.

    Args:
        wait: wait for all of their runs.

    Attributes:
        needed: ids of runs that teach others of the plan, and that are therefore waited for.
    """

    def __init__(self, shown: display.Display, wait: bool):
        self._shown, self._wait = shown, wait
        self._touched: dict[str, float] = {}
        self._shown_before: set[tuple[str, bool]] = set()
        self.needed: set[str] = set()

    def are_awaited(self, spec: Spec, held: Held) -> bool:
        """True if this process waits for a run: until its owner shows that it lives, or until the run has ended."""
        # A new touch shows that the owner lives; of processes on this machine it is known.
        lives = self._touched.setdefault(spec.id, held.touched) != held.touched or held.owner.is_awake()
        if lives and not self._wait and spec.id not in self.needed:
            return False
        if (spec.id, lives) not in self._shown_before:
            self._shown_before.add((spec.id, lives))
            self._shown.waits(spec, _sentence(held, lives))
        return True


def _sentence(held: Held, lives: bool) -> str:
    if lives:
        return f"waiting for {held.owner}, which is doing this run"
    return (
        f"waiting for {held.owner}, which has the lease of this run and may have ended: "
        f"without a sign of life the run is taken over in {max(1, round(held.remaining))} s"
    )


def _missing_teachers(spec: Spec, runs: Path) -> list[Spec] | None:
    """The teachers of a run that have yet to end; None if one of them, or of theirs, was cancelled.

    A run whose teacher failed begins, and reports it.
    """
    missing = []
    for teacher in spec.teacher_runs:
        folder = RunFolder(runs, teacher)
        if (folder / CANCELLED).exists() and folder.state() == "absent":  # else it ended before it noticed
            return None
        plain = folder.read(SPEC)
        if plain is None or not folder.is_open():
            continue
        try:
            missing.append(Spec.from_plain(plain))
        except UserError:  # as if it had none
            continue
        if _missing_teachers(missing[-1], runs) is None:
            return None
    return missing


class _Reporter:
    """Passes the progress of a run to the display and to the run's folder."""

    def __init__(self, spec: Spec, folder: RunFolder, shown: display.Display):
        self._spec, self._folder, self._shown = spec, folder, shown
        self._last = -LOOK

    def __call__(self, progress: Progress) -> None:
        self._shown.progress(self._spec, progress)
        now = time.monotonic()
        if now - self._last >= LOOK:
            self._last = now
            with contextlib.suppress(OSError):  # the file only shows the run
                self._folder.write(PROGRESS, {**asdict(progress), "at": time.time()}, lasting=False)
