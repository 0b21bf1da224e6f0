"""Run folders: one for each run, whose files say its state. There is no database; many jobs can write at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

State = Literal["finished", "failed", "absent"]

CONFIG, RESULT, EPOCHS, CHECKPOINT, LOG = "config.gin", "result.json", "epochs.csv", "checkpoint.pt", "log.txt"


class RunFolder:
    """The folder of one run, `RUNS/ID`."""

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
        try:
            result = json.loads((self / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) else None

    def begin(self, config: str) -> None:
        """Make the folder ready for a new attempt: config.gin in, what an earlier attempt left out."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (RESULT, EPOCHS, CHECKPOINT, LOG):
            (self / name).unlink(missing_ok=True)
        write_atomically(self / CONFIG, config.encode())

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json: the last file of a run, whose presence says that it has ended."""
        write_atomically(self / RESULT, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())

    def log(self, line: str) -> None:
        with (self / LOG).open("a", encoding="utf-8") as file:
            file.write(line.rstrip("\n") + "\n")


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees all of it or what was there before, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
