"""One run, from its spec to its result: prepare, train, evaluate, write the result."""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gin

from kdbench.config import run_config
from kdbench.errors import RunError
from kdbench.files import write_atomically
from kdbench.measures import convergence, cost, energy
from kdbench.measures.load import OtherProcesses
from kdbench.method import Method
from kdbench.plan import own_files
from kdbench.plan.spec import Spec
from kdbench.run import arithmetic, checkpoint, evaluate, fault, load, training_outputs
from kdbench.run import teacher as teachers
from kdbench.run.caller import Caller, Progress
from kdbench.run.compilation import compile_networks, not_compiled
from kdbench.run.group import Group, GroupBroken, checksum
from kdbench.run.loop.state import Outcome
from kdbench.run.loop.train import train
from kdbench.run.prepare import Ready, build, count_flops, prepare
from kdbench.run.resume import Keeper, Stopped
from kdbench.run.session import Session
from kdbench.run.sync_bn import synchronise
from kdbench.run.teacher_outputs import FOLDER, OutputsOnTest
from kdbench.run.training_outputs import TrainingOutputs
from kdbench.store import provenance, studies
from kdbench.store.folder import CHECKPOINT, EPOCHS, OPERATIVE, RunFolder
from kdbench.store.lease import Lost
from kdbench.streams import Streams


def run(spec: Spec, runs: Path, data: Path | None, caller: Caller | None = None) -> dict[str, Any]:
    """Train and evaluate one spec, or resume it, and leave its folder; an error ends this run only.

    Args:
        runs: the folder of all runs.
        data: the folder of datasets, for those that need one.
        caller: the process that does the run: what it is asked, what it receives, and its group. Of a run that fails, the
            rank that failed first writes. A process whose run has failed must then end: others may be waiting for it, until
            torchrun stops them or `group.TIMEOUT` has passed.

    Returns:
        The result as it was stored, with `status` "finished" or "failed", in every process.

    Raises:
        Stopped, Lost: the run is neither finished nor failed.
        GroupBroken: another process of the group is gone; the same holds, and this one must end too.
        OSError: the disk is full, which is not this run's fault; it resumes once there is room.
    """
    caller = caller or Caller()
    group, folder = caller.group, RunFolder(runs, spec.id, caller.check)
    if group.first:
        values = run_config.parse(spec.config, spec.id).values
        folder.begin(run_config.write(values, spec.command()), own_files.of_run(spec))
    result = spec.identity() | studies.tuning_of(spec, runs)
    trace = None
    try:
        with arithmetic.kept(), Streams(spec.seed).as_global("run"):
            measured = _run(spec, folder, runs, data, caller)
        if measured is None:
            return _result_of_another_rank(group.hear(spec.id))
        result |= {**measured, "status": "finished"}
    except (Stopped, Lost):
        raise
    except GroupBroken:
        words = group.last_words(spec.id)
        if words is None:
            raise
        return _result_of_another_rank(words)
    except Exception as error:
        if is_full(error):
            raise
        trace = traceback.format_exc()
        result |= {"status": "failed", "error": fault.sentence(error)}
    result["provenance.finished_at"] = provenance.now()
    ours = f"{group.rank} {json.dumps(result)}"
    caller.check()
    if trace is not None:
        theirs = group.say(spec.id, ours)
        if theirs != ours:  # another process failed before, and this one perhaps for that reason only
            return _result_of_another_rank(theirs)
        folder.log(trace)
    folder.finish(result)
    group.say(spec.id, ours)
    return result


@arithmetic.kept()
def validate(spec: Spec, runs: Path, data: Path | None, caller: Caller | None = None) -> dict[str, Any]:
    """Train one spec and measure it on the validation split alone: a trial of `kdbench tune`, which leaves no folder.

    The test set stays sealed: nothing here declares training over, without which reading it raises.

    Returns:
        `status`, `error`, `accuracy.val` in percent after the last epoch, `seconds.train` and `provenance.*`.

    Raises:
        RunError: what would end every trial alike: the device, the data, the teacher, the method's file.
    """
    caller = caller or Caller()
    try:
        ready = _prepare(spec, runs, data, caller.group)
    except Exception as error:
        raise RunError(fault.sentence(error)) from error
    if ready.settings.selection.on_test:
        raise RunError("tuning cannot use the test set; remove Selection.on_test=True")
    if not len(ready.task.validation):
        raise RunError("tuning needs a validation split; give a larger Split.validation")
    trial: dict[str, Any] = {"status": "finished", "error": None, "accuracy.val": None, "seconds.train": None}
    try:
        with tempfile.TemporaryDirectory() as folder, Streams(spec.seed).as_global("run"):
            _, outcome = _train(spec, ready, Path(folder) / EPOCHS, caller)
    except Exception as error:
        return {**trial, "status": "failed", "error": fault.sentence(error), **ready.provenance}
    measured = {"accuracy.val": outcome.validation, "seconds.train": round(outcome.seconds, 3)}
    return {**trial, **measured, **ready.provenance}


