"""Everything about a run that all methods share, as gin configurables. No torch here: the plan checks them before anything starts.

The values are set in gin/ and nowhere else; the only defaults in Python are those of kdbench/config/switches.py, and some of
`Dataset`, `Augment`, `Train`, `Machine` and `Measures`. The last two do not affect results, but for rounding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import gin

from kdbench.config.optimisers import OPTIMISERS, SGD, USUAL, AdamW
from kdbench.config.processor import AUTO
from kdbench.config.reading import Reading
from kdbench.config.switches import (
    PLAIN_RANDAUGMENT,
    Control,
    Labels,
    Mix,
    Parallel,
    ResizedCrop,
    SecondTask,
    Selection,
    Strong,
    Teaching,
    check_policy,
)
from kdbench.errors import hint, nearest, require


@gin.configurable
@dataclass(frozen=True)
class Dataset:
    """The images of a dataset.

    Attributes:
        source: name of the reader (kdbench/data/readers/digits.py).
        mean, std: mean and standard deviation of each channel, for pixel values in 0..1.
        mirrored: whether a mirror image shows the same class; without it no recipe flips.
        size, boxes, labels, skip_broken: as in `Reading`, for readers that take them. They have defaults, which leave no
            trace in configurations, ids and protocols.
    """

    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool
    size: int = 0
    boxes: bool = False
    labels: Literal["fine", "coarse"] = "fine"
    skip_broken: bool = False

    def __post_init__(self) -> None:
        require(len(self.mean) == len(self.std), "Dataset.mean and Dataset.std must have one value for each channel")
        require(all(s > 0 for s in self.std), "Dataset.std must be above 0")
        require(self.size >= 0, "Dataset.size must be at least 0 (0: as the images are)")

    @property
    def reading(self) -> Reading:
        """How its images are read."""
        return Reading(self.size, self.boxes, self.labels, self.skip_broken)


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
        require(0 <= self.validation < 1, "Split.validation must be at least 0 and below 1")


@gin.configurable
@dataclass(frozen=True)
class Augment:
    """Random crop, mirror image, operations of a policy, cutout and random erasing, in this order. Lengths are shares of the
    image's width, so that they fit every resolution.

    Shared by all methods. From `policy` on the values have defaults here, and at its default a value leaves no trace in
    configurations, ids and protocols.

    Attributes:
        padding: on each side before the crop; 0.125 is 4 pixels of 32.
        fill: pixel value of the padding, 0..255.
        flip: mirror half of the images (where `Dataset.mirrored`).
        cutout: side of the square set to the mean; 0.5 is 16 pixels of 32, 0 is none. DeVries and Taylor, 2017.
        policy: "none", or one of those of `Strong`.
        operations, magnitude, random_magnitude: of RandAugment, as in `Strong`.
        erasing: chance that a box of an image is set to the mean; 0 is none. Zhong, Zheng, Kang, Li and Yang, "Random erasing
            data augmentation", AAAI 2020.
        erasing_max_area: largest share of the image that the box has; the least is 0.02.
    """

    padding: float
    fill: int
    flip: bool
    cutout: float
    policy: Literal["none", "randaugment", "trivialaugment", "autoaugment"] = "none"
    operations: int = 2
    magnitude: int = 9
    random_magnitude: bool = False
    erasing: float = 0.0
    erasing_max_area: float = 0.4

    def __post_init__(self) -> None:
        require(0 <= self.padding <= 1, "Augment.padding must be between 0 and 1 (a share of the width)")
        require(0 <= self.fill <= 255, "Augment.fill must be between 0 and 255")
        require(0 <= self.cutout <= 1, "Augment.cutout must be between 0 and 1 (a share of the width)")
        check_policy("Augment", self.policy, self.operations, self.magnitude, self.random_magnitude)
        require(0 <= self.erasing <= 1, "Augment.erasing must be between 0 and 1 (a chance)")
        require(
            0.02 <= self.erasing_max_area <= 1,
            "Augment.erasing_max_area must be between 0.02 and 1 (a share of the area)",
        )
        require(
            self.erasing > 0 or self.erasing_max_area == 0.4,
            "Augment.erasing_max_area has no effect without Augment.erasing",
        )

    def changed_by(self, control: Control) -> Augment:
        """The augmentation of a row that has some of it for itself alone."""
        changes: dict[str, Any] = {
            name: value for name in ("cutout", "erasing") if (value := getattr(control, name)) is not None
        }
        if control.policy != "recipe":
            operations, magnitude, random_magnitude = PLAIN_RANDAUGMENT
            changes |= {"policy": control.policy, "operations": operations, "magnitude": magnitude}
            changes["random_magnitude"] = random_magnitude
        return replace(self, **changes)


@gin.configurable
@dataclass(frozen=True)
class Train:
    """Budget, batch and precision.

    Attributes:
        epochs: the budget; an epoch is as many images through the student as there are training images.
        batch_size: images per step; a method with structured batches takes the next multiple of its group.
        schedule: a schedule of kdbench/config/schedules.py, such as @Cosine().
        warmup: epochs over which the learning rate first rises linearly from 0.
        label_smoothing: label smoothing of the cross-entropy with the true labels, in every method.
        precision: "float32", or "bfloat16" for autocast. "auto" is for files and commands alone: the plan replaces it by what
            the run's device computes natively (`kdbench/config/processor.py`).
        clip_norm: largest L2 norm of the gradient; 0 is no clipping.
        optimiser: "sgd" or "adamw", whose settings are `SGD.*` and `AdamW.*` (kdbench/config/optimisers.py).
        accumulate: parts into which the batch of a step is cut, for a batch that does not fit into memory. The gradient is
            that of the whole batch's mean, but batch normalisation, and losses that compare images, see one part.
    """

    epochs: float
    batch_size: int
    schedule: Any
    warmup: float
    label_smoothing: float
    precision: Literal["float32", "bfloat16", "auto"]
    clip_norm: float
    optimiser: Literal["sgd", "adamw"] = USUAL
    accumulate: int = 1

    def __post_init__(self) -> None:
        require(self.epochs > 0, "Train.epochs must be above 0")
        require(self.batch_size > 1, "Train.batch_size must be above 1 (batch normalisation)")
        require(self.warmup >= 0, "Train.warmup must be at least 0")
        require(
            self.warmup < self.epochs,
            f"Train.warmup={self.warmup:g} does not fit into Train.epochs={self.epochs:g}; "
            f"pass a shorter one, such as Train.warmup={self.epochs / 10:g}",
        )
        require(
            self.precision != AUTO, "a run has Train.precision='float32' or 'bfloat16'; only a plan can resolve 'auto'"
        )
        require(0 <= self.label_smoothing < 1, "Train.label_smoothing must be at least 0 and below 1")
        require(self.clip_norm >= 0, "Train.clip_norm must be at least 0 (0: no clipping)")
        most = self.batch_size // 2
        require(
            1 <= self.accumulate <= most,
            f"Train.accumulate must be between 1 and {most}, so that each part of Train.batch_size={self.batch_size} has at "
            "least two images (batch normalisation)",
        )


@gin.configurable
@dataclass(frozen=True)
class Machine:
    """Settings of the machine that computes a run; those that affect the result do so by rounding alone, and are in each row.

    Attributes:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …
        threads: CPU threads; 0 leaves torch's own choice.
        compile: torch.compile for the student, its peers and teachers; "reduce-overhead" also records CUDA graphs.
        deterministic: only deterministic kernels (slower on a GPU).
        checkpoint_every: seconds between two saved states of training, in addition to those at epoch ends; 0: after each step.
        gpus: processes that share each batch, a GPU each (on a CPU: processes).
        log: loggers that get the lines of epochs.csv too, such as "tensorboard,wandb" (kdbench/config/loggers.py); "": none.
        images: where image files are decoded: in "memory" before training, batch by batch ("stream"), once into a file on
            disk ("cache"), or in memory if they take no more than `memory` of it and else batch by batch ("auto").
        memory: share of the free memory that decoded images may take.
        workers: processes that decode streamed images; 0: this one itself, -1: one for each core but one, at most 16.
        tf32: convolutions and matrix products of float32 may use TF32 on a GPU, with 10 bits of mantissa instead of 23.
        teacher_cache: whether a teacher's outputs on the test images are kept in `RUNS/.teachers`, and read by later runs.
        teacher_cache_gib: GiB that a teacher's outputs on the batches of one protocol and seed may take there, which other methods
            of the protocol read instead of passing the images through the teacher; 0: they are not kept. On a CPU only.
    """

    device: str
    threads: int
    compile: bool | Literal["reduce-overhead"]
    deterministic: bool
    checkpoint_every: float
    gpus: int
    log: str
    images: Literal["auto", "memory", "stream", "cache"] = "auto"
    memory: float = 0.5
    workers: int = -1
    tf32: bool = False
    teacher_cache: bool = True
    teacher_cache_gib: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.memory <= 1, "Machine.memory must be above 0 and at most 1 (a share of the free memory)")
        require(
            0 <= self.teacher_cache_gib < 2**20,
            "Machine.teacher_cache_gib must be at least 0 and below 1048576 (0: off)",
        )
        require(self.workers >= -1, "Machine.workers must be at least -1 (-1: one for each core but one)")
        require(self.checkpoint_every >= 0, "Machine.checkpoint_every must be at least 0 (seconds; 0: after each step)")
        require(self.threads >= 0, "Machine.threads must be at least 0 (0: torch's own choice)")
        require(self.gpus >= 1, "Machine.gpus must be at least 1")
        require(_DEVICE.fullmatch(self.device) is not None, _unknown_device(self.device))
        named = self.gpus > 1 and ":" in self.device
        require(not named, f"Machine.device='{self.device}' names one GPU, but Machine.gpus={self.gpus} needs more")


_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
_DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu)(:[0-9]+)?")


def _unknown_device(device: str) -> str:
    kind = device.partition(":")[0].lower()
    near = "cuda" if kind == "gpu" else nearest(kind, _DEVICES)
    return f"unknown Machine.device '{device}'{hint(near, 'valid: auto, cpu, cuda, cuda:1, mps, xpu')}"


@gin.configurable
@dataclass(frozen=True)
class Measures:
    """Settings of the measures taken after training; they do not affect the result (docs/measures.md).

    Attributes:
        noise: standard deviations of Gaussian noise on test images, for pixel values in 0..1.
        corruptions: whether to measure the fifteen corruptions.
        images: test images for each severity of each corruption, and five times as many for each noise; 0: all of them.
        accuracies: validation accuracies in percent for which the time until they are reached is recorded.
        published_corruptions: whether to measure on CIFAR-10-C or CIFAR-100-C, whose files are in the data folder.
    """

    noise: tuple[float, ...]
    corruptions: bool
    images: int
    accuracies: tuple[float, ...]
    published_corruptions: bool = False

    def __post_init__(self) -> None:
        require(all(sigma > 0 for sigma in self.noise), "Measures.noise must be above 0")
        require(self.images >= 0, "Measures.images must be at least 0 (0: all test images)")
        require(
            all(0 < a <= 100 for a in self.accuracies), "Measures.accuracies must be above 0 and at most 100 (percent)"
        )


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
    optimiser: SGD | AdamW
    train: Train
    machine: Machine
    measures: Measures
    control: Control = Control()
    selection: Selection = Selection()
    parallel: Parallel = Parallel()
    strong: Strong = Strong()
    mix: Mix = Mix()
    resized_crop: ResizedCrop = ResizedCrop()
    labels: Labels = Labels()
    second_task: SecondTask = SecondTask()
    teaching: Teaching = Teaching()


def from_gin() -> Settings:
    """The settings that the parsed gin text gives."""
    train = Train()  # type: ignore[call-arg]
    optimiser = OPTIMISERS[train.optimiser]()  # type: ignore[call-arg]
    needed = (Dataset(), Split(), Augment(), optimiser, train, Machine(), Measures())  # type: ignore[call-arg]
    return Settings(
        *needed, Control(), Selection(), Parallel(), Strong(), Mix(), ResizedCrop(), Labels(), SecondTask(), Teaching()
    )


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
    """A named set of selections and bindings; those on the command line come first.

    Attributes:
        bindings: as on the command line, such as 'KD.temperature=1,2,4' for a run with each value.
    """

    methods: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    bindings: tuple[str, ...] = ()
