"""`kdbench tune`: the same number of trials for every method, chosen on the validation split alone. No torch before a trial."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from kdbench.config import places, resolve, signature
from kdbench.data.readers import registry
from kdbench.errors import RunError, UserError, nearest
from kdbench.launch import display, local
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.plan.request import Request
from kdbench.plan.spec import Spec
from kdbench.store import studies as studies_
from kdbench.store.folder import RunFolder
from kdbench.store.studies import Trial
from kdbench.tune import suggest
from kdbench.tune.study import Study

_USAGE = "such as: kdbench tune METHOD trials=20 Split.validation=0.1"


def tune(words: Sequence[str], runs: Path, data: Path | None, dry_run: bool = False) -> int:
    """Bring every study to the number of trials that is asked for, and print what they found.

    Returns:
        The exit status: 1 if a study has no trial that finished.

    Raises:
        UserError: before anything starts.
    """
    request, count = parse(words)
    specs = expand.plan(request)
    found = studies(request, specs)
    for each in found:
        each.read(runs)
        if len(each.trials) > count:
            raise UserError(
                f"the study {each.id} has {len(each.trials)} trials already, which cannot be untold: "
                f"say trials={len(each.trials)} or more, for all methods"
            )
        _tell_other_versions(each)
    if dry_run:
        _print_plan(found, count, runs)
        return 0
    problems = {}
    if any(len(each.trials) < count for each in found):
        suggest.check_optuna()
        for dataset in request.dataset:
            registry.check_folder(resolve.group_bindings("dataset", dataset)["Dataset.source"].value, data)
        needed = {each.spec.teacher_run for each in found if len(each.trials) < count}
        teachers = [s for s in specs if s.id in needed and RunFolder(runs, s.id).state() != "finished"]
        if teachers:
            local.inline(teachers, runs, data)
        problems = _carry_out(found, count, runs, data)
    else:
        print("all trials are done already; nothing was trained", file=sys.stderr)
    _print_outcome(found, problems)
    return int(any(studies_.best(each.trials) is None or each.id in problems for each in found))


def parse(words: Sequence[str]) -> tuple[Request, int]:
    """The words behind `kdbench tune`: methods, `trials=N`, and selections and shared bindings as in `kdbench run`.

    Raises:
        UserError: a word that is none of these, or a binding of what is to be chosen.
    """
    pairs = [word.partition("=") for word in words]
    names = [key for key, equals, _ in pairs if not equals]
    numbers = [value for key, _, value in pairs if key == "trials"]
    for key, equals, _ in pairs:
        known = (*request_.PLAN_KEYS, *request_.SINGLE_KEYS, "trials")
        if equals and "." not in key and key not in known and nearest(key, known) == "trials":
            raise UserError(f"unknown selection '{key}'; did you mean 'trials'? See: kdbench tune --help")
    if len(names) > 1:
        raise UserError(f"several methods go in one comma list: kdbench tune {','.join(names)} trials=20")
    if not names and not any(key == "methods" for key, *_ in pairs):
        raise UserError(f"say which method to tune, {_USAGE}")
    if len(numbers) != 1 or not numbers[0].isascii() or not numbers[0].isdigit() or int(numbers[0]) < 1:
        given = f", not '{','.join(numbers)}'" if numbers else ""
        raise UserError(f"say how many trials every method gets as one whole number from 1{given}, {_USAGE}")
    rest = [word for word in words if "=" in word and word.partition("=")[0] != "trials"]
    request = request_.parse([*(f"methods={name}" for name in names), *rest])
    if request.executor != "inline":
        raise UserError("a trial needs the outcome of those before it: kdbench tune takes no executor but inline")
    for binding in request.overrides:
        if binding.configurable not in signature.shared():
            raise UserError(
                f"{binding.key} is a method's own parameter, and what kdbench tune may choose of these stands in "
                "the Search.space of the method's gin file: leave it out"
            )
        if binding.configurable == "Selection":
            raise UserError(f"tuning may not choose on the test set: leave {binding.key} out")
        if binding.key == "Machine.gpus" and binding.value != 1:
            raise UserError("this process makes the trials alone: kdbench tune takes no gpus")
        if binding.key == "Machine.log" and binding.value:
            raise UserError("a trial leaves no folder to write to: kdbench tune takes no log")
    return request, int(numbers[0])


def studies(request: Request, specs: Sequence[Spec]) -> list[Study]:
    """A study for each method, dataset, student, teacher and recipe of a plan, without stored trials.

    Raises:
        UserError: a recipe without validation split, a method without search space.
    """
    groups: dict[Any, list[Spec]] = {}
    for spec in sorted((s for s in specs if not s.is_teacher), key=lambda s: request.methods.index(s.method)):
        teacher = spec.teacher_run or spec.teacher_file or spec.teacher_untrained
        groups.setdefault((spec.method, spec.dataset, spec.student, teacher, spec.recipe), []).append(spec)
    return [_study(request, tuple(group)) for group in groups.values()]


def _study(request: Request, specs: tuple[Spec, ...]) -> Study:
    spec = specs[0]
    resolved = resolve.resolve(spec.method, spec.dataset, spec.recipe, request.overrides)
    if resolved.shared["Split.validation"].value == 0:
        raise UserError(
            f"the recipe '{spec.recipe}' has no validation split, and tuning may not choose on the test set: "
            "give it one, such as Split.validation=0.1"
        )
    space = resolve.search_space(spec.method)
    if not space:
        raise UserError(
            f"the method '{spec.method}' has nothing to tune: gin/method/{spec.method}.gin has no Search.space "
            "of parameters that it does not bind itself"
        )
    unused = resolve.unused(request.overrides, [resolved])
    teacher = spec.teacher_untrained or spec.teacher_file or spec.teacher
    own = replace(
        request,
        methods=(spec.method,),
        dataset=(spec.dataset,),
        student=(spec.student,),
        teacher=(teacher,) if teacher and spec.teacher_selected else request.teacher,
        recipe=(spec.recipe,),
        overrides=tuple(binding for binding in request.overrides if binding not in unused),
    )
    return Study(specs, space, own)


def _tell_other_versions(each: Study) -> None:
    source = places.sources()[each.spec.source]
    made_by = [trial.get("provenance.method_sha256") for trial in each.trials]
    others = len(made_by) - made_by.count(places.file_sha256(source))
    if others:
        print(
            f"kdbench: {others} trials of {each.id} were made by another version of methods/{source.name}; "
            f"to start over delete its folder in {studies_.FOLDER}/",
            file=sys.stderr,
        )


def _carry_out(found: Sequence[Study], count: int, runs: Path, data: Path | None) -> dict[str, str]:
    """Do all trials that are missing; what ended a study before its last trial, by its id."""
    problems: dict[str, str] = {}
    to_do = [spec for each in found for spec in each.specs * (count - len(each.trials))]
    with display.for_terminal(to_do) as shown:
        for each in found:
            try:
                with each.alone(runs):
                    each.read(runs)  # another process may have added some since
                    while len(each.trials) < count:
                        each.add(_trial(each, runs, data, shown), runs)
            except (RunError, UserError) as error:
                problems[each.id] = str(error)
    return problems


def _trial(each: Study, runs: Path, data: Path | None, shown: display.Display) -> Trial:
    from kdbench.run.execute import validate  # torch: two seconds that a study with nothing to do must not cost

    number = len(each.trials)
    parameters = suggest.suggest(each.space, each.trials, each.id) if number else each.gin_values()
    specs = each.specs_of(number, parameters)
    results = []
    for spec in specs:
        shown.begin(spec)
        result = validate(spec, runs, data, partial(shown.progress, spec))
        shown.end(spec, {**result, "trial": f"trial {number} ({_listed(parameters)})"})
        results.append(result)
        if result["status"] == "failed":  # the mean cannot be had any more
            break
    failed = results[-1]["status"] == "failed"
    return {
        "number": number,
        "parameters": parameters,
        "values": specs[0].values,
        "status": results[-1]["status"],
        "accuracy.val": None if failed else fmean(result["accuracy.val"] for result in results),
        "by_seed": {str(spec.seed): r["accuracy.val"] for spec, r in zip(specs, results, strict=False)},
        "error": results[-1]["error"],
        "seconds.train": [result["seconds.train"] for result in results],
        **{key: value for key, value in results[0].items() if key.startswith("provenance.")},
    }


def _listed(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def _print_plan(found: Sequence[Study], count: int, runs: Path) -> None:
    for each in found:
        to_do = count - len(each.trials)
        teacher = each.spec.teacher_run
        waits = f", teacher {teacher}" if teacher and RunFolder(runs, teacher).state() != "finished" else ""
        print(f"{each.id}: {len(each.trials)} trials done, {to_do} to do, seeds {_seeds(each)}{waits}")
        for name, dimension in each.space.items():
            print(f"  {name}: {dimension} (gin: {each.gin_values()[name]})")


def _print_outcome(found: Sequence[Study], problems: dict[str, str]) -> None:
    """The table of all studies, what went wrong, and the command of each method's best trial."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    table = Table(box=None, pad_edge=False)
    for title in ("method", "trials", "failed", "best", "gin values", "best parameters"):
        table.add_column(title, justify="right" if title in ("trials", "failed", "best", "gin values") else "left")
    several = len({each.spec.method for each in found}) < len(found)
    for each in found:
        spec, top = each.spec, studies_.best(each.trials)
        place = [spec.dataset, spec.student, spec.teacher or "", spec.recipe] if several else []
        failed = [trial for trial in each.trials if trial["status"] == "failed"]
        values = top["parameters"] if top else {}
        note = " (those of gin)" if top and top["number"] == 0 else ""
        first = _percent(each.trials[0]) if each.trials else "–"
        cells = (str(len(each.trials)), str(len(failed)), _percent(top) if top else "–", first)
        table.add_row(" ".join([spec.method, *filter(None, place)]), *cells, _listed(values) + note)
    console.print(table)
    print(f"best, gin values: {studies_.OBJECTIVE} ({_seeds(found[0])}); the best of many is a favourable draw\n")
    for each in found:
        if each.id in problems:
            print(f"{each.spec.method}: stopped after {len(each.trials)} trials: {problems[each.id]}", file=sys.stderr)
        elif studies_.best(each.trials) is None:
            print(f"{each.spec.method}: every trial failed; the last: {each.trials[-1]['error']}", file=sys.stderr)
    print("The test set was not read. What it says of the best of each:")
    for each in found:
        if top := studies_.best(each.trials):
            command = each.specs_of(top["number"], top["parameters"])[0].command()
            print(command.replace(f" seeds={each.spec.seed}", f" seeds={_seeds(each)}", 1))


def _seeds(each: Study) -> str:
    return ",".join(str(spec.seed) for spec in each.specs)


def _percent(trial: Any) -> str:
    return "failed" if trial["accuracy.val"] is None else f"{trial['accuracy.val']:.2f}"
