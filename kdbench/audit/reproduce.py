"""Train a finished run again in another folder, and compare the result with the stored one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdbench.audit import finished
from kdbench.audit.finished import FinishedRun
from kdbench.config import places, run_config
from kdbench.errors import RunError, UserError
from kdbench.files import write_atomically
from kdbench.launch import devices, gpus, inputs, local
from kdbench.launch.unfinished import unfinished
from kdbench.plan.spec import Spec
from kdbench.report.records import cell, number
from kdbench.store.folder import CHECKPOINT, CONFIG, REPRODUCED, RESULT, RunFolder

OUTCOME = f"{REPRODUCED}.json"

# Entries of provenance that differ between any two runs.
_PER_RUN = ("command", "started_at", "finished_at", "sessions", "commits", "job", "host", "commit_submitted", "load")
_CHECKSUMS = ("data.sha256", "teacher.sha256")


@dataclass(frozen=True)
class Outcome:
    """Comparison of a retrained run with the stored one.

    Attributes:
        identical: whether the weights are bit-identical.
        status, error: status and error of the retrained run.
        weights: `weights.sha256` → {"stored": …, "here": …}, None where one is not recorded.
        accuracy: {"stored": …, "here": …, "difference": here - stored} by key of the results, in percent.
        environment: {"stored": …, "here": …} by key of the results, for keys that describe code, machine and data.
    """

    identical: bool
    status: str | None
    error: str | None
    weights: Mapping[str, Mapping[str, str | None]]
    accuracy: Mapping[str, Mapping[str, float]]
    environment: Mapping[str, Mapping[str, str | None]]

    @property
    def summary(self) -> str:
        """One sentence: whether the run was reproduced, and if not, by how much it differs."""
        if self.status != "finished":
            return f"Not reproduced: the run failed ({self.error})."
        recorded = [values for values in self.environment.values() if all(values.values())]
        same = all(values["stored"] == values["here"] for values in recorded)
        if self.identical:
            return "Reproduced: the weights are bit-identical" + ("." if same else ", in a different environment.")
        last = self.accuracy.get("accuracy.last")
        by = f"accuracy differs by {abs(last['difference']):.2f} points" if last else "no accuracy is stored"
        why = "no recorded part of the environment differs" if same else "the environment differs as listed above"
        return f"Not bit-identical: the weights differ; {by}; {why}."


@dataclass(frozen=True)
class Reproduction:
    """A finished run that is about to be trained again; nothing has been written yet.

    Attributes:
        run: the stored run.
        spec: the run as it will be trained on this machine.
        teachers: the runs of its teachers, and of theirs, that must be trained first, in order.
        teacher_folders: folders of teachers with the recorded weights that are to be copied to `out`.
        out: the folder of runs that all go to.
        data: the folder of the datasets.
        changes: differences from the recorded run, a sentence each.
    """

    run: FinishedRun
    spec: Spec
    teachers: tuple[Spec, ...]
    teacher_folders: tuple[Path, ...]
    out: Path
    data: Path | None
    changes: tuple[str, ...]


def prepare(
    word: str, runs: Path, data: Path | None = None, out: Path | None = None, board: Path = Path("leaderboard")
) -> Reproduction:
    """Find a finished run and check that it can be trained here.

    Args:
        word: a run folder, or an id or the beginning of one, in `runs` or among the rows of a leaderboard.
        runs: the folder of all runs.
        data: the folder of the datasets; None for a dataset that comes with kdbench.
        out: the folder of runs to train in; None: `runs`/reproduced.
        board: the leaderboard.

    Raises:
        UserError: there is no such finished run, `out` holds other runs, or this machine lacks the data or the GPUs.
        RunError: the records of the run are not sufficient to train it.
    """
    run = finished.find(word, runs, board)
    out = places.user_path(out or runs / REPRODUCED).resolve()
    origin = run.folder.parent if run.folder else runs
    if out in (runs.resolve(), origin.resolve()):
        raise UserError(f"--out {out} is the folder of the stored runs; choose another folder")
    plan = finished.retraining(run, origin)
    spec, machine_changes = _on_this_machine(run, plan.spec)
    inputs.check([replace(spec, teacher_runs=())], runs, data)  # `_Teachers` judges the runs that taught it
    gpus.shares(None, spec.gpus)  # refuses what this machine has too few GPUs for
    elsewhere = [Path(path).parent for path in spec.teacher_folders.values()]
    teachers = _Teachers((out, origin, runs, *elsewhere), board, {spec.id})
    teachers.add(spec, checksums_of_teachers(run.result), plan.teachers)
    spec = replace(spec, teacher_folders={})  # they are copied, if they still are what they were
    for id_ in (*teachers.train, *teachers.copy, spec.id):
        folder = RunFolder(out, id_)
        if folder.path.is_symlink() or (folder.path.exists() and not (folder / OUTCOME).is_file()):
            raise UserError(
                f"{folder.path} already exists and was not created by kdbench reproduce; choose another folder with --out"
            )
    changes = (*plan.changes, *machine_changes, *devices.slow_precision([spec]))
    return Reproduction(run, spec, tuple(teachers.train.values()), tuple(teachers.copy.values()), out, data, changes)


def carry_out(reproduction: Reproduction) -> Outcome:
    """Train the run, compare it with the stored one, and write the outcome to reproduced.json in its new folder.

    Raises:
        RunError: the run has not ended here.
    """
    spec, out = reproduction.spec, reproduction.out
    for folder in reproduction.teacher_folders:
        copied = RunFolder(out, folder.name)
        copied.write(OUTCOME, {"run": folder.name, "status": "copied"})  # marks it as one of kdbench reproduce
        for name in (CONFIG, CHECKPOINT, RESULT):
            write_atomically(copied / name, (folder / name).read_bytes())
    for teacher in reproduction.teachers:
        _train(teacher, out, reproduction.data)
    _train(spec, out, reproduction.data)
    retrained = RunFolder(out, spec.id)
    result = retrained.result()
    if result is None:
        raise RunError("; ".join(unfinished([spec], out).sentences(out)))
    outcome = compare(reproduction.run.result, result)
    retrained.write(OUTCOME, {"run": reproduction.run.id, **asdict(outcome), "remarks": [*reproduction.changes]})
    return outcome


def compare(then: Mapping[str, Any], now: Mapping[str, Any]) -> Outcome:
    """Compare two results of one run.

    Args:
        then: the stored result, or the cells of its row.
        now: the new result.
    """

    def both(key: str) -> dict[str, Any]:
        return {"stored": cell(then.get(key)) or None, "here": cell(now.get(key)) or None}

    weights = both("weights.sha256")
    accuracies = {}
    for key in sorted({*then, *now}):
        is_accuracy = key.startswith(("accuracy.", "exits.")) or key == "teacher.accuracy"
        old, new = (number({key: cell(result.get(key))}, key) if is_accuracy else None for result in (then, now))
        if old is not None and new is not None:
            accuracies[key] = {"stored": old, "here": new, "difference": new - old}
    facts = [key for key in {*then, *now} if key.startswith("provenance.") and key.partition(".")[2] not in _PER_RUN]
    environment = {key: both(key) for key in (*_CHECKSUMS, *sorted(facts))}
    return Outcome(
        identical=now.get("status") == "finished" and bool(weights["here"]) and weights["here"] == weights["stored"],
        status=now.get("status"),
        error=now.get("error"),
        weights={"weights.sha256": weights},
        accuracy=accuracies,
        environment={key: values for key, values in environment.items() if any(values.values())},
    )


def _on_this_machine(run: FinishedRun, spec: Spec) -> tuple[Spec, list[str]]:
    """The run as it can be trained here, and how this machine differs from the one it ran on, a sentence each."""
    import torch

    from kdbench.store import provenance

    values = run_config.parse(spec.config, spec.id).values
    machine = {key: value for key, value in values.items() if key.startswith("Machine.")}
    then = run.result.get("provenance.device")
    has_gpu = torch.cuda.is_available()
    if spec.device.startswith("cuda") and not has_gpu:
        return finished.with_machine(spec, machine | {"Machine.device": "cpu"}), [
            f"the run was trained with Machine.device={spec.device} ({then}), but there is no GPU here; it is now trained on "
            "the CPU, which rounds differently"
        ]
    if spec.device == "auto" and has_gpu and then == provenance.device_name(torch.device("cpu")):
        machine["Machine.device"] = "cpu"  # "auto" meant the CPU then
    spec = finished.with_machine(spec, machine)
    here = torch.device("cuda" if spec.device == "auto" and has_gpu else spec.device.replace("auto", "cpu"))
    name = provenance.device_name(here)
    if not then or name == then:
        return spec, []
    return spec, [f"the run was trained on {then} and is now trained on {name}, which may round differently"]


@dataclass
class _Teachers:
    """The teachers of a run, and theirs: which must be trained again, and which are copied.

    Attributes:
        places: the folders of runs to look in; the first is where they are to be.
        board: the leaderboard.
        taught: ids of the runs whose teachers are being added.
        train, copy: by id, teachers first.
    """

    places: Sequence[Path]
    board: Path
    taught: set[str]
    train: dict[str, Spec] = field(default_factory=dict)
    copy: dict[str, Path] = field(default_factory=dict)

    def add(self, spec: Spec, checksums: Mapping[str, str], planned: Sequence[Spec]) -> None:
        """Add the teachers of a run.

        Args:
            checksums: of their weights, by id, as the run recorded them; one that is not there may be any.
            planned: runs that train teachers, as the run's command plans them now.

        Raises:
            UserError: a teacher cannot be trained or copied.
        """
        for id_ in spec.teacher_runs:
            if id_ in self.taught:
                raise UserError(f"the run {id_} is recorded as a teacher of itself")
            if id_ not in self.train and id_ not in self.copy:
                self.taught.add(id_)
                self._add(id_, checksums.get(id_), planned)
                self.taught.remove(id_)

    def _add(self, id_: str, checksum: str | None, planned: Sequence[Spec]) -> None:
        for place in self.places:
            folder = RunFolder(place, id_)
            weights = _weights_sha256(folder) if folder.state() == "finished" else None
            if weights and weights == (checksum or weights):
                folder.check_links()
                if place != self.places[0]:
                    self.copy[id_] = folder.path
                return
        try:
            stored_run = finished.find(id_, self.places[1], self.board)
            plan = finished.retraining(stored_run, self.places[1])
        except UserError:
            now = next((spec for spec in planned if spec.id == id_), None)
            if now is None:
                raise
            self.add(now, {}, planned)
            self.train[id_] = now
            return
        self.add(plan.spec, checksums_of_teachers(stored_run.result), [*planned, *plan.teachers])
        self.train[id_] = _on_this_machine(stored_run, plan.spec)[0]


def checksums_of_teachers(result: Mapping[str, Any]) -> dict[str, str]:
    """The weights of a run's teachers as its result records them, by the id of the run that trained each."""
    runs, checksums = (str(result.get(key) or "").split(",") for key in ("teacher.run", "teacher.sha256"))
    pairs = zip(reversed(runs), reversed(checksums), strict=False)  # a teacher's file, which has no run, comes first
    return {run: sha for run, sha in pairs if run and sha}


def _weights_sha256(folder: RunFolder) -> str | None:
    """sha256 of the weights in a run's folder, whatever its result records; None if they cannot be read."""
    from kdbench.run import checkpoint

    try:
        return checkpoint.weights_sha256(checkpoint.load(folder / CHECKPOINT)["student"])
    except (RunError, KeyError):
        return None


def _train(spec: Spec, out: Path, data: Path | None) -> None:
    """Train from the beginning; a run that was interrupted resumes, and one that another process does is waited for."""
    folder = RunFolder(out, spec.id)
    if folder.state() != "absent":
        shutil.rmtree(folder.path)
    folder.write(OUTCOME, {"run": spec.id, "status": "running"})  # marks the folder as one of kdbench reproduce
    if spec.gpus > 1:
        local.local([spec], out, data, None, wait=True)
    else:
        local.inline([spec], out, data, wait=True)
