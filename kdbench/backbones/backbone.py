"""The base class of every student and teacher: a classifier that can also return its intermediate features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdbench.errors import UserError, unknown
from kdbench.precision import at_least_float32, full_precision

Extra = Literal["stem", "preactivations", "unpooled"]
"""Entries of `Features` that are filled on request only."""


class Features(NamedTuple):
    """The outputs of a backbone for B images. Stages are counted from 0, the shallowest, to S − 1.

    Attributes:
        logits: (B, K), float32 also under autocast.
        stages: the map after each stage, (B, C_s, H_s, W_s), shallowest first, after the last ReLU of the stage; in networks
            with `signed_maps`, the map that leaves the stage before any normalisation or ReLU.
        pooled: (B, fc.in_features), the globally average-pooled deepest map, after the neck where there is one; the classifier
            reads it. float32 as well.
        stem: the map that enters the first stage, or None if it was not requested.
        preactivations: the maps just before the last ReLU of each stage, in the shapes of `stages`; empty if they were
            not requested. With `signed_maps`: before the ReLU that follows the stage, or the stage's own map if none does.
        unpooled: (B, fc.in_features, H, W), the map whose global average is `pooled`: the deepest one, after the neck where
            there is one. None if it was not requested.
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    pooled: Tensor
    stem: Tensor | None = None
    preactivations: tuple[Tensor, ...] = ()
    unpooled: Tensor | None = None


