"""A method in a training loop that is not kdbench's: images and labels in, named loss terms out."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdbench import methods
from kdbench.backbones.backbone import Backbone
from kdbench.backbones.recorded import OwnNetwork, RecordedModel
from kdbench.config import bindings, resolve, signature
from kdbench.errors import UserError
from kdbench.method import Batch, Info, Method, Teacher
from kdbench.streams import Streams

_HOOKS = {
    "sample": "chooses the images of a batch itself",
    "phases": "trains in phases",
    "prepare": "passes over all training images before the first step",
    "after_epoch": "works at the end of each epoch",
    "optimisers": "brings its own optimisers",
    "update": "changes the gradients of its terms itself",
}
"""Reasons why a method that overrides a hook needs kdbench's loop."""

_LENGTHS = {"batch.epoch", "batch.progress", "batch.phase_progress", "info.epochs", "info.steps", "info.batch_size"}
"""Facts about the length of training, which another loop does not give."""
_OF_IMAGES = {"batch.index", "info.images", "info.train_labels"}
"""Facts about single training images, which need `labels` and `index`."""
_BRANCHES = {"start", "stage_modules", "run_from", "fresh_stages", "fresh_copy", "body"}
"""Parts of a backbone that run on their own."""


class _OwnBatch(Batch):
    """A batch of a loop that is not kdbench's: what that loop did not say is refused wherever it is read, also in functions that
    the method calls, and never a default.
    """

    def __getattribute__(self, name: str) -> Any:
        if f"batch.{name}" in _LENGTHS:
            raise UserError(
                f"this method depends on the length of training (batch.{name}), which needs kdbench's own loop"
            )
        value = super().__getattribute__(name)
        if name == "index" and value is None:
            raise UserError(
                "this method keeps something of each training image; pass index=, the places of the images of the batch"
            )
        return value


