"""Training on digits, as small as it can be: functions that build its parts, with methods that the tests write themselves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kdbench.backbones import registry
from kdbench.config import settings
from kdbench.config.schedules import Cosine
from kdbench.config.settings import SGD, Augment, Dataset, Machine, Measures, Settings, Split
from kdbench.data import task as task_
from kdbench.method import Info, Method, Teacher
from kdbench.run.train import train
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


def trained(folder, cls=Plain, its_task=None, keeper=None, teacher=None, method=None, **changed):
    """The method and the outcome; `changed` are values of the recipe."""
    folder.mkdir(exist_ok=True)
    its_task = its_task or task()
    method = method or built(cls, its_task, teacher=teacher)
    machine = Machine("cpu", 0, False, False, 60.0, 1, "")
    given = Settings(DIGITS, Split(0.0, 0), AUGMENT, RATE, recipe(**changed), machine, Measures((), False, 0, ()))
    with Streams(0).as_global("training"):
        return method, train(method, its_task, given, Streams(0), folder / "epochs.csv", keeper=keeper)


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """The parts of a small training: methods Plain and Pairs, recipe(…), task(…), built(…) and trained(…)."""
    return SimpleNamespace(
        Plain=Plain, Pairs=Pairs, DIGITS=DIGITS, AUGMENT=AUGMENT, RATE=RATE,
        recipe=recipe, task=task, built=built, trained=trained,
    )  # fmt: skip
