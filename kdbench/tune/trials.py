"""An equal number of trials for every method, chosen on the validation split alone. No torch before a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from kdbench.config import bindings, resolve, signature
from kdbench.errors import RunError, UserError
from kdbench.launch import backlog, devices, display, inputs, local
from kdbench.plan import expand
from kdbench.plan.request import Request
from kdbench.plan.spec import Spec
from kdbench.plan.teachers import FindRun
from kdbench.store import teachers as teachers_
from kdbench.store.folder import RunFolder
from kdbench.store.studies import Trial
from kdbench.tune import suggest
from kdbench.tune.study import Study
from kdbench.words import count


@dataclass(frozen=True)
class Tuning:
    """Studies that are to have the same number of trials.

    Attributes:
        studies: one for each method, dataset, student, teacher and recipe, with the trials that they have so far.
        trials: how many each is to have.
        runs: the folder of all runs, which holds the studies too.
        teachers: the teachers' runs that the missing trials need and that have not finished.
        sentences: what the user should know about precision, images and teachers (`expand.plan`, `devices.check`, `inputs.check`).
    """

    studies: tuple[Study, ...]
    trials: int
    runs: Path
    teachers: tuple[Spec, ...]
    sentences: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """True if no trial is missing."""
        return all(len(study.trials) >= self.trials for study in self.studies)


def prepare(request: Request, trials: int, runs: Path, data: Path | None = None) -> Tuning:
    """Read the studies of a request and check that they can be brought to a number of trials.

    Args:
        request: methods, selections and shared bindings.
        trials: number of trials of each study, the first with the gin values.
        runs: the folder of all runs.
        data: the folder of the datasets, for those that need one.

    Raises:
        UserError: a binding that tuning does not allow, a recipe without validation split, a method without search space, a
            study that is damaged or has more trials already, a device that this machine lacks.
    """
    _check(request)
    sentences: list[str] = []
    specs = expand.plan(request, teachers_.finder(runs), sentences.append)
    studies = studies_of(request, specs, teachers_.finder(runs))
    for study in studies:
        study.read(runs)
        if len(study.trials) > trials:
            raise UserError(
                f"the study {study.id} already has {count(len(study.trials), 'trial')}, and trials cannot be removed: "
                f"pass trials={len(study.trials)} or more, for all methods"
            )
    open_studies = [study for study in studies if len(study.trials) < trials]
    first = [study.spec for study in open_studies]
    sentences += [*devices.check(first), *inputs.check(first, runs, data, dry_run=True)]
    unfinished = [spec for spec in specs if RunFolder(runs, spec.id).state() != "finished"]
    teachers = backlog.teachers_of([study.spec for study in open_studies], unfinished)
    return Tuning(tuple(studies), trials, runs, tuple(teachers), tuple(sentences))


def _check(request: Request) -> None:
    if request.executor != "inline":
        raise UserError("each trial depends on the earlier ones, so kdbench tune supports executor=inline only")
    for binding in request.bound:
        if binding.configurable not in signature.shared():
            raise UserError(
                f"{binding.key} is a method's own parameter, and kdbench tune chooses these from the Search.space of the "
                "method's gin file: leave it out"
            )
        if binding.configurable == "Selection":
            raise UserError(f"tuning cannot use the test set; remove {binding.key}")
        if binding.key == "Machine.gpus" and binding.value != 1:
            raise UserError("one process carries out all trials, so kdbench tune does not support gpus=N")
        if binding.key == "Machine.log" and binding.value:
            raise UserError("a trial has no folder for event files, so kdbench tune does not support log=")
    request.check_one_value("kdbench tune")


def studies_of(request: Request, specs: Sequence[Spec], find_run: FindRun | None = None) -> list[Study]:
    """A study for each method, dataset, student, teacher and recipe of a plan; stored trials are not read.

    Args:
        specs: the plan of the request.
        find_run: looks up the runs that `teacher=` names.

    Raises:
        UserError: a recipe without validation split, a method without search space or with assistants.
    """
    groups: dict[Any, list[Spec]] = {}
    for spec in sorted((s for s in specs if not s.is_teacher), key=lambda s: request.methods.index(s.method)):
        teachers = (spec.teacher_runs, spec.teacher_file, spec.teacher_untrained)
        groups.setdefault((spec.method, spec.dataset, spec.student, teachers, spec.recipe), []).append(spec)
    return [_study(request, tuple(group), find_run) for group in groups.values()]


def _study(request: Request, specs: tuple[Spec, ...], find_run: FindRun | None) -> Study:
    spec = specs[0]
    resolved = resolve.resolve(spec.method, spec.dataset, spec.recipe, request.overrides)
    if resolved.shared["Split.validation"].value == 0:
        raise UserError(
            f"the recipe '{spec.recipe}' has no validation split, and tuning cannot use the test set: "
            "pass one, such as Split.validation=0.1"
        )
    space = bindings.search_space(spec.method)
    if not space:
        raise UserError(
            f"the method '{spec.method}' has nothing to tune: gin/method/{spec.method}.gin has no Search.space "
            "of parameters that it does not bind itself"
        )
    if resolved.teaching().chain:
        raise UserError(
            f"kdbench tune does not support '{spec.method}': the method trains assistants (Teaching.chain) with its own "
            "parameters, so every trial would have to train them again; compare a few values with kdbench run instead, "
            f"as in {resolved.signature.name}.{next(iter(space))}=A,B"
        )
    unused = resolve.unused(request.overrides, [resolved])
    own = replace(
        request,
        methods=(spec.method,),
        dataset=(spec.dataset,),
        student=(spec.student,),
        teacher=(spec.teacher_word,) if spec.teacher_word else request.teacher,
        recipe=(spec.recipe,),
        overrides=tuple(binding for binding in request.overrides if binding not in unused),
    )
    return Study(specs, space, own, find_run)


def carry_out(tuning: Tuning, data: Path | None = None) -> dict[str, str]:
    """Train the teachers that are missing, then carry out all missing trials and store each as it ends.

    Args:
        data: the folder of the datasets; None for those that come with kdbench.

    Returns:
        The error that ended a study before its last trial, by the study's id; empty if all have their trials.

    Raises:
        UserError: Optuna or the data is missing; raised before anything starts.
    """
    if tuning.is_done:
        return {}
    suggest.check_optuna()
    inputs.check([study.spec for study in tuning.studies], tuning.runs, data)
    if tuning.teachers:
        local.inline(tuning.teachers, tuning.runs, data, wait=True)
    errors: dict[str, str] = {}
    runs_to_do = [spec for study in tuning.studies for spec in study.specs * (tuning.trials - len(study.trials))]
    with display.for_terminal(runs_to_do) as shown:
        for study in tuning.studies:
            try:
                with study.alone(tuning.runs):
                    study.read(tuning.runs)  # another process may have added some since
                    while len(study.trials) < tuning.trials:
                        study.add(_trial(study, tuning.runs, data, shown), tuning.runs)
            except (RunError, UserError) as error:
                errors[study.id] = str(error)
    return errors


def _trial(study: Study, runs: Path, data: Path | None, shown: display.Display) -> Trial:
    from kdbench.run.caller import Caller
    from kdbench.run.execute import validate  # torch: two seconds that a study with nothing to do must not cost

    number = len(study.trials)
    parameters = suggest.suggest(study.space, study.trials, study.id) if number else study.gin_values()
    specs = study.specs_of(number, parameters)
    results = []
    for spec in specs:
        shown.begin(spec)
        result = validate(spec, runs, data, Caller(partial(shown.progress, spec)))
        shown.end(spec, {**result, "trial": f"trial {number} ({as_text(parameters)})"})
        results.append(result)
        if result["status"] == "failed":  # there can be no mean over the seeds any more
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


def as_text(parameters: dict[str, Any]) -> str:
    """Parameters of a trial on one line, "temperature=4.0, kd_weight=0.9"."""
    return ", ".join(f"{name}={value}" for name, value in parameters.items())
