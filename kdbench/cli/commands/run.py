"""`kdbench run`: trains and evaluates the selected runs, and prints the table."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import words as words_
from kdbench.cli import folders
from kdbench.cli.printing import print_text, warn
from kdbench.config import BASELINE
from kdbench.errors import UserError, unknown
from kdbench.words import count, shortest

if TYPE_CHECKING:
    from kdbench.launch.backlog import PlannedRun
    from kdbench.launch.launchers import Handover
    from kdbench.plan.request import Request
    from kdbench.plan.spec import Spec

SUMMARY = "train and evaluate the selected runs, and print the table"
DETAILS = """\
Selections take comma-separated lists; the plan is their product:
  methods=A,B|all   dataset=D   student=S   teacher=T|RUN|PATH.pt   recipe=R   seeds=0,1,2|0-4   sweep=F
  methods=family/relation,-C selects the methods of a family, without C
Options with one value:
  executor=inline|local|slurm   workers=N (local: number of parallel runs)   cluster=PROFILE (slurm; also Cluster.time=60)
  gpus=N (processes that share each batch, one GPU each)   runs_per_gpu=N (local, slurm: runs that share each GPU)
  log=tensorboard,wandb,mlflow (one or more loggers that also get the curves of epochs.csv)
  baseline=METHOD (the method of this plan that the table's differences are taken from)
Bindings (words with a dot) set a gin parameter, for all methods that have it:
  Train.epochs=5   SGD.lr=0.05   KD.temperature=2   Machine.device=cuda:1
  KD.temperature=1,2,4 plans a run for each value, and several such lists their product.

Without a selection: six methods on scikit-learn's digits. kdbench list prints the names that can be selected, and kdbench show
prints every value.

Exit status: 0 if all runs have finished, or were submitted; 1 if a run failed, was cancelled, or was lost with its folder; 2 for
invalid input; 3 if other processes still do some of the runs. With --wait the command waits for those, and takes over a run
whose process shows no sign of life for two minutes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="key=value", help="selections and bindings, see below")
    folders.add_runs(parser)
    folders.add_data(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--rerun", action="store_true", help="re-run finished runs")
    parser.add_argument("--wait", action="store_true", help="also wait for runs that other processes are doing")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.console import print_left_out, print_sentences
    from kdbench.launch import backlog, devices, inputs, launchers
    from kdbench.plan import expand
    from kdbench.plan import request as request_
    from kdbench.store import teachers

    words, baseline = _without_baseline(arguments.words)
    request = request_.parse(words)
    if arguments.wait and request.executor == "slurm":
        raise UserError("--wait is for runs on this machine; watch jobs with: kdbench status --watch")
    print_left_out(request.left_out)
    print_sentences(request.sizes)
    runs, data = folders.runs(arguments), folders.data(arguments)
    sentences: list[str] = []
    specs = expand.plan(request, teachers.finder(runs), sentences.append)
    _check_baseline(baseline, specs)
    to_do = backlog.open_runs(specs, runs, arguments.rerun)
    is_here = request.executor in request_.LOCAL_EXECUTORS
    if is_here:
        sentences += devices.check(to_do)
    devices.check_shared(to_do, request.runs_per_gpu, is_here)
    print_sentences([*sentences, *inputs.check(to_do, runs, data, arguments.dry_run)])
    if arguments.dry_run:
        _print_plan(backlog.planned(specs, runs, arguments.rerun), [values[0].key for values in request.grid])
        if request.profile:
            _print_arrays(to_do, runs, request)
        return 0
    _warn_of_outdated([spec for spec in backlog.outdated(specs, runs) if spec not in to_do])
    if not to_do:
        return _conclude(specs, runs, baseline, trained=False)
    handovers: list[Handover] = []

    def report(handover: Handover) -> None:
        handovers.append(handover)
        print_text(_sentence(handover))

    launchers.launch(launchers.Workload(to_do, request, runs, data, arguments.rerun, arguments.wait), report)
    if not handovers:
        return _conclude(specs, runs, baseline)
    if all(handover.earlier for handover in handovers):
        print_text("nothing was submitted")
    else:
        print_text("track them with kdbench status; run the same command again for the table")
    return 0


def _without_baseline(words: Sequence[str]) -> tuple[list[str], str]:
    """The words of the plan, and the method that `baseline=` names for its table."""
    own = [word for word in words if word.partition("=")[0] == "baseline"]
    values = words_.parse(own, ["baseline"], UserError, ["baseline"]).values if own else {}
    return [word for word in words if word not in own], values.get("baseline", (BASELINE,))[0]


def _check_baseline(baseline: str, specs: Sequence[Spec]) -> None:
    """Raises UserError, before anything is trained, if no run of the plan is of that method with its usual values."""
    methods = {spec.method for spec in specs if not spec.is_teacher and not spec.own_overrides}
    if baseline not in (BASELINE, *methods):
        raise unknown("baseline", baseline, methods)


def _print_plan(planned: Sequence[PlannedRun], keys: Sequence[str]) -> None:
    """One line per run: id, state, protocol, values, and the teacher that it waits for; then the counts.

    Args:
        keys: the parameters that have several values.
    """
    from rich.table import Table

    from kdbench.cli.console import console

    table = Table(box=None, pad_edge=False)
    for title in ("run", "state", "protocol", *(["values"] if keys else []), "teacher"):
        table.add_column(title, no_wrap=True)
    for each in planned:
        spec = each.spec
        reason = {"absent": "", "failed": " (failed before)", "finished": " (again)"}[each.state]
        teacher = "is a teacher" if spec.is_teacher else " + ".join(spec.teacher_runs) or spec.teacher_file or ""
        state = f"to do{reason}" if each.to_do else "finished"
        table.add_row(spec.id, state, spec.protocol, *([_values(spec, keys)] if keys else []), teacher)
    console().print(table)
    to_do = sum(each.to_do for each in planned)
    print_text(f"{count(len(planned), 'run')}: {len(planned) - to_do} finished, {to_do} to do")


def _values(spec: Spec, keys: Sequence[str]) -> str:
    """The values of some parameters, as far as the run has them: "KD.temperature=4, Train.epochs=2"."""
    from kdbench.config import run_config

    values = run_config.parse(spec.config, spec.id).values
    return ", ".join(f"{key}={shortest(values[key])}" for key in keys if key in values)


def _print_arrays(to_do: Sequence[Spec], runs: Path, request: Request) -> None:
    """The arrays of jobs that executor=slurm would submit: runs, options of sbatch, and cost."""
    from kdbench.launch.slurm import estimate, queue, submission

    assert request.profile is not None  # the caller has checked it
    jobs = queue.read([os.getuid()]) or {}
    planned = submission.Submission(to_do, runs, request.profile, jobs, request.runs_per_gpu)
    if planned.submitted:
        print_text(_in_jobs(len(planned.submitted)))
    past = estimate.Past(runs)
    for array in planned.arrays:
        print_text(f"\n{array}")
        print_text(f"  sbatch {shlex.join(planned.options(array))}")
        print_text(f"  {estimate.sentence(array.jobs, past, array.runs_at_once, *planned.processors(array))}")


def _warn_of_outdated(outdated: Sequence[Spec]) -> None:
    if outdated:
        files = ", ".join(sorted({f"methods/{spec.source}.py" for spec in outdated}))
        them = "it" if len(outdated) == 1 else "them"
        runs = count(len(outdated), "finished run")
        warn(f"{runs} used an older {files}; use --rerun to repeat {them}")


def _sentence(handover: Handover) -> str:
    if handover.earlier:
        return f"{_in_jobs(handover.runs)}: {handover.jobs}"
    return f"submitted as {handover.jobs}: {handover.description}"


def _in_jobs(number: int) -> str:
    return f"{count(number, 'run')} {'is' if number == 1 else 'are'} already in submitted jobs"


def _conclude(specs: Sequence[Spec], runs: Path, baseline: str, trained: bool = True) -> int:
    """Print the tables of a plan, and what became of runs without a result; returns the exit status."""
    from kdbench.cli.console import console
    from kdbench.launch import backlog, unfinished
    from kdbench.report.formats.terminal import Terminal
    from kdbench.report.tables import tables

    asked = [spec for spec in specs if not spec.is_teacher]
    results = backlog.results(asked, runs)
    if not trained:
        print_text(f"{_all(len(asked))} already finished; nothing was trained", stderr=True)
    have_baseline = any(result["method"] == baseline for result in results)
    for table in tables.summarise(results, baseline if have_baseline else BASELINE):
        console().print(Terminal(table))
    missing = unfinished.unfinished(asked, runs)
    for sentence in missing.sentences(runs):
        warn(sentence)
    failed = any(result["status"] == "failed" and result["run"] not in missing.ids for result in results)
    return 1 if failed else missing.status


def _all(number: int) -> str:
    return "the run is" if number == 1 else f"all {number} runs are"
