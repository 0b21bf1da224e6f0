"""`kdbench reproduce RUN`: train a finished run once more, elsewhere, and say whether the same bits come out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdbench.audit import finished
from kdbench.audit.finished import Again, Stored
from kdbench.data.readers import registry
from kdbench.errors import RunError, UserError
from kdbench.files import write_atomically
from kdbench.launch import gpus, local
from kdbench.plan.spec import Spec
from kdbench.report.records import cell
from kdbench.store.folder import CHECKPOINT, CONFIG, REPRODUCED, RESULT, RunFolder

OUTCOME = f"{REPRODUCED}.json"

_NONE = "–"
# Of provenance, what is each run's own.
_OWN = ("command", "started_at", "finished_at", "sessions", "commits", "job", "host", "commit_submitted")
_BESIDE = ("data.sha256", "teacher.sha256")


def reproduce(words: Sequence[str], runs: Path, data: Path | None, out: Path | None, board: Path) -> int:
    """Train a run once more, and print what came out beside what is stored.

    Args:
        words: the run: its folder, or an id or its beginning, in `runs` or among the rows of a leaderboard.
        out: the folder of runs that it goes to; None: `runs`/reproduced.
        board: the leaderboard.

    Returns:
        0 if the weights are the same, bit for bit, else 1.

    Raises:
        UserError: before anything starts.
        RunError: what is known of the run does not suffice to train it.
    """
    if len(words) != 1:
        raise UserError(f"reproduce takes one run, as in kdbench reproduce RUN; {len(words)} given")
    run = finished.find(words[0], runs, board)
    out = (out or runs / REPRODUCED).expanduser().resolve()
    origin = run.folder.parent if run.folder else runs
    if out in (runs.resolve(), origin.resolve()):
        raise UserError(f"--out {out} is the folder of the stored runs, which stay as they are; name another one")
    plan = finished.again(run)
    spec, missing = _here(run, plan.spec)
    for remark in (*plan.remarks, *missing):
        print(f"kdbench: {remark}", file=sys.stderr)
    source = finished.bindings(spec.config)["Dataset.source"].strip("'\"")
    registry.check_folder(source, data)
    gpus.shares(None, spec.gpus)  # refuses what this machine has too few GPUs for
    teacher = _teacher(run, plan, spec, (origin, runs), out, board)
    specs = [teacher, spec] if teacher else [spec]
    for each in specs:
        _refuse_other(RunFolder(out, each.id))
    for each in specs:
        _train(each, out, data)
    result = RunFolder(out, spec.id).result()
    if result is None:
        raise RunError(f"the run in {out / spec.id} has not ended: another process does it, or it was cancelled")
    outcome = compare(run.result, result)
    RunFolder(out, spec.id).write(OUTCOME, {"run": run.id, **outcome, "remarks": [*plan.remarks, *missing]})
    _print(outcome, out / spec.id)
    return int(not outcome["identical"])


def compare(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What came out beside what is stored: a result or the cells of a row, and the new result.

    Returns:
        `identical`; `status` and `error` of the new run; and by key, each with what was `stored` and is `here`, `weights`,
        `accuracy` (in percent, with the `difference`) and `environment`.
    """

    def both(key: str) -> dict[str, Any]:
        return {"stored": cell(then.get(key)) or None, "here": cell(now.get(key)) or None}

    weights = both("weights.sha256")
    accuracies = {}
    for key in sorted({*then, *now}):
        is_accuracy = key.startswith(("accuracy.", "exits.")) or key == "teacher.accuracy"
        if is_accuracy and cell(then.get(key)) and cell(now.get(key)):
            old, new = float(then[key]), float(now[key])
            accuracies[key] = {"stored": old, "here": new, "difference": new - old}
    facts = [key for key in {*then, *now} if key.startswith("provenance.") and key.partition(".")[2] not in _OWN]
    return {
        "identical": now.get("status") == "finished" and bool(weights["here"]) and weights["here"] == weights["stored"],
        "status": now.get("status"),
        "error": now.get("error"),
        "weights": {"weights.sha256": weights},
        "accuracy": accuracies,
        "environment": {key: both(key) for key in (*_BESIDE, *sorted(facts)) if both(key) != dict.fromkeys(both(key))},
    }


