"""kdbench from Python: functions that plan, run and read back, and return data. `import kdbench` offers them.

import kdbench

specs = kdbench.plan_runs(methods=["ce", "kd"], dataset="digits", seeds=range(3))
results = kdbench.run_all(specs, runs="runs")
for table in kdbench.make_tables(results):
    print(table.title, [(row.rank, row.method) for row in table.rows])
student = kdbench.load_student(f"runs/{results['run'][0]}")
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import BASELINE, places
from kdbench.errors import UserError
from kdbench.words import printable

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from kdbench.plan.spec import Spec
    from kdbench.report.tables.tables import Table


def plan_runs(*words: str, runs: str | Path | None = None, **selections: Any) -> list[Spec]:
    """The runs that selections and bindings describe, teachers first; nothing is trained.

    Args:
        words: words as for `kdbench run`: "methods=ce,kd", "Train.epochs=5".
        runs: the folder of the run folders, where `teacher=RUN` looks for a finished run.
        selections: such words as keywords; values may be lists: `methods=["ce", "kd"]`, `**{"Train.epochs": 5}`.
            Text is taken as typed: `**{"KD.temperature": "1,2,4"}` plans a run for each value.

    Raises:
        UserError: a word that is unknown or cannot be combined with the others.
    """
    from kdbench.plan import expand, request
    from kdbench.store import teachers

    asked = request.parse([*words, *(f"{key}={_text(key, value)}" for key, value in selections.items())])
    for sentence in asked.left_out:
        warnings.warn(f"left out: {printable(sentence)}", stacklevel=2)
    if asked.executor != "inline":
        raise UserError("plan_runs does not take executor, workers, runs_per_gpu or cluster; pass workers=N to run_all")
    sentences: list[str] = []
    specs = expand.plan(asked, teachers.finder(places.user_path(runs).resolve()) if runs else None, sentences.append)
    for sentence in sentences:
        warnings.warn(printable(sentence), stacklevel=2)
    return specs


def run_all(
    specs: Sequence[Spec],
    runs: str | Path,
    data: str | Path | None = None,
    workers: int | None = None,
    rerun: bool = False,
    wait: bool = False,
    runs_per_gpu: int | None = None,
) -> pd.DataFrame:
    """Train and evaluate runs on this machine; finished ones are read, interrupted ones resume.

    Progress goes to standard error. A warning says which runs have no result at the end, and why: they were cancelled or
    removed meanwhile, or another process is doing them.

    Args:
        runs: the folder of the run folders.
        data: the folder of the datasets, for those that need one.
        workers: number of processes; None trains in this one.
        rerun: repeat finished runs as well.
        wait: also wait for the runs of other processes, and take over those whose lease goes stale.
        runs_per_gpu: number of processes on each GPU, instead of `workers`.

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

    folder, images = places.user_path(runs).resolve(), places.user_path(data).resolve() if data else None
    to_do = backlog.open_runs(specs, folder, rerun)
    sentences = devices.check(to_do)
    devices.check_shared(to_do, runs_per_gpu or 1)
    if workers and runs_per_gpu:
        raise UserError("workers and runs_per_gpu both set the number of processes; leave one out")
    for sentence in [*sentences, *inputs.check(to_do, folder, images)]:
        warnings.warn(printable(sentence), stacklevel=2)
    if to_do and (workers or runs_per_gpu or to_do[0].gpus > 1):
        local.local(to_do, folder, images, workers, rerun, wait, runs_per_gpu or 1)
    elif to_do:
        local.inline(to_do, folder, images, rerun, wait)
    asked = [spec for spec in specs if not spec.is_teacher]
    for sentence in unfinished(asked, folder).sentences(folder, "wait=True waits for it"):
        warnings.warn(printable(sentence), stacklevel=2)
    return _typed(records.frame(backlog.results(asked, folder)))


def load_results(runs: str | Path) -> pd.DataFrame:
    """The results of a folder of runs, or of a leaderboard's `results.csv`, a row for each run.

    docs/results.md describes the columns. Runs that were only made to teach others have the purpose "teacher".
    Numbers that may be missing are nullable; results that cannot be read are skipped with a warning.

    Raises:
        UserError: `runs` does not exist, or is not a file of results.
    """
    from kdbench.report import folders, purposes, records

    path = places.user_path(runs)
    if path.is_file():
        committed, messages = records.from_csv(path.read_bytes(), str(path))
        rows = records.canonical(committed)
    elif path.is_dir():
        reading = folders.read_runs(path)
        rows, messages = records.frame(reading.results), reading.messages
    else:
        raise UserError(f"there is no folder of runs and no file of results at {path}")
    for message in messages:
        warnings.warn(printable(message), stacklevel=2)
    return _typed(purposes.filled(rows))


def make_tables(results: pd.DataFrame | Iterable[Mapping[str, Any]], baseline: str = BASELINE) -> list[Table]:
    """The leaderboard's tables of results: one for each protocol, dataset and student, with ranks and differences.

    Args:
        results: the results of `load_results` or `run_all`, or some of their rows; or results as `result.json` holds them.
        baseline: the method that differences are taken from.

    Raises:
        UserError: no table has the baseline.
    """
    import pandas as pd

    from kdbench.report.tables import tables

    if isinstance(results, pd.DataFrame):
        results = [{key: v for key, v in row.items() if pd.notna(v)} for row in results.to_dict("records")]
    return tables.summarise(results, baseline)


def load_student(run_folder: str | Path) -> nn.Sequential:
    """The deployed network of a finished run in evaluation mode, on the CPU, behind the normalisation it was trained with.

    Returns:
        The modules `normalise` and `network` in sequence: images (B, C, H, W), float32 in 0..1, to logits (B, K).

    Raises:
        UserError: the folder is not that of a finished run.
        RunError: the weights cannot be read.
    """
    from torch import nn
    from torchvision.transforms import Normalize

    from kdbench.run import load
    from kdbench.store.folder import CHECKPOINT, CONFIG

    folder = places.user_path(run_folder)
    for name in (CONFIG, CHECKPOINT):
        if not (folder / name).is_file():
            raise UserError(f"'{run_folder}' is not the folder of a finished run (it has no {name})")
    student = nn.Sequential()
    student.add_module("normalise", Normalize(*load.normalisation(folder)))
    student.add_module("network", load.deployed(folder))
    return student.eval()


def _text(key: str, value: Any) -> str:
    """A value as on the command line: bindings (with a dot) are gin values, selections comma-separated lists."""
    if isinstance(value, str):
        return value
    if "." in key:
        return repr(value)
    return ",".join(map(str, value)) if isinstance(value, Iterable) else str(value)


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of text with the types that kdbench.store.result declares."""
    from kdbench.store.result import dtype

    typed = rows.mask(rows == "").astype("string")
    for name in typed.columns:
        kind = dtype(name)  # pandas does not convert the text "True"
        typed[name] = typed[name].str.lower() == "true" if kind == "boolean" else typed[name].astype(kind)
    return typed
