"""One run as plain data that any process can take up."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from kdbench.config import BASELINE, ginfile, places, run_config, syntax
from kdbench.config import fields as config_fields
from kdbench.errors import UserError, shortened

COMPARISON, TEACHER = "comparison", "teacher"
"""What a run is made for."""

TEACHER_SEED = 0
"""Seed of the run that trains a teacher: one teacher for all seeds of the students."""


EQUAL_TEACHER_SEED = 1000
"""The same where the teacher has the student's architecture: a teacher with a student's seed would be that student's twin."""


@dataclass(frozen=True)
class Spec:
    """One run, as plain data that any process can take up.

    Attributes:
        id: names the run folder; a hash of all that defines the result, behind words for the eye.
        source: the method file.
        teacher: name of the teachers' backbones, or of the weight file; None for methods without a teacher.
        teacher_runs: ids of the runs that teach, from the largest teacher to the nearest; after `teacher_file`.
        teacher_folders: by id, the folders of those runs that are not in the folder of runs.
        teacher_file: a weight file from outside; its content, not its path, is part of the id.
        teacher_untrained: the backbone whose fresh weights teach, for that control.
        recipe: name of the recipe.
        teacher_word: the teacher as `teacher=` takes it; None if the method names its own.
        control: what makes the method a control, by parameter of `switches.Control`.
        overrides, own_overrides: what the command line changed, shared and the method's own.
        values: a hash of all values, shared and own: equal for all seeds and teachers.
        config: gin text, complete.
        gpus, device: as `Machine` has them, for the launcher; not part of the id.
        is_teacher: in the plan because others need it, not because it was asked for.
    """

    id: str
    method: str
    source: str
    dataset: str
    student: str
    teacher: str | None
    teacher_runs: tuple[str, ...]
    teacher_folders: Mapping[str, str]
    teacher_file: str | None
    teacher_untrained: str | None
    teacher_word: str | None
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

    @property
    def purpose(self) -> str:
        """The reason for the run, as results store it."""
        return TEACHER if self.is_teacher else COMPARISON

    def command(self, seeds: str | None = None) -> str:
        """The command that makes this run, as a shell takes it.

        Args:
            seeds: other seeds than this run's, as `seeds=` takes them.
        """
        selections = {"methods": self.method, "dataset": self.dataset, "student": self.student}
        if self.teacher_word:
            selections["teacher"] = self.teacher_word
        selections |= {"recipe": self.recipe, "seeds": seeds or str(self.seed)}
        bound = {key: _written(key, value) for key, value in {**self.overrides, **self.own_overrides}.items()}
        words = [f"{key}={shlex.quote(text)}" for key, text in {**selections, **bound}.items()]
        return " ".join(["kdbench run", *words])

    def identity(self) -> dict[str, Any]:
        """The entries of a result that identify its run, before the outcome is known."""
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
            "purpose": self.purpose,
            "protocol": self.protocol,
        }

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `Spec.from_plain` makes it again."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Spec:
        """The run that `plain` returned, also from a `spec.json` of a kdbench whose runs had one teacher at most.

        The file may be someone else's: its configuration is read and written again (`kdbench.config.run_config`).

        Raises:
            UserError: a field is missing or not of its type, a name is not one that kdbench gives, or the configuration
                holds more than values.
        """
        for sentence in ill_typed(plain):
            raise UserError(f"the stored run cannot be used: {sentence}")
        values = dict(plain)
        if "teacher_run" in values:
            run, selected = values.pop("teacher_run"), values.pop("teacher_selected", False)
            named = values.get("teacher_file") or values.get("teacher_untrained") or values.get("teacher")
            values |= {"teacher_runs": [run] if run else [], "teacher_folders": {}}
            values["teacher_word"] = named if selected else None
        for each in fields(cls):
            if each.name not in values and each.name != "is_teacher":
                raise UserError(f"the stored run cannot be used: it lacks its '{each.name}'")
        if more := values.keys() - {each.name for each in fields(cls)}:
            raise UserError(f"the stored run has '{min(map(str, more))}', which this version of kdbench does not have")
        spec = cls(**{**values, "teacher_runs": tuple(values["teacher_runs"])})
        spec._check_names()
        return replace(spec, config=run_config.write(run_config.parse(spec.config, spec.id).values))

    def _check_names(self) -> None:
        for name in (self.id, *self.teacher_runs):
            check_run_name(name)
        for name in (self.method, self.source, self.dataset, self.student, self.recipe):
            if not places.is_name(name):
                raise UserError(f"{shortened(repr(name))} in the run {self.id} cannot be a name")
        for key, value in {**self.overrides, **self.own_overrides}.items():
            if not _PARAMETER.fullmatch(key) or config_fields.not_plain(value):
                raise UserError(
                    f"the run {self.id} records {shortened(repr(key))}, which is not a value of a parameter"
                )
        for run, folder in self.teacher_folders.items():
            if run not in self.teacher_runs or Path(folder).name != run:
                raise UserError(f"the run {self.id} records a folder that is not that of one of its teachers")
        if not (self.teacher_word or "").isprintable():
            raise UserError(
                f"the teacher {self.teacher_word!r} of the run {self.id} has characters that cannot be printed"
            )


