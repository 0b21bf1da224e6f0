"""Where a result comes from: code, versions, machine, command."""

from __future__ import annotations

import datetime
import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import kdbench
from kdbench import commits, lease, places
from kdbench.plan import Spec


def collect(spec: Spec, device: torch.device, gpus: int) -> dict[str, Any]:
    """The `provenance.*` entries of a result; `gpus` is the number of processes that share each batch."""
    commit, clean = commits.of_this_code()
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
        submitted = os.environ.get(commits.SUBMITTED) or None
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
