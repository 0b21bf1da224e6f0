"""The state of training on disk: everything that a run needs to resume and end in the very bits it would have reached undisturbed.

Two files, the newest and the one before it. Each begins with the sha256 of the rest, so that a file which is torn, or whose
bytes have changed, is recognised; and it names the run and the method file, so that a foreign one is.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from kdbench.errors import RunError
from kdbench.files import write_atomically
from kdbench.store.folder import RESUME, RESUME_BEFORE, RunFolder

MAGIC = b"kdbench state 1\n"
_HEAD = len(MAGIC) + 64 + 1

SHARE = 0.02
"""Share of the time that writing at epoch ends may take."""
SHORTEST = 5.0
"""Seconds of training that are not worth a file of their own at an epoch's end."""


class Stopped(Exception):
    """Training stopped because it was asked to, its state being on disk."""


class Damaged(RunError):
    """A file that holds no state to go on from."""


def dump(state: Mapping[str, Any]) -> bytes:
    """The content of a state file; `state` holds tensors and plain containers only."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def parse(content: bytes) -> dict[str, Any]:
    """The state in a file's content.

    Raises:
        Damaged: it is none, or not all of it, or not what was written.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise Damaged("it is not a state of training" if content else "it is empty")
    if hashlib.sha256(memoryview(content)[_HEAD:]).hexdigest().encode() != content[len(MAGIC) : _HEAD - 1]:
        raise Damaged("it is truncated or corrupted (sha256 differs)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content[_HEAD:]), map_location="cpu", weights_only=True)
    except Exception as error:  # whole, and written by a torch that this one cannot read
        raise Damaged(f"this version of torch cannot read it ({type(error).__name__})") from None
    return state


class Keeper:
    """Keeps the state of one run: when to write it, where, and what to go on from.

    Of several processes that do a run together all load; the first one alone decides and writes.

    Args:
        folder: of the run; its `check` is called before each write.
        identity: what must be equal for a state to be this run's, by name.
        every: seconds between two states within an epoch; 0 writes one after each step.
        stop: asked after each step; true: write the state and raise `Stopped`.
        log: takes a line for the run's log; by default it goes there.

    Attributes:
        sessions: what the processes that did a part of this run before said of themselves, the first one first.
        session: what this one says of itself; a function, because some of it changes.
        last: the state when training is over; known from then on.
    """

    WRITE, STOP = 1, 2

    def __init__(
        self,
        folder: RunFolder,
        identity: Mapping[str, Any],
        every: float,
        stop: Callable[[], bool] = lambda: False,
        log: Callable[[str], None] | None = None,
    ):
        self._folder = folder
        self._log = log or folder.log
        self._identity = dict(identity)
        self._every = every
        self._last = time.monotonic()
        self._cost = 0.0
        self.stop = stop
        self.sessions: list[dict[str, Any]] = []
        self.session: Callable[[], dict[str, Any]] = dict
        self.last: Callable[[], dict[str, Any]] = dict

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole and this run's, or None; what is wrong with the others goes to the run's log."""
        for name in (RESUME, RESUME_BEFORE):
            try:
                state = parse((self._folder / name).read_bytes())
                self._own(state)
                self.sessions = state["sessions"]
                self._log(f"resuming at step {state['step']} (process {len(self.sessions) + 1} of this run)")
                return state
            except FileNotFoundError:
                continue
            except Damaged as error:
                older = name == RESUME and (self._folder / RESUME_BEFORE).exists()
                following = "resuming from the one before" if older else "the run starts again from step 0"
                self._log(f"{name} cannot be used: {error}; {following}")
        return None

    def _own(self, state: Mapping[str, Any]) -> None:
        found = state.get("identity")
        if not isinstance(found, dict):
            raise Damaged("it does not record its run")
        for key, value in self._identity.items():
            if found.get(key) != value:
                raise Damaged(f"it belongs to a different {key} ({found.get(key)}, not {value})")

    def wish(self, new_epoch: bool) -> int:
        """After a step: 0, or `WRITE` the state, or write it and `STOP`."""
        return self.STOP if self.stop() else self.WRITE if self.due(new_epoch) else 0

    def due(self, new_epoch: bool) -> bool:
        """True if it is time to write: `every` seconds have passed, or an epoch has ended and writing costs little."""
        spent = time.monotonic() - self._last
        return spent >= self._every or (new_epoch and spent >= max(SHORTEST, self._cost / SHARE))

    def save(self, state: Mapping[str, Any]) -> None:
        """Write `state`, keeping the one before.

        Raises:
            OSError: it cannot be written; the states that were there before are still there.
        """
        began = time.monotonic()
        content = dump({**state, "identity": self._identity, "sessions": [*self.sessions, self.session()]})
        newest, before = self._folder / RESUME, self._folder / RESUME_BEFORE
        self._folder.check()
        if newest.exists():  # should writing fail now, the state that was the newest is still there
            os.replace(newest, before)
        write_atomically(newest, content, before=self._folder.check)
        self._last = time.monotonic()
        self._cost = self._last - began
