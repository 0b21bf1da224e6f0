"""Methods on a task that is small enough for all of them: tiny networks, a few images, single steps."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdbench.backbones.cifar_resnet import BasicBlock, CifarResNet
from kdbench.backbones.copies import copy_of
from kdbench.backbones.registry import build
from kdbench.config import bindings, places, signature
from kdbench.config.settings import SGD
from kdbench.method import Backbone, Batch, Info, Method, Share, Teacher, Update
from kdbench.methods import class_of, load
from kdbench.streams import Streams


class FourStages(CifarResNet):
    """A quick network of four stages, with 24 channels at an eighth of the image's side; "four_stages" for `make`."""

    def __init__(self, *, classes: int, channels: int):
        super().__init__(depth=8, widths=(8, 8, 12, 16), classes=classes, channels=channels)
        self.layer4 = nn.Sequential(BasicBlock(16, 24, stride=2))
        self.fc = nn.Linear(24, classes)

    def stage_modules(self) -> tuple[nn.Sequential, ...]:
        return (*super().stage_modules(), self.layer4)


@pytest.fixture
def make() -> Callable[..., Method]:
    """A method by name, with its gin file's parameters and a student of its own.

    Keyword arguments: `student`, `teacher` (names, "four_stages" among them, or networks for 4 classes), `labels`, `image`
    (shape), `label_smoothing`, `batch_size`; all others override parameters of the method.
    """

    def method(name: str, **given: object) -> Method:
        load(name)  # finds the method also in a plug-in folder that was added since
        cls = getattr(importlib.import_module(f"kdbench.methods.{name}"), signature.of_method(name).name)
        labels = torch.as_tensor(given.pop("labels", [0, 1, 2, 3] * 6))
        image = given.pop("image", (1, 8, 8))
        classes = int(labels.max()) + 1
        student, teacher = given.pop("student", "resnet8"), given.pop("teacher", "resnet14")
        student, teacher = _networks(student, teacher if cls.needs_teacher else None, classes, image[0])

        def network(peer: str | None, stream: str) -> Backbone:
            with Streams(0).as_global(stream):
                return build(peer, classes, image[0]) if peer else student.fresh_copy()

        smoothing, size = given.pop("label_smoothing", 0.0), given.pop("batch_size", 6 * cls.images_per_anchor)
        info = Info(classes, labels, image, smoothing, torch.device("cpu"), batch_size=size, steps=100, network=network)
        teachers = [Teacher(teacher, method=_trained_by(name, teacher, info))] if teacher is not None else []
        return cls(student, teachers, info, **{**_gin_parameters(name), **given}).train()

    return method


def _networks(student: str | Backbone, teacher: str | Backbone | None, *of: int) -> tuple[Backbone, Backbone | None]:
    """Networks of names, for (classes, channels), always the same; the global generator continues as after the seed 0."""
    names = [each for each in (student, teacher) if isinstance(each, str)]
    built, state = _built(*of, *names)
    torch.set_rng_state(state)
    fresh = iter([copy_of(network) for network in built])
    student, teacher = (next(fresh) if isinstance(each, str) else each for each in (student, teacher))
    return student, teacher


@cache
def _built(classes: int, channels: int, *names: str) -> tuple[list[Backbone], Tensor]:
    """Networks, one after another from the seed 0, and the state of the generator behind them; drawing them takes a while."""
    torch.manual_seed(0)
    built = [
        FourStages(classes=classes, channels=channels) if name == "four_stages" else build(name, classes, channels)
        for name in names
    ]
    return built, torch.get_rng_state()


def _trained_by(name: str, teacher: Backbone, info: Info) -> Method | None:
    """A method around the teacher like the one that trains it, where the gin file of the method that it teaches names one."""
    binding = bindings.of_method(name).get("Teaching.method")
    if binding is None:
        return None
    cls = class_of(bindings.method_source(binding.value))
    above = [Teacher(teacher)] if cls.needs_teacher else []
    return cls(teacher, above, info, **_gin_parameters(binding.value))


@pytest.fixture
def gin_parameters() -> Callable[[str], dict[str, object]]:
    """What the gin file of a method or control binds."""
    return _gin_parameters


def _gin_parameters(name: str) -> dict[str, object]:
    """Read without gin: but for `include 'method/NAME.gin'` the file is Python that assigns literals."""
    text = places.member("method", name).read_text()
    found: dict[str, object] = {}
    for base in re.findall(r"^include 'method/(\w+)\.gin'$", text, flags=re.MULTILINE):
        found |= _gin_parameters(base)
    for statement in ast.parse(re.sub(r"^include .*$", "", text, flags=re.MULTILINE)).body:
        assert isinstance(statement, ast.Assign)
        configurable, _, parameter = ast.unparse(statement.targets[0]).partition(".")
        if configurable not in ("Search", "Control", "Teaching"):
            found[parameter] = ast.literal_eval(statement.value)
    return found


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """A batch for a method: random images of `anchors` random places and of what the method samples around them, in all views."""

    def draw(method: Method, anchors: int = 6, step: int = 0, identical: bool = False, progress: float = 0.0) -> Batch:
        streams = Streams(3).within(step)
        labels = method.info.train_labels
        places = torch.randperm(len(labels), generator=streams("order"))[:anchors]
        index = method.sample_after(None, places, streams).repeat(len(method.views))
        images = torch.randn(len(index), *method.info.image_shape, generator=streams("augment"))
        images = torch.ones_like(images) if identical else images
        return Batch(
            *(images, labels[index], index, step, streams),
            progress=progress, phase_progress=progress, view_count=len(method.views),
        )  # fmt: skip

    return draw


@pytest.fixture
def sgd() -> SGD:
    """The recipe's settings of the optimiser."""
    return SGD(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)


@pytest.fixture
def updater(sgd) -> Callable[..., Update]:
    """What the loop makes for a method in its one phase."""

    def make(method: Method, clip_norm: float = 0.0) -> Update:
        parameters = [p for p in method.parameters() if p.requires_grad]
        optimisers = method.optimisers(parameters, sgd)
        update = Update(parameters, optimisers, Share(), lambda gradients: None, clip_norm)
        update.set_rate(sgd.lr)
        return update

    return make


@pytest.fixture
def take() -> Callable[..., Any]:
    """Takes a step of a method as the loop does, and returns its terms."""

    def step(method: Method, update: Update, batch: Batch) -> Any:
        terms = method.losses(batch)
        update.loss = update.total(terms)
        method.update(terms, update)
        method.after_step(batch)
        return terms

    return step
