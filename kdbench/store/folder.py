"""Run folders: one for each run. A run's state is derived from its files; there is no database, so many jobs can write at once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from kdbench.errors import UserError
from kdbench.files import leads_out, links, read_object, read_regular, write_atomically
from kdbench.plan import spec as spec_
from kdbench.plan.spec import check_run_name
from kdbench.store import result as result_

State = Literal["finished", "failed", "absent"]

CONFIG, RESULT, EPOCHS, CHECKPOINT, LOG = "config.gin", "result.json", "epochs.csv", "checkpoint.pt", "log.txt"
OPERATIVE = "operative.gin"
PLUGIN = "plugin"
SPEC, PROGRESS, SUBMISSION = "spec.json", "progress.json", "submission.json"
AGAIN, CANCELLED = "again", "cancelled"
TRANSFER = "transfer.json"
RESUME, RESUME_BEFORE = "resume.pt", "resume.before.pt"
EVENTS = "events.out.tfevents.*"
LOGGED = "loggers.json"
REPRODUCED = "reproduced"
"""Name of the folder inside a folder of runs that `kdbench reproduce` trains in."""


class RunFolder:
    """The folder of one run, `RUNS/ID`.

    | file | holds | exists |
    |---|---|---|
    | `spec.json` | the `Spec`, for any process that does the run | from the plan on |
    | `config.gin` | the command and all values | from the start |
    | `plugin/` | the method, gin files and networks that are not kdbench's, for `--plugins` | from the start |
    | `epochs.csv` | a line for each epoch | from the first epoch |
    | `log.txt` | tracebacks, resumptions, defects of the result | if there is anything to log |
    | `events.out.tfevents.*` | the same curves for TensorBoard | with `log=tensorboard` |
    | `loggers.json` | ids of the logged runs of W&B and MLflow, which a resumed run continues | with `log=wandb` or `log=mlflow` |
    | `checkpoint.pt` | weights of the deployed network | at the end |
    | `operative.gin` | the values that gin used | at the end |
    | `result.json` | the result (kdbench.store.result), written last | at the end |
    | `transfer.json` | what `kdbench transfer` measured (kdbench.store.transfer) | if it was called |
    | `resume.pt`, `resume.before.pt` | the last two states of training | until the run has finished |
    | `progress.json` | how far the run is | while it runs |
    | `lease.N` | the process that does the run (kdbench.store.lease) | while it runs |
    | `submission.json` | the SLURM job that the run was submitted in | if it was submitted |
    | `again` | "fresh" or "resume": the user asked to repeat the run | until that attempt starts |
    | `cancelled` | nothing: the user cancelled the run | until it is requested again |
    | `reproduced.json` | the comparison with the original run | in `RUNS/reproduced` only |

    A folder may be someone else's: none of its files may be a link that leads out of it.

    Args:
        check: called before anything is written; raises if this process may not write (`Lease.check`).

    Raises:
        UserError: `run_id` cannot be the name of a run.
    """

    def __init__(self, runs: Path, run_id: str, check: Callable[[], None] = lambda: None):
        check_run_name(run_id)
        self.path = runs / run_id
        self.check = check

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def state(self) -> State:
        """The state of the run; an unreadable result counts as absent, so that the run is repeated."""
        result = self.result()
        if result is None:
            return "absent"
        if result.get("status") == "finished" and (self / CHECKPOINT).is_file():
            return "finished"
        return "failed" if result.get("status") == "failed" else "absent"

    def result(self) -> dict[str, Any] | None:
        """The parsed result.json as it was stored, or None if it is missing or unreadable."""
        return self.read(RESULT)

    def typed_result(self) -> dict[str, Any]:
        """The entries of result.json that have their declared type; none if it is missing or unreadable."""
        return result_.typed(self.result() or {})

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a file of the folder, or None if it is missing or unreadable."""
        try:
            return read_object(self / name)
        except (OSError, ValueError):
            return None

    def checked(self, name: str) -> dict[str, Any]:
        """The JSON object in a file of the folder, whose entries have the types that kdbench gives them.

        Raises:
            OSError: the file is missing, is not a regular file, or cannot be read.
            ValueError: it holds something else; the message is the reason.
        """
        content = read_object(self / name)
        for sentence in _ill_typed(name, content):
            raise ValueError(sentence)
        return content

    def check_links(self) -> None:
        """Refuse a folder with a link that leads out of it, before its files are read, copied or written over.

        Raises:
            UserError: there is one.
        """
        for path in links(self.path):
            if leads_out(path, self.path):
                raise UserError(
                    f"{path} is a link that leads out of the run's folder; replace it with what it stands for"
                )

    def write(self, name: str, content: Mapping[str, Any], lasting: bool = True) -> None:
        """Write a JSON file of the folder atomically.

        Args:
            lasting: wait until it is on the disk.

        Raises:
            ValueError: a number is not finite.
        """
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        self.check()
        write_atomically(self / name, text.encode(), lasting, self.check)

    def enqueue(self, spec: Mapping[str, Any], repeat: Literal["fresh", "resume"] | None = None) -> None:
        """Record that the run is to be done, by any process that opens the folder; this undoes a cancellation.

        Args:
            spec: the run, as `Spec.plain` returns it.
            repeat: do it even if there is a result: "fresh" from the beginning, "resume" from the last saved state.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        (self / CANCELLED).unlink(missing_ok=True)
        if repeat:
            write_atomically(self / AGAIN, repeat.encode(), lasting=False)
        self.write(SPEC, spec, lasting=False)

    def is_open(self) -> bool:
        """True if the run is to be done: it has no result or is to be repeated, and it is neither cancelled nor removed."""
        if (self / CANCELLED).exists() or not self.path.is_dir():
            return False
        return (self / AGAIN).exists() or self.state() == "absent"

    def begin(self, config: str, own_files: Mapping[str, Path] = MappingProxyType({})) -> None:
        """Prepare the folder for an attempt: remove an earlier result, and the saved state if the run starts afresh.

        Args:
            own_files: files of the user's own that the run is made with, by their name in a plug-in folder.
        """
        self.check()
        self.path.mkdir(parents=True, exist_ok=True)
        for link in links(self.path):  # nothing is written to where they lead
            link.unlink()
        marker = self / AGAIN
        if marker.is_file() and read_regular(marker) == b"fresh":
            self.forget()
        for name in (RESULT, TRANSFER, CHECKPOINT, PROGRESS, AGAIN):
            (self / name).unlink(missing_ok=True)
        shutil.rmtree(self / PLUGIN, ignore_errors=True)
        for name, path in own_files.items():
            (self / PLUGIN / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, self / PLUGIN / name)
        self.check()
        write_atomically(self / CONFIG, config.encode(), before=self.check)

    def forget(self) -> None:
        """Remove everything that an earlier attempt could be resumed from."""
        for name in (RESUME, RESUME_BEFORE, EPOCHS, LOG, LOGGED, *(path.name for path in self.path.glob(EVENTS))):
            (self / name).unlink(missing_ok=True)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json, the last file of a run: it marks the end.

        Training is over by now, so that a result with undeclared or ill-typed keys is stored all the same; each is logged.

        Raises:
            ValueError: a number is not finite.
        """
        try:
            sentences = result_.defects(result)
        except UserError as error:  # a measure's file was edited meanwhile
            sentences = [str(error)]
        for sentence in sentences:
            self.log(sentence)
        self.write(RESULT, result)
        leftover = [PROGRESS] + [RESUME, RESUME_BEFORE] * (result["status"] == "finished")
        for name in leftover:
            (self / name).unlink(missing_ok=True)

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        self.check()
        with (self / LOG).open("a", encoding="utf-8") as file:
            file.write(line.rstrip("\n") + "\n")


_JOB = re.compile("[0-9]+(_[0-9]+)?")
_PROGRESS = ("images", "budget", "epoch", "epochs", "images_per_second", "validation", "measured", "at")


def _ill_typed(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each entry of a JSON file of a run folder that kdbench cannot have written."""
    if name == RESULT:
        yield from dict(result_.ill_typed(content)).values()
    elif name == SPEC:
        yield from spec_.ill_typed(content)
    elif name == PROGRESS:
        for key in _PROGRESS:
            value = content.get(key)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 <= value <= result_.LARGEST):
                yield f"its '{key}' is not a number from 0"
    elif name == SUBMISSION:
        job, log = content.get("job", "0"), content.get("log", "")
        if not isinstance(job, str) or not _JOB.fullmatch(job):
            yield "its 'job' is not the number of a job"
        if not isinstance(log, str):
            yield "its 'log' is not a string"
