"""The origin of a result: code, versions, machine and command."""

from __future__ import annotations

import datetime
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import places, processor
from kdbench.plan import own_files
from kdbench.plan.spec import Spec
from kdbench.store.owner import slurm_job
from kdbench.version import __version__

if TYPE_CHECKING:
    import torch

    from kdbench.config.settings import Machine

SUBMITTED = "KDBENCH_COMMIT_SUBMITTED"
"""Environment variable that carries the commit of a SLURM job's submission to the job's workers."""
RUNS_PER_GPU = "KDBENCH_RUNS_PER_GPU"
"""Environment variable of a worker: how many of its pool use its GPU, if more than one."""


def collect(spec: Spec, device: torch.device, machine: Machine) -> dict[str, Any]:
    """The `provenance.*` entries of a result that are known when the run starts."""
    import torch

    commit, clean = of_this_code()
    own = own_files.of_run(spec)
    facts = {
        "commit": commit,
        "clean": clean,
        "method_sha256": places.file_sha256(places.sources()[spec.source]),
        "kdbench": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str, which a state of training cannot hold
        "torchvision": _version("torchvision"),
        "gin": _version("gin-config"),
        "device": device_name(device),
        "cpu": cpu_model(),
        "gpus": machine.gpus,
        "compile": bool(machine.compile),
        "deterministic": machine.deterministic,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
        "instructions": instruction_set(),
        "platform": platform.platform(),
        "command": spec.command() + " --plugins DIR" * own_files.need_plugins(own.values()),
        "started_at": now(),
    }
    if isinstance(machine.compile, str):
        facts["compile_mode"] = machine.compile
    if device.type == "cuda":
        facts["runs_per_gpu"] = int(os.environ.get(RUNS_PER_GPU, "1"))
    if own:
        facts["own_files"] = " ".join(sorted(own))
    if job := slurm_job():
        # The clone may have moved on since the job was submitted.
        facts |= {"job": job, "host": socket.gethostname(), "commit_submitted": os.environ.get(SUBMITTED) or None}
    return {f"provenance.{name}": value for name, value in facts.items()}


def now() -> str:
    """The current time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def device_name(device: torch.device) -> str:
    """The manufacturer's name of a GPU, or of the CPU model."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_model()


def cpu_model() -> str:
    """The model of the CPU, or its architecture where the system does not name it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def instruction_set() -> str:
    """The CPU's vector instructions that torch uses, and whether it computes with bfloat16: "AVX512 bfloat16", "AVX2"."""
    import torch

    bfloat16 = {"avx512_bf16", "amx_bf16", "bf16"} & processor.cpu_flags()  # "bf16": on ARM
    return " ".join([torch.backends.cpu.get_cpu_capability(), *(["bfloat16"] if bfloat16 else [])])


@cache
def of_this_code() -> tuple[str | None, bool | None]:
    """The commit of the clone that kdbench runs from, and whether kdbench/, methods/ and gin/ have no uncommitted changes.

    Both are None for an installed wheel. Git is asked once per process: what runs is what was imported, even if the clone
    changes meanwhile.
    """
    root = places.own_root()
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", "kdbench", "methods", "gin")
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None, None
    return commit, not changed


_KEPT = ("GIT_CONFIG_", "GIT_EXEC_PATH")
"""Beginnings of git's variables that say how this machine's git works (safe.directory), and not which repository is meant."""


def _git(root: Path, *words: str) -> str:
    # Only kdbench's own repository counts, not one that happens to hold the site-packages folder, nor one that a hook or
    # `git rebase --exec` hands on in GIT_DIR, GIT_WORK_TREE, GIT_INDEX_FILE and others.
    if not (root / ".git").exists():
        raise OSError
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(_KEPT)
    }
    environment.pop("GIT_CONFIG_PARAMETERS", None)  # the options of the git command that started the hook
    # Without locks, which a git command of the user's would trip over; and without a program that watches the files.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(root), *words]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True, env=environment
    )
    return done.stdout.strip()
