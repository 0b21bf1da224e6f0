"""Studies: the trials of one method, a file each in RUNS/tuning. No torch and no Optuna here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdbench.config import places, resolve, signature
from kdbench.config.ginfile import COMMAND_LINE, Binding
from kdbench.config.revisions import earliest
from kdbench.config.space import Space
from kdbench.errors import UserError, reason
from kdbench.files import lock, write_atomically
from kdbench.plan import expand
from kdbench.plan.request import Request
from kdbench.plan.spec import Spec
from kdbench.plan.teachers import FindRun
from kdbench.store.studies import FILE, FOLDER, OBJECTIVE, Trial, read_trials, teacher_identity


@dataclass
class Study:
    """The trials of one method with one dataset, student, teacher and recipe.

    Attributes:
        specs: the runs with the gin file's values, one per seed.
        space: the parameters to choose and their ranges.
        request: the request whose plan is these specs, without parameters of the method.
        find_run: looks up the runs that `teacher=` names.
        trials: all so far, in order.
    """

    specs: tuple[Spec, ...]
    space: Space
    request: Request
    find_run: FindRun | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Readable words and a hash of all that a trial depends on; the number of trials is not part of it."""
        spaces = {name: dimension.plain() for name, dimension in self.space.items()}
        number = resolve.digest({"runs": sorted(spec.id for spec in self.specs), "space": spaces})[:10]
        return f"{self.spec.method}-{self.spec.dataset}-{self.spec.student}-{number}"

    @property
    def spec(self) -> Spec:
        """The run with the first seed."""
        return self.specs[0]

    def gin_values(self) -> dict[str, Any]:
        """The gin file's values of the parameters of the space: the first trial, so that tuning cannot end below it."""
        config = resolve.resolve(self.spec.method, self.spec.dataset, self.spec.recipe)
        name = config.signature.name
        return {parameter: resolve.plain(config.own[f"{name}.{parameter}"].value) for parameter in self.space}

    def specs_of(self, number: int, parameters: Mapping[str, Any]) -> Sequence[Spec]:
        """The runs of a trial, one per seed."""
        if number == 0:
            return self.specs
        name = signature.of_method(self.spec.source).name
        own = [Binding(name, parameter, value, COMMAND_LINE) for parameter, value in parameters.items()]
        request = replace(self.request, overrides=(*self.request.overrides, *own))
        return [spec for spec in expand.plan(request, self.find_run) if not spec.is_teacher]

    def path(self, runs: Path) -> Path:
        return runs / FOLDER / self.id / FILE

    def read(self, runs: Path) -> None:
        """Set `trials` to the stored ones.

        Raises:
            UserError: the file exists but is damaged.
        """
        path = self.path(runs)
        try:
            self.trials = read_trials(path)
        except FileNotFoundError:
            self.trials = []
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a readable study ({reason(error)}); delete it to start over") from None

    def outdated(self) -> int:
        """The number of trials that another version of the method file made."""
        version = earliest(places.file_sha256(places.sources()[self.spec.source]))
        return sum(earliest(trial.get("provenance.method_sha256", "")) != version for trial in self.trials)

    def add(self, trial: Trial, runs: Path) -> None:
        """Append a trial and store the study."""
        self.trials.append(trial)
        spec = self.spec
        content = {
            "study": self.id,
            "method": spec.method,
            "dataset": spec.dataset,
            "student": spec.student,
            "teacher": spec.teacher,
            "teacher.identity": teacher_identity(spec),
            "recipe": spec.recipe,
            "overrides": spec.overrides,
            "protocol": spec.protocol,
            "seeds": [each.seed for each in self.specs],
            "objective": OBJECTIVE,
            "space": {name: dimension.plain() for name, dimension in self.space.items()},
            "trials": self.trials,
        }
        write_atomically(self.path(runs), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    @contextmanager
    def alone(self, runs: Path) -> Iterator[None]:
        """Keep other processes from adding trials inside the block.

        Raises:
            UserError: another process holds the lock.
        """
        path = self.path(runs).with_name("lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(path, wait=False))
            except BlockingIOError:
                raise UserError(f"another process is adding trials to the study {self.id}") from None
            yield