class Backbone(nn.Module):
    """Base class of all backbones.

    A subclass implements `stem` and `stage_modules`, and has a linear layer `fc`. `before_and_after_relu` and `last_bn`
    are needed only by methods that read pre-activations.

    Attributes:
        fc: the classifier, which reads the pooled feature.
        signed_maps: True where stage maps do not end in a ReLU and so have negative values.
        images_passed: images that have passed through this network, in all its calls and those of `start`.
    """

    fc: nn.Linear
    signed_maps: ClassVar[bool] = False
    images_passed: int = 0
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Recorded here rather than in __init__, so that subclasses need not hand their arguments up for `fresh_copy`.
        # Copying and unpickling call this without arguments, and then restore the recorded ones.
        self = super().__new__(cls)
        self._arguments = args, kwargs
        return self

    def __call__(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        self._count_images(images)  # here and not in `forward`, which may be compiled
        return super().__call__(images, *args, **kwargs)

    def _count_images(self, images: Tensor) -> None:
        if not torch.compiler.is_compiling():  # an exported network takes any number of images, and counts none
            self.images_passed += len(images)

    def start(self, images: Tensor) -> Tensor:
        """The stem map of images, for a method that goes through the stages itself (`run_from`); they count as passed."""
        self._count_images(images)
        return self.stem(images)

    def renormalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take images with this mean and standard deviation; a pretrained network then gives them its own."""

    def stem(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def stage_modules(self) -> tuple[nn.Module, ...]:
        raise NotImplementedError

    def neck_modules(self) -> tuple[nn.Module, ...]:
        """What lies between the deepest map and the pooling, in order; nothing in most networks."""
        return ()

    def before_and_after_relu(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maps before and after the last ReLU of stage `stage`, from the map that enters the stage.

        The second equals what the stage module itself returns, bit for bit.
        """
        raise UserError(f"{type(self).__name__} does not offer pre-activation maps (before_and_after_relu)")

    def last_bn(self, stage: int) -> nn.BatchNorm2d:
        """The last batch normalisation before the last ReLU of stage `stage`, which `Features.stages[stage]` follows.

        In residual networks it is the one at the end of the last block; the shortcut is added after it.
        """
        raise UserError(f"{type(self).__name__} does not offer the last batch normalisation of a stage (last_bn)")

    def forward(self, images: Tensor, features: bool | Iterable[Extra] = False) -> Tensor | Features:
        """Logits (B, K) of images (B, C, H, W), or all of `Features`.

        Args:
            features: True for `Features` without extras, or the extras to include, such as ("stem", "preactivations").

        Raises:
            UserError: there is no extra of that name, or the backbone does not offer it.
        """
        extras = () if isinstance(features, bool) else _checked(features)
        x = stem = self.stem(images)
        stages, preactivations = [], []
        for number, stage in enumerate(self.stage_modules()):
            if "preactivations" in extras:
                before, x = self.before_and_after_relu(number, x)
                preactivations.append(before)
            else:
                x = stage(x)
            stages.append(x)
        for module in self.neck_modules():
            x = module(x)
        logits, pooled = _read_out((), self.fc, x)
        if features is False:
            return logits
        return Features(
            logits, tuple(stages), pooled, stem if "stem" in extras else None, tuple(preactivations),
            x if "unpooled" in extras else None,
        )  # fmt: skip

    def classify(self, x: Tensor) -> Tensor:
        """Logits (B, K) of a deepest map (B, C_S, H, W) or a pooled feature (B, fc.in_features), in float32 also under autocast.

        The gradient reaches `x` also where the network itself is frozen.
        """
        return _read_out(self.neck_modules(), self.fc, x)[0]

    def body(self) -> Body:
        """This network up to its deepest map, as a module that shares its weights."""
        return Body(self)

    def run_from(self, first: int, x: Tensor) -> Features:
        """The rest of the network, from the map that enters stage `first`.

        Args:
            first: the first stage to run, as an index of `stage_modules()`.
            x: the stem map for 0, else the map of stage `first` − 1.

        Returns:
            Features whose `stages` are those from `first` on.
        """
        return _run(self.stage_modules()[first:], self.neck_modules(), self.fc, x)

    def fresh_copy(self) -> Self:
        """A network of the same architecture with newly drawn weights, on torch's default device, in training mode.

        Draws from torch's global generator, as the constructor does.
        """
        args, kwargs = self._arguments
        return type(self)(*args, **kwargs)

    def fresh_stages(self, first: int) -> Branch:
        """A branch with newly drawn weights that does what `run_from(first, x)` does and shares nothing with it.

        Draws from torch's global generator, as `fresh_copy` does: the weights of a whole network.
        """
        fresh = self.fresh_copy()
        return Branch(fresh.stage_modules()[first:], fresh.fc, fresh.neck_modules())

    @contextmanager
    def batch_statistics(self) -> Iterator[None]:
        """Normalise with the statistics of the batch, as in training, but leave the running statistics untouched.

        Only batch normalisation is affected: a network in evaluation mode otherwise stays in evaluation mode.
        """
        before = [(m, m.training, m.track_running_stats) for m in self.modules() if isinstance(m, _BatchNorm)]
        try:
            for module, *_ in before:
                module.training, module.track_running_stats = True, False
            yield
        finally:
            for module, training, tracking in before:
                module.training, module.track_running_stats = training, tracking

    @torch.no_grad()
    def stage_shapes(self, image_shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of each stage map for an image of `image_shape`, found by passing zeros through."""
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        # Not by `forward`, through which only the images of the data pass.
        out = self.run_from(0, self.stem(torch.zeros(1, *image_shape, device=device)))
        self.train(was_training)
        return tuple((channels, height, width) for _, channels, height, width in (x.shape for x in out.stages))


def without_trace(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """norm(x) for pre-activations of a map that the next stage normalises too, which alone moves the running statistics."""
    tracking, norm.track_running_stats = norm.track_running_stats, False
    normalised = cast(Tensor, norm(x))
    norm.track_running_stats = tracking
    return normalised


def around_last_relu(
    stage: Iterable[nn.Module], before_relu: Callable[[Any, Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    """`Backbone.before_and_after_relu` of a stage of blocks.

    Args:
        before_relu: computes the last block without its last ReLU, from the block and the map that enters it.
        x: the map that enters the stage.
    """
    *blocks, last = stage
    for block in blocks:
        x = block(x)
    before = before_relu(last, x)
    return before, F.relu(before)


class Body(nn.Module):
    """A backbone without its neck and classifier: images (B, C, H, W) to the deepest map (B, C_S, H_S, W_S).

    Its parameters and buffers are the backbone's own, and its images count as passed through the backbone.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        self._backbone = (backbone,)  # in a tuple, so that nn.Module does not register it with its classifier
        behind = {*backbone.neck_modules(), backbone.fc}
        for name, child in backbone.named_children():
            if behind.isdisjoint(child.modules()):
                self.add_module(name, child)
        for name, parameter in backbone.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in backbone.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    def forward(self, images: Tensor) -> Tensor:
        (backbone,) = self._backbone
        x = backbone.start(images)
        for stage in backbone.stage_modules():
            x = stage(x)
        return x


class Branch(nn.Module):
    """The deeper stages of a backbone and a classifier, as a module of its own; see `Backbone.fresh_stages`.

    Args:
        stages: shallowest first.
        fc: reads the pooled map of the last stage.
        neck: lies between the two.
    """

    def __init__(self, stages: Iterable[nn.Module], fc: nn.Linear, neck: Iterable[nn.Module] = ()):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.neck = nn.ModuleList(neck)
        self.fc = fc

    def forward(self, x: Tensor) -> Features:
        """Features of the map that enters the first of these stages, (B, C, H, W)."""
        return _run(self.stages, self.neck, self.fc, x)


def _checked(extras: Iterable[Extra]) -> tuple[Extra, ...]:
    extras = tuple(extras)
    for extra in extras:
        if extra not in get_args(Extra):
            raise unknown("feature", extra, get_args(Extra))
    return extras


def _run(stages: Iterable[nn.Module], neck: Iterable[nn.Module], fc: nn.Linear, x: Tensor) -> Features:
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    logits, pooled = _read_out(neck, fc, x)
    return Features(logits, tuple(maps), pooled)


def _read_out(neck: Iterable[nn.Module], fc: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and pooled feature of a map (B, C, H, W) or of a feature that is pooled already (B, C)."""
    if x.dim() == 4:
        for module in neck:
            x = module(x)
    # Under autocast the maps may be bfloat16; what losses are made of is not.
    with full_precision(x.device):
        x = at_least_float32(x)
        pooled = x.mean(dim=(2, 3)) if x.dim() == 4 else x
        return fc(pooled), pooled