def _here(run: Stored, spec: Spec) -> tuple[Spec, list[str]]:
    """The run on this machine, and what the machine of then had and this one has not, a sentence each."""
    import torch

    from kdbench.store import provenance

    machine = {key: value for key, value in finished.bindings(spec.config).items() if key.startswith("Machine.")}
    then = run.result.get("provenance.device")
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        machine["Machine.device"] = "'cpu'"
        return finished.with_machine(spec, machine), [
            f"it was trained with Machine.device={spec.device} ({then}), and there is no GPU here; it is trained on the CPU, "
            "which rounds differently"
        ]
    if spec.device == "auto" and torch.cuda.is_available() and then == provenance.device_name(torch.device("cpu")):
        machine["Machine.device"] = "'cpu'"  # "auto" meant the CPU then
    spec = finished.with_machine(spec, machine)
    here = torch.device(
        "cuda" if spec.device == "auto" and torch.cuda.is_available() else spec.device.replace("auto", "cpu")
    )
    name = provenance.device_name(here)
    differs = then and name != then
    return spec, [f"it was trained on {then}, and is trained on {name} here, which may round differently"] * bool(
        differs
    )


def _teacher(run: Stored, plan: Again, spec: Spec, known: Sequence[Path], out: Path, board: Path) -> Spec | None:
    """The teacher's run, if it is to be trained; one with the recorded weights is taken from where it is."""
    if spec.teacher_run is None:
        return None
    recorded = run.result.get("teacher.sha256")
    for place in (out, *known):
        folder = RunFolder(place, spec.teacher_run)
        if folder.state() == "finished" and _weights(folder) == recorded:
            if place != out:
                for name in (CONFIG, CHECKPOINT, RESULT):
                    write_atomically(out / spec.teacher_run / name, (folder / name).read_bytes())
            return None
    try:
        found = finished.find(spec.teacher_run, known[0], board)
    except UserError:
        if plan.teacher is None or plan.teacher.id != spec.teacher_run:
            raise
        return plan.teacher
    return _here(found, finished.again(found).spec)[0]


def _weights(folder: RunFolder) -> str | None:
    """sha256 of the weights that are in a run's folder, whatever its result says; None if they cannot be read."""
    from kdbench.run import checkpoint

    try:
        return checkpoint.weights_sha256(checkpoint.load(folder / CHECKPOINT)["student"])
    except (RunError, KeyError):
        return None


def _refuse_other(folder: RunFolder) -> None:
    if folder.path.exists() and not (folder / OUTCOME).is_file():
        raise UserError(
            f"{folder.path} is there and is no run that was trained once more; name another folder with --out"
        )


def _train(spec: Spec, out: Path, data: Path | None) -> None:
    """From the beginning, but for what was interrupted before: that goes on where it was."""
    folder = RunFolder(out, spec.id)
    if folder.state() != "absent":
        shutil.rmtree(folder.path)
    folder.write(OUTCOME, {"run": spec.id, "status": "running"})  # whose presence says what this folder is
    if spec.gpus > 1:
        local.local([spec], out, data, None)
    else:
        local.inline([spec], out, data)


def _print(outcome: Mapping[str, Any], folder: Path) -> None:
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    table = Table("", "stored", "here", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for key, values in {**outcome["accuracy"], **outcome["weights"], **outcome["environment"]}.items():
        if values["stored"] != values["here"]:
            by = f"{values['difference']:+.2f} points" if "difference" in values else ""
            table.add_row(*(Text(_shown(each)) for each in (key, values["stored"], values["here"], by)))
    if table.row_count:
        console.print(table)
        console.print()
    console.print(Text(summary(outcome)))
    console.print(Text(f"It is in {folder}."))


def summary(outcome: Mapping[str, Any]) -> str:
    """One sentence: whether the run came out again."""
    if outcome["status"] != "finished":
        return f"Not reproduced: it failed ({outcome['error']})."
    same = all(each["stored"] == each["here"] for each in outcome["environment"].values())
    if outcome["identical"]:
        return "Reproduced: the weights are the same, bit for bit" + ("." if same else ", in another environment.")
    last = outcome["accuracy"].get("accuracy.last")
    by = f"by {abs(last['difference']):.2f} points of accuracy" if last else "and no accuracy is stored"
    why = (
        "; nothing that is recorded of the environment differs"
        if same
        else "; what changed in the environment is above"
    )
    return f"Not bit-identical: the weights are others, and it differs {by}{why}."


def _shown(value: Any) -> str:
    return _NONE if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
