"""Three loops that train a method on made-up images like CIFAR-100's: kdbench's, a bare and a conventional one.

A *bare* loop has the same modules, precision and batches, made before; it trains and does nothing else. A *conventional* loop is
what published code does: PIL images, transforms in two worker processes, contiguous float32, and the losses read in each step.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdbench import methods
from kdbench.config import run_config, settings
from kdbench.data.augment import Augmenter
from kdbench.data.images import Images
from kdbench.data.task import SealedTest, Task
from kdbench.measures.cost import PeakMemory
from kdbench.method import Batch, Method
from kdbench.plan import expand, request
from kdbench.plan.spec import Spec
from kdbench.run import arithmetic
from kdbench.run.compilation import compile_networks
from kdbench.run.loop.batches import passes_per_anchor, steps
from kdbench.run.loop.budget import Budget
from kdbench.run.loop.train import autocast, train
from kdbench.run.prepare import Ready, build
from kdbench.run.teacher import LoadedTeacher
from kdbench.streams import Streams

CPU = torch.device("cpu")
IMAGES = 50_000
"""As many as CIFAR-100 has, because a memory bank has an entry for each."""
WARMING = 2
"""Blocks of steps at the beginning that no figure counts."""


@functools.cache
def made_up(classes: int = 100, count: int = IMAGES, device: torch.device = CPU) -> Task:
    """Images of the shape of CIFAR-100's."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator).to(device)
    images = Images(pixels, (torch.arange(count) % classes).to(device))
    return Task(images, Images(pixels[:0], images.labels[:0]), SealedTest(images), classes, "")


