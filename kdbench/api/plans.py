"""Plans: the runs that selections describe, to look at before they are trained."""

from __future__ import annotations

import html
import shlex
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.api.results import typed
from kdbench.config import places
from kdbench.errors import UserError
from kdbench.words import count, printable, shortest

if TYPE_CHECKING:
    import pandas as pd

    from kdbench.launch.backlog import PlannedRun
    from kdbench.plan.spec import Spec


@dataclass(frozen=True, repr=False)
class Plan:
    """Runs to train, and the folder that they are kept in. It is shown as a table, as `kdbench run --dry-run` prints it.

    Attributes:
        runs: every run, as plain data; teachers come before the runs that need them.
        folder: the folder of the run folders.
    """

    runs: tuple[Spec, ...]
    folder: Path

    def to_frame(self) -> pd.DataFrame:
        """A row for each run, with columns as results have them, the state ("to do", "finished") and the runs that teach it.

        `purpose` is "teacher" for runs that are in the plan because others need them.
        """
        import pandas as pd

        rows = [
            each.spec.identity() | {"status": _state(each), "teacher.run": " ".join(each.spec.teacher_runs) or None}
            for each in self._states()
        ]
        return pd.DataFrame(rows).rename(columns={"status": "state"}).astype("string").astype({"seed": "Int64"})

    def run(
        self,
        runs: str | Path | None = None,
        *,
        data: str | Path | None = None,
        workers: int | None = None,
        runs_per_gpu: int | None = None,
        rerun: bool = False,
        wait: bool = False,
    ) -> pd.DataFrame:
        """Train and evaluate the runs on this machine; finished ones are read, interrupted ones resume.

        Progress goes to standard error, and in a notebook to one display that is updated. A warning says which runs have no
        result at the end, and why: they were cancelled or removed meanwhile, or another process is doing them.

        Args:
            runs: the folder of the run folders, if it is not the plan's.
            data: the folder of the datasets, for those that need one.
            workers: number of processes; None trains in this one.
            runs_per_gpu: number of processes on each GPU, instead of `workers`.
            rerun: repeat finished runs as well.
            wait: also wait for the runs of other processes, and take over those whose lease goes stale.

        Returns:
            A row for each run that has a result, as `load_results` returns it, without teachers that the plan added. A failed
            run has the status "failed" and its error.

        Raises:
            UserError: images or a teacher are missing or cannot be read, or this machine lacks the GPUs that a run needs.
            RunError: the disk is full, or no process can be started.
            KeyboardInterrupt: the user stopped it; the same call resumes.
        """
        from kdbench.launch import backlog, devices, inputs, local
        from kdbench.launch.unfinished import unfinished
        from kdbench.report import records

        folder = places.user_path(runs).resolve() if runs else self.folder
        images = places.user_path(data).resolve() if data else None
        for name, number in (("workers", workers), ("runs_per_gpu", runs_per_gpu)):
            if number is not None and number < 1:
                raise UserError(f"{name} must be a positive integer, not {number}")
        if workers and runs_per_gpu:
            raise UserError("workers and runs_per_gpu both set the number of processes; leave one out")
        to_do = backlog.open_runs(self.runs, folder, rerun)
        sentences = devices.check(to_do)
        devices.check_shared(to_do, runs_per_gpu or 1)
        for sentence in [*sentences, *inputs.check(to_do, folder, images)]:
            _warn(sentence)
        if to_do and (workers or runs_per_gpu or to_do[0].gpus > 1):
            local.local(to_do, folder, images, workers, rerun, wait, runs_per_gpu or 1)
        elif to_do:
            local.inline(to_do, folder, images, rerun, wait)
        asked = [spec for spec in self.runs if not spec.is_teacher]
        for sentence in unfinished(asked, folder).sentences(folder, "wait=True waits for it"):
            _warn(sentence)
        return typed(records.frame(backlog.results(asked, folder)))

    def __repr__(self) -> str:
        return f"{self._summary()}\n{self._table().to_string(index=False, max_rows=_SHOWN)}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._summary())}</p>{self._table().to_html(index=False, max_rows=_SHOWN)}"

    def _states(self) -> list[PlannedRun]:
        from kdbench.launch import backlog

        return backlog.planned(self.runs, self.folder)

    def _summary(self) -> str:
        to_do = sum(each.to_do for each in self._states())
        return f"{count(len(self.runs), 'run')} in {self.folder}: {len(self.runs) - to_do} finished, {to_do} to do"

    def _table(self) -> pd.DataFrame:
        import pandas as pd

        rows = [
            {
                "run": each.spec.id,
                "state": _state(each),
                "protocol": each.spec.protocol,
                "parameters": ", ".join(f"{key}={shortest(value)}" for key, value in each.spec.own_overrides.items()),
                "teacher": _teaching(each.spec),
            }
            for each in self._states()
        ]
        table = pd.DataFrame(rows)
        return table if any(table["parameters"]) else table.drop(columns="parameters")


