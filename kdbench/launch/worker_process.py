"""A worker process as its pool sees it: how it is started, the messages it sends, and the last lines of its output."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from kdbench.launch.out_of_memory import OomKills

TAIL = 20
"""Lines of a killed worker's output that go to the run's log."""
LONGEST = 1 << 14
"""Bytes after which a line is cut: a progress bar may write for days without ending one."""

_GROUP = re.compile(r"(LOCAL_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(PET|TORCHELASTIC)_.*")
"""Environment variables that make a process one of a group; only the pool's own torchrun is to set them."""

Message = bytes | Exception | None
"""A line that a worker sent, the error that ended the reading of its output, or None after its last line."""
Inbox = queue.SimpleQueue[tuple["WorkerProcess", Message]]


@dataclass(eq=False)
class WorkerProcess:
    """One worker of a pool.

    Attributes:
        number: place of its environment among those of the pool.
        is_ready: whether it has sent a message, that is, whether Python and torch have started and its group is complete.
        run: id of the run that it is doing.
        images: images of that run so far.
        tail: last lines of its output.
    """

    process: subprocess.Popen[bytes]
    number: int
    is_ready: bool = False
    run: str | None = None
    images: int = 0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    began: float = field(default_factory=time.monotonic)
    _oom_kills: OomKills = field(default_factory=OomKills)
    _readers: list[threading.Thread] = field(default_factory=list)

    def read_into(self, inbox: Inbox) -> None:
        """Start to read what it writes: its messages go to `inbox`, and None after the last one; the rest to `tail`."""
        for read in (self._read_messages, self._read_output):
            self._readers.append(threading.Thread(target=read, args=(inbox,), name=read.__name__, daemon=True))
            self._readers[-1].start()

    def _read_messages(self, inbox: Inbox) -> None:
        try:
            for line in _lines(self.process.stdout):
                inbox.put((self, line))
        except Exception as error:  # nobody else would notice that a thread ends
            inbox.put((self, error))
        inbox.put((self, None))

    def _read_output(self, inbox: Inbox) -> None:
        try:
            for line in _lines(self.process.stderr):
                self.tail.append(as_text(line))
        except Exception as error:
            inbox.put((self, error))

    def has_ended(self) -> bool:
        """True if the process has ended, whether or not what it started still has its output open."""
        if self.process.returncode is not None:
            return True
        # Unlike poll(), it takes no lock that a signal handler may need.
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ending(self, status: int) -> str:
        """How it ended, in words that follow "it was": "killed by signal 9", with the reason if that is known.

        From then on `tail` is complete, unless a process that it started still has its output open.
        """
        for reader in self._readers:
            reader.join(1.0)
        how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        # torchrun ends with status 1 if one of its processes was killed.
        by_kernel = (status == -signal.SIGKILL or status > 0) and self._oom_kills.happened()
        return how + (" (out of memory)" if by_kernel else "")


def start(
    words: Sequence[str],
    launcher: Sequence[str],
    environment: Mapping[str, str],
    number: int,
    inbox: Inbox,
) -> WorkerProcess:
    """Start `kdbench.launch.worker`, or several of them under torchrun, and read what they write.

    Args:
        words: arguments of the worker.
        launcher: words for torchrun; none for a single process.
        environment: variables in addition to this process's.
        inbox: as for `WorkerProcess.read_into`.
    """
    # -P, as for the command itself: a file profile.py or select.py in the current folder is not the one that torch imports.
    python = [sys.executable, "-P", "-m"]
    command = [*python, "kdbench.launch.worker", *words]
    if launcher:
        command = [*python, "kdbench.launch.torchrun", str(os.getpid()), *launcher, "--no-python", *command]
    inherited = {name: value for name, value in os.environ.items() if not _GROUP.fullmatch(name)}
    # SLURM sends user signals to every process of a job. Only this one handles them; they would kill a worker.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**inherited, **environment},
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the workers
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    worker = WorkerProcess(process, number)
    worker.read_into(inbox)
    return worker


def as_text(line: bytes) -> str:
    """A line that another program wrote, in whatever encoding, without its end; what is not UTF-8 is shown as bytes."""
    return line.decode(errors="backslashreplace").rstrip("\r\n")


def _lines(stream: IO[bytes] | None) -> Iterator[bytes]:
    assert stream is not None
    while line := stream.readline(LONGEST):
        yield line