class Enough(Exception):
    """The steps that are to be timed are done."""


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Times the steps of a method by its `after_step`.

    Args:
        length: blocks to time, after those that warm up.
        others: loops that take one block each after every block of the method, and yield its images per second.
        block: steps of a block. On a GPU a block ends when the GPU has done it, so a block of one step is not how runs train.

    Attributes:
        rates: of each block, images per second of the method and of the others.

    Raises:
        Enough: in the last step.
    """

    def __init__(self, method: Method, length: int, others: Sequence[Iterator[float]] = (), block: int = 1):
        self.rates: list[list[float]] = []
        self._after_step, self._length, self._others, self._block = method.after_step, length, others, block
        self._step, self._images, self._began = 0, 0, 0.0
        method.after_step = self._end  # type: ignore[method-assign]

    def _end(self, batch: Batch) -> None:
        self._after_step(batch)
        self._step, self._images = self._step + 1, self._images + len(batch.images)
        if self._step % self._block:
            return
        wait(batch.images.device)
        rate = self._images / (time.perf_counter() - self._began)
        with torch.enable_grad():
            rates = [rate, *(next(other) for other in self._others)]
        if self._step > WARMING * self._block:
            self.rates.append(rates)
        if len(self.rates) == self._length:
            raise Enough
        self._images, self._began = 0, time.perf_counter()


class Bench:
    """A method on a pair of networks in one precision.

    Args:
        pair: names of student and teacher.
        length: blocks that a loop times in one turn.
        block: steps of a block (`Clock`).
        words: further words of the command line.
    """

    def __init__(
        self, name: str, pair: tuple[str, str], precision: str, length: int, batch: int = 64, classes: int = 100,
        device: torch.device = CPU, block: int = 1, words: Sequence[str] = (),
    ):  # fmt: skip
        student, teacher = pair
        usual = [
            f"methods={name}", "dataset=cifar100", f"student={student}", f"teacher={teacher}", "recipe=smoke",
            f"Train.batch_size={batch}", "Split.validation=0", "Train.warmup=0", f"Train.precision={precision}",
        ]  # fmt: skip
        *trained_before, self.spec = expand.plan(request.parse([*usual, *words]))
        task = made_up(classes, device=device)
        made: dict[str, LoadedTeacher] = {}
        for spec in trained_before:  # a teacher comes before those that it teaches
            made[spec.id] = self._untrained(spec, task, device, [made[run] for run in spec.teacher_runs])
        teachers = [made[run] for run in self.spec.teacher_runs]
        cls = methods.load(self.spec.source)
        self._bind(self.spec)
        self.ready = Ready(cls, settings.from_gin(), device, PeakMemory(device), {}, task, tuple(teachers))
        self.length, self.block = length, block

    @staticmethod
    def _bind(spec: Spec) -> None:
        """Gin holds the values of one method at a time."""
        run_config.bind(run_config.trainable(spec.config, spec.id, spec.source))

    def _untrained(
        self, spec: Spec, task: Task, device: torch.device, teachers: Sequence[LoadedTeacher]
    ) -> LoadedTeacher:
        """A teacher as its run begins, with the exits that the run trains."""
        cls = methods.load(spec.source)
        self._bind(spec)
        ready = Ready(cls, settings.from_gin(), device, PeakMemory(device), {}, task, tuple(teachers))
        method = build(spec, ready, Streams(0))
        return LoadedTeacher(method.student, None, "", None, method)

    def method(self) -> Method:
        """A new method in the state before training."""
        self._bind(self.spec)
        arithmetic.apply(self.ready.settings.machine, self.ready.device, self.spec.source)
        return build(self.spec, self.ready, Streams(0)).train()

    def batches(self, method: Method) -> Iterator[Batch]:
        """As many as a loop takes in one turn."""
        given, task = self.ready.settings, self.ready.task
        budget = Budget(given.train, len(task.train), passes_per_anchor(method))
        every = steps(method, task, Augmenter.of(task.train, given), Streams(0), budget)
        return islice(every, (WARMING + self.length) * self.block)

    def real(self, others: Sequence[Iterator[float]] = ()) -> list[list[float]]:
        """Images per second in each block of kdbench's loop, and in the blocks of other loops that take turns with it."""
        method = self.method()
        compile_networks(method, self.ready.settings.machine.compile)
        clock = Clock(method, self.length, others, self.block)
        with tempfile.TemporaryDirectory() as folder, suppress(Enough):
            train(method, self.ready.task, self.ready.settings, Streams(0), Path(folder) / "epochs.csv")
        return clock.rates

    def bare(self) -> Iterator[float]:
        """Images per second in each block of the bare loop."""
        method = self.method()
        batches, mixed = list(self.batches(method)), autocast(self.ready.settings.train, self.ready.device)
        return _steps(method, batches, mixed, self.block, reads=False)

    def conventional(self) -> Iterator[float]:
        """Images per second in each block of the conventional loop."""
        method = self.method().to(memory_format=torch.contiguous_format)
        for teacher in self.ready.teachers:
            teacher.network.to(memory_format=torch.contiguous_format)
        drawn = list(self.batches(method))
        places = [batch.index.tolist() for batch in drawn]
        loader = DataLoader(Pictures(self.ready.task.train), batch_sampler=places, num_workers=2)
        device = self.ready.device
        batches = (
            replace(batch, images=images.to(device), labels=labels.to(device))
            for batch, (images, labels) in zip(drawn, loader, strict=True)
        )
        return _steps(method, batches, torch.autocast(device.type, enabled=False), self.block, reads=True)


def _steps(method: Method, batches: Iterable[Batch], mixed: torch.autocast, block: int, reads: bool) -> Iterator[float]:
    trained = [p for p in method.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=0.05, momentum=0.9, weight_decay=5e-4)
    images, began = 0, time.perf_counter()
    for step, batch in enumerate(batches, 1):
        with mixed:
            terms = method.losses(batch)
            loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if reads:
            for value in (loss, *terms.values()):
                value.item()
        with torch.no_grad():
            method.after_step(batch)
        images += len(batch.images)
        if step % block == 0:
            wait(batch.images.device)
            yield images / (time.perf_counter() - began)
            images, began = 0, time.perf_counter()


class Pictures(Dataset[Any]):
    """Images as torchvision's CIFAR-100 has them, with the usual augmentation."""

    def __init__(self, images: Images):
        self._pixels, self._labels = images.images.cpu().numpy(), images.labels.tolist()
        self._augment = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
                transforms.Normalize((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
            ]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self._augment(Image.fromarray(self._pixels[place])), self._labels[place]
