"""One run as plain data that any process can take up."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from kdbench.config import BASELINE
from kdbench.errors import RunError

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

    def command(self) -> str:
        """The command that makes this run."""
        words = [f"methods={self.method}", f"dataset={self.dataset}", f"student={self.student}"]
        if self.teacher_word:
            words.append(f"teacher={shlex.quote(self.teacher_word)}")
        words += [f"recipe={self.recipe}", f"seeds={self.seed}"]
        words += [f"{key}={_word(value)}" for key, value in {**self.overrides, **self.own_overrides}.items()]
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

        Raises:
            RunError: an entry is missing, unknown, or of another type.
        """
        values = dict(plain)
        for sentence in ill_typed(plain):
            raise RunError(f"this spec.json cannot be used: {sentence}")
        if "teacher_run" in values:
            run, selected = values.pop("teacher_run"), values.pop("teacher_selected", False)
            named = values.get("teacher_file") or values.get("teacher_untrained") or values.get("teacher")
            values |= {"teacher_runs": [run] if run else [], "teacher_folders": {}}
            values["teacher_word"] = named if selected else None
        names = {each.name for each in fields(cls)}
        if lacking := names - {"is_teacher"} - values.keys():
            raise RunError(f"this spec.json cannot be used: it lacks '{min(lacking)}'")
        if unknown := values.keys() - names:
            raise RunError(f"this spec.json cannot be used: its '{min(unknown)}' is of another version of kdbench")
        return cls(**{**values, "teacher_runs": tuple(values["teacher_runs"])})


_TEXTS = ("id", "method", "source", "dataset", "student", "recipe", "protocol", "values", "config", "device")
_OPTIONAL_TEXTS = ("teacher", "teacher_file", "teacher_untrained", "teacher_word", "teacher_run")
_OBJECTS = ("teacher_folders", "overrides", "own_overrides", "control")


def ill_typed(plain: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each entry of a spec.json that is not of the type that `Spec` has; missing entries have none."""
    for name, value in plain.items():
        if name in _TEXTS and not isinstance(value, str):
            yield f"its '{name}' is not a string"
        elif name in _OPTIONAL_TEXTS and not isinstance(value, str | None):
            yield f"its '{name}' is neither a string nor null"
        elif name in _OBJECTS and not isinstance(value, dict):
            yield f"its '{name}' is not an object"
        elif name in ("seed", "gpus") and (type(value) is not int or not 0 <= value < 2**63):
            yield f"its '{name}' is not a number from 0"
        elif name in ("is_teacher", "teacher_selected") and not isinstance(value, bool):
            yield f"its '{name}' is neither true nor false"
    runs, folders = plain.get("teacher_runs", ()), plain.get("teacher_folders", {})
    if not isinstance(runs, list | tuple) or not all(isinstance(run, str) for run in runs):
        yield "its 'teacher_runs' is not a list of strings"
    if isinstance(folders, dict) and not all(isinstance(folder, str) for folder in folders.values()):
        yield "its 'teacher_folders' is not an object of strings"


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


def _word(value: Any) -> str:
    text = repr(tuple(value)) if isinstance(value, list) else str(value)
    return f"'{text}'" if any(c in text for c in " ()@,") else text
