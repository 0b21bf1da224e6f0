"""The command line: calls what its words (`kdbench.arguments`) ask for. Nothing here imports torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import places
from kdbench.arguments import parse
from kdbench.errors import RunError, UserError

if TYPE_CHECKING:
    from kdbench.plan import Spec
    from kdbench.slurm import Submission


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    try:
        arguments = parse(sys.argv[1:] if words is None else words)
        places.add_plugins(arguments.plugins)
        commands = {
            "run": _run,
            "status": _status,
            "logs": _logs,
            "cancel": _cancel,
            "list": _list,
            "show": _show,
            "leaderboard": _leaderboard,
            "reproduce": _reproduce,
            "export": _export,
            "diff": _diff,
            "power": _power,
            "tune": _tune,
        }
        return commands[arguments.command](arguments)
    except UserError as error:
        print(f"kdbench: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"kdbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kdbench: stopped; what is finished stays, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _folder(given: Path | None, variable: str) -> Path | None:
    text = str(given) if given else os.environ.get(variable)
    return Path(text).expanduser().resolve() if text else None


def _runs(arguments: argparse.Namespace) -> Path:
    return _folder(arguments.runs, "KDBENCH_RUNS") or Path("runs").resolve()


def _run(arguments: argparse.Namespace) -> int:
    from kdbench import config, launch, plan
    from kdbench.data import sources

    request = plan.parse(arguments.words)
    cluster = None
    if request.cluster:
        from kdbench import slurm

        cluster = slurm.profile(request.cluster, request.cluster_overrides)
        if not arguments.dry_run and not slurm.is_here():
            raise UserError("this machine has no SLURM (sbatch is not on the PATH): go to a cluster's login node")
    specs = plan.plan(request)
    runs = _runs(arguments)
    data = _folder(arguments.data, "KDBENCH_DATA")
    if arguments.dry_run:
        from kdbench import listing

        listing.print_plan(specs, runs, arguments.rerun)
        if cluster:
            listing.print_arrays(launch.open_runs(specs, runs, arguments.rerun), runs, cluster)
        return 0
    to_do = launch.open_runs(specs, runs, arguments.rerun)
    outdated = [spec for spec in launch.outdated(specs, runs) if spec not in to_do]
    if outdated:
        files = ", ".join(sorted({f"methods/{spec.source}.py" for spec in outdated}))
        print(
            f"kdbench: {len(outdated)} finished runs were made by another version of {files}; --rerun repeats them",
            file=sys.stderr,
        )
    for dataset in {spec.dataset for spec in to_do}:
        sources.check_folder(config.group_bindings("dataset", dataset)["Dataset.source"].value, data)
    if to_do:
        if cluster and request.cluster:
            states = slurm.queue()
            if states is None:
                raise UserError("SLURM does not answer: try squeue")
            return _submit(slurm.Submission(to_do, runs, cluster, states), data, request.cluster, arguments.rerun)
        if request.executor == "local" or to_do[0].gpus > 1:
            launch.local(to_do, runs, data, request.workers, arguments.rerun)
        else:
            launch.inline(to_do, runs, data, arguments.rerun)
    return _conclude(specs, runs, len(to_do))


def _submit(submission: Submission, data: Path | None, cluster: str, rerun: bool) -> int:
    from kdbench import slurm

    if submission.known:
        jobs = ", ".join(dict.fromkeys(job.partition("_")[0] for job in submission.known.values()))
        print(f"{slurm.count(len(submission.known), 'run')} left to jobs that were submitted before: {jobs}")
    for array, numbers in submission.submit(data, cluster, rerun):
        print(f"submitted as {slurm.named(numbers)}: {array}")
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

    from kdbench.report import render, tables
    from kdbench.store import RunFolder

    asked = [spec for spec in specs if not spec.is_teacher]
    results = [result for spec in asked if (result := RunFolder(runs, spec.id).result())]
    if not done:
        print(f"all {len(asked)} runs are finished already; nothing was trained", file=sys.stderr)
    console = Console(highlight=False)
    for table in tables.summarise(results):
        console.print(render.Terminal(table))
    if len(results) < len(asked):
        print(
            f"{len(asked) - len(results)} runs have no result yet: others do them, or they were cancelled; see kdbench status",
            file=sys.stderr,
        )
    return int(any(result["status"] == "failed" for result in results))


def _status(arguments: argparse.Namespace) -> int:
    from kdbench import overview

    return overview.show(arguments.words, _runs(arguments), arguments.all, arguments.watch, arguments.json)


def _logs(arguments: argparse.Namespace) -> int:
    from kdbench import logs

    return logs.show(arguments.words, _runs(arguments), arguments.follow)


def _cancel(arguments: argparse.Namespace) -> int:
    from kdbench import cancel

    return cancel.cancel(arguments.words, _runs(arguments))


def _list(arguments: argparse.Namespace) -> int:
    from kdbench import listing

    listing.print_members(arguments.kind)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from kdbench import listing, plan

    listing.print_configuration(plan.parse(arguments.words))
    return 0


def _leaderboard(arguments: argparse.Namespace) -> int:
    from kdbench.report import columns

    asked = columns.parse(arguments.words)  # before pandas is imported: a typing error is answered at once
    from kdbench.report import leaderboard

    out = arguments.out.resolve()
    if arguments.check and (arguments.html or arguments.plots):
        raise UserError("--check writes nothing: give it without --html and --plots")
    if arguments.check:
        wrong = leaderboard.check(out, asked)
        for sentence in leaderboard.first(wrong):
            print(f"kdbench: {sentence}", file=sys.stderr)
        return int(bool(wrong))
    if arguments.plots:
        from kdbench.report import pictures

        pictures.check_matplotlib()
    outcome = leaderboard.regenerate(_runs(arguments), out, asked, arguments.html)
    for message in leaderboard.first(outcome.messages):
        print(f"kdbench: {message}", file=sys.stderr)
    state = "written" if outcome.changed else "unchanged"
    waiting = f"; {outcome.open} runs have no result yet" if outcome.open else ""
    print(f"{out / 'README.md'}: {len(outcome.tables)} tables from {outcome.runs} runs, {state}{waiting}")
    if arguments.plots:
        drawn = pictures.write(outcome.tables, _runs(arguments), out, outcome.sha256)
        for message in drawn.messages:
            print(f"kdbench: {message}", file=sys.stderr)
        print(f"{out / pictures.PLOTS}: {len(drawn.files) // len(pictures.KINDS)} pictures, each as SVG and PNG")
    page = out / leaderboard.PAGE
    if arguments.html:
        print(f"{page}: {page.stat().st_size / 1e3:.0f} kB, open it in a browser")
    elif page.is_file() and outcome.changed:
        print(f"kdbench: {page} is still of the rows before; write it anew with --html", file=sys.stderr)
    return 0


def _reproduce(arguments: argparse.Namespace) -> int:
    from kdbench import reproduce

    data = _folder(arguments.data, "KDBENCH_DATA")
    return reproduce.reproduce(arguments.words, _runs(arguments), data, arguments.out, arguments.board.resolve())


def _export(arguments: argparse.Namespace) -> int:
    from kdbench import export

    print(
        export.export(_runs(arguments), arguments.out.resolve(), arguments.to and arguments.to.expanduser().resolve())
    )
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from kdbench import diff

    return diff.diff(arguments.words, _runs(arguments))


def _power(arguments: argparse.Namespace) -> int:
    from kdbench.report import seeds

    return seeds.show(arguments.words, _runs(arguments), arguments.out)


def _tune(arguments: argparse.Namespace) -> int:
    from kdbench import tune

    return tune.tune(arguments.words, _runs(arguments), _folder(arguments.data, "KDBENCH_DATA"), arguments.dry_run)


if __name__ == "__main__":
    sys.exit(main())
