"""One run, from its spec to its result: the only place where data, student, teacher and method meet."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gin
import torch

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import settings
from kdbench.data import task as task_
from kdbench.data.augment import Augmenter
from kdbench.errors import RunError, UserError
from kdbench.files import write_atomically
from kdbench.measures import convergence, cost, energy, flops
from kdbench.method.base import Batch, Info, Method
from kdbench.plan.spec import Spec
from kdbench.run import checkpoint, evaluate, teacher
from kdbench.run.group import Group, GroupBroken, checksum
from kdbench.run.resume import Keeper, Stopped
from kdbench.run.sync_bn import synchronise
from kdbench.run.train import Budget, Outcome, Progress, Report, autocast, steps, train
from kdbench.store import provenance, studies
from kdbench.store.folder import CHECKPOINT, EPOCHS, OPERATIVE, RunFolder
from kdbench.store.lease import Lost
from kdbench.streams import Streams


def run(
    spec: Spec,
    runs: Path,
    data: Path | None,
    report: Report = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    check: Callable[[], None] = lambda: None,
    group: Group | None = None,
) -> dict[str, Any]:
    """Train and evaluate one spec, or go on with it, and leave its folder; an error ends this run only.

    Args:
        runs: the folder of all runs.
        data: the folder of datasets, for those that need one.
        stop: asked after each step; true: keep the state of training and raise `Stopped`. Asked during the final
            evaluation too, unless this process did nothing else, or is one of several.
        check: called before anything is written; raises `Lost` if this process may not any more.
        group: the `spec.gpus` processes that make this run together, each of which calls this function. The first one
            writes the folder, and its `stop` and `check` count; of a run that fails, the one that failed first writes. A
            process whose run has failed must then end: others may be waiting for it, until torchrun stops them or
            `parallel.TIMEOUT` has passed.

    Returns:
        The result as it was stored, with `status` "finished" or "failed", in every process.

    Raises:
        Stopped, Lost: see above; the run is neither finished nor failed.
        GroupBroken: another process of the group is gone; the same holds, and this one must end too.
        OSError: the disk is full: no fault of this run's, which goes on once there is room.
    """
    group = group or Group()
    folder = RunFolder(runs, spec.id)
    check()
    if group.first:
        folder.begin(f"# {spec.command()}\n\n{spec.config}")
    result = spec.identity() | studies.told(spec, runs)
    trace = None
    try:
        found = _run(spec, folder, runs, data, _Caller(report, stop, check, group))
        if found is None:
            return _told(group.hear(spec.id))
        result |= {**found, "status": "finished"}
    except (Stopped, Lost):
        raise
    except GroupBroken:
        words = group.last_words(spec.id)
        if words is None:
            raise
        return _told(words)
    except Exception as error:
        if is_full(error):
            raise
        trace = traceback.format_exc()
        result |= {"status": "failed", "error": _sentence(error)}
    result["provenance.finished_at"] = provenance.now()
    ours = f"{group.rank} {json.dumps(result)}"
    check()
    if trace is not None:
        theirs = group.say(spec.id, ours)
        if theirs != ours:  # another process failed before, and this one perhaps for that reason only
            return _told(theirs)
        folder.log(trace)
    folder.finish(result)
    group.say(spec.id, ours)
    return result


def _told(message: str) -> dict[str, Any]:
    """The result that another process of the group has stored."""
    result: dict[str, Any] = json.loads(message.partition(" ")[2])
    return result


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def validate(spec: Spec, runs: Path, data: Path | None, report: Report = lambda progress: None) -> dict[str, Any]:
    """Train one spec and measure it on the validation split alone: a trial of `kdbench tune`, which leaves no folder.

    The test set stays sealed: nothing here declares training over, without which reading it raises.

    Returns:
        `status`, `error`, `accuracy.val` in percent after the last epoch, `seconds.train` and `provenance.*`.

    Raises:
        RunError: what would end every trial alike: the device, the data, the teacher, the method's file.
    """
    try:
        ready = _prepare_run(spec, runs, data, Group())
    except Exception as error:
        raise RunError(_sentence(error)) from error
    if ready.given.selection.on_test:
        raise RunError("a trial may not choose on the test set: leave Selection.on_test=True out")
    if not len(ready.task.validation):
        raise RunError("there is no validation split to choose on: give a larger Split.validation")
    try:
        with tempfile.TemporaryDirectory() as folder:
            _, outcome = _train(spec, ready, Path(folder) / EPOCHS, report, Group())
    except Exception as error:
        return {
            "status": "failed",
            "error": _sentence(error),
            "accuracy.val": None,
            "seconds.train": None,
            **ready.facts,
        }
    return {
        "status": "finished",
        "error": None,
        "accuracy.val": outcome.validation,
        "seconds.train": round(outcome.seconds, 3),
        **ready.facts,
    }


def _sentence(error: Exception) -> str:
    """What is shown of an error: ours are sentences, others need their name."""
    return str(error) if isinstance(error, (RunError, UserError)) else f"{type(error).__name__}: {error}"


class _Ready(NamedTuple):
    """All that training needs."""

    method_class: type
    given: settings.Settings
    device: torch.device
    peak: cost.PeakMemory
    facts: dict[str, Any]
    task: task_.Task
    guide: teacher.Teacher | None


def _prepare_run(spec: Spec, runs: Path, data: Path | None, group: Group) -> _Ready:
    method_class = methods.load(spec.source)
    gin.clear_config()
    gin.parse_config(spec.config)
    given = settings.from_gin()
    device = _prepare(given.machine, group)
    peak = cost.PeakMemory(device)
    facts = provenance.collect(spec, device, group.size)
    task = task_.load(given.dataset, given.split, data, device, given.selection.on_test)
    guide = teacher.load(spec, runs, task.classes, task.image_shape[0], task.digest)
    return _Ready(method_class, given, device, peak, facts, task, guide)


def _train(
    spec: Spec, ready: _Ready, epochs_csv: Path, report: Report, group: Group, keeper: Keeper | None = None
) -> tuple[Method, Outcome]:
    streams = Streams(spec.seed)
    method = build(spec, ready.method_class, ready.task, ready.given.train, streams, ready.guide, ready.device)
    if group.size > 1:
        group.check_equal(
            {
                "the images": int(ready.task.digest[:15], 16),
                "the teacher's weights": int(ready.guide.sha256[:15], 16) if ready.guide else 0,
                "the initial weights": checksum(method.state_dict().values()),
            }
        )
        if ready.given.parallel.sync_bn:
            synchronise(method, group)
    if ready.given.machine.compile:
        method.student.compile()
    with streams.as_global("training"):
        return method, train(method, ready.task, ready.given, streams, epochs_csv, report, group, keeper)


class _Caller(NamedTuple):
    """What the process that does a run is told, asked, and part of; see `run`."""

    report: Report
    stop: Callable[[], bool]
    check: Callable[[], None]
    group: Group


def _run(spec: Spec, folder: RunFolder, runs: Path, data: Path | None, caller: _Caller) -> dict[str, Any] | None:
    """What the first process finds; None in the others, whose work is done when training is over."""
    group = caller.group
    began = time.perf_counter()
    # Also so that none reads, or fails, before the first one has made the folder ready and finished the run before.
    group.check_equal({"the runs": int(spec.id.rpartition("-")[2], 16)})
    ready = _prepare_run(spec, runs, data, group)
    given, task, guide = ready.given, ready.task, ready.guide
    submitted, commit = (ready.facts.get(f"provenance.{name}") for name in ("commit_submitted", "commit"))
    if group.first and submitted and submitted != commit:
        folder.log(f"submitted at commit {submitted}, but what runs is commit {commit}")
    log = None if group.first else lambda line: None
    every = given.machine.checkpoint_every
    keeper = Keeper(folder, _identity_of_state(spec, ready), every, caller.stop, caller.check, log)
    # Before training, so that a method that it fails for fails at once.
    counted = flops.of_method(*_first_step(spec, ready)) if group.first else {}
    used = energy.of_devices(ready.device, group.size)
    of_training: dict[str, Any] = {}  # once it is over
    keeper.session = lambda: {
        "seconds": time.perf_counter() - began,
        "peak": ready.peak.bytes(),
        "joules": used.joules(),
        "started_at": ready.facts["provenance.started_at"],
        "commit": ready.facts["provenance.commit"],
        **of_training,
    }
    shown: list[Progress] = []

    def report(progress: Progress) -> None:
        shown[:] = [progress]
        caller.report(progress)

    method, outcome = _train(spec, ready, folder / EPOCHS, report, group, keeper)
    if not group.first:
        return None
    trained = time.perf_counter()
    of_training |= {"peak": ready.peak.bytes(), "joules": used.joules()}
    sessions = [*keeper.sessions, of_training]

    def between(done: float) -> None:
        if not shown:  # all training was done before: whoever is stopped again and again comes to an end
            return
        # The others of a group wait for what this one finds.
        if group.size == 1 and caller.stop():
            keeper.save(keeper.last())
            raise Stopped
        caller.report(replace(shown[0], measured=done))

    teacher_network = guide.network if guide else None
    curve = convergence.read(folder / EPOCHS)
    measured = evaluate.final(method, outcome.best, teacher_network, task, given, curve, between)
    if guide and measured["teacher.accuracy"] is not None:
        guide.confirm(measured["teacher.accuracy"])
    deployed = method.deployed()
    state = deployed.state_dict()
    done = time.perf_counter()
    caller.check()
    checkpoint.save(folder / CHECKPOINT, spec.student, state, {"run": spec.id})
    write_atomically(folder / OPERATIVE, gin.operative_config_str().encode())
    return {
        **measured,
        "accuracy.val": outcome.validation,
        "best_epoch": outcome.best_epoch,
        **({"accuracy.best_test": outcome.best_test, "selected_on_test": True} if given.selection.on_test else {}),
        "images_seen": outcome.images_seen,
        "seconds.train": round(outcome.seconds, 3),
        "seconds.evaluate": round(done - trained, 3),
        "seconds.total": round(done - began + sum(s["seconds"] for s in keeper.sessions), 3),
        "cost.parameters": cost.parameters(deployed),
        "cost.parameters_training": cost.parameters(method),
        **counted,
        "cost.peak_memory_bytes": max(s["peak"] for s in sessions),
        "cost.energy_joules": energy.total([s.get("joules") for s in sessions]),
        "cost.images_per_second": round(outcome.images_seen / outcome.seconds, 1),
        "teacher.run": guide.run if guide else None,
        "teacher.sha256": guide.sha256 if guide else None,
        "weights.sha256": checkpoint.weights_sha256(state),
        "data.sha256": task.digest,
        **ready.facts,
        **_history(keeper, ready.facts),
    }


def _identity_of_state(spec: Spec, ready: _Ready) -> dict[str, Any]:
    """What a state of training must be of, for this run to go on from it."""
    return {
        "run": spec.id,
        "method file": ready.facts["provenance.method_sha256"],
        "dataset": ready.task.digest,
        "teacher": ready.guide.sha256 if ready.guide else None,
    }


def _first_step(spec: Spec, ready: _Ready) -> tuple[Method, Batch, torch.autocast]:
    """The method as it was before training, of this process alone and not compiled; the whole first batch; its precision."""
    task, given, streams = ready.task, ready.given, Streams(spec.seed)
    method = build(spec, ready.method_class, task, given.train, streams, ready.guide, ready.device)
    budget = Budget(given.train, len(task.train), method.images_per_anchor, given.control.budget)
    augmenter = Augmenter(task.train.images, given.augment, given.dataset)
    batch = next(steps(method, task, augmenter, streams, budget))
    return method, batch, autocast(given.train, ready.device)


def _history(keeper: Keeper, facts: dict[str, Any]) -> dict[str, Any]:
    """Of a run that several processes did: how many, since when, and at which commits."""
    if not keeper.sessions:
        return {}
    commits = dict.fromkeys([*(s["commit"] for s in keeper.sessions), facts["provenance.commit"]])
    return {
        "provenance.sessions": len(keeper.sessions) + 1,
        "provenance.started_at": keeper.sessions[0]["started_at"],
        "provenance.commits": " ".join(str(commit) for commit in commits),
    }


def build(
    spec: Spec,
    method_class: type,
    task: task_.Task,
    recipe: settings.Train,
    streams: Streams,
    guide: teacher.Teacher | None,
    device: torch.device,
) -> Method:
    """The method of a run around its student, on the device. The student's weights depend on the seed and nothing else."""
    with streams.as_global("init"):
        student = registry.build(spec.student, task.classes, task.image_shape[0])
    if guide:
        guide.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    info = Info(task.classes, task.train.labels.cpu(), task.image_shape, recipe.label_smoothing, device)
    with streams.as_global("init of the method"):
        method: Method = method_class(student, guide.network if guide else None, info)
    return method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _prepare(machine: settings.Machine, group: Group) -> torch.device:
    """Apply the machine's settings to torch, and name the device."""
    if machine.gpus != group.size:
        here = "alone" if group.size == 1 else f"one of {group.size}"
        raise RunError(
            f"Machine.gpus={machine.gpus} means {machine.gpus} processes, which `python -m torch.distributed.run "
            f"--nproc-per-node={machine.gpus}` starts, and this one is {here}"
        )
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if machine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(machine.deterministic)
    name = machine.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"Machine.device='{name}' is not to be had here: {str(error).splitlines()[0]}") from None
    return group.device or device
