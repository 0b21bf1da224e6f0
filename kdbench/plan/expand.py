"""From selections and overrides to the runs that they mean: pure data, teachers first. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

from kdbench.config import bindings, places, resolve, signature
from kdbench.config.ginfile import Binding
from kdbench.config.resolve import Config
from kdbench.config.settings import BASELINE
from kdbench.errors import UserError
from kdbench.plan.request import Request, is_weight_file
from kdbench.plan.spec import EQUAL_TEACHER_SEED, TEACHER_SEED, Spec


def plan(request: Request) -> list[Spec]:
    """All runs of a request, each once, those that train teachers before those that need them.

    Raises:
        UserError: a configuration that cannot be, or an override that no run uses.
    """
    asked: dict[str, Spec] = {}
    teachers: dict[str, Spec] = {}
    configs: list[Config] = []
    for dataset in request.dataset:
        defaults = {
            b.parameter: b.value for b in bindings.of_group("dataset", dataset).values() if b.configurable == "Defaults"
        }
        recipes = request.recipe or _default("recipe", defaults, dataset)
        students = request.student or _default("student", defaults, dataset)
        for recipe, student, method in itertools.product(recipes, students, request.methods):
            resolved = resolve.resolve(method, dataset, recipe, request.overrides)
            configs.append(resolved)
            needs_teacher = signature.of_method(resolved.source).attributes.get("needs_teacher", False)
            kind = resolved.control().teacher
            chosen: tuple[str | None, ...] = (None,)
            if needs_teacher:
                selected = request.teacher or _default("teacher", defaults, dataset)
                chosen = (student,) if kind == "student" else selected
            for teacher, seed in itertools.product(chosen, request.seeds):
                trained_by = None
                if teacher is not None and kind != "untrained" and not is_weight_file(teacher):
                    trained_by = _teacher_run(teacher, student, request.overrides, resolved)
                    teachers[trained_by.id] = trained_by
                spec = _spec(resolved, student, seed, teacher, trained_by)
                asked[spec.id] = spec
    for binding in resolve.unused(request.overrides, configs):
        raise UserError(f"nothing in this plan uses {binding.key} (methods: {', '.join(request.methods)})")
    return [spec for id_, spec in teachers.items() if id_ not in asked] + _teachers_first(asked, teachers)


def _teachers_first(asked: Mapping[str, Spec], teachers: Mapping[str, Spec]) -> list[Spec]:
    return sorted(asked.values(), key=lambda spec: spec.id not in teachers)


def _default(what: str, defaults: Mapping[str, str], dataset: str) -> tuple[str, ...]:
    if what not in defaults:
        raise UserError(f"the dataset '{dataset}' has no default {what}; pass {what}=NAME")
    return (defaults[what],)


def _teacher_run(teacher: str, student: str, overrides: Iterable[Binding], taught: Config) -> Spec:
    shared_only = [b for b in overrides if b.configurable in signature.shared()]
    resolved = resolve.resolve(BASELINE, taught.dataset, taught.recipe, shared_only)
    seed = EQUAL_TEACHER_SEED if teacher == student else TEACHER_SEED
    return _spec(resolved, teacher, seed, None, None, is_teacher=True)


def _spec(
    resolved: Config, student: str, seed: int, teacher: str | None, trained_by: Spec | None, is_teacher: bool = False
) -> Spec:
    control = resolved.control()
    untrained = teacher if control.teacher == "untrained" else None
    file = teacher if teacher is not None and trained_by is None and untrained is None else None
    if untrained:
        if is_weight_file(untrained):
            raise UserError(f"the method '{resolved.method}' takes an untrained teacher: name a backbone, not a file")
        identity: str | None = f"untrained {untrained} {TEACHER_SEED}"
    else:
        identity = trained_by.id if trained_by else places.file_sha256(Path(file).expanduser()) if file else None
    defines = {
        "values": resolved.defines(),
        "method": resolved.method,
        "dataset": resolved.dataset,
        "student": student,
        "teacher": identity,
        "seed": seed,
        "version": resolve.RESULT_VERSION,
    }
    return Spec(
        id=f"{resolved.method}-{resolved.dataset}-{student}-s{seed}-{resolve.digest(defines)[:10]}",
        method=resolved.method,
        source=resolved.source,
        dataset=resolved.dataset,
        student=student,
        teacher=f"{untrained} untrained" if untrained else Path(file).stem if file else teacher,
        teacher_run=trained_by.id if trained_by else None,
        teacher_file=file,
        teacher_untrained=untrained,
        teacher_selected=control.teacher != "student",
        recipe=resolved.recipe,
        seed=seed,
        protocol=resolved.protocol(),
        overrides=resolved.overrides(),
        own_overrides=resolved.own_overrides(),
        control={b.parameter: b.value for b in resolved.own.values() if b.configurable == "Control"},
        values=resolve.digest(resolved.defines()),
        config=resolved.text(),
        gpus=resolved.machine["Machine.gpus"].value,
        device=resolved.machine["Machine.device"].value,
        is_teacher=is_teacher,
    )
