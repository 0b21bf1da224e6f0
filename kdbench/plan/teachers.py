"""The runs, files and networks that teach a run: the teacher that was selected, and what the method makes of it.

Backbones are trained by the method that `Teaching.method` names, once for all seeds of the students; a chain of assistants
is trained by the taught method itself, each taught by those above it. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kdbench.backbones import registry
from kdbench.config import extensions, places, resolve, signature
from kdbench.config.ginfile import Binding
from kdbench.config.resolve import Config
from kdbench.errors import UserError
from kdbench.plan.request import WeightFile, is_weight_file
from kdbench.plan.spec import EQUAL_TEACHER_SEED, TEACHER_SEED, Spec, TeacherRun, teacher_name

FindRun = Callable[[str], TeacherRun | None]
"""Looks a finished run up in the folder of runs, by its id, the beginning of it, or its folder."""


@dataclass(frozen=True)
class Teachers:
    """All that teach one run.

    Attributes:
        word: the teacher as `teacher=` takes it; None if the method names its own.
        file: a weight file.
        runs: the runs that teach, after the file; from the largest teacher to the nearest.
        untrained: the backbone whose fresh weights teach.
    """

    word: str | None = None
    file: str | None = None
    runs: tuple[TeacherRun, ...] = ()
    untrained: str | None = None

    @property
    def name(self) -> str | None:
        """Their name in tables; None without a teacher."""
        if self.untrained:
            return f"{self.untrained} untrained"
        names = [WeightFile.of(self.file).path.stem] if self.file else []
        return "+".join([*names, *(teacher_name(run.student, run.method) for run in self.runs)]) or None

    @property
    def identity(self) -> str | None:
        """Their part of a run's id: contents of files and ids of runs, wherever these are."""
        if self.untrained:
            return f"untrained {self.untrained} {TEACHER_SEED}"
        files = [WeightFile.of(self.file).identity()] if self.file else []
        return ",".join([*files, *(run.id for run in self.runs)]) or None


NONE = Teachers()


def look_up(word: str, find_run: FindRun | None) -> Teachers:
    """A word of `teacher=` that is a file or a finished run; for a backbone, `Teachers` with the word alone.

    Raises:
        UserError: it is neither, and which backbone or run is nearest.
    """
    is_named = WeightFile.of(word).network is not None
    if is_named or not extensions.is_backbone(word):
        if is_weight_file(word):
            return Teachers(word, file=word)
        run = find_run(word) if find_run else None
        if run is not None:
            return Teachers(run.folder or run.id, runs=(run,))
    registry.check(word, "teacher")  # raises for a word that is none of the three
    return Teachers(word)


def assistants(chain: Sequence[str], teacher: str | None, student: str) -> tuple[str, ...]:
    """The backbones of a chain between a teacher and a student.

    Args:
        teacher: its backbone; None for one that is not known, which is above all of the chain.
    """
    if teacher == student:
        return ()
    first = chain.index(teacher) + 1 if teacher in chain else 0
    end = chain.index(student) if student in chain else len(chain)
    return tuple(chain[first:end])


Plan = Callable[..., Spec]
"""Makes the run of (configuration, student, seed, teachers, is_teacher)."""


def teachers_of(
    taught: Config, student: str, selected: Teachers, overrides: Iterable[Binding], plan: Plan
) -> tuple[Teachers, list[Spec]]:
    """The teachers of a method's runs on one student, and the runs that train them, teachers first.

    Args:
        selected: what `look_up` returned.

    Raises:
        UserError: the method's gin file asks for a teacher that cannot be.
    """
    kind, teaching = taught.control().teacher, taught.teaching()
    if kind == "untrained":
        if selected.file or selected.runs:
            what = "file" if selected.file else "run"
            raise UserError(f"the method '{taught.method}' takes an untrained teacher: name a backbone, not a {what}")
        return Teachers(selected.word, untrained=selected.word), []
    if kind == "student":
        selected = Teachers(student)
    word = None if kind == "student" else selected.word
    selected, trained = _trained(taught, student, selected, overrides, plan)
    top = selected.runs[0].student if selected.runs else None
    for backbone in teaching.chain:
        registry.check(backbone, f"backbone in Teaching.chain of '{taught.method}'")
    every = Teachers(word, selected.file, selected.runs)
    nearest = every
    for backbone in assistants(teaching.chain, top, student):
        above = every if teaching.all_above else nearest
        trained.append(plan(taught, backbone, TEACHER_SEED, above, is_teacher=True))
        nearest = Teachers(word, runs=(_as_teacher(trained[-1]),))
        every = Teachers(word, every.file, (*every.runs, *nearest.runs))
    return (every if teaching.all_above else nearest), trained


def _trained(
    taught: Config, student: str, selected: Teachers, overrides: Iterable[Binding], plan: Plan
) -> tuple[Teachers, list[Spec]]:
    """The selected teacher, trained as the method's gin file asks, and the runs that this takes.

    A method of `Teaching.method` that has a teacher itself is trained on a network of that teacher's architecture, also
    where the user names the teacher: it fits what the teacher's students need, such as a head, once for each teacher.
    """
    config = _config_of(taught.teaching().method, taught, overrides)
    backbone = selected.runs[0].student if selected.runs else selected.word
    seed = EQUAL_TEACHER_SEED if backbone == student else TEACHER_SEED
    trained: list[Spec] = []

    def add(config: Config, above: Teachers) -> Teachers:
        trained.append(plan(config, backbone, seed, above, is_teacher=True))
        return Teachers(backbone, runs=(_as_teacher(trained[-1]),))

    if not config.needs_teacher:
        return (selected, []) if selected.file or selected.runs else (add(config, NONE), trained)
    if selected.runs and selected.runs[0].method == config.method:
        return selected, []
    if selected.file:
        backbone = WeightFile.of(selected.file).network
        if backbone is None:
            raise UserError(
                f"'{config.method}' is trained first, for '{taught.method}', on a network like its teacher: name the network "
                f"of the file, as in teacher=resnet20:{selected.file}"
            )
    elif not selected.runs:
        lowest = _config_of(config.teaching().method, taught, overrides)
        if lowest.needs_teacher:
            raise UserError(
                f"'{config.method}' trains the teachers of '{taught.method}' and its own must be trained without a teacher: "
                f"its Teaching.method cannot be '{lowest.method}'"
            )
        selected = add(lowest, NONE)
    return add(config, selected), trained


def _config_of(method: str, taught: Config, overrides: Iterable[Binding]) -> Config:
    """The configuration that trains a teacher by a method."""
    places.member("method", method)
    shared = [binding for binding in overrides if binding.configurable in signature.shared()]
    return resolve.resolve(method, taught.dataset, taught.recipe, shared)


def _as_teacher(spec: Spec) -> TeacherRun:
    return TeacherRun(spec.id, spec.method, spec.student, "")
