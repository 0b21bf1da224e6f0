"""Everything about a run that all methods share, as gin configurables. No torch here: the plan checks them before anything starts.

The values are set in gin/ and nowhere else; the only classes with defaults in Python are `Selection`, `Parallel`, `Control` and, in
kdbench/config/views.py, `Strong`. Only `Machine` and `Measures` do not affect results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gin

from kdbench.config.views import Strong

BASELINE = "ce"
"""The method that trains the student alone: it trains the teachers, and tables show differences from it."""


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)


@gin.configurable
@dataclass(frozen=True)
class Dataset:
    """The images of a dataset.

    Attributes:
        source: name of the reader (kdbench/data/readers/digits.py).
        mean, std: mean and standard deviation of each channel, for pixel values in 0..1.
        mirrored: whether a mirror image shows the same class; without it no recipe flips.
    """

    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool

    def __post_init__(self) -> None:
        _check(len(self.mean) == len(self.std), "Dataset.mean and Dataset.std must have one value for each channel")
        _check(all(s > 0 for s in self.std), "Dataset.std must be above 0")


@gin.configurable
@dataclass(frozen=True)
class Split:
    """The validation split, cut from the training images with equal shares of all classes.

    Attributes:
        validation: share of the training images, 0 for none.
        seed: seed used to draw the split; the same for all runs, whatever their seed.
    """

    validation: float
    seed: int

    def __post_init__(self) -> None:
        _check(0 <= self.validation < 1, "Split.validation must be at least 0 and below 1")


@gin.configurable
@dataclass(frozen=True)
class Augment:
    """Random crop, mirror image and cutout. Lengths are shares of the image's width, so that they fit every resolution.

    Attributes:
        padding: on each side before the crop; 0.125 is 4 pixels of 32.
        fill: pixel value of the padding, 0..255.
        flip: mirror half of the images (where `Dataset.mirrored`).
        cutout: side of the square set to the mean; 0.5 is 16 pixels of 32, 0 is none. DeVries and Taylor, 2017.
    """

    padding: float
    fill: int
    flip: bool
    cutout: float

    def __post_init__(self) -> None:
        _check(0 <= self.padding <= 1, "Augment.padding must be between 0 and 1 (a share of the width)")
        _check(0 <= self.fill <= 255, "Augment.fill must be between 0 and 255")
        _check(0 <= self.cutout <= 1, "Augment.cutout must be between 0 and 1 (a share of the width)")


@gin.configurable
@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent.

    Attributes:
        lr: peak learning rate; the schedule multiplies it.
        momentum, weight_decay, nesterov: the same as for torch.optim.SGD.
    """

    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool

    def __post_init__(self) -> None:
        _check(self.lr > 0, "SGD.lr must be above 0")
        _check(0 <= self.momentum < 1, "SGD.momentum must be at least 0 and below 1")
        _check(self.weight_decay >= 0, "SGD.weight_decay must be at least 0")
        _check(self.momentum > 0 or not self.nesterov, "SGD.nesterov needs SGD.momentum above 0")


@gin.configurable
@dataclass(frozen=True)
class Train:
    """Budget, batch and precision.

    Attributes:
        epochs: the budget; an epoch is as many images through the student as there are training images.
        batch_size: images a step; a method with structured batches takes the next multiple of its group.
        schedule: a schedule of kdbench/config/schedules.py, such as @Cosine().
        warmup: epochs over which the learning rate first rises linearly from 0.
        label_smoothing: label smoothing of the cross-entropy with the true labels, in every method.
        precision: "float32", or "bfloat16" for autocast.
        clip_norm: largest L2 norm of the gradient; 0 is no clipping.
    """

    epochs: float
    batch_size: int
    schedule: Any
    warmup: float
    label_smoothing: float
    precision: Literal["float32", "bfloat16"]
    clip_norm: float

    def __post_init__(self) -> None:
        _check(self.epochs > 0, "Train.epochs must be above 0")
        _check(self.batch_size > 1, "Train.batch_size must be above 1 (batch normalisation)")
        _check(0 <= self.warmup < self.epochs, "Train.warmup must be at least 0 and below Train.epochs")
        _check(0 <= self.label_smoothing < 1, "Train.label_smoothing must be at least 0 and below 1")
        _check(self.clip_norm >= 0, "Train.clip_norm must be at least 0 (0: no clipping)")


@gin.configurable
@dataclass(frozen=True)
class Machine:
    """Where and how a run is computed; it does not affect the result.

    Attributes:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …
        threads: CPU threads; 0 leaves torch's own choice.
        compile: torch.compile for the student.
        deterministic: only deterministic kernels (slower on a GPU).
        checkpoint_every: seconds between two saved states of training, in addition to those at epoch ends; 0: after each step.
        gpus: processes that share each batch, a GPU each (on a CPU: processes).
        log: "tensorboard" also writes event files next to epochs.csv; "" does not.
    """

    device: str
    threads: int
    compile: bool
    deterministic: bool
    checkpoint_every: float
    gpus: int
    log: Literal["", "tensorboard"]

    def __post_init__(self) -> None:
        _check(self.checkpoint_every >= 0, "Machine.checkpoint_every must be at least 0 (seconds; 0: after each step)")
        _check(self.threads >= 0, "Machine.threads must be at least 0 (0: torch's own choice)")
        _check(self.gpus >= 1, "Machine.gpus must be at least 1")
        named = self.gpus > 1 and ":" in self.device
        _check(not named, f"Machine.device='{self.device}' names one GPU, and Machine.gpus={self.gpus} requires more")