def ill_typed(plain: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each entry of a spec.json that is not of the type that `Spec` has; missing entries have none."""
    annotations = {each.name: each.type for each in fields(Spec)}
    for name, annotation in {**annotations, "teacher_run": "str | None", "teacher_selected": "bool"}.items():
        if name in plain and not _fits(plain[name], annotation):
            yield f"its '{name}' cannot be {shortened(repr(plain[name]))}"


def _fits(value: Any, annotation: Any) -> bool:
    """True if a value read from JSON is one of the field that has this annotation."""
    match annotation:
        case "str":
            return isinstance(value, str)
        case "str | None":
            return isinstance(value, str | None)
        case "bool":
            return isinstance(value, bool)
        case "int":
            return type(value) is int and 0 <= value < 2**63
        case "tuple[str, ...]":
            return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        case "Mapping[str, str]":
            return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        case _:
            return isinstance(value, dict)


@dataclass(frozen=True)
class TeacherRun:
    """A finished run that `teacher=` names, as the plan needs it.

    Attributes:
        folder: where it lies, if that is not in the folder of runs.
        source: `Dataset.source` of its images.
    """

    id: str
    method: str
    student: str
    source: str
    folder: str | None = None


def teacher_name(student: str, method: str) -> str:
    """The name of a trained network as a teacher: its backbone, and its method if that is not the baseline."""
    return student if method == BASELINE else f"{student} {method}"


RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_NAME = 200
"""Characters of a run's name at most: file systems allow 255, some of them for what programs add to it."""


def is_run_name(name: object) -> bool:
    """True if `name` can be that of a run, and so of its folder: letters, digits, ".", "_" and "-", not "." or "-" first.

    It names no other folder than one directly inside the folder of runs.
    """
    return isinstance(name, str) and len(name) <= LONGEST_NAME and RUN_NAME.fullmatch(name) is not None


def check_run_name(name: object) -> None:
    """Refuse a name that comes from a file or from the user, before it becomes a path.

    Raises:
        UserError: it cannot be the name of a run.
    """
    if not is_run_name(name):
        raise UserError(
            f"{shortened(repr(name))} cannot be the name of a run: a name has at most {LONGEST_NAME} characters, which are "
            "ASCII letters, digits, '.', '_' and '-', and starts with a letter or digit"
        )


_PARAMETER = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*", re.ASCII)


def _written(key: str, value: Any) -> str:
    """A value as a word of the command line: bare where that reads as the same value, else as gin writes it."""
    if not isinstance(value, str):
        return repr(tuple(value) if isinstance(value, list) else value)
    is_bare = value == value.strip() and (key == ginfile.SCHEDULE or syntax.value_in(value) == value)
    return value if is_bare and value.isprintable() else repr(value)
