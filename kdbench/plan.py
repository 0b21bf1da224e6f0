"""From selections and overrides to the runs that they mean: pure data, teachers first. No torch here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdbench import config, models, places, signature
from kdbench.config import Config
from kdbench.errors import UserError, nearest, unknown
from kdbench.ginfile import Binding
from kdbench.settings import BASELINE

TEACHER_SEED = 0
"""Seed of the run that trains a teacher: one teacher for all seeds of the students."""
EQUAL_TEACHER_SEED = 1000
"""The same where the teacher has the student's architecture: a teacher with a student's seed would be that student's twin."""

SELECTIONS = ("methods", "dataset", "student", "teacher", "recipe", "seeds")
SINGLE = ("sweep", "executor", "workers", "gpus", "cluster", "log")
EXECUTORS = ("inline", "local", "slurm")
DEFAULT_CLUSTER = "default"
LOGS = ("tensorboard",)


@dataclass(frozen=True)
class Spec:
    """One run, as plain data that any process can take up.

    Attributes:
        id: names the run folder; a hash of all that defines the result, behind words for the eye.
        source: the method file.
        teacher: name of the teacher's backbone or weight file, None for methods without one.
        teacher_run: id of the run that trains it; None for weights from outside.
        teacher_file: the weight file from outside; its content, not its path, is part of the id.
        teacher_untrained: the backbone whose fresh weights teach, for that control.
        recipe: name of the recipe.
        teacher_selected: whether the command line's teacher is meant, not one that the method itself names.
        control: what makes the method a control, by parameter of `settings.Control`.
        overrides, own_overrides: what the command line changed, shared and the method's own.
        values: a hash of all values, shared and own: equal for all seeds and teachers.
        config: gin text, complete.
        gpus, device: as `Machine` has them, for whoever starts the run; no part of its id.
        is_teacher: in the plan because others need it, not because it was asked for.
    """

    id: str
    method: str
    source: str
    dataset: str
    student: str
    teacher: str | None
    teacher_run: str | None
    teacher_file: str | None
    teacher_untrained: str | None
    teacher_selected: bool
    recipe: str
    seed: int
    protocol: str
    overrides: Mapping[str, Any]
    own_overrides: Mapping[str, Any]
    control: Mapping[str, Any]
    values: str
    config: str
    gpus: int
    device: str
    is_teacher: bool = field(default=False, compare=False)

    def command(self) -> str:
        """The command that makes this run."""
        words = [f"methods={self.method}", f"dataset={self.dataset}", f"student={self.student}"]
        if self.teacher and self.teacher_selected:
            words.append(f"teacher={self.teacher_file or self.teacher_untrained or self.teacher}")
        words += [f"recipe={self.recipe}", f"seeds={self.seed}"]
        words += [f"{key}={_word(value)}" for key, value in {**self.overrides, **self.own_overrides}.items()]
        return " ".join(["kdbench run", *words])

    def identity(self) -> dict[str, Any]:
        """What a result says of its run before anything is known of its outcome."""
        return {
            "run": self.id,
            "status": "failed",
            "method": self.method,
            "method.parameters": json.dumps(self.own_overrides, sort_keys=True),
            "dataset": self.dataset,
            "student": self.student,
            "teacher": self.teacher,
            "recipe": self.recipe,
            "control": json.dumps(self.control, sort_keys=True),
            "overrides": json.dumps(self.overrides, sort_keys=True),
            "seed": self.seed,
            "protocol": self.protocol,
        }

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `Spec(**plain)` makes it again."""
        return asdict(self)


def _word(value: Any) -> str:
    text = repr(tuple(value)) if isinstance(value, list) else str(value)
    return f"'{text}'" if any(c in text for c in " ()@,") else text


@dataclass(frozen=True)
class Request:
    """What the user asked for: every selection a list, overrides parsed.

    Attributes:
        cluster: name of the profile, for executor=slurm.
        cluster_overrides: those of `Cluster.*`, which say nothing of runs.
    """

    methods: tuple[str, ...]
    dataset: tuple[str, ...]
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    recipe: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[Binding, ...]
    executor: str = "inline"
    workers: int | None = None
    cluster: str | None = None
    cluster_overrides: tuple[Binding, ...] = ()


def parse(words: Sequence[str]) -> Request:
    """The words behind `kdbench run`.

    Raises:
        UserError: a word that is neither a selection nor a binding, or names something that is not there.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    bindings: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(
                f"'{word}' is neither a selection (such as methods=kd) nor a binding (such as Train.epochs=5)"
            )
        if "." in key:
            bindings.append(word)
        elif key not in (*SELECTIONS, *SINGLE):
            raise _unknown_selection(key)
        elif key in chosen:
            raise UserError(f"'{key}' is given twice; several values go in one comma list ({key}=A,B)")
        else:
            chosen[key] = tuple(dict.fromkeys(filter(None, value.split(","))))
            if not chosen[key]:
                raise UserError(f"'{key}=' has no value")
            if key in SINGLE and len(chosen[key]) > 1:
                raise UserError(f"'{key}' takes one value, not {len(chosen[key])}")
    workers = _count("workers", chosen.pop("workers", (None,))[0])
    (cluster,) = chosen.pop("cluster", (None,))
    (executor,) = chosen.pop("executor", ("local" if workers else "slurm" if cluster else "inline",))
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    bindings += [f"Machine.gpus={number}" for number in chosen.pop("gpus", ())]
    bindings += [f"Machine.log={_log(name)}" for name in chosen.pop("log", ())]
    overrides = tuple(config.parse_overrides(bindings))
    check_log(binding.value for binding in overrides if binding.key == "Machine.log")
    of_cluster = tuple(b for b in overrides if b.configurable == "Cluster")
    if executor != "local" and workers:
        raise UserError(f"workers={workers} goes with executor=local, not with executor={executor}")
    if executor != "slurm" and (cluster or of_cluster):
        word = f"cluster={cluster}" if cluster else of_cluster[0].key
        raise UserError(f"{word} goes with executor=slurm, not with executor={executor}")
    if executor == "slurm":
        cluster = cluster or DEFAULT_CLUSTER
        places.member("cluster", cluster)
    if not set(chosen) - {"seeds"}:
        chosen["sweep"] = ("default",)
    if "sweep" in chosen:
        chosen = {**_sweep(chosen.pop("sweep")[0]), **chosen}
    chosen.setdefault("dataset", ("digits",))
    chosen.setdefault("methods", ("all",))
    return Request(
        methods=_methods(chosen["methods"]),
        dataset=_members("dataset", chosen["dataset"]),
        student=_backbones("student", chosen.get("student", ())),
        teacher=_teachers(chosen.get("teacher", ())),
        recipe=_members("recipe", chosen.get("recipe", ())),
        seeds=tuple(_seed(text) for text in chosen.get("seeds", ("0",))),
        overrides=tuple(b for b in overrides if b not in of_cluster),
        executor=executor,
        workers=workers,
        cluster=cluster,
        cluster_overrides=of_cluster,
    )


