"""What only a GPU can show: `make gpu`. Without one, all of it is skipped. Needs neither network, SLURM nor a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gin
import pytest
import torch

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import settings as settings_
from kdbench.data.augment import Augmenter
from kdbench.data.images import Images
from kdbench.data.task import SealedTest, Task
from kdbench.measures.cost import PeakMemory
from kdbench.method import Batch, Method
from kdbench.plan import expand, request
from kdbench.plan.spec import Spec
from kdbench.run import arithmetic
from kdbench.run.loop.batches import passes_per_anchor, steps
from kdbench.run.loop.budget import Budget
from kdbench.run.prepare import Ready, build
from kdbench.run.teacher import LoadedTeacher
from kdbench.streams import Streams

HERE = Path(__file__).parent
DEVICE = "cuda"
SHORT = (
    "dataset=digits", "student=resnet8", "teacher=resnet8", "Train.epochs=3", "Train.batch_size=24", "Train.warmup=0",
    "Train.precision=float32", "Split.validation=0.2", "Measures.corruptions=False", "Measures.images=10",
    f"Machine.device={DEVICE}",
)  # fmt: skip

_FIGURES: list[tuple[str, str]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="torch can use no GPU here"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table at the end: the device, and what was measured on it."""
    if not _FIGURES:
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    terminalreporter.section(f"{device}, torch {torch.__version__}")
    width = max(len(name) for name, _ in _FIGURES)
    for name, value in _FIGURES:
        terminalreporter.write_line(f"{name:{width}}  {value}")


@pytest.fixture(scope="session")
def figure() -> Callable[[str, str], None]:
    """Adds a line to the table at the end: what was measured, and the value."""
    return lambda name, value: _FIGURES.append((name, value))


@pytest.fixture(autouse=True, scope="session")
def cublas() -> Iterator[None]:
    """cuBLAS reads this when it is used for the first time, which may be before the first run in deterministic mode."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        yield


@pytest.fixture
def plan() -> Callable[..., list[Spec]]:
    """The specs of short runs on digits on the GPU, the method's own last."""

    def specs(*words: str) -> list[Spec]:
        given = {word.partition("=")[0] for word in words}
        return expand.plan(request.parse([*(word for word in SHORT if word.partition("=")[0] not in given), *words]))

    return specs


@pytest.fixture
def first_step() -> Iterator[Callable[..., tuple[Method, Batch]]]:
    """A method as a run builds it, and its first batch of random images of 32×32; equal on all devices.

    Arguments: name of the method, device, further words of the command line.
    """

    def make(name: str, device: str, *words: str) -> tuple[Method, Batch]:
        usual = ("dataset=cifar100", "recipe=smoke", "Train.precision=float32", "Train.batch_size=64")
        spec = expand.plan(request.parse([f"methods={name}", *usual, *words]))[-1]
        cls = methods.load(spec.source)
        gin.clear_config()
        gin.parse_config(spec.config)
        settings, place = settings_.from_gin(), torch.device(device)
        arithmetic.apply(settings.machine, place, spec.source)
        drawn = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (1024, 32, 32, 3), dtype=torch.uint8, generator=drawn).to(place)
        images = Images(pixels, (torch.arange(1024) % 100).to(place))
        task = Task(images, Images(pixels[:0], images.labels[:0]), SealedTest(images), 100, "")
        torch.manual_seed(1)
        teachers = [LoadedTeacher(registry.build("resnet20", 100), None, "", None)] if cls.needs_teacher else []
        ready = Ready(cls, settings, place, PeakMemory(place), {}, task, tuple(teachers))
        method = build(spec, ready, Streams(0)).train()
        budget = Budget(settings.train, 1024, passes_per_anchor(cls))
        return method, next(steps(method, task, Augmenter.of(images, settings), Streams(0), budget))

    with arithmetic.kept():
        yield make
    gin.clear_config()
