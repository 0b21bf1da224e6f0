"""The command line: parses and calls. Nothing here imports torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kdbench import __version__, help_texts, places
from kdbench.errors import RunError, UserError, nearest

if TYPE_CHECKING:
    from kdbench.plan import Spec
    from kdbench.slurm import Submission

_SELECTIONS = """\
selections (each takes a comma list; the plan is their product):
  methods=A,B|all   dataset=D   student=S   teacher=T|PATH.pt   recipe=R   seeds=0,1,2   sweep=F
and one value each:
  executor=inline|local|slurm   workers=N (local: runs at a time)   cluster=PROFILE (slurm; Cluster.time=60 too)
    gpus=N (processes that share each batch, a GPU each)
bindings (anything with a dot is a gin parameter and is the same for all methods that have it):
  Train.epochs=5   SGD.lr=0.05   KD.temperature=2   Machine.device=cuda:1

without any selection: all methods on scikit-learn's digits. See what there is with kdbench list, and every value with
kdbench show."""


class _Parser(argparse.ArgumentParser):
    """argparse with our kind of error: one sentence, the nearest word, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kdbench",
        description="Compares knowledge-distillation methods under one protocol.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kdbench COMMAND --help says more about each. Exit status: 0 all done, 1 a run failed, 2 wrong input.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kdbench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        found = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        found.add_argument(
            "--plugins",
            action="append",
            default=[],
            metavar="DIR",
            help="a folder with methods/ and gin/ of your own (also KDBENCH_PLUGINS)",
        )
        return found

    run = command("run", "train and evaluate what the selections say, and print the table", _SELECTIONS)
    run.add_argument("words", nargs="*", metavar="key=value", help="selections and bindings, see below")
    run.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    run.add_argument("--data", type=Path, metavar="DIR", help="folder of the datasets (default: KDBENCH_DATA)")
    run.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    run.add_argument("--rerun", action="store_true", help="do finished runs again")

    listed = command("list", "what can be selected")
    listed.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help="methods, students, datasets, recipes, sweeps or clusters; without it all",
    )

    show = command("show", "the resolved configuration, each value with the file that set it", _SELECTIONS)
    show.add_argument("words", nargs="*", metavar="key=value", help="as in kdbench run")

    board = command("leaderboard", "write the leaderboard from all finished runs")
    board.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    board.add_argument(
        "--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="where it goes (default: leaderboard/)"
    )
    board.add_argument(
        "--check", action="store_true", help="write nothing; fail if the files are not what the committed rows give"
    )

    diff = command("diff", "which resolved parameters differ between two methods or two runs", help_texts.DIFF)
    diff.add_argument("words", nargs="*", metavar="A B key=value", help="what is compared; selections and bindings")
    diff.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")

    power = command("power", "which differences the seeds can show, and how many seeds one needs", help_texts.POWER)
    power.add_argument("words", nargs="*", metavar="difference=D", help="in points, a comma list (default: 0.5,1)")
    rows = power.add_mutually_exclusive_group()
    rows.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    rows.add_argument("--out", type=Path, metavar="DIR", help="a leaderboard, whose committed rows are taken instead")

    tune = command("tune", "choose a method's own parameters on the validation split", help_texts.TUNE)
    tune.add_argument("words", nargs="*", metavar="METHOD trials=N key=value", help="see below")
    tune.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    tune.add_argument("--data", type=Path, metavar="DIR", help="folder of the datasets (default: KDBENCH_DATA)")
    tune.add_argument("--dry-run", action="store_true", help="print the studies and stop")
    return parser


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    names = ("run", "list", "show", "leaderboard", "diff", "power", "tune")
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None and words[0] == first and first not in names:
        guess = nearest(first, names)
        hint = f"; did you mean '{guess}'?" if guess else f"; valid: {', '.join(names)}."
        raise UserError(f"unknown command '{first}'{hint} See: kdbench --help")
    arguments, rest = parser.parse_known_args(words)
    if hasattr(arguments, "words"):  # argparse takes no selections behind an option that follows selections
        arguments.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        options = ("--runs", "--data", "--out", "--dry-run", "--rerun", "--check", "--plugins", "--help")
        guess = nearest(rest[0].split("=")[0], options)
        hint = f"; did you mean '{guess}'?" if guess else "."
        raise UserError(
            f"unknown option '{rest[0]}' of kdbench {arguments.command or ''}{hint} See: kdbench {arguments.command} --help"
        )
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(0)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    try:
        arguments = _parse(sys.argv[1:] if words is None else words)
        places.add_plugins(arguments.plugins)
        commands = {
            "run": _run,
            "list": _list,
            "show": _show,
            "leaderboard": _leaderboard,
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
            return _submit(
                slurm.Submission(to_do, runs, cluster, slurm.queue()), data, request.cluster, arguments.rerun
            )
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
            f"{len(asked) - len(results)} runs have no result yet: others do them, or they were cancelled",
            file=sys.stderr,
        )
    return int(any(result["status"] == "failed" for result in results))


def _list(arguments: argparse.Namespace) -> int:
    from kdbench import listing

    listing.print_members(arguments.kind)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from kdbench import listing, plan

    listing.print_configuration(plan.parse(arguments.words))
    return 0


def _leaderboard(arguments: argparse.Namespace) -> int:
    from kdbench.report import leaderboard

    out = arguments.out.resolve()
    if arguments.check:
        wrong = leaderboard.check(out)
        for sentence in wrong:
            print(f"kdbench: {sentence}", file=sys.stderr)
        return int(bool(wrong))
    outcome = leaderboard.regenerate(_runs(arguments), out)
    for message in outcome.messages:
        print(f"kdbench: {message}", file=sys.stderr)
    state = "written" if outcome.changed else "unchanged"
    print(f"{out / 'README.md'}: {len(outcome.tables)} tables from {outcome.runs} runs, {state}")
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
