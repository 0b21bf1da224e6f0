"""From selections and overrides to the runs that they mean: pure data, teachers first. No torch here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from kdbench.config import bindings, resolve
from kdbench.config.ginfile import COMMAND_LINE
from kdbench.config.resolve import Config
from kdbench.config.switches import Control
from kdbench.errors import UserError
from kdbench.plan import teachers as teachers_
from kdbench.plan.request import LOCAL_EXECUTORS, Request
from kdbench.plan.spec import Spec
from kdbench.plan.teachers import FindRun, Teachers


def plan(request: Request, find_run: FindRun | None = None, report: Callable[[str], None] | None = None) -> list[Spec]:
    """All runs of a request, each once, those that train teachers before those that need them.

    Args:
        find_run: looks up the runs that `teacher=` names (`kdbench.store.teachers.finder`); None if there is no folder of
            runs.
        report: called with a sentence about the precision that the plan has chosen, where it was asked to choose one.

    Raises:
        UserError: a configuration that cannot be, or an override that no run uses.
    """
    asked: dict[str, Spec] = {}
    trained: dict[str, Spec] = {}
    configs: list[Config] = []
    selected = {word: teachers_.look_up(word, find_run) for word in request.teacher}
    variations = [(method, overrides) for method in request.methods for overrides in request.combinations(method)]
    for dataset in request.dataset:
        defaults = {
            b.parameter: b.value for b in bindings.of_group("dataset", dataset).values() if b.configurable == "Defaults"
        }
        recipes = request.recipe or _default("recipe", defaults, dataset)
        students = request.student or _default("student", defaults, dataset)
        for recipe, student, (method, overrides) in itertools.product(recipes, students, variations):
            resolved = resolve.resolve(method, dataset, recipe, overrides)
            configs.append(resolved)
            chosen: list[Teachers] = [teachers_.NONE]
            if resolved.needs_teacher:
                own = resolved.control().teacher == "student"
                words = [student] if own else request.teacher or _default("teacher", defaults, dataset)
                chosen = []
                for word in words:
                    head = Teachers(word) if own else selected.get(word) or teachers_.look_up(word, find_run)
                    _check_images(head, resolved)
                    group, runs = teachers_.teachers_of(resolved, student, head, overrides, _spec)
                    chosen.append(group)
                    trained |= {spec.id: spec for spec in runs}
            for group, seed in itertools.product(chosen, request.seeds):
                spec = _spec(resolved, student, seed, group)
                asked[spec.id] = spec
    for binding in resolve.unused(request.bound, configs):
        place = "" if binding.origin == COMMAND_LINE else f"{binding.origin}: "
        raise UserError(f"{place}nothing in this plan uses {binding.key} (methods: {', '.join(request.methods)})")
    for sentence in _chosen_precisions(request, configs):
        if report:
            report(sentence)
    return _teachers_first([spec for id_, spec in trained.items() if id_ not in asked], asked, trained)


def _chosen_precisions(request: Request, configs: Iterable[Config]) -> list[str]:
    """A sentence about the precision that stands for Train.precision=auto; none where the plan has only named precisions."""
    choices = dict.fromkeys(config.precision for config in configs if config.precision)
    if choices and request.executor not in LOCAL_EXECUTORS:
        raise UserError(
            f"Train.precision=auto depends on the processors of this machine, and executor={request.executor} may use others; "
            "pass Train.precision=float32 or Train.precision=bfloat16"
        )
    return [f"precision: {choice.precision}, because {choice.reason}" for choice in choices]


def _teachers_first(needed: list[Spec], asked: Mapping[str, Spec], trained: Mapping[str, Spec]) -> list[Spec]:
    """The teachers that were not asked for, the teachers that were, the other runs; a teacher's teacher before it."""
    every = {**trained, **asked}

    @cache
    def level(run: str) -> int:
        return 1 + max((level(teacher) for teacher in every[run].teacher_runs if teacher in every), default=0)

    teachers = [*needed, *(spec for spec in asked.values() if spec.id in trained)]
    return [*sorted(teachers, key=lambda spec: level(spec.id)), *(s for s in asked.values() if s.id not in trained)]


def _default(what: str, defaults: Mapping[str, str], dataset: str) -> tuple[str, ...]:
    if what not in defaults:
        raise UserError(f"the dataset '{dataset}' has no default {what}; pass {what}=NAME")
    return (defaults[what],)


def _check_images(teachers: Teachers, taught: Config) -> None:
    """Refuse a run that was trained on the images of another dataset before anything starts."""
    source = taught.shared["Dataset.source"].value
    for run in teachers.runs:
        if run.source != source:
            raise UserError(
                f"the teacher's run {run.id} was trained on the images of '{run.source}', not on those of '{source}'"
            )


def _in_a_name(student: str) -> str:
    """A student as a part of a run's id: a library's model has characters that a folder's name cannot have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", student)


def _control(resolved: Config) -> dict[str, Any]:
    """What makes a method a control, by parameter; a value that a variant sets back to the default does not."""
    usual = Control()
    bound = {b.parameter: b.value for b in resolved.own.values() if b.configurable == "Control"}
    return {name: value for name, value in bound.items() if value != getattr(usual, name)}


def _spec(resolved: Config, student: str, seed: int, teachers: Teachers, is_teacher: bool = False) -> Spec:
    defines = {
        "values": resolved.defines(),
        "method": resolved.method,
        "dataset": resolved.dataset,
        "student": student,
        "teacher": teachers.identity,
        "seed": seed,
        "version": resolve.RESULT_VERSION,
    }
    return Spec(
        id=f"{resolved.method}-{resolved.dataset}-{_in_a_name(student)}-s{seed}-{resolve.digest(defines)[:10]}",
        method=resolved.method,
        source=resolved.source,
        dataset=resolved.dataset,
        student=student,
        teacher=teachers.name,
        teacher_runs=tuple(run.id for run in teachers.runs),
        teacher_folders={run.id: run.folder for run in teachers.runs if run.folder},
        teacher_file=teachers.file,
        teacher_untrained=teachers.untrained,
        teacher_word=teachers.word,
        recipe=resolved.recipe,
        seed=seed,
        protocol=resolved.protocol(),
        overrides=resolved.overrides(),
        own_overrides=resolved.own_overrides(),
        control=_control(resolved),
        values=resolve.digest(resolved.defines()),
        config=resolved.text(),
        gpus=resolved.machine["Machine.gpus"].value,
        device=resolved.machine["Machine.device"].value,
        is_teacher=is_teacher,
    )