def _unknown_selection(key: str) -> UserError:
    parameters = {
        p: f"{s.name}.{p}" for s in config.known_overrides().values() for p in s.parameters if p not in SINGLE
    }
    guess = nearest(key, [*SELECTIONS, *SINGLE, *parameters])
    hint = (
        f"did you mean '{parameters.get(guess, guess)}'?" if guess else f"valid: {', '.join((*SELECTIONS, *SINGLE))}."
    )
    return UserError(f"unknown selection '{key}'; {hint} See all with: kdbench run --help")


def _sweep(name: str) -> dict[str, tuple[str, ...]]:
    return {b.parameter: tuple(map(str, b.value)) for b in config.group_bindings("sweep", name).values()}


def _methods(names: Iterable[str]) -> tuple[str, ...]:
    every = places.members("method")
    if "all" in names:
        # A variant (another method's class with other values) is asked for by name, also beside "all".
        plain = sorted((n for n in every if not config.is_variant(n)), key=lambda n: (n != BASELINE, n))
        names = list(dict.fromkeys([*plain, *(n for n in names if n != "all")]))
    for name in names:
        if name not in every:
            raise unknown("method", name, [*every, "all"], "kdbench list methods")
    return tuple(names)


def _members(group: str, names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        places.member(group, name)
    return tuple(names)


def _backbones(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        if name not in models.NAMES:
            raise unknown(kind, name, models.NAMES, "kdbench list students")
    return tuple(names)


def _teachers(names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        if _is_file(name):
            if not Path(name).expanduser().is_file():
                raise UserError(f"the teacher's weight file '{name}' does not exist")
        else:
            _backbones("teacher", [name])
    return tuple(names)


def _is_file(teacher: str) -> bool:
    return teacher.endswith((".pt", ".pth")) or "/" in teacher


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UserError(f"seeds takes whole numbers from 0, such as seeds=0,1,2, not '{text}'")
    return int(text)


def _count(key: str, text: str | None) -> int | None:
    if text is not None and (not text.isascii() or not text.isdigit() or int(text) < 1):
        raise UserError(f"{key} takes a whole number from 1, such as {key}=2, not '{text}'")
    return int(text) if text else None


def _log(name: str) -> str:
    if name not in LOGS:
        raise unknown("log", name, LOGS)
    return name


def check_log(names: Iterable[str]) -> None:
    """Raises UserError if the package that one of these values of `Machine.log` needs is not installed."""
    for name in filter(None, names):
        if find_spec(name) is None:
            raise UserError(f"log={name} needs the package {name}; install it with: pip install 'kdbench[{name}]'")


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
            b.parameter: b.value
            for b in config.group_bindings("dataset", dataset).values()
            if b.configurable == "Defaults"
        }
        recipes = request.recipe or _default("recipe", defaults, dataset)
        students = request.student or _default("student", defaults, dataset)
        for recipe, student, method in itertools.product(recipes, students, request.methods):
            resolved = config.resolve(method, dataset, recipe, request.overrides)
            configs.append(resolved)
            needs_teacher = signature.of_method(resolved.source).attributes.get("needs_teacher", False)
            kind = resolved.control().teacher
            chosen: tuple[str | None, ...] = (None,)
            if needs_teacher:
                selected = request.teacher or _default("teacher", defaults, dataset)
                chosen = (student,) if kind == "student" else selected
            for teacher, seed in itertools.product(chosen, request.seeds):
                trained_by = None
                if teacher is not None and kind != "untrained" and not _is_file(teacher):
                    trained_by = _teacher_run(teacher, student, request.overrides, resolved)
                    teachers[trained_by.id] = trained_by
                spec = _spec(resolved, student, seed, teacher, trained_by)
                asked[spec.id] = spec
    for binding in config.unused(request.overrides, configs):
        raise UserError(f"nothing in this plan uses {binding.key} (methods: {', '.join(request.methods)})")
    return [spec for id_, spec in teachers.items() if id_ not in asked] + _teachers_first(asked, teachers)


def _teachers_first(asked: Mapping[str, Spec], teachers: Mapping[str, Spec]) -> list[Spec]:
    return sorted(asked.values(), key=lambda spec: spec.id not in teachers)


def _default(what: str, defaults: Mapping[str, str], dataset: str) -> tuple[str, ...]:
    if what not in defaults:
        raise UserError(f"the dataset '{dataset}' names no default {what}; say {what}=NAME")
    return (defaults[what],)


def _teacher_run(teacher: str, student: str, overrides: Iterable[Binding], taught: Config) -> Spec:
    shared_only = [b for b in overrides if b.configurable in signature.shared()]
    resolved = config.resolve(BASELINE, taught.dataset, taught.recipe, shared_only)
    seed = EQUAL_TEACHER_SEED if teacher == student else TEACHER_SEED
    return _spec(resolved, teacher, seed, None, None, is_teacher=True)


def _spec(
    resolved: Config, student: str, seed: int, teacher: str | None, trained_by: Spec | None, is_teacher: bool = False
) -> Spec:
    control = resolved.control()
    untrained = teacher if control.teacher == "untrained" else None
    file = teacher if teacher is not None and trained_by is None and untrained is None else None
    if untrained:
        if _is_file(untrained):
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
        "version": config.RESULT_VERSION,
    }
    return Spec(
        id=f"{resolved.method}-{resolved.dataset}-{student}-s{seed}-{config.digest(defines)[:10]}",
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
        values=config.digest(resolved.defines()),
        config=resolved.text(),
        gpus=resolved.machine["Machine.gpus"].value,
        device=resolved.machine["Machine.device"].value,
        is_teacher=is_teacher,
    )
