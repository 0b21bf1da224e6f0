"""Confirmation of merged rows: how a run of somebody else came out on this machine, recorded in the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.audit.finished import FinishedRun
from kdbench.audit.reproduce import Outcome
from kdbench.report import leaderboard, records
from kdbench.report.foreign.merging import TOLERANCE
from kdbench.report.records import ACCURACY, CONFIRMED, CONTRADICTED, ORIGIN, REPRODUCED, VERDICT, cell

_DEVICE = "provenance.device"


@dataclass(frozen=True)
class Judgement:
    """The judgement on a merged row.

    Attributes:
        verdict: `CONFIRMED`, `CONTRADICTED`, or None if the row stays unconfirmed.
        sentence: the verdict with its reason.
    """

    verdict: str | None
    sentence: str


def verdict(outcome: Outcome, stored: Mapping[str, Any]) -> str | None:
    """The judgement on a run that was trained again: `CONFIRMED`, `CONTRADICTED`, or None if the two cannot be compared.

    Where nothing that both record differs, and the run was deterministic, the weights must be bit-identical, and equal weights
    must have the same accuracy on the test set. Otherwise the machines round differently, and the accuracies must agree to
    `TOLERANCE`.

    Args:
        stored: the cells of the merged row.
    """
    last = outcome.accuracy.get(ACCURACY)
    if outcome.identical:  # and so is what they score, unless somebody has edited it
        return CONFIRMED if last is None or last["difference"] == 0 else CONTRADICTED
    images = outcome.environment.get("data.sha256", {"stored": None, "here": None})
    other_images = all(images.values()) and images["stored"] != images["here"]
    if outcome.status != "finished" or last is None or other_images:
        return None
    if _must_be_identical(outcome, stored):
        return CONTRADICTED
    return CONFIRMED if abs(last["difference"]) <= TOLERANCE else CONTRADICTED


def _must_be_identical(outcome: Outcome, stored: Mapping[str, Any]) -> bool:
    """True if the environment leaves no reason for other weights."""
    recorded = [values for values in outcome.environment.values() if all(values.values())]
    on_cpu = "provenance.runs_per_gpu" not in stored and stored.get(_DEVICE) == stored.get("provenance.cpu")
    deterministic = on_cpu or stored.get("provenance.deterministic") == "True"
    has_weights = bool(stored.get(records.WEIGHTS))
    return deterministic and has_weights and all(values["stored"] == values["here"] for values in recorded)


def record(board: Path, run: FinishedRun, outcome: Outcome, retrained: Mapping[str, Any]) -> Judgement | None:
    """Judge a run that was trained again, and store the judgement if its row in the leaderboard was merged.

    Args:
        board: the folder of the leaderboard, whose tables are written again.
        run: the stored run.
        retrained: the new result.

    Returns:
        None if there is no merged row of this run, or it is not what the run was compared with.
    """
    path = board / leaderboard.CSV
    if not path.is_file():
        return None
    rows, _ = records.from_csv(path.read_bytes(), str(path))
    place = rows.index[rows["run"] == run.id]
    if ORIGIN not in rows.columns or len(place) != 1 or not rows.loc[place[0], ORIGIN]:
        return None
    stored = dict(rows.loc[place[0]])
    if any(stored.get(key, "") != cell(run.result.get(key)) for key in (records.WEIGHTS, ACCURACY)):
        return None  # a folder of the same run
    judged = verdict(outcome, stored)
    if judged is None:
        return Judgement(None, f"The row from {stored[ORIGIN]} stays unconfirmed: {_reason(outcome)}.")
    difference = outcome.accuracy.get(ACCURACY, {}).get("difference")
    facts = {
        VERDICT: judged,
        f"{REPRODUCED}.identical": outcome.identical,
        f"{REPRODUCED}.difference": difference,
        f"{REPRODUCED}.device": retrained.get(_DEVICE),
        f"{REPRODUCED}.at": retrained.get("provenance.finished_at"),
    }
    for key, value in facts.items():
        if key not in rows.columns:
            rows[key] = ""
        rows.loc[place[0], key] = cell(value)
    leaderboard.rewrite(board, rows)
    sentence = f"{judged.capitalize()}: the row from {stored[ORIGIN]}, {_how(outcome, judged, stored)}."
    return Judgement(judged, f"{sentence} {board / leaderboard.README} shows it.")


def _reason(outcome: Outcome) -> str:
    if outcome.status != "finished":
        return "the run failed here"
    return "no accuracy is stored" if ACCURACY not in outcome.accuracy else "the images are not the same (data.sha256)"


def _how(outcome: Outcome, judged: str, stored: Mapping[str, Any]) -> str:
    if outcome.identical:
        return "bit-identical" if judged == CONFIRMED else "whose weights are bit-identical, but not their accuracy"
    if judged == CONTRADICTED and _must_be_identical(outcome, stored):
        return "whose weights differ although nothing in the environment does"
    within = "within" if judged == CONFIRMED else "more than"
    return f"whose accuracy differs by {within} {TOLERANCE:g} point"
