"""What a training step of each method costs beside one of the baseline's, and what the data pipeline takes of it.

`make bench`. Read the ratios (the column in brackets), not the milliseconds: those are this machine's.
"""

import gin
import pytest
import torch

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import BASELINE, bindings, places, settings
from kdbench.config.settings import Augment, Dataset
from kdbench.config.switches import KINDS, Strong
from kdbench.data.augment import Augmenter
from kdbench.data.images import Images
from kdbench.data.task import SealedTest, Task
from kdbench.measures.cost import PeakMemory
from kdbench.plan import expand, request
from kdbench.run.loop.batches import passes_per_anchor, steps
from kdbench.run.loop.budget import Budget
from kdbench.run.prepare import Ready, build
from kdbench.run.teacher import LoadedTeacher
from kdbench.streams import Streams

CPU = torch.device("cpu")
NAMES = sorted(
    (name for name in places.sources() if "Teaching.method" not in bindings.of_method(name)),
    key=lambda name: (name != BASELINE, name),
)
"""All methods whose teacher may be any network; costs.py measures the others too."""
COLOUR = Dataset(source="x", mean=(0.5,) * 3, std=(0.25,) * 3, mirrored=True)
AUGMENT = Augment(padding=0.125, fill=0, flip=True, cutout=0.5)


def made_up(count=4096, classes=100):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    images = Images(pictures, torch.arange(count) % classes)
    return Task(images, Images(pictures[:0], images.labels[:0]), SealedTest(images), classes, "")


@pytest.mark.benchmark(group="training step, resnet8, 128 images of 32×32")
@pytest.mark.parametrize("name", NAMES)
def test_training_step(benchmark, name):
    (spec,) = [
        s
        for s in expand.plan(request.parse([f"methods={name}", "dataset=cifar100", "recipe=smoke"]))
        if not s.is_teacher
    ]
    cls = methods.load(spec.source)
    gin.clear_config()
    gin.parse_config(spec.config)
    given = settings.from_gin()
    task = made_up()
    teachers = [LoadedTeacher(registry.build("resnet20", 100), None, "", None)] if cls.needs_teacher else []
    method = build(spec, Ready(cls, given, CPU, PeakMemory(CPU), {}, task, tuple(teachers)), Streams(0)).train()
    augmenter = Augmenter(task.train, AUGMENT, COLOUR)
    batches = steps(method, task, augmenter, Streams(0), Budget(given.train, 10**6, passes_per_anchor(cls)))

    def step():
        for parameter in method.parameters():
            parameter.grad = None
        torch.stack(list(method.losses(next(batches)).values())).sum().backward()

    benchmark.pedantic(step, rounds=8, warmup_rounds=2)
    assert all(p.grad is not None for p in method.student.parameters())
    gin.clear_config()


@pytest.mark.benchmark(group="128 augmented images of 32×32")
@pytest.mark.parametrize("kind", KINDS)
def test_augmentation(benchmark, kind):
    augmenter = Augmenter(made_up().train, AUGMENT, COLOUR, Strong())
    generator = torch.Generator().manual_seed(0)
    index, draws = torch.randint(4096, (128,), generator=generator), augmenter.draw(128, generator, kind)
    assert benchmark(augmenter, index, draws, kind).shape == (128, 3, 32, 32)
