"""The messages of a worker process to its pool: one JSON object per line, on what was the worker's standard output."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from kdbench.plan.spec import Spec

if TYPE_CHECKING:
    from kdbench.run.caller import Progress


def channel() -> TextIO:
    """Standard output, from now on for messages to the pool alone: what this process prints goes to standard error.

    So nothing that a method or a library prints can be taken for a message, and no process that it starts keeps the pool
    waiting for the end of the messages.
    """
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="ascii")
    print(file=channel, flush=True)  # ends a line that something may have begun before
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    return channel


class Messages:
    """The display of a worker process.

    Args:
        channel: the stream that the pool reads.
    """

    def __init__(self, channel: TextIO):
        self._channel = channel

    def __enter__(self) -> Messages:
        return self

    def __exit__(self, *details: Any) -> None:
        pass

    def begin(self, spec: Spec) -> None:
        self.send(event="begin", run=spec.id)

    def progress(self, spec: Spec, progress: Progress) -> None:
        self.send(event="progress", run=spec.id, **asdict(progress))

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        self.send(event="end", run=spec.id)

    def left(self, spec: Spec, why: str) -> None:
        self.send(event="left", run=spec.id, why=why)

    def waits(self, spec: Spec, why: str) -> None:
        self.send(event="waits", run=spec.id, why=why)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def send(self, **message: Any) -> None:
        try:
            print(json.dumps(message), file=self._channel, flush=True)
        except BrokenPipeError:  # the pool has died: `Stop` is about to notice, and the run must not fail because of it
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._channel.fileno())
