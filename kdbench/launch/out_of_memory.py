"""Processes that the kernel killed because memory ran out, as far as it counts them (Linux, control groups 1 and 2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


class OomKills:
    """The processes of this one's control group that the kernel killed for want of memory since the making of this object.

    Args:
        counters: files with a line "oom_kill N"; None for those of this process.
    """

    def __init__(self, counters: Sequence[Path] | None = None):
        self._counters = _counters_of_this_process() if counters is None else counters
        self._before = self._count()

    def happened(self) -> bool:
        """True if there was one; False also where nothing counts them."""
        return self._count() > self._before

    def _count(self) -> int:
        return sum(map(_read, self._counters))


def _read(counter: Path) -> int:
    try:
        match = re.search(r"^oom_kill (\d+)$", counter.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0


def _counters_of_this_process() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    counters = []
    for line in lines:  # "4:memory:/PATH" of version 1, "0::/PATH" of version 2
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            folder, name = _GROUPS, "memory.events"
        elif "memory" in controllers.split(","):
            folder, name = _GROUPS / "memory", "memory.oom_control"
        else:
            continue
        # In a container, the path may be that of the host, and the folder already that of the group.
        inside = folder / path.lstrip("/")
        counters.append((inside if inside.is_dir() else folder) / name)
    return counters
