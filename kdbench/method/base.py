"""The base class of all distillation methods.

A method is one file `methods/NAME.py`: a pure function for each loss, then one subclass of `Method`. Its parameters are the
fields that the class declares (`temperature: float`); their values come from `gin/method/NAME.gin`. A plain method has a
docstring, fields and `losses`. Everything else here is an optional hook whose default does nothing.
docs/adding-a-method.md walks through one.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone, Features
from kdbench.config.fields import field_type
from kdbench.errors import RunError
from kdbench.method import optimiser
from kdbench.method.batch import Batch, Info
from kdbench.method.phases import Phase
from kdbench.method.teacher import Teacher
from kdbench.precision import at_least_float32

if TYPE_CHECKING:
    from kdbench.method.second_task import SecondHead
    from kdbench.method.update import Update


class Method(nn.Module):
    """Base class of all methods. Owns the student, the frozen teachers and the modules and buffers that a subclass adds.

    All parameters of the module that require a gradient are trained by the run's optimiser, and all its state goes into the
    checkpoint. Teachers are neither trained nor saved with it, stay in evaluation mode and never get a gradient.

    Args:
        student: the network to train.
        teachers: finished networks; empty where `needs_teacher` is false.
        info: the task.
        parameters: a value for each declared field.

    Raises:
        ValueError: a teacher is missing, the parameters are not the declared fields, or a field has the name of something
            that every method has.
    """

    needs_teacher: ClassVar[bool] = False
    images_per_anchor: ClassVar[int] = 1
    """Images that `sample` returns for each anchor."""
    views: ClassVar[tuple[str, ...]] = ("recipe",)
    """The kind of each augmented copy of an image in a batch: "recipe" is the recipe's own, "strong" adds `Strong.*`."""
    passes: ClassVar[int | None] = None
    """Images that pass through the student for each anchor, which is what the budget counts; None: all that are in the batch.
    The harness counts them itself, and refuses a method whose count differs."""

    def __init__(self, student: Backbone, teachers: Sequence[Teacher], info: Info, **parameters: Any):
        super().__init__()
        if self.needs_teacher and not teachers:
            raise ValueError(f"{type(self).__name__} needs a teacher")
        fields = self.fields()
        if fields.keys() != parameters.keys():
            wrong = ", ".join(sorted(fields.keys() ^ parameters.keys()))
            raise ValueError(f"{type(self).__name__} takes a value for each of its fields; missing or unknown: {wrong}")
        self.student = student
        self.peers = nn.ModuleList()
        self.second_head: SecondHead | None = None
        self.info = info
        # In a tuple, so that nn.Module does not register them: .train(), .parameters() and .state_dict() pass them by.
        self._teachers = tuple(teachers)
        for name, value in parameters.items():
            if name in dir(Method) or name in self.__dict__ or name in self._modules:
                raise ValueError(
                    f"the field '{name}' of {type(self).__name__} has a name that every method uses itself"
                )
            setattr(self, name, value)
        for teacher in teachers:
            teacher.freeze()
        self.setup()

    @classmethod
    def fields(cls) -> dict[str, Any]:
        """The declared parameters by name, each with its type, those of base classes first.

        A field is an annotation without a value in the class body of a subclass: a number, a string, a choice. Annotations
        of tensors and modules declare buffers and modules, and are not fields.
        """
        declared: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if not issubclass(base, Method) or base is Method:
                continue
            for name, annotation in inspect.get_annotations(base).items():
                type_ = field_type(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))
                if name not in base.__dict__ and type_ is not None:
                    declared[name] = type_
        return declared

    # What every method has.

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named, already weighted loss terms (scalars); the loop trains on their sum and records each.

        They are means over the batch. On several GPUs a batch is one GPU's share, and the loop takes the mean over all
        images. A term that compares images, or keeps something of them, gets the whole batch by `batch.share.gather`.
        """
        raise NotImplementedError

    # What a method may add.

    def setup(self) -> None:
        """Add modules, buffers and peers; called once, when student, teachers and fields are set.

        torch's global generator is seeded, for the method alone: its draws depend on the seed and on nothing else.
        """

    def sample(self, anchors: Tensor, streams: Any) -> Tensor:
        """The images of a step, given its anchors.

        Args:
            anchors: (A,) places among the training images, on the CPU.
            streams: random streams of this step.

        Returns:
            (A · images_per_anchor,) places: first the A anchors themselves, then blocks of A, with image j of anchor i
            at j · A + i. Several GPUs share the anchors, and each has all images of its own.
        """
        return anchors

    def sample_after(self, before: Tensor | None, anchors: Tensor, streams: Any) -> Tensor:
        """`sample`, for a method that shows images of the step before again; by default without them.

        Args:
            before: (A,) anchors of the step before, None in the first step.
        """
        return self.sample(anchors, streams)

    def phases(self) -> Sequence[Phase]:
        """Parts of the training, each with its own losses, trained parameters and a fresh optimiser; one by default."""
        return (Phase(),)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """See all training images once before the first step, in evaluation mode and without gradient.

        Args:
            batches: the training images in order, not augmented; the same on every GPU. What is kept belongs in buffers.
        """

    def after_step(self, batch: Batch) -> None:
        """Called after each step of the optimiser, without gradient: moving averages and the like."""

    def after_epoch(self, epoch: int) -> None:
        """Called when an epoch of images is complete (from 1), before its evaluation, without gradient."""

    def optimisers(self, parameters: list[nn.Parameter], settings: Any) -> dict[str, torch.optim.Optimizer]:
        """The optimisers of a phase, by name; the recipe's alone by default, as "sgd" or "adamw".

        The loop sets the rate of every parameter group to the schedule's (times `group["rate_factor"]`, if it is there), and
        keeps their state in the checkpoint.

        Args:
            parameters: those that the phase trains.
            settings: those of the recipe's optimiser, `SGD` or `AdamW` of kdbench/config/optimisers.py. A method that reads
                a setting which one of them lacks is refused under a recipe with that optimiser.
        """
        return optimiser.build(parameters, settings)

    def update(self, terms: Mapping[str, Tensor], update: Update) -> None:
        """From named terms to moved parameters: by default their sum, one backward pass, one step of the optimiser.

        A method that treats gradients of terms differently overrides this with the parts that `update` offers.
        """
        update.backward(update.loss)
        update.step()

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) of every classifier that is trained besides the student's own, by name; peers by default."""
        return {f"peer{number}": peer(images) for number, peer in enumerate(self.peers, start=1)}

    def deployed(self) -> nn.Module:
        """The network that is kept, measured and loaded: images to logits."""
        return self.student

    # What the base class does for a method.

    @property
    def teacher(self) -> Backbone:
        """The network of the first teacher."""
        return self._asked(0).network

    def _asked(self, number: int) -> Teacher:
        if not self._teachers:
            raise RunError(f"{type(self).__name__} has no teacher; write needs_teacher = True in the class body")
        if not 0 <= number < len(self._teachers):
            raise RunError(f"{type(self).__name__} asks for teacher {number} and has {len(self._teachers)}, from 0")
        return self._teachers[number]

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """All teachers, in the order in which the method's gin file or the command line names them."""
        return self._teachers

    def teach(self, batch: Batch, *want: str, teacher: int = 0, batch_statistics: bool = False) -> Features:
        """Return the outputs of a teacher for the images of a batch, without gradient.

        Args:
            want: "logits", "pooled", "stages", "stem", "preactivations", "unpooled"; without any, logits, stages and pooled
                features.
            teacher: its place in `teachers`.
            batch_statistics: normalise with the batch's own statistics, and leave the running ones as they are.
        """
        if batch_statistics:
            return self.teach_images(batch.images, *want, teacher=teacher, batch_statistics=True)
        return self._asked(teacher).of_step(batch.step, batch.images, want)

    def teach_images(self, images: Tensor, *want: str, teacher: int = 0, batch_statistics: bool = False) -> Features:
        """Return the outputs of a teacher for other images (B, C, H, W) in the student's normalisation; never cached."""
        return self._asked(teacher)(images, want, batch_statistics)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with the true labels, smoothed as the recipe says.

        Args:
            logits: (B, K).
            labels: (B,) classes, or (B, K) shares of the classes: `batch.labels` as it is.
        """
        return F.cross_entropy(at_least_float32(logits), labels, label_smoothing=self.info.label_smoothing)

    def stage_shapes(self, network: Backbone | None = None) -> Sequence[tuple[int, int, int]]:
        """(channels, height, width) of each stage map of `network` (the student by default), shallowest first."""
        return (network or self.student).stage_shapes(self.info.image_shape)

    def add_peer(self, backbone: str | None = None) -> Backbone:
        """Add a network that is trained beside the student, with a stream of initial weights of its own; call it in `setup`.

        Args:
            backbone: its architecture; None: the student's.

        Raises:
            UserError: there is no backbone of that name.
        """
        peer = self.info.network(backbone, f"peer {len(self.peers) + 1}")
        self.peers.append(peer)
        return peer

    def networks(self) -> tuple[Backbone, ...]:
        """The student and its peers: what is compiled, and whose passes are counted."""
        return (self.student, *typing.cast("Iterable[Backbone]", self.peers))

    def untrained(self, module: nn.Module) -> None:
        """Leave a part of the student out of training: it is neither trained nor decayed, nor counted as trained."""
        module.requires_grad_(False)

    def become_teacher(self) -> None:
        """Give the student the teacher's weights and leave it untrained, for a run that adds something to a teacher.

        Raises:
            RunError: the student has another architecture.
        """
        ours, theirs = ({n: x.shape for n, x in each.state_dict().items()} for each in (self.student, self.teacher))
        if ours != theirs:
            name = type(self).__name__
            raise RunError(f"{name} makes the student its teacher here, and they differ; select one network for both")
        self.student.load_state_dict(self.teacher.state_dict())
        self.untrained(self.student)
