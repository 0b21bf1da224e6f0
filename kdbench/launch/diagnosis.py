"""What this machine and installation offer to runs, and what would fail: the facts behind `kdbench doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.config import bindings, defects, extensions, places, processor
from kdbench.data.readers import registry
from kdbench.errors import RunError, UserError, file_and_reason, loading_torch, reason
from kdbench.launch import requirements
from kdbench.launch.gpus import visible_gpus
from kdbench.launch.slurm import commands
from kdbench.store import ids, provenance
from kdbench.version import __version__
from kdbench.words import byte_size, count

LEAST_FREE = 1_000_000_000
"""Bytes of free disk below which runs may fail: the states of one training with a large network take about as much."""


@dataclass
class Diagnosis:
    """The state of this machine and installation.

    Attributes:
        facts: pairs of a subject and its state.
        problems: a sentence for each thing that will fail, with the remedy.
        notes: a sentence for each thing that is worth knowing and fails nothing.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def diagnose(runs: Path, data: Path | None) -> Diagnosis:
    """Look at versions, device, threads, datasets, the folder of runs, the disk, SLURM and optional packages.

    Nothing is written, and no program of the user's is executed.

    Args:
        runs: the folder of the runs, which need not exist.
        data: the folder of the datasets, if there is one.
    """
    diagnosis = Diagnosis()
    _versions(diagnosis)
    _processors(diagnosis)
    _data(diagnosis, data)
    _runs(diagnosis, runs)
    _slurm(diagnosis)
    _packages(diagnosis)
    _plugins(diagnosis)
    return diagnosis


def _versions(diagnosis: Diagnosis) -> None:
    commit, clean = provenance.of_this_code()
    code = f" (commit {commit[:7]}{'' if clean else ', with uncommitted changes'})" if commit else ""
    diagnosis.facts.append(("kdbench", f"{__version__}{code}"))
    diagnosis.facts.append(("Python", f"{platform.python_version()}, {platform.platform(terse=True)}"))
    try:
        with loading_torch():
            import torch
        built = torch.version.cuda and f"CUDA {torch.version.cuda}"
        built = built or (torch.version.hip and f"ROCm {torch.version.hip}") or "for CPUs only"
        version = f"{torch.__version__}, {built}"
    except (ImportError, OSError, RunError) as error:
        version = "cannot be imported"
        diagnosis.problems.append(f"torch cannot be imported: {reason(error)}; install it again: pip install torch")
    diagnosis.facts.append(("torch", f"{version}; torchvision {requirements.installed_version('torchvision')}"))


def _processors(diagnosis: Diagnosis) -> None:
    gpus = _gpus(diagnosis)
    diagnosis.facts.append(("device", ", ".join(gpus) or f"CPU: {provenance.cpu_model()}"))
    try:
        native = processor.native_precision("auto")
        word = "native" if native.precision == "bfloat16" else "not native"
        diagnosis.facts.append(("bfloat16", f"{word}: {native.reason}"))
    except (ImportError, RunError) as error:
        diagnosis.facts.append(("bfloat16", f"unknown: {reason(error)}"))
    available, every = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    variable = os.environ.get("OMP_NUM_THREADS")
    limit = f"; OMP_NUM_THREADS={variable} limits the threads of a run" if variable else ""
    diagnosis.facts.append(("cores", f"{available} of {every} available{limit}"))


def _gpus(diagnosis: Diagnosis) -> list[str]:
    """Names of the GPUs that torch can use; a driver whose GPUs torch cannot use is a problem."""
    if not processor.may_have_gpu():
        return []
    try:
        import torch

        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        names = []
        diagnosis.problems.append(f"torch cannot use the GPU: {reason(error)}; pass Machine.device=cpu, or repair CUDA")
    if not names and not diagnosis.problems and visible_gpus():
        diagnosis.problems.append(
            "this machine has a GPU that torch cannot use; install a torch for its driver (https://pytorch.org/get-started)"
        )
    return [f"cuda:{number} {name}" for number, name in enumerate(names)]


