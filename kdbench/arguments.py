"""The words of the command line: which commands and options there are, and what is said of a wrong one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kdbench import __version__, help_texts
from kdbench.errors import UserError, nearest

_SELECTIONS = """\
selections (each takes a comma list; the plan is their product):
  methods=A,B|all   dataset=D   student=S   teacher=T|PATH.pt   recipe=R   seeds=0,1,2   sweep=F
and one value each:
  executor=inline|local|slurm   workers=N (local: runs at a time)   cluster=PROFILE (slurm; Cluster.time=60 too)
  gpus=N (processes that share each batch, a GPU each)   log=tensorboard (event files in the runs' folders)
bindings (anything with a dot is a gin parameter and is the same for all methods that have it):
  Train.epochs=5   SGD.lr=0.05   KD.temperature=2   Machine.device=cuda:1

without any selection: all methods on scikit-learn's digits. See what there is with kdbench list, and every value with
kdbench show."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The words behind `kdbench`.

    Raises:
        UserError: an unknown command or option.
        SystemExit: help was asked for, and is printed.
    """
    parser = _parser()
    names = (
        "run",
        "status",
        "logs",
        "cancel",
        "list",
        "show",
        "leaderboard",
        "reproduce",
        "export",
        "diff",
        "power",
        "tune",
    )
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
        options = (
            *("--runs", "--data", "--out", "--dry-run", "--rerun", "--check", "--plugins", "--help"),
            *("--all", "--watch", "--json", "--follow", "--board", "--to", "--plots", "--html"),
        )
        guess = nearest(rest[0].split("=")[0], options)
        hint = f"; did you mean '{guess}'?" if guess else "."
        raise UserError(
            f"unknown option '{rest[0]}' of kdbench {arguments.command or ''}{hint} See: kdbench {arguments.command} --help"
        )
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(0)
    return arguments


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

    status = command("status", "what is planned, queued, running, done or failed, and why", help_texts.STATUS)
    status.add_argument("words", nargs="*", metavar="SELECTION", help="which runs, see below; without it all")
    status.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    status.add_argument("--all", action="store_true", help="show each finished run too, as a selection does")
    how = status.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="go on until all have ended")
    how.add_argument("--json", action="store_true", help="print a list of objects")

    logs = command("logs", "what a run and its SLURM job have written", help_texts.LOGS)
    logs.add_argument("words", nargs="*", metavar="RUN", help="an id, or the beginning of one")
    logs.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    logs.add_argument("--follow", action="store_true", help="go on until the run has ended")

    cancel = command("cancel", "stop runs that are queued or running, on whatever machine", help_texts.CANCEL)
    cancel.add_argument("words", nargs="*", metavar="all|SELECTION", help="which runs, see below")
    cancel.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")

    listed = command("list", "what can be selected")
    listed.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help="methods, students, datasets, recipes, sweeps, clusters or columns; without it all",
    )

    show = command("show", "the resolved configuration, each value with the file that set it", _SELECTIONS)
    show.add_argument("words", nargs="*", metavar="key=value", help="as in kdbench run")

    board = command("leaderboard", "write the leaderboard from all finished runs", help_texts.LEADERBOARD)
    board.add_argument(
        "words", nargs="*", metavar="columns=A,B", help="what the tables show (see kdbench list columns)"
    )
    board.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    board.add_argument(
        "--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="where it goes (default: leaderboard/)"
    )
    board.add_argument(
        "--check", action="store_true", help="write nothing; fail if the files are not what the committed rows give"
    )
    board.add_argument(
        "--html", action="store_true", help="write index.html too, for a browser (needs jinja2, itables)"
    )
    board.add_argument("--plots", action="store_true", help="draw the tables too, into plots/ (needs matplotlib)")

    again = command(
        "reproduce", "train a finished run once more and compare it with what is stored", help_texts.REPRODUCE
    )
    again.add_argument("words", nargs="*", metavar="RUN", help="a run folder, or an id or its beginning; see below")
    again.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    again.add_argument("--data", type=Path, metavar="DIR", help="folder of the datasets (default: KDBENCH_DATA)")
    again.add_argument(
        "--out", type=Path, metavar="DIR", help="where it goes (default: reproduced/ in the folder of the runs)"
    )
    again.add_argument(
        "--board", type=Path, default=Path("leaderboard"), metavar="DIR", help="rows to look in (default: leaderboard/)"
    )

    export = command("export", "pack the leaderboard with all that it comes from, for a paper", help_texts.EXPORT)
    export.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: KDBENCH_RUNS or runs/)")
    export.add_argument(
        "--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="the leaderboard (default: leaderboard/)"
    )
    export.add_argument("--to", type=Path, metavar="FILE.zip", help="the archive (default: leaderboard.zip, beside it)")

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
