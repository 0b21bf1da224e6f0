"""The commit of the code that runs. No torch here: a submission tells it too."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from kdbench import places

SUBMITTED = "KDBENCH_COMMIT_SUBMITTED"
"""The environment variable in which a SLURM job hands the commit of its submission to its workers."""


@cache
def of_this_code() -> tuple[str | None, bool | None]:
    """Commit of the clone that kdbench runs from, and whether what it runs is committed; None for an installed wheel.

    Asked once a process: what runs is what was imported, whatever happens to the clone meanwhile.
    """
    root = places.own_root()
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "kdbench", "methods", "gin")
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None, None
    return commit, not changed


def _git(root: Path, *words: str) -> str:
    # Only kdbench's own repository counts, not one that happens to hold the site-packages folder.
    if not (root / ".git").exists():
        raise OSError
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
