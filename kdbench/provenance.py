"""Where a result comes from: code, versions, machine, command."""

from __future__ import annotations

import datetime
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import kdbench
from kdbench import places
from kdbench.plan import Spec


def collect(spec: Spec, device: torch.device, gpus: int) -> dict[str, Any]:
    """The `provenance.*` entries of a result; `gpus` is the number of processes that share each batch."""
    commit, clean = _commit()
    facts = {
        "commit": commit,
        "clean": clean,
        "method_sha256": places.file_sha256(places.sources()[spec.source]),
        "kdbench": kdbench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "gin": _version("gin-config"),
        "device": _device(device),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "command": spec.command(),
        "started_at": now(),
    }
    return {f"provenance.{name}": value for name, value in facts.items()}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> tuple[str | None, bool | None]:
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


def _git(root: Any, *words: str) -> str:
    # Only kdbench's own repository counts, not one that happens to hold the site-packages folder.
    if not (root / ".git").exists():
        raise OSError
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
