"""Settings that hardly any gin file binds. Their values have defaults here, and at its default a value leaves no trace in
configurations, ids and protocols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gin

from kdbench.config import BASELINE
from kdbench.errors import require

KINDS = ("recipe", "strong")
"""Kinds of views: the recipe's own augmentation, and the strong one of `Strong`."""


PLAIN_RANDAUGMENT = (2, 9, False)
"""RandAugment's number of operations, magnitude and random magnitude where none are bound."""


def check_policy(cls: str, policy: str, operations: int, magnitude: int, random_magnitude: bool) -> None:
    """Refuse values of RandAugment that are out of range, or that the policy does not read; `cls` has them."""
    require(operations >= 0, f"{cls}.operations must be at least 0")
    require(0 <= magnitude <= 30, f"{cls}.magnitude must be between 0 and 30")
    require(
        policy == "randaugment" or (operations, magnitude, random_magnitude) == PLAIN_RANDAUGMENT,
        f"{cls}.operations, {cls}.magnitude and {cls}.random_magnitude require {cls}.policy='randaugment'",
    )


@gin.configurable
@dataclass(frozen=True)
class Strong:
    """The strong view: the recipe's crop and mirror image, then the operations of a policy, then cutout.

    Shared by all methods, and of no effect on those without a strong view. The values have defaults here, and at its
    default a value leaves no trace in configurations, ids and protocols; any other one is part of them for every method.

    Attributes:
        policy: "randaugment" (Cubuk et al., 2020); "trivialaugment" (Müller and Hutter, 2021), which is one operation
            from a wider range at a random magnitude; or "autoaugment" (Cubuk et al., 2019), one of the 25 pairs of
            operations that were found for CIFAR-10.
        operations: number of RandAugment's operations, one after another; 0 leaves the image as it is.
        magnitude: magnitude of RandAugment, 0..30.
        random_magnitude: draw each operation's magnitude of RandAugment uniformly from 0..magnitude; with
            magnitude 30 as in FixMatch (Sohn et al., 2020).
        cutout: side of the square set to the mean, as a share of the image's width; 0 is none.
    """

    policy: Literal["randaugment", "trivialaugment", "autoaugment"] = "randaugment"
    operations: int = 2
    magnitude: int = 9
    random_magnitude: bool = False
    cutout: float = 0.5

    def __post_init__(self) -> None:
        check_policy("Strong", self.policy, self.operations, self.magnitude, self.random_magnitude)
        require(0 <= self.cutout <= 1, "Strong.cutout must be between 0 and 1 (a share of the width)")


@gin.configurable
@dataclass(frozen=True)
class Labels:
    """Changes of the training set: wrong labels, few images, long tails. The validation split gets wrong labels too; the test set
    stays as it is.

    Shared by all methods. The values have defaults here, and at its default a value leaves no trace in configurations, ids
    and protocols; any other one is part of them for every method.

    Attributes:
        noise: share of the images of each class that get a wrong label, in the training set and in the validation split.
        noise_kind: "symmetric": any other class, all with equal chances; "asymmetric": one that is confused easily, as in
            Patrini et al., "Making deep neural networks robust to label noise", CVPR 2017: on CIFAR-10 their pairs, on
            CIFAR-100 the next class of the same superclass, elsewhere the next class.
        per_class: training images of each class; 0: all of them.
        imbalance: images of the largest class over those of the smallest, the others between them as a geometric sequence;
            1: as they are. Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019.
        seed: seed of the draws; the same for all runs, whatever their seed.
    """

    noise: float = 0.0
    noise_kind: Literal["symmetric", "asymmetric"] = "symmetric"
    per_class: int = 0
    imbalance: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.noise < 1, "Labels.noise must be at least 0 and below 1")
        require(self.per_class >= 0, "Labels.per_class must be at least 0 (0: all images)")
        require(self.imbalance >= 1, "Labels.imbalance must be at least 1 (1: as they are)")
        require(not self.per_class or self.imbalance == 1, "Labels.per_class and Labels.imbalance exclude each other")
        require(
            self.noise > 0 or self.noise_kind == "symmetric", "Labels.noise_kind has no effect without Labels.noise"
        )
        changes = self.noise or self.per_class or self.imbalance != 1
        require(bool(changes) or self.seed == 0, "Labels.seed has no effect without another setting of Labels")


AS_LABELLED = Labels()
"""The training set as it is."""


