"""Studies of `kdbench tune` on disk: their trials, the best one, and which runs use its values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench.config import places
from kdbench.plan.spec import Spec

FOLDER, FILE = "tuning", "study.json"

OBJECTIVE = "mean accuracy on the validation split after the last epoch, over the seeds, percent"

Trial = dict[str, Any]
"""One trial as it is stored: `number`, `parameters`, `values`, `status`, `accuracy.val`, `by_seed`, `error`, …"""


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
            study = json.loads(path.read_text(encoding="utf-8"))
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
    files = [places.file_sha256(places.user_path(spec.teacher_file))] if spec.teacher_file is not None else []
    return ",".join([*files, *spec.teacher_runs]) or spec.teacher_untrained
