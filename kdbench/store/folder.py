"""Run folders: one for each run, whose files say its state. There is no database; many jobs can write at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kdbench.files import write_atomically

State = Literal["finished", "failed", "absent"]

CONFIG, RESULT, EPOCHS, CHECKPOINT, LOG = "config.gin", "result.json", "epochs.csv", "checkpoint.pt", "log.txt"
SPEC, PROGRESS, SUBMISSION = "spec.json", "progress.json", "submission.json"
AGAIN, CANCELLED = "again", "cancelled"
RESUME, RESUME_BEFORE = "resume.pt", "resume.before.pt"
REPRODUCED = "reproduced"  # in a folder of runs, the folder of those that were trained once more; and its files' name
EVENTS = "events.out.tfevents.*"


class RunFolder:
    """The folder of one run, `RUNS/ID`.

    Besides what DESIGN names: `spec.json` (what is to be done, for processes that take it up), `progress.json` (where it
    is), `submission.json` (the SLURM job it went into), `resume.pt` and the one before it (the state of training),
    `again` and `cancelled` (what the user asked for), `lease.N` (kdbench.lease).
    """

    def __init__(self, runs: Path, run_id: str):
        self.path = runs / run_id

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def state(self) -> State:
        """What the folder says of its run; a result that cannot be read counts as none, so that the run is done again."""
        result = self.result()
        if result is None:
            return "absent"
        if result.get("status") == "finished" and (self / CHECKPOINT).is_file():
            return "finished"
        return "failed" if result.get("status") == "failed" else "absent"

    def result(self) -> dict[str, Any] | None:
        """The parsed result.json, or None if there is none that can be read."""
        return self.read(RESULT)

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None if there is none that can be read."""
        try:
            found = json.loads((self / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, content: Mapping[str, Any], lasting: bool = True) -> None:
        """Write a JSON file of the folder atomically; `lasting`: so that it outlives a power cut."""
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomically(self / name, text.encode(), lasting)

    def ask(self, spec: Mapping[str, Any], again: Literal["fresh", "resume"] | None = None) -> None:
        """Put a run down for whoever takes it up.

        Args:
            spec: what is to be done.
            again: do it although there is a result: from the beginning, or from where a failed attempt stopped.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        (self / CANCELLED).unlink(missing_ok=True)
        if again:
            write_atomically(self / AGAIN, again.encode(), lasting=False)
        self.write(SPEC, spec, lasting=False)

    def is_open(self) -> bool:
        """Whether the run is to be done: asked for again, or without a result, and not cancelled."""
        if (self / CANCELLED).exists():
            return False
        return (self / AGAIN).exists() or self.state() == "absent"

    def begin(self, config: str) -> None:
        """Make the folder ready for an attempt: what an earlier result says goes out; the state of training stays, but
        for a run that was asked for afresh."""
        self.path.mkdir(parents=True, exist_ok=True)
        again = self / AGAIN
        if again.exists() and again.read_text(encoding="utf-8") == "fresh":
            self.forget()
        for name in (RESULT, CHECKPOINT, PROGRESS, AGAIN):
            (self / name).unlink(missing_ok=True)
        write_atomically(self / CONFIG, config.encode())

    def forget(self) -> None:
        """Remove what an earlier attempt could be continued from."""
        for name in (RESUME, RESUME_BEFORE, EPOCHS, LOG, *(path.name for path in self.path.glob(EVENTS))):
            (self / name).unlink(missing_ok=True)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json: the last file of a run, whose presence says that it has ended."""
        self.write(RESULT, result)
        leftover = [PROGRESS] + [RESUME, RESUME_BEFORE] * (result["status"] == "finished")
        for name in leftover:
            (self / name).unlink(missing_ok=True)

    def log(self, line: str) -> None:
        with (self / LOG).open("a", encoding="utf-8") as file:
            file.write(line.rstrip("\n") + "\n")