@gin.configurable
@dataclass(frozen=True)
class ResizedCrop:
    """Random resized crops in place of the padded crop: a random part of each training image, resized to the whole image's size.

    Szegedy et al., "Going deeper with convolutions", CVPR 2015, drawn as torchvision's RandomResizedCrop draws it. Of image
    files the part is cut from the file, so they are decoded in every epoch. Shared by all methods; at its default a value
    leaves no trace in configurations, ids and protocols.

    Attributes:
        min_area, max_area: share of the image's area that is cut out; min_area = 0 is no resized crop.
        max_ratio: largest ratio of the part's sides, width to height and height to width.
        test_share: share of the short side that is left of an image file in evaluation; 0.875 is 224 pixels of 256.
    """

    min_area: float = 0.0
    max_area: float = 1.0
    max_ratio: float = 4 / 3
    test_share: float = 1.0

    def __post_init__(self) -> None:
        require(
            0 <= self.min_area <= self.max_area <= 1,
            "ResizedCrop needs 0 <= min_area <= max_area <= 1 (shares of the area)",
        )
        require(self.max_ratio >= 1, "ResizedCrop.max_ratio must be at least 1")
        require(0 < self.test_share <= 1, "ResizedCrop.test_share must be above 0 and at most 1")
        usual = (self.max_area, self.max_ratio, self.test_share) == (1.0, 4 / 3, 1.0)
        require(usual or self.min_area > 0, "ResizedCrop.* has no effect without ResizedCrop.min_area")

    @property
    def is_on(self) -> bool:
        """True if training images are cropped and resized."""
        return self.min_area > 0


NO_CROP = ResizedCrop()
"""No resized crops."""


@gin.configurable
@dataclass(frozen=True)
class Mix:
    """Mixup and CutMix: each training image is mixed with another one of its batch, and so are their labels.

    Shared by all methods; those that need the class of each image are refused. The values have defaults here, and at its
    default a value leaves no trace in configurations, ids and protocols; any other one is part of them for every method.

    Attributes:
        mixup: α of Beta(α, α), from which the share λ of the first image is drawn for each batch; 0 is no mixup. Zhang et
            al., "mixup: Beyond empirical risk minimization", ICLR 2018.
        cutmix: the same, λ being the share of the area that is left of the first image; 0 is no CutMix. Yun et al.,
            "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV 2019. With both,
            each batch is mixed in one of the two ways, with equal chances.
        probability: chance that a batch is mixed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        require(self.mixup >= 0, "Mix.mixup must be at least 0 (0: no mixup)")
        require(self.cutmix >= 0, "Mix.cutmix must be at least 0 (0: no CutMix)")
        require(0 < self.probability <= 1, "Mix.probability must be above 0 and at most 1")
        mixes = bool(self.mixup or self.cutmix)
        require(mixes or self.probability == 1, "Mix.probability has no effect without Mix.mixup or Mix.cutmix")

    @property
    def is_on(self) -> bool:
        """True if any batch is mixed."""
        return bool(self.mixup or self.cutmix)


NO_MIX = Mix()
"""No images are mixed."""


@gin.configurable
@dataclass(frozen=True)
class SecondTask:
    """A second classifier on the student's pooled features, for the 20 superclasses of CIFAR-100: multi-task classification.

    Every method trains it in addition to its own losses, and teachers are trained with it too. At its default it leaves no
    trace in configurations, ids and protocols.

    Attributes:
        weight: weight of its cross-entropy in the loss; 0 is no second task.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        require(self.weight >= 0, "SecondTask.weight must be at least 0 (0: no second task)")


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
    """Settings for several GPUs that share a batch. Shared by all methods; only the command line can bind it.

    Attributes:
        sync_bn: batch normalisation over the images of all GPUs, as one would do it. Without it each GPU normalises over
            its own share, so that the number of GPUs is part of what defines the result.
    """

    sync_bn: bool = True


@gin.configurable
@dataclass(frozen=True)
class Control:
    """Changes that a control makes apart from its method's own parameters; only a method's gin file can bind it.

    These are the differences that a control is there to show, so every table with a control lists them. It has defaults,
    since a method that is not a control binds nothing here.

    Attributes:
        teacher: whose network teaches: the "selected" one, one of the "student"'s own architecture trained alone, or the
            selected one "untrained".
        budget: times the recipe's images.
        mixup: the method mixes its images itself, where others see those of the recipe.
        policy, cutout, erasing: in place of the recipe's `Augment.*` of that name, for this row alone; "recipe" and None leave
            them as they are.
    """

    teacher: Literal["selected", "student", "untrained"] = "selected"
    budget: float = 1.0
    mixup: bool = False
    policy: Literal["recipe", "none", "randaugment", "trivialaugment", "autoaugment"] = "recipe"
    cutout: float | None = None
    erasing: float | None = None

    def __post_init__(self) -> None:
        require(self.budget > 0, "Control.budget must be above 0")
        require(0 <= (self.cutout or 0) <= 1, "Control.cutout must be between 0 and 1 (a share of the width)")
        require(0 <= (self.erasing or 0) <= 1, "Control.erasing must be between 0 and 1 (a chance)")


@gin.configurable
@dataclass(frozen=True)
class Teaching:
    """Teaching of a run, and what it keeps to teach others; only a method's gin file can bind it, where it needs to.

    Attributes:
        method: the method that trains the teacher. Give it a gin file of its own for a teacher that is trained for another
            budget (`Control.budget`) or keeps states. A method that needs a teacher itself is trained after that teacher, on
            a network of its architecture, and teaches in its place.
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
        require(self.states >= 1, "Teaching.states must be at least 1 (the end of training alone)")
        require(len(set(self.chain)) == len(self.chain), "Teaching.chain must name each backbone once")
