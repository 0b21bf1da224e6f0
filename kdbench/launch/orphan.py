"""Processes that do not outlive the one that started them: the workers of a pool, and torchrun between the two."""

from __future__ import annotations

import os
from pathlib import Path

GRACE = 60.0
"""Seconds that a worker gets to save its state when it is asked to stop, or when its pool has ended."""
GENERATIONS = 2
"""Steps from a worker up to its pool, at most: torchrun may be between them."""


def is_orphan(ancestor: int) -> bool:
    """True once this process has been cut off from a process that it was started by: that one has ended, or one between.

    Args:
        ancestor: process id of the pool.
    """
    pid = os.getppid()
    for _ in range(GENERATIONS - 1):
        if pid == ancestor:
            return False
        pid = _parent(pid)
    return pid != ancestor


def _parent(pid: int) -> int:
    """The parent of a process; 0 if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[1])  # the program's name, before it, may contain anything
    except (OSError, IndexError, ValueError):  # ended meanwhile
        return 0