def is_full(error: BaseException) -> bool:
    """True if an error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _run(spec: Spec, folder: RunFolder, runs: Path, data: Path | None, caller: Caller) -> dict[str, Any] | None:
    """The entries of the result, on the first rank; None on the others, whose work is done when training is over."""
    group = caller.group
    began = time.perf_counter()
    others = OtherProcesses() if group.size == 1 else None  # the other ranks are not others
    # Also so that none reads, or fails, before the first one has made the folder ready and finished the run before.
    group.check_equal({"the runs": int(hashlib.sha256(spec.id.encode()).hexdigest()[:15], 16)})
    ready = _prepare(spec, runs, data, group)
    _log_other_commit(folder, ready, group.first)
    # Before training, so that a method that counting fails for fails at once.
    flops = count_flops(spec, ready) if group.first else {}
    doubt = teachers.doubt(spec, ready.teachers, ready.task, ready.settings.dataset) if group.first else None
    if doubt:
        folder.log(doubt)
    session = Session(began, ready.peak, energy.of_devices(ready.device, group.size), others, ready.provenance)
    log = None if group.first else lambda line: None
    every = ready.settings.machine.checkpoint_every
    keeper = Keeper(folder, ready.identity(spec), every, caller.stop, log)
    keeper.session = session.entries
    last_report: list[Progress] = []

    def report(progress: Progress) -> None:
        last_report[:] = [progress]
        caller.report(progress)

    in_training = [
        training_outputs.of_teacher(
            teacher, runs / FOLDER, [spec.protocol, spec.seed], ready.settings, ready.provenance
        )
        for teacher in ready.teachers
    ]
    try:
        method, outcome = _train(spec, ready, folder / EPOCHS, replace(caller, report=report), keeper, in_training)
    finally:
        for outputs in in_training:
            if outputs is not None:
                outputs.close()
    if not group.first:
        return None
    session.training_is_over()

    def between(done: float) -> None:
        # A process that only has the final evaluation left ignores stop requests, so that a run that is stopped whenever it
        # can be finishes too.
        if not last_report:
            return
        if group.size == 1 and caller.stop():  # the other ranks of a group wait for this one's measurements
            keeper.save(keeper.last())
            raise Stopped
        caller.report(replace(last_report[0], measured=done))

    kept = OutputsOnTest(runs / FOLDER, ready.provenance) if ready.settings.machine.teacher_cache else None
    with not_compiled(ready.settings.machine.compile):
        measured = _evaluate(ready, method, outcome, convergence.points(outcome.epochs_csv), between, kept)
    entries = session.result(keeper.sessions, outcome)
    state = method.deployed().state_dict()
    description = load.description(spec, method, [teacher.description for teacher in ready.teachers])
    facts = {"run": spec.id, "class_names": [str(name) for name in ready.task.class_names]}
    folder.check()
    checkpoint.save(folder / CHECKPOINT, spec.student, state, facts, description, outcome.states, folder.check)
    folder.check()
    write_atomically(folder / OPERATIVE, gin.operative_config_str().encode(), before=folder.check)
    return {
        **measured,
        **flops,
        **entries,
        **({"teacher.doubt": doubt} if doubt else {}),
        "weights.sha256": checkpoint.weights_sha256(state),
    }


def _prepare(spec: Spec, runs: Path, data: Path | None, group: Group) -> Ready:
    """`prepare`, in which a reader, or a method's file when it is imported, draws the same for all seeds."""
    with Streams(0).as_global("preparation"):
        return prepare(spec, runs, data, group)


def _train(
    spec: Spec,
    ready: Ready,
    epochs_csv: Path,
    caller: Caller,
    keeper: Keeper | None = None,
    kept: Sequence[TrainingOutputs | None] = (),
) -> tuple[Method, Outcome]:
    group, settings, streams = caller.group, ready.settings, Streams(spec.seed)
    method = build(spec, ready, streams, kept)
    if group.size > 1:
        group.check_equal(
            {
                "the images": int(ready.task.digest[:15], 16),
                **{f"the weights of teacher {n}": int(t.sha256[:15], 16) for n, t in enumerate(ready.teachers, 1)},
                "the initial weights": checksum(method.state_dict().values()),
            }
        )
        if settings.parallel.sync_bn:
            for module in (method, *(teacher.network for teacher in ready.teachers)):
                synchronise(module, group)
    compile_networks(method, settings.machine.compile)
    with streams.as_global("training"):
        return method, train(method, ready.task, settings, streams, epochs_csv, caller, keeper)


def _evaluate(
    ready: Ready,
    method: Method,
    outcome: Outcome,
    curve: list[convergence.Point],
    between: Callable[[float], None],
    kept: OutputsOnTest | None,
) -> dict[str, Any]:
    """The one final evaluation, and what is known of the method, its networks and its teachers."""
    task, settings = ready.task, ready.settings
    runs = [teacher for teacher in ready.teachers if not teacher.is_earlier]
    teacher = runs[0] if runs else None
    measured = evaluate.final(method, outcome.best, teacher, task, settings, curve, between, kept)
    if teacher and measured["teacher.accuracy"] is not None:
        teacher.confirm(measured["teacher.accuracy"])
    deployed = method.deployed()
    on_test = {"accuracy.best_test": outcome.best_test, "selected_on_test": True}
    return {
        **measured,
        "accuracy.val": outcome.validation,
        "best_epoch": outcome.best_epoch,
        **(on_test if settings.selection.on_test else {}),
        "cost.parameters": cost.parameters(deployed),
        "cost.parameters_training": cost.trained_parameters(method),
        "teacher.run": ",".join(teacher.run for teacher in runs if teacher.run) or None,
        "teacher.sha256": ",".join(teacher.sha256 for teacher in runs) or None,
        "data.sha256": task.digest,
        **({"data.skipped": task.skipped} if task.skipped is not None else {}),
        **({"data.content_sha256": task.content} if task.content else {}),
    }


def _log_other_commit(folder: RunFolder, ready: Ready, first: bool) -> None:
    submitted, commit = (ready.provenance.get(f"provenance.{name}") for name in ("commit_submitted", "commit"))
    if first and submitted and submitted != commit:
        folder.log(f"submitted at commit {submitted}, but what runs is commit {commit}")


def _result_of_another_rank(message: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(message.partition(" ")[2])
    return result
