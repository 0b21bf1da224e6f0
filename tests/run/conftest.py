"""Training on digits, as small as it can be: functions that build its parts, with methods that the tests write themselves.

Also real runs of the methods in tests/teaching, a few steps each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.backbones import registry
from kdbench.config import places, settings
from kdbench.config.schedules import Cosine
from kdbench.config.settings import SGD, Augment, Dataset, Machine, Measures, Settings, Split
from kdbench.data import task as task_
from kdbench.data.readers import registry as readers
from kdbench.launch import backlog, local
from kdbench.method import Info, Method, Teacher
from kdbench.plan import expand, request
from kdbench.plan.spec import Spec
from kdbench.run import load
from kdbench.run.loop.train import train
from kdbench.store import teachers
from kdbench.streams import Streams

DIGITS = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)
AUGMENT = Augment(padding=0.125, fill=0, flip=True, cutout=0.0)
RATE = SGD(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)


class Plain(Method):
    """Cross-entropy, with what the tests want to see on the way."""

    def setup(self):
        self.seen = []

    def losses(self, batch):
        self.seen.append(batch.index.clone())
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}


class Pairs(Plain):
    """An image and its successor for every anchor."""

    images_per_anchor = 2

    def sample(self, anchors, streams):
        return torch.cat([anchors, (anchors + 1) % len(self.info.train_labels)])


def recipe(**changed):
    usual = dict(
        epochs=3.0, batch_size=16, schedule=Cosine(final=0.0), warmup=0.0, label_smoothing=0.0,
        precision="float32", clip_norm=0.0,
    )  # fmt: skip
    return settings.Train(**{**usual, **changed})


def task(validation=0.2):
    return task_.load(DIGITS, Split(validation=validation, seed=0), None, torch.device("cpu"))


def built(cls, its_task, seed=0, teacher=None):
    with Streams(seed).as_global("init"):
        student = registry.build("resnet8", its_task.classes, 1)
        teachers = [Teacher(registry.build(teacher, its_task.classes, 1))] if teacher else []
        info = Info(
            its_task.classes, its_task.train.labels, (1, 8, 8), 0.0, torch.device("cpu"),
            network=lambda name, stream: registry.build(name or "resnet8", its_task.classes, 1),
        )  # fmt: skip
        return cls(student, teachers, info)


def trained(folder, cls=Plain, its_task=None, keeper=None, teacher=None, method=None, optimiser=RATE, **changed):
    """The method and the outcome; `changed` are values of the recipe."""
    folder.mkdir(exist_ok=True)
    its_task = its_task or task()
    method = method or built(cls, its_task, teacher=teacher)
    machine = Machine("cpu", 0, False, False, 60.0, 1, "")
    given = Settings(DIGITS, Split(0.0, 0), AUGMENT, optimiser, recipe(**changed), machine, Measures((), False, 0, ()))
    with Streams(0).as_global("training"):
        return method, train(method, its_task, given, Streams(0), folder / "epochs.csv", keeper=keeper)


@pytest.fixture(scope="module", autouse=True)
def quick(few_test_images: None) -> None:
    """All runs of these tests."""


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """The parts of a small training: methods Plain and Pairs, recipe(…), task(…), built(…) and trained(…)."""
    return SimpleNamespace(
        Plain=Plain, Pairs=Pairs, DIGITS=DIGITS, AUGMENT=AUGMENT, RATE=RATE,
        recipe=recipe, task=task, built=built, trained=trained,
    )  # fmt: skip


SHORT = [
    "dataset=digits", "student=resnet8", "teacher=resnet20", "Train.epochs=2", "Train.warmup=0", "Train.batch_size=24",
    "Split.validation=0.2", "Machine.checkpoint_every=0", "Machine.threads=1", "Measures.corruptions=False", "Measures.images=10",
    "Measures.noise=()",
]  # fmt: skip


class Taught:
    """A folder of runs; those that are finished are not done again."""

    def __init__(self, runs: Path):
        self.runs = runs

    def specs(self, *words: str, runs: Path | None = None) -> list[Spec]:
        """The plan of words."""
        keys = {word.partition("=")[0] for word in words}
        kept = [word for word in SHORT if word.partition("=")[0] not in keys]
        return expand.plan(request.parse([*kept, *words]), teachers.finder(runs or self.runs))

    def do(self, *words: str) -> list[dict[str, Any]]:
        """The results of a plan's runs, teachers first; all have finished."""
        planned = self.specs(*words)
        if to_do := backlog.open_runs(planned, self.runs):
            local.inline(to_do, self.runs, None)
        results = backlog.results(planned, self.runs)
        assert [(result["status"], result.get("error")) for result in results] == [("finished", None)] * len(planned)
        return results

    def failure(self, *words: str) -> str:
        """The error of the one run of a plan."""
        (result,) = local.inline(self.specs(*words), self.runs, None)
        return result["error"]


@pytest.fixture(scope="module")
def taught_runs(tmp_path_factory) -> Taught:
    return Taught(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def taught(own_plugins, taught_runs: Taught) -> Taught:
    """The runs of this module, with the methods of tests/teaching."""
    places.add_plugins([str(Path(__file__).parents[1] / "teaching")])
    return taught_runs


@pytest.fixture
def test_set() -> Callable[[Path], tuple[Tensor, Tensor]]:
    """The test images of digits as the run of a folder sees them, (N, C, H, W), and their labels."""
    arrays = readers.read("digits", None)

    def seen_by(folder: Path) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(each) for each in load.normalisation(folder))
        images = (torch.from_numpy(arrays.test_images).float() / 255 - mean) / std
        return images.permute(0, 3, 1, 2), torch.from_numpy(arrays.test_labels)

    return seen_by
