"""A step asks a GPU for nothing that it must wait for; shown on a CPU, by tensors that have a device and no values.

torch's backward pass needs a real GPU, and tests/gpu counts what really waits there.
"""

import functools
from dataclasses import replace

import gin
import pytest
import torch
from examples import each_method
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import BASELINE, bindings, places, settings, signature
from kdbench.data.augment import Augmenter
from kdbench.data.images import Images
from kdbench.data.task import SealedTest, Task
from kdbench.measures.cost import PeakMemory
from kdbench.method import Share, Update
from kdbench.plan import expand, request
from kdbench.run.loop import batches
from kdbench.run.loop.budget import Budget
from kdbench.run.prepare import Ready, build
from kdbench.run.teacher import LoadedTeacher
from kdbench.streams import Streams

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
WORDS = ["dataset=cifar100", "recipe=smoke", "Train.precision=float32", "Train.batch_size=8"]


_PINNED = []


def _pinned(tensor):
    _PINNED.append(tensor.clone())
    return _PINNED[-1]


class Waits(TorchDispatchMode):
    """Lists the operations that read a value from the GPU, or copy between it and the CPU and wait for it."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_cpu = torch.device((kwargs or {}).get("device") or "cpu").type == "cpu"
        if on_cpu and not any(isinstance(x, FakeTensor) for x in given):  # what is drawn has values
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in [*given, *tree_leaves(out)] if isinstance(x, Tensor)}
        name = func.overloadpacket.__name__
        is_pinned = (kwargs or {}).get("non_blocking") and any(x is each for x in given for each in _PINNED)
        reads = name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2") and "cuda" in devices
        copies = "copy" in name and {"cuda", "cpu"} <= devices and not is_pinned
        if reads or copies:
            self.operations.append(name)
        elif name.startswith("index") and any(x.dim() and x.device.type == "cpu" for x in given) and "cuda" in devices:
            self.operations.append(f"{name} with indices on the CPU")
        return out


@functools.cache
def _mode():
    """One for all tests, because it keeps what it has learned about operations."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture
def on_gpu(monkeypatch):
    """Turns tensors, and modules in place, into such on a GPU without values; used inside `mode`."""
    mode = _mode()

    def turn(thing):
        if isinstance(thing, Tensor):
            with mode:
                return mode.from_tensor(thing.detach()).to(GPU)
        for module in thing.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = nn.Parameter(turn(value), requires_grad=value.requires_grad)
            module._buffers.update({name: turn(value) for name, value in module._buffers.items() if value is not None})
        return thing

    drawn = Streams.__call__
    monkeypatch.setattr(Streams, "__call__", lambda self, *path, device="cpu": drawn(self, *path))
    monkeypatch.setattr(Tensor, "pin_memory", _pinned)  # torch's own needs a GPU
    yield turn, mode
    _PINNED.clear()
    gin.clear_config()


def prepared(name, turn, *words):
    """The settings of a run, its task with training images on the GPU, and its method on the CPU."""
    spec = expand.plan(request.parse([f"methods={name}", *WORDS, *words]))[-1]
    cls = methods.load(spec.source)
    gin.clear_config()
    gin.parse_config(spec.config)
    given = settings.from_gin()
    images = Images(torch.zeros(256, 32, 32, 3, dtype=torch.uint8), torch.arange(256) % 100)
    task = Task(images, Images(images.images[:0], images.labels[:0]), SealedTest(images), 100, "")
    teachers = [LoadedTeacher(registry.build("resnet8", 100), None, "", None)] if cls.needs_teacher else []
    method = build(spec, Ready(cls, given, CPU, PeakMemory(CPU), {}, task, tuple(teachers)), Streams(0)).train()
    images = Images(turn(images.images), turn(images.labels))
    return given, replace(task, train=images), method


def in_one_backward_pass():
    """Methods with any network as their teacher, and the usual way from their terms to moved parameters."""
    for name in sorted(places.sources()):
        own_teacher = any(key.startswith("Teaching.") for key in bindings.of_method(name))
        if not own_teacher and "update" not in signature.of_method(name).functions:
            yield name


@pytest.mark.parametrize("name", each_method(in_one_backward_pass()))
def test_losses_and_optimiser(name, on_gpu):
    turn, mode = on_gpu
    given, _, method = prepared(name, turn)
    index = method.sample(torch.arange(8), Streams(0)).repeat(len(method.views))
    labels = turn(method.info.train_labels[index])
    for module in (method, *(teacher.network for teacher in method.teachers)):
        turn(module)
    if name == "crd":  # it draws on the device
        for key, value in vars(method.class_index).items():
            if isinstance(value, Tensor):
                setattr(method.class_index, key, turn(value))
    method.info = replace(method.info, device=GPU)
    images = turn(torch.zeros(len(index), 3, 32, 32))
    batch = batches.Batch(images, labels, turn(index), 1, Streams(0), view_count=len(method.views))
    with mode, Waits() as waits:
        terms = method.losses(batch)
        if name == BASELINE or "optimisers" in signature.of_method(name).functions:  # all others have the harness's own
            step(method, terms, given.optimiser)
        method.after_step(batch)
    assert all(term.device == GPU for term in terms.values())
    assert waits.operations == []


def step(method, terms, settings):
    """What the loop does with terms, with gradients of 0."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    update = Update(parameters, method.optimisers(parameters, settings), Share(), lambda _: None, 1.0)
    update.set_rate(0.1)
    update.loss = update.total(terms)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    update.step()


@pytest.mark.parametrize(
    "words", [[], ["ResizedCrop.min_area=0.2"], ["Mix.mixup=0.2", "Mix.cutmix=1.0"], ["Augment.cutout=0.5"]]
)
def test_batches(words, on_gpu):
    turn, mode = on_gpu
    given, task, method = prepared("ce", turn, *words)
    method.views = ("recipe", "strong")
    with mode:
        augmenter = Augmenter.of(task.train, given)
    drawn = batches._drawn(method, task, augmenter, Streams(0), Budget(given.train, 256, 2), 0, Share())
    for _, (_, _, index, draws, mixing, partners) in zip(range(3), drawn, strict=False):
        with mode, Waits() as waits:
            images, labels, _ = batches._views(method, task, augmenter, index, draws, None)
            if mixing and partners:
                theirs = batches._views(method, task, augmenter, *partners, None)
                images, labels = mixing.images(images, theirs[0]), mixing.labels(labels, theirs[1], task.classes)
        assert images.device == labels.device == GPU
        assert waits.operations == []


def test_operations_that_wait_are_listed(on_gpu):
    turn, mode = on_gpu
    x, place = turn(torch.ones(3)), torch.tensor([0, 2])
    for wait in (
        lambda: x.cpu(),
        lambda: torch.ones(3).to(GPU, non_blocking=True),
        lambda: x[place],
        lambda: x.copy_(torch.zeros(3)),
    ):
        with mode, Waits() as waits:
            wait()
        assert waits.operations
