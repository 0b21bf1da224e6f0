"""Where a result comes from: code, versions, machine, command."""

from __future__ import annotations

import datetime
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import kdbench
from kdbench.config import places
from kdbench.plan.spec import Spec
from kdbench.store import lease, provenance


def collect(spec: Spec, device: torch.device, gpus: int) -> dict[str, Any]:
    """The `provenance.*` entries of a result; `gpus` is the number of processes that share each batch."""
    commit, clean = provenance.of_this_code()
    facts = {
        "commit": commit,
        "clean": clean,
        "method_sha256": places.file_sha256(places.sources()[spec.source]),
        "kdbench": kdbench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "gin": _version("gin-config"),
        "device": device_name(device),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "command": spec.command(),
        "started_at": now(),
    }
    if job := lease.slurm_job():
        # Where several commits of one clone are at work: what was there when the user pressed return.
        submitted = os.environ.get(provenance.SUBMITTED) or None
        facts |= {"job": job, "host": socket.gethostname(), "commit_submitted": submitted}
    return {f"provenance.{name}": value for name, value in facts.items()}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def device_name(device: torch.device) -> str:
    """What a device is called by its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
