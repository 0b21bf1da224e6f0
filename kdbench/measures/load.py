"""CPU time that other processes of the machine used while a run trained: seconds are comparable only where it is near 0."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)
"""Fields of the first line of /proc/stat: user, nice, system, irq, softirq, and steal, which other virtual machines took."""


class OtherProcesses:
    """CPU seconds that processes other than this one and its children have used since this object was created."""

    def __init__(self, stat: Path = _STAT):
        self._stat = stat
        self._before = self._seconds()

    def seconds(self) -> float | None:
        """CPU seconds, summed over all cores; None where the system does not report them (/proc/stat, Linux)."""
        now = self._seconds()
        return None if self._before is None or now is None else max(0.0, now - self._before)

    def _seconds(self) -> float | None:
        try:
            ticks = self._stat.read_text().split("\n", 1)[0].split()[1:]
            busy = sum(int(ticks[field]) for field in _BUSY) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        own = os.times()
        return busy - own.user - own.system - own.children_user - own.children_system


def mean_cores(sessions: Sequence[Mapping[str, Any]]) -> float | None:
    """Cores that other processes kept busy on average; None if one of the sessions could not measure.

    Args:
        sessions: of the processes that did the run one after the other; `others` in CPU seconds, `watched` in seconds.
    """
    if any(session.get("others") is None for session in sessions):
        return None
    used = sum(session["others"] for session in sessions)
    return float(round(used / sum(session["watched"] for session in sessions), 2))