class Distiller(nn.Module):
    """A method around its student, for a training loop of one's own; `kdbench.wrap` makes it.

    Its parameters are those of the student and of what the method trains next to it. They change through an optimiser of the
    caller. The teacher is neither among them nor in the state dict, but moves to another device with the rest.

    Args:
        method: the method, with its modules and fields.
    """

    def __init__(self, method: Method):
        super().__init__()
        self.method = method
        self._streams = Streams(torch.initial_seed(), "own loop")
        self._calls = 0
        self._last: Batch | None = None

    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        """Named, weighted loss terms (scalars); their sum is the loss to go backward from.

        Args:
            images: (B, C, H, W); student and teacher both get them as they are.
            labels: (B,) classes.
            index: (B,) place of each image among the `labels` that were given to `wrap`; for methods that keep something of
                each image.

        Raises:
            UserError: the method needs `index`, or the length of training; a network does not have the features that the
                method reads.
        """
        for teacher in self.method.teachers:
            teacher.network.eval()  # a module of the caller that holds it may have been put into training mode
        streams = self._streams.within("method", self._calls)
        self._last = _OwnBatch(images, labels, cast(Tensor, index), self._calls, streams)
        self._calls += 1
        return self.method.losses(self._last)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the method do what it does after each step of the optimiser, such as moving an average; most do nothing."""
        if self._last is not None:
            self.method.after_step(self._last)

    def get_extra_state(self) -> dict[str, int]:
        """The number of calls, which determines what the method draws."""
        return {"calls": self._calls}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        self._calls = state["calls"]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distiller:
        applied: list[Any] = [super()._apply, *(teacher.network._apply for teacher in self.method.teachers)]
        for each in applied:
            each(fn, recurse)
        self.method.info = replace(self.method.info, device=next(self.method.student.parameters()).device)
        return self


def distiller(
    student: nn.Module,
    teacher: nn.Module | None,
    name: str,
    info: Info,
    parameters: Mapping[str, Any],
) -> Distiller:
    """A method with networks of the user's own; see `kdbench.wrap`.

    Args:
        name: of the method.
        info: the task, without labels if there are none, and with an `image_shape` of zeros if it is not given.
        parameters: values of the method's fields; those of its gin file are taken for the others.

    Raises:
        UserError: see `kdbench.wrap`.
    """
    own = bindings.of_method(name)
    for key in own:
        if key.startswith(("Control.", "Teaching.")) and key != "Control.mixup":
            raise UserError(
                f"'{name}' sets {key}, which needs kdbench's own loop; run it with: kdbench run methods={name}"
            )
    source = bindings.method_source(name)
    declared = signature.of_method(source)
    words = [f"{declared.name}.{key}={value!r}" for key, value in parameters.items()]
    values = {**resolve.own_values(name, declared), **{b.key: b for b in _one_of_each(words)}}
    cls = methods.class_of(source)
    read = _read_by(cls)
    networks = [None if each is None else _backbone(each, info.classes, what) for each, what in
                ((student, "the student"), (teacher, "the teacher"))]  # fmt: skip
    for sentence in _obstacles(name, cls, read, info, networks):
        raise UserError(sentence)
    own_student, own_teacher = networks
    try:
        built = cls(own_student, [Teacher(own_teacher)] if own_teacher is not None else [], info,
                    **{b.parameter: b.value for b in values.values()})  # fmt: skip
    except ValueError as error:
        raise UserError(f"the method '{name}' cannot be built: {error}") from None
    return Distiller(built)


def _one_of_each(words: list[str]) -> list[Any]:
    bound = bindings.of_command_line(words)
    for binding in bound:
        if sum(each.key == binding.key for each in bound) > 1:
            raise UserError(f"wrap takes one value of {binding.key}")
    return bound


def _backbone(network: nn.Module, classes: int, what: str) -> Backbone:
    if isinstance(network, Backbone):
        return network
    return OwnNetwork(network, classes, f"{what} ({type(network).__name__})")


def _obstacles(
    name: str, cls: type[Method], read: set[str], info: Info, networks: list[Backbone | None]
) -> Iterator[str]:
    """Sentences about what a method needs and does not have here."""
    run = f"run it with: kdbench run methods={name}"
    student, teacher = networks
    assert student is not None
    if cls.needs_teacher and teacher is None:
        yield f"'{name}' needs a teacher; pass teacher=, a trained network"
    if not cls.needs_teacher and teacher is not None:
        yield f"'{name}' does not use a teacher; leave it out"
    if teacher is not None and {*student.parameters()} & {*teacher.parameters()}:
        yield "student and teacher share parameters; pass a copy of the network as the teacher"
    if cls.images_per_anchor != 1:
        yield f"'{name}' needs {cls.images_per_anchor} related images for each one, which another loop does not draw; {run}"
    if cls.views != ("recipe",):
        yield f"'{name}' needs {len(cls.views)} views of each image, which another loop does not make; {run}"
    for hook, reason in _HOOKS.items():
        if getattr(cls, hook) is not getattr(Method, hook):
            yield f"'{name}' {reason}, which needs kdbench's own loop; {run}"
    if "self.add_peer" in read:
        yield f"'{name}' trains further networks next to the student, which it builds by name; {run}"
    if lengths := sorted(read & _LENGTHS):
        yield f"'{name}' depends on the length of training ({lengths[0]}), which needs kdbench's own loop; {run}"
    branches = sorted(each for each in _BRANCHES if any(word.endswith(f".{each}") for word in read))
    if branches and any(isinstance(each, RecordedModel) for each in networks):
        yield f"'{name}' needs networks whose stages run on their own ({branches[0]}); use one of kdbench's (kdbench list students)"
    if read & _OF_IMAGES and not len(info.train_labels):
        yield f"'{name}' keeps something of each training image; pass labels=, the class of each, and index= with each batch"
    if read & {"self.stage_shapes", "info.image_shape"} and not all(info.image_shape):
        yield f"'{name}' reads the shapes of feature maps; pass image_shape=(channels, height, width)"


def _read_by(cls: type[Method]) -> set[str]:
    """The attributes that the source of a method's class reads, each with the last name before it: "batch.index"."""
    read: set[str] = set()
    for base in cls.__mro__:
        if not issubclass(base, Method) or base is Method:
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                before = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                read.add(f"{before}.{node.attr}")
    return read