@gin.configurable
@dataclass(frozen=True)
class Measures:
    """What is measured after training; it does not affect the result (docs/measures.md).

    Attributes:
        noise: standard deviations of Gaussian noise on test images, for pixel values in 0..1.
        corruptions: whether to measure the fifteen corruptions.
        images: test images for each severity of each corruption, and five times as many for each noise; 0: all of them.
        accuracies: validation accuracies in percent for which the time until they are reached is recorded.
    """

    noise: tuple[float, ...]
    corruptions: bool
    images: int
    accuracies: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(all(sigma > 0 for sigma in self.noise), "Measures.noise must be above 0")
        _check(self.images >= 0, "Measures.images must be at least 0 (0: all test images)")
        _check(
            all(0 < a <= 100 for a in self.accuracies), "Measures.accuracies must be above 0 and at most 100 (percent)"
        )


@gin.configurable
@dataclass(frozen=True)
class Selection:
    """Model selection on the test set. Shared by all methods; only the command line can bind it, so that no file makes it a habit.

    Attributes:
        on_test: measure every epoch on the test set and report the best, as much published code does. This changes the
            protocol, and the run and every table that shows it are stamped.
    """

    on_test: bool = False


@gin.configurable
@dataclass(frozen=True)
class Parallel:
    """How several GPUs share a batch. Shared by all methods; only the command line can bind it.

    Attributes:
        sync_bn: batch normalisation over the images of all GPUs, as one would do it. Without it each GPU normalises over
            its own share, so that the number of GPUs is part of what defines the result.
    """

    sync_bn: bool = True


@gin.configurable
@dataclass(frozen=True)
class Control:
    """What a control changes apart from its method's own parameters; only a method's gin file can bind it.

    These are the differences that a control is there to show, so every table with a control lists them. It has defaults,
    since a method that is not a control binds nothing here.

    Attributes:
        teacher: whose network teaches: the "selected" one, one of the "student"'s own architecture trained alone, or the
            selected one "untrained".
        budget: times the recipe's images.
    """

    teacher: Literal["selected", "student", "untrained"] = "selected"
    budget: float = 1.0

    def __post_init__(self) -> None:
        _check(self.budget > 0, "Control.budget must be above 0")


@gin.configurable
@dataclass(frozen=True)
class Teaching:
    """How a run is taught, and what it keeps to teach others; only a method's gin file can bind it, where it needs to.

    Attributes:
        method: the method that trains the teacher. Give it a gin file of its own for a teacher that is trained for another
            budget (`Control.budget`) or keeps states.
        chain: backbones of assistants, from the largest to the smallest. Those between teacher and student are trained by
            this method, each taught by the one before it, and the last one teaches the student. A student that is in the
            chain is taught as the assistant in its place is.
        all_above: the teacher and all assistants above a network teach it, and not only the nearest.
        states: number of states that a run keeps of its own training, at equal shares of it, the last being its end. As a
            teacher it is that many teachers, the earliest first.
    """

    method: str = BASELINE
    chain: tuple[str, ...] = ()
    all_above: bool = False
    states: int = 1

    def __post_init__(self) -> None:
        _check(self.states >= 1, "Teaching.states must be at least 1 (the end of training alone)")
        _check(len(set(self.chain)) == len(self.chain), "Teaching.chain must name each backbone once")


@gin.configurable
@dataclass(frozen=True)
class Search:
    """The values that `kdbench tune` may choose for a method's own parameters; not part of a run's configuration.

    Attributes:
        space: maps the name of a parameter to ("linear", low, high), ("log", low, high), ("int", low, high) or ("choice", …);
            checked in kdbench/config/space.py.
    """

    space: Any


class Settings(NamedTuple):
    """All settings of a run."""

    dataset: Dataset
    split: Split
    augment: Augment
    sgd: SGD
    train: Train
    machine: Machine
    measures: Measures
    control: Control = Control()
    selection: Selection = Selection()
    parallel: Parallel = Parallel()
    strong: Strong = Strong()
    teaching: Teaching = Teaching()


def from_gin() -> Settings:
    """The settings that the parsed gin text gives."""
    needed = (Dataset(), Split(), Augment(), SGD(), Train(), Machine(), Measures())  # type: ignore[call-arg]
    return Settings(*needed, Control(), Selection(), Parallel(), Strong(), Teaching())


@gin.configurable
@dataclass(frozen=True)
class Defaults:
    """Selections that apply where the command line makes none, from a dataset's gin file."""

    student: str
    teacher: str
    recipe: str


@gin.configurable
@dataclass(frozen=True)
class Sweep:
    """A named set of selections; selections on the command line come first."""

    methods: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