def _data(diagnosis: Diagnosis, data: Path | None) -> None:
    remedy = "name the folder with --data DIR or KDBENCH_DATA"
    folder = str(data) if data else f"no folder; {remedy}"
    if data is not None and not (data.is_dir() and os.access(data, os.R_OK | os.X_OK)):
        what = "cannot be read" if data.is_dir() else "is not a folder"
        diagnosis.problems.append(f"the data folder {data} {what}; {remedy}")
        folder, data = f"{data} ({what})", None
    diagnosis.facts.append(("data", folder))
    ready: list[str] = []
    absent: list[str] = []
    for name in sorted(places.members("dataset")):
        try:
            source = bindings.of_group("dataset", name)["Dataset.source"].value
            is_ready = registry.has_images(source, data)
        except (UserError, RunError, OSError, KeyError) as error:
            diagnosis.problems.append(f"the dataset {name} cannot be used: {reason(error)}")
            continue
        if is_ready is not None:
            can_download = not is_ready and "present" in extensions.members("reader")[source].options
            (ready if is_ready else absent).append(f"{name} (can be downloaded)" if can_download else name)
    diagnosis.facts.append(("datasets", f"ready: {', '.join(ready)}"))
    if absent:
        diagnosis.facts.append(("", f"not here: {', '.join(absent)}"))


def _runs(diagnosis: Diagnosis, runs: Path) -> None:
    existing = next(folder for folder in (runs, *runs.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        diagnosis.problems.append(
            f"the folder of runs {runs} cannot be written ({existing}: "
            f"{'permission denied' if existing.is_dir() else 'not a folder'}); name another with --runs DIR or KDBENCH_RUNS"
        )
        state = "cannot be written"
    else:
        state = f"writable, {count(len(ids.run_ids(runs)), 'run')}" if existing == runs else "will be created"
    diagnosis.facts.append(("runs", f"{runs} ({state})"))
    free = shutil.disk_usage(existing).free
    diagnosis.facts.append(("free disk", byte_size(free)))
    if free < LEAST_FREE:
        diagnosis.problems.append(
            f"only {byte_size(free)} are free for {runs}; make room, or name another folder with --runs DIR"
        )
    if existing == runs:
        _permissions(diagnosis, runs)


def _permissions(diagnosis: Diagnosis, runs: Path) -> None:
    """Notes about who else can write what runs execute (docs/security.md)."""
    mode = stat.S_IMODE(runs.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everybody" if mode & stat.S_IWOTH else "its group"
        diagnosis.notes.append(f"{runs} can be written by {who}, who can thereby run code as you: chmod go-w {runs}")
    pickles = runs / ".slurm"
    if pickles.is_dir() and stat.S_IMODE(pickles.stat().st_mode) & 0o077:
        diagnosis.notes.append(f"{pickles} holds pickles that jobs execute and is open to others: chmod 700 {pickles}")


def _slurm(diagnosis: Diagnosis) -> None:
    if shutil.which("sbatch") is None:
        diagnosis.facts.append(("SLURM", "not on this machine"))
        return
    try:
        done = commands.call("sinfo", "--noheader", "--format=%R")
        answer = sorted(set(done.stdout.split()))
        error = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no answer"])[-1]
    except subprocess.TimeoutExpired:
        answer, error = [], f"no answer in {commands.TIMEOUT:.0f} seconds"
    except OSError as caught:
        answer, error = [], file_and_reason(caught)
    state = f"reachable; partitions: {', '.join(answer) or 'none'}" if not error else "installed, but not reachable"
    diagnosis.facts.append(("SLURM", state))
    if error:
        diagnosis.notes.append(f"executor=slurm will fail: SLURM is installed but not reachable ({error}); check sinfo")


def _packages(diagnosis: Diagnosis) -> None:
    declared = requirements.by_extra()
    if lacking := requirements.missing(declared.get(requirements.NEEDED, ())):
        diagnosis.problems.append(f"kdbench needs {', '.join(lacking)}; install with: pip install {' '.join(lacking)}")
    extras = {extra: packages for extra, packages in declared.items() if extra not in (requirements.NEEDED, "dev")}
    absent = sorted(extra for extra, packages in extras.items() if requirements.missing(packages))
    present = sorted(extras.keys() - set(absent))
    diagnosis.facts.append(("extras", f"installed: {', '.join(present) or 'none'}"))
    if absent:
        diagnosis.facts.append(("", f"pip install 'kdbench[{','.join(absent)}]' adds the others"))


def _plugins(diagnosis: Diagnosis) -> None:
    others = [origin for origin in places.roots().values() if origin != places.BUILT_IN]
    diagnosis.facts.append(("plug-ins", ", ".join(others) or "none"))
    broken = [*defects.of_methods().values(), *defects.of_extensions()]
    diagnosis.problems += [f"a file cannot be used: {sentence}" for sentence in broken]
