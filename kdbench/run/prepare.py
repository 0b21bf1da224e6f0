"""All that training needs, made ready from a spec: settings, device, images, teachers, and the method around its student."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdbench import methods
from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone
from kdbench.config import run_config
from kdbench.config import settings as settings_
from kdbench.config.settings import Machine, Settings
from kdbench.data import task as tasks
from kdbench.data.augment import Augmenter
from kdbench.data.readers.superclasses import coarse_labels
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.measures import flops
from kdbench.measures.cost import PeakMemory
from kdbench.method import Info, Method, second_task
from kdbench.method.teacher import KeptOutputs
from kdbench.plan.spec import Spec
from kdbench.run import allocator, arithmetic
from kdbench.run import teacher as teachers_
from kdbench.run.group import Group
from kdbench.run.loop.accumulate import portions
from kdbench.run.loop.batches import passes_per_anchor, steps
from kdbench.run.loop.budget import Budget
from kdbench.run.loop.terms import checked
from kdbench.run.loop.train import autocast
from kdbench.run.teacher import LoadedTeacher
from kdbench.store import provenance
from kdbench.streams import Streams


@dataclass(frozen=True)
class Ready:
    """All that training needs.

    Attributes:
        provenance: the `provenance.*` entries of the result.
    """

    method_class: type[Method]
    settings: Settings
    device: torch.device
    peak: PeakMemory
    provenance: dict[str, Any]
    task: Task
    teachers: tuple[LoadedTeacher, ...]

    def identity(self, spec: Spec) -> dict[str, Any]:
        """The facts that a state of training must share with this run for it to resume from that state."""
        return {
            "run": spec.id,
            "method file": self.provenance["provenance.method_sha256"],
            "dataset": self.task.digest,
            "teacher": " ".join(teacher.sha256 for teacher in self.teachers) or None,
        }


def prepare(spec: Spec, runs: Path, data: Path | None, group: Group) -> Ready:
    """Parse the configuration of a run, and load what it names.

    Raises:
        UserError, RunError: the configuration holds more than values of this run; the images or a teacher are not there, or
            are not what they should be; the device is not available.
    """
    allocator.keep_freed_memory()
    method_class = arithmetic.with_import(spec.source, lambda: methods.load(spec.source))
    run_config.bind(run_config.trainable(spec.config, spec.id, spec.source))
    settings = settings_.from_gin()
    device = _device(settings.machine, group)
    arithmetic.apply(settings.machine, device, spec.source)
    peak = PeakMemory(device)
    facts = provenance.collect(spec, device, settings.machine)
    facts["provenance.variables"] = arithmetic.variables()
    task = tasks.load(
        settings.dataset,
        settings.split,
        data,
        device,
        settings.selection.on_test,
        crop=settings.resized_crop,
        machine=settings.machine,
        changes=settings.labels,
    )
    teachers = teachers_.load(spec, runs, task)
    return Ready(method_class, settings, device, peak, facts, task, teachers)


def build(spec: Spec, ready: Ready, streams: Streams, kept: Sequence[KeptOutputs | None] = ()) -> Method:
    """The method of a run around its student, on the device. The student's weights depend on the seed and nothing else.

    Args:
        kept: for each teacher, its outputs in training that other runs have kept.
    """
    task, settings = ready.task, ready.settings

    def network(name: str | None, stream: str) -> Backbone:
        with streams.as_global("init" if stream == STUDENT else f"init of {stream}"):
            built = registry.build(name or spec.student, task.classes, task.image_shape[0])
        built.renormalise(settings.dataset.mean, settings.dataset.std)
        return built

    for teacher in ready.teachers:
        teacher.to(ready.device)
    each_kept = kept or [None] * len(ready.teachers)
    teachers = [replace(t.seen_by_methods(), kept=k) for t, k in zip(ready.teachers, each_kept, strict=True)]
    budget = Budget(settings.train, len(task.train), passes_per_anchor(ready.method_class), settings.control.budget)
    info = Info(
        classes=task.classes,
        train_labels=task.train.labels.cpu(),
        image_shape=task.image_shape,
        label_smoothing=settings.train.label_smoothing,
        device=ready.device,
        batch_size=budget.anchors * ready.method_class.images_per_anchor * len(ready.method_class.views),
        steps=budget.paid,
        epochs=budget.epochs,
        network=network,
    )
    student = network(spec.student, STUDENT)
    with streams.as_global("init of the method"):
        method = ready.method_class(student, teachers, info)
    if settings.second_task.weight:
        with streams.as_global("init of the second task"):
            second_task.attach(method, coarse_labels(task.class_names))
    method.to(ready.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return method


STUDENT = "the student"
"""The stream of the student's initial weights."""


def count_flops(spec: Spec, ready: Ready) -> dict[str, int]:
    """The `cost.flops.*` entries: of each exit, and of an image in training, averaged over the phases by their steps.

    Counted on a method of its own as it is before training, of this process alone and not compiled, with a whole batch, or
    the first part of one where `Train.accumulate` cuts it.
    """
    task, settings, streams = ready.task, ready.settings, Streams(spec.seed)
    method = build(spec, ready, streams)
    budget = Budget(
        settings.train, len(task.train), passes_per_anchor(method), settings.control.budget, method.phases()
    )
    augmenter = Augmenter.of(task.train, settings)
    whole = next(steps(method, task, augmenter, streams, budget))
    batch = next(portions(whole, budget.anchors, settings.train.accumulate))
    images = budget.per_step * len(batch.images) // len(whole.images)
    weights = [
        (checked(stretch.phase.losses or method.losses, method), (stretch.end - stretch.first) / budget.steps)
        for stretch in budget.stretches
    ]
    return flops.of_method(method, batch, autocast(settings.train, ready.device), weights, images)


def _device(machine: Machine, group: Group) -> torch.device:
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
    arithmetic.set_deterministic(machine.deterministic)
    name = machine.device if machine.device != "auto" else usual_device()
    try:
        device = usable(name)
    except RunError as error:
        raise RunError(f"Machine.device={error}") from None
    return group.device or device


def usual_device() -> str:
    """The device "auto": a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable(name: str) -> torch.device:
    """The device of this name, such as "cuda:1".

    Raises:
        RunError: torch cannot use it; the sentence begins with the name in quotes.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"'{name}' is not available here: {_first_sentence(error)}") from None
    return device


def _first_sentence(error: Exception) -> str:
    """The first sentence of torch's message, which may go on for a thousand characters."""
    return str(error).splitlines()[0].partition(". ")[0].removesuffix(".")
