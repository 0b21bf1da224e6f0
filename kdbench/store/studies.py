"""Studies of `kdbench tune` on disk: their trials, the best one, and which runs use its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench.files import read_object
from kdbench.plan.request import WeightFile
from kdbench.plan.spec import Spec

FOLDER, FILE = "tuning", "study.json"
AT_MOST = 64 << 20
"""Bytes of a study; ten thousand trials have fewer."""

OBJECTIVE = "mean accuracy on the validation split after the last epoch, over the seeds, percent"

Trial = dict[str, Any]
"""One trial as it is stored: `number`, `parameters`, `values`, `status`, `accuracy.val`, `by_seed`, `error`, …"""


def read_trials(path: Path) -> list[Trial]:
    """The trials of a stored study, in order.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it holds something else; the message is the reason.
    """
    trials = read_object(path, AT_MOST).get("trials")
    if not isinstance(trials, list):
        raise ValueError("it has no list of trials")
    for place, trial in enumerate(trials):
        if sentence := _defect(trial):
            raise ValueError(f"trial {place} {sentence}")
    return trials


def _defect(trial: Any) -> str | None:
    if not isinstance(trial, dict):
        return "is not an object"
    if trial.get("status") not in ("finished", "failed"):
        return "has neither finished nor failed"
    if type(trial.get("number")) is not int or not isinstance(trial.get("parameters"), dict):
        return "has no number or no parameters"
    accuracy = trial.get("accuracy.val")
    if trial["status"] == "finished" and not (isinstance(accuracy, int | float) and 0 <= accuracy <= 100):
        return "has finished without an accuracy"
    if not isinstance(trial.get("provenance.method_sha256", ""), str):
        return "has no checksum of its method"
    return None


def best(trials: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The finished trial with the highest validation accuracy, or None.

    Of several, it is the first: the gin values are the first trial, so that others must beat them.
    """
    finished = [trial for trial in trials if trial["status"] == "finished"]
    return max(finished, key=lambda trial: trial["accuracy.val"], default=None)


def tuning_of(spec: Spec, runs: Path) -> dict[str, Any]:
    """The `tuning.*` entries of a run's result: how many trials it took to choose its values, and in which study.

    A run counts as tuned if its values are the best of a study of the same method, dataset, student and teacher. If there
    are several such studies, the one with the most trials counts.

    Args:
        runs: the folder of all runs, which holds the studies too.
    """
    tuning: dict[str, Any] = {"tuning.trials": 0, "tuning.study": None}
    for path in sorted((runs / FOLDER).glob(f"*/{FILE}")):
        try:
            study = read_object(path, AT_MOST)
            same = all(study[key] == getattr(spec, key) for key in ("method", "dataset", "student"))
            chosen = best(study["trials"])
            if (
                not same
                or study["teacher.identity"] != teacher_identity(spec)
                or not chosen
                or chosen["values"] != spec.values
            ):
                continue
        except (OSError, ValueError, KeyError, TypeError):
            continue  # kdbench tune reports a damaged study; a run does not fail because of one
        if len(study["trials"]) > tuning["tuning.trials"]:
            tuning = {"tuning.trials": len(study["trials"]), "tuning.study": study["study"]}
    return tuning


def teacher_identity(spec: Spec) -> str | None:
    """The teachers' weights: checksum of a file from outside, ids of the runs that train them, or the untrained backbone."""
    files = [WeightFile.of(spec.teacher_file).identity()] if spec.teacher_file is not None else []
    return ",".join([*files, *spec.teacher_runs]) or spec.teacher_untrained