_SHOWN = 40
"""Rows that a plan shows at most; those in the middle of a longer one are left out."""


def plan(words: str | Iterable[str] = (), /, *, runs: str | Path = "runs", **selections: Any) -> Plan:
    """The runs that selections and bindings describe, teachers first; nothing is trained.

    Args:
        words: words as for `kdbench run`, in one string ("methods=ce,kd dataset=digits") or as a list.
        runs: the folder of the run folders; `teacher=RUN` looks for finished runs there.
        selections: such words as keywords. Values may be lists, `methods=["ce", "kd"]`, and a parameter is written with an
            underscore, `Train_epochs=5`, or with a dot, `**{"Train.epochs": 5}`. A string is taken as typed:
            `KD_temperature="1,2,4"` plans a run for each value.

    Raises:
        UserError: a word that is unknown or cannot be combined with the others.
    """
    from kdbench.plan import expand, request
    from kdbench.store import teachers

    folder = places.user_path(runs).resolve()
    keywords = [f"{key}={_text(key, value)}" for key, value in ((_key(k), v) for k, v in selections.items())]
    asked = request.parse([*_split(words), *keywords])
    for sentence in asked.left_out:
        _warn(f"left out: {sentence}")
    if asked.executor != "inline":
        raise UserError("a plan does not take executor, workers, runs_per_gpu or cluster; pass workers=N to its run()")
    sentences: list[str] = []
    specs = expand.plan(asked, teachers.finder(folder), sentences.append)
    for sentence in sentences:
        _warn(sentence)
    return Plan(tuple(specs), folder)


def run(
    words: str | Iterable[str] = (),
    /,
    *,
    runs: str | Path = "runs",
    data: str | Path | None = None,
    workers: int | None = None,
    runs_per_gpu: int | None = None,
    rerun: bool = False,
    wait: bool = False,
    **selections: Any,
) -> pd.DataFrame:
    """Plan runs as `plan` does, then train and evaluate them as `Plan.run` does; arguments, result and errors are theirs."""
    options = {"data": data, "workers": workers, "runs_per_gpu": runs_per_gpu, "rerun": rerun, "wait": wait}
    return plan(words, runs=runs, **selections).run(**options)  # type: ignore[arg-type]


def plan_runs(*words: str, runs: str | Path = "runs", **selections: Any) -> list[Spec]:
    """The runs of `plan`, as a list; kept for programs that were written before it."""
    _deprecated("plan_runs", "plan")
    return list(plan(words, runs=runs, **selections).runs)


def run_all(specs: Sequence[Spec], runs: str | Path, data: str | Path | None = None, **options: Any) -> pd.DataFrame:
    """`Plan.run` of a list of runs; kept for programs that were written before it."""
    _deprecated("run_all", "plan(...).run")
    return Plan(tuple(specs), places.user_path(runs).resolve()).run(data=data, **options)


def _deprecated(old: str, new: str) -> None:
    warnings.warn(f"kdbench.{old} is deprecated; use kdbench.{new}", DeprecationWarning, stacklevel=3)


def _warn(sentence: str) -> None:
    warnings.warn(printable(sentence), stacklevel=3)


def _state(planned: PlannedRun) -> str:
    return "to do" if planned.to_do else "finished"


def _teaching(spec: Spec) -> str:
    return "is a teacher" if spec.is_teacher else " + ".join(spec.teacher_runs) or spec.teacher_file or ""


def _split(words: str | Iterable[str]) -> list[str]:
    """The words of a string, as a shell separates them; a list is taken as it is."""
    if not isinstance(words, str):
        return list(words)
    try:
        return shlex.split(words)
    except ValueError as error:
        raise UserError(f"the words {words!r} cannot be separated: {str(error).lower()}") from None


def _key(keyword: str) -> str:
    """The key of a keyword: `Train_epochs` stands for Train.epochs. Selections are lower-case, configurables are not."""
    from kdbench.config import bindings

    if "." in keyword or not keyword[:1].isupper():
        return keyword
    ends = [place for place, character in enumerate(keyword) if character == "_"]
    names = [end for end in ends if keyword[:end] in bindings.overridable()]
    for end in (names or ends)[:1]:
        return f"{keyword[:end]}.{keyword[end + 1 :]}"
    return keyword


def _text(key: str, value: Any) -> str:
    """A value as on the command line: bindings (with a dot) are gin values, selections comma-separated lists."""
    if isinstance(value, str):
        return value
    if "." in key:
        return repr(value)
    return ",".join(map(str, value)) if isinstance(value, Iterable) else str(value)
