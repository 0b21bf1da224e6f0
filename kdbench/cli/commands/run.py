"""`kdbench run`: trains and evaluates what the selections say, and prints the table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdbench.launch.slurm.submission import Submission
    from kdbench.plan.spec import Spec

import argparse
from pathlib import Path

from kdbench.cli import folders
from kdbench.errors import UserError

SUMMARY = "train and evaluate what the selections say, and print the table"
DETAILS = """\
selections (each takes a comma list; the plan is their product):
  methods=A,B|all   dataset=D   student=S   teacher=T|PATH.pt   recipe=R   seeds=0,1,2   sweep=F
and one value each:
  executor=inline|local|slurm   workers=N (local: runs at a time)   cluster=PROFILE (slurm; Cluster.time=60 too)
  gpus=N (processes that share each batch, a GPU each)   log=tensorboard (event files in the runs' folders)
bindings (anything with a dot is a gin parameter and is the same for all methods that have it):
  Train.epochs=5   SGD.lr=0.05   KD.temperature=2   Machine.device=cuda:1

without any selection: all methods on scikit-learn's digits. See what there is with kdbench list, and every value with
kdbench show."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="key=value", help="selections and bindings, see below")
    folders.add_runs(parser)
    folders.add_data(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--rerun", action="store_true", help="do finished runs again")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.config import extensions, resolve
    from kdbench.data.readers import registry
    from kdbench.launch import backlog, local
    from kdbench.launch.options import Options
    from kdbench.plan import expand
    from kdbench.plan import request as request_

    request = request_.parse(arguments.words)
    cluster = None
    if request.cluster:
        from kdbench.launch.slurm import queue
        from kdbench.launch.slurm import submission as submission_

        cluster = resolve.profile(request.cluster, request.cluster_overrides)
        if not arguments.dry_run and not submission_.is_here():
            raise UserError("this machine has no SLURM (sbatch is not on the PATH): go to a cluster's login node")
    specs = expand.plan(request)
    runs = folders.runs(arguments)
    data = folders.data(arguments)
    if arguments.dry_run:
        from kdbench.cli.commands import listing_old as show

        show.print_plan(specs, runs, arguments.rerun)
        if cluster:
            show.print_arrays(backlog.open_runs(specs, runs, arguments.rerun), runs, cluster)
        return 0
    to_do = backlog.open_runs(specs, runs, arguments.rerun)
    outdated = [spec for spec in backlog.outdated(specs, runs) if spec not in to_do]
    if outdated:
        files = ", ".join(sorted({f"methods/{spec.source}.py" for spec in outdated}))
        print(
            f"kdbench: {len(outdated)} finished runs were made by another version of {files}; --rerun repeats them",
            file=sys.stderr,
        )
    for dataset in {spec.dataset for spec in to_do}:
        registry.check_folder(resolve.group_bindings("dataset", dataset)["Dataset.source"].value, data)
    if to_do:
        if cluster and request.cluster:
            states = queue.queue()
            if states is None:
                raise UserError("SLURM does not answer: try squeue")
            return _submit(submission_.Submission(to_do, runs, cluster, states), data, request.cluster, arguments.rerun)
        if request.executor not in ("inline", "local"):
            launch = extensions.load(extensions.member("launcher", request.executor))
            launch(to_do, runs, data, Options(request.workers, cluster, arguments.rerun))
        elif request.executor == "local" or to_do[0].gpus > 1:
            local.local(to_do, runs, data, request.workers, arguments.rerun)
        else:
            local.inline(to_do, runs, data, arguments.rerun)
    return _conclude(specs, runs, len(to_do))


def _submit(submission: Submission, data: Path | None, cluster: str, rerun: bool) -> int:
    from kdbench.launch.slurm import submission as submission_

    if submission.known:
        jobs = ", ".join(dict.fromkeys(job.partition("_")[0] for job in submission.known.values()))
        print(f"{submission_.count(len(submission.known), 'run')} left to jobs that were submitted before: {jobs}")
    for array, numbers in submission.submit(data, cluster, rerun):
        print(f"submitted as {submission_.named(numbers)}: {array}")
    if submission.arrays:
        print(
            "jobs write their own results; see them with: kdbench status, and the table with the same command once more"
        )
    else:
        print("nothing was submitted")
    return 0


def _conclude(specs: Sequence[Spec], runs: Path, done: int) -> int:
    """Print the table of a plan; 1 if a run of it has failed."""
    from rich.console import Console

    from kdbench.report.formats import markdown
    from kdbench.report.tables import tables
    from kdbench.store.folder import RunFolder

    asked = [spec for spec in specs if not spec.is_teacher]
    results = [result for spec in asked if (result := RunFolder(runs, spec.id).result())]
    if not done:
        print(f"all {len(asked)} runs are finished already; nothing was trained", file=sys.stderr)
    console = Console(highlight=False)
    for table in tables.summarise(results):
        console.print(markdown.Terminal(table))
    if len(results) < len(asked):
        print(
            f"{len(asked) - len(results)} runs have no result yet: others do them, or they were cancelled; see kdbench status",
            file=sys.stderr,
        )
    return int(any(result["status"] == "failed" for result in results))
