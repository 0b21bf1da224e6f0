"""`kdbench tune`: chooses a method's own parameters on the validation split."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdbench import words as words_
from kdbench.cli import folders
from kdbench.cli.console import console, print_left_out, print_sentences
from kdbench.cli.printing import print_text, warn
from kdbench.errors import UserError, nearest

if TYPE_CHECKING:
    from kdbench.plan.request import Request
    from kdbench.tune.study import Study
    from kdbench.tune.trials import Tuning

SUMMARY = "choose a method's own parameters on the validation split"
DETAILS = """\
Every method gets the same N trials over the Search.space of its gin file; the first trial uses the gin values. A trial is a run
that never reads the test set: the objective is the mean validation accuracy over seeds, after the last epoch. An interrupted
study resumes, and a larger N continues it.
  kdbench tune METHOD trials=20 dataset=cifar100
  kdbench tune METHOD,OTHER trials=20 seeds=0,1 Split.validation=0.1     selections and shared bindings as in kdbench run
  kdbench tune all trials=20 --dry-run                                   the studies, their trials and search spaces
At the end it prints the command that runs each method's best values on other seeds; their rows record the number of trials.
Exit status: 1 if a method has no finished trial, or was stopped before its last one."""

_EXAMPLE = "such as: kdbench tune METHOD trials=20 Split.validation=0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="METHOD trials=N key=value", help="see below")
    folders.add_runs(parser)
    folders.add_data(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the studies and stop")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.store import studies
    from kdbench.tune import trials

    request, number = parse(arguments.words)
    print_left_out(request.left_out)
    print_sentences(request.sizes)
    data = folders.data(arguments)
    tuning = trials.prepare(request, number, folders.runs(arguments), data)
    print_sentences(tuning.sentences)
    _print_outdated(tuning)
    if arguments.dry_run:
        _print_plan(tuning)
        return 0
    if tuning.is_done:
        print_text("all trials are already done; nothing was trained", stderr=True)
    errors = trials.carry_out(tuning, data)
    _print_table(tuning)
    _print_errors(tuning, errors)
    _print_commands(tuning)
    return int(any(studies.best(study.trials) is None or study.id in errors for study in tuning.studies))


def parse(words: Sequence[str]) -> tuple[Request, int]:
    """Parse what to tune and the number of trials from methods, `trials=N`, and selections and shared bindings as in `kdbench run`.

    Raises:
        UserError: a word that is none of these, or a missing one.
    """
    from kdbench.plan import request as request_

    keys = (*request_.KEYS, "trials")
    for key in (word.partition("=")[0] for word in words if "=" in word):
        if "." not in key and key not in keys and nearest(key, keys) == "trials":
            raise UserError(f"unknown selection '{key}'; did you mean 'trials'? See: kdbench tune --help")
    methods = [word for word in words if "=" not in word]
    numbers = [word for word in words if word.startswith("trials=")]
    rest = [word for word in words if word not in (*methods, *numbers)]
    if len(methods) > 1:
        raise UserError(f"pass several methods as one comma-separated list: kdbench tune {','.join(methods)} trials=20")
    if not methods and not any(word.startswith("methods=") for word in rest):
        raise UserError(f"specify a method to tune, {_EXAMPLE}")
    if not numbers:
        raise UserError(f"trials=N is required, the number of trials for every method, {_EXAMPLE}")
    (number,) = words_.parse(numbers, ["trials"], lambda key: UserError(key), single=["trials"]).values["trials"]
    count = words_.whole_number("trials", number, least=1, example="trials=20")
    return request_.parse([*(f"methods={name}" for name in methods), *rest]), count


def _print_outdated(tuning: Tuning) -> None:
    from kdbench.store.studies import FOLDER

    for study in tuning.studies:
        if number := study.outdated():
            warn(
                f"{words_.count(number, 'trial')} of {study.id} used a different methods/{study.spec.source}.py; "
                f"to start over, delete its folder in {FOLDER}/",
            )


def _print_plan(tuning: Tuning) -> None:
    waiting_for = {teacher.id for teacher in tuning.teachers}
    for study in tuning.studies:
        missing = tuning.trials - len(study.trials)
        missing_teachers = [run for run in study.spec.teacher_runs if run in waiting_for]
        teacher = f", teacher {' and '.join(missing_teachers)}" if missing_teachers else ""
        print_text(
            f"{study.id}: {words_.count(len(study.trials), 'trial')} done, {missing} to do, seeds {_seeds(study)}{teacher}"
        )
        for name, dimension in study.space.items():
            print_text(f"  {name}: {dimension} (gin: {study.gin_values()[name]})")


def _print_table(tuning: Tuning) -> None:
    from rich.table import Table

    from kdbench.store.studies import OBJECTIVE, best
    from kdbench.tune.trials import as_text

    table = Table(box=None, pad_edge=False)
    for title in ("method", "trials", "failed", "best", "gin values", "best parameters"):
        table.add_column(title, justify="right" if title in ("trials", "failed", "best", "gin values") else "left")
    several = len({study.spec.method for study in tuning.studies}) < len(tuning.studies)
    for study in tuning.studies:
        spec, top = study.spec, best(study.trials)
        labels = [spec.method, *([spec.dataset, spec.student, spec.teacher or "", spec.recipe] if several else [])]
        failed = sum(trial["status"] == "failed" for trial in study.trials)
        note = " (the gin values)" if top and top["number"] == 0 else ""
        table.add_row(
            " ".join(filter(None, labels)),
            str(len(study.trials)),
            str(failed),
            _percent(top),
            _percent(study.trials[0] if study.trials else None),
            (as_text(top["parameters"]) if top else "") + note,
        )
    console().print(table)
    seeds = _seeds(tuning.studies[0])
    print_text(f"best, gin values: {OBJECTIVE} (seeds {seeds}); the best of many trials is optimistically biased\n")


def _print_errors(tuning: Tuning, errors: Mapping[str, str]) -> None:
    from kdbench.store.studies import best

    for study in tuning.studies:
        method = study.spec.method
        if study.id in errors:
            print_text(
                f"{method}: stopped after {words_.count(len(study.trials), 'trial')}: {errors[study.id]}",
                stderr=True,
            )
        elif best(study.trials) is None:
            print_text(f"{method}: every trial failed; the last error: {study.trials[-1].get('error')}", stderr=True)


def _print_commands(tuning: Tuning) -> None:
    """The command that runs each study's best values, with seeds that they were not chosen on."""
    from kdbench.store.studies import best

    print_text("The test set was not used. To evaluate the best values, on seeds that no trial used:")
    for study in tuning.studies:
        if top := best(study.trials):
            print_text(study.specs_of(top["number"], top["parameters"])[0].command(_other_seeds(study)))


EVALUATED = 3
"""Seeds of the command at the end, unless more were tuned on."""


def _other_seeds(study: Study) -> str:
    """As many seeds as were tuned on, and at least `EVALUATED`, above the largest of these."""
    first = max(spec.seed for spec in study.specs) + 1
    return ",".join(map(str, range(first, first + max(EVALUATED, len(study.specs)))))


def _seeds(study: Study) -> str:
    return ",".join(str(spec.seed) for spec in study.specs)


def _percent(trial: Mapping[str, Any] | None) -> str:
    if trial is None:
        return "–"
    return "failed" if trial.get("accuracy.val") is None else f"{trial['accuracy.val']:.2f}"
