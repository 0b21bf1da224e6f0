"""Networks of torchvision and timm as backbones, by the library's own name: `torchvision/resnet50`, `timm/vit_tiny_patch16_224`.

The library's own forward pass computes the logits; stage maps are what its modules return on the way. So these networks have
no stages that could run on their own, which a few methods need.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone, Extra, Features
from kdbench.errors import UserError
from kdbench.precision import at_least_float32

STAGES = 4
"""Deepest stage maps that are offered, as in residual networks; the shallower ones are the stem."""

_POOLING = ("Pool", "Flatten", "Identity", "Dropout")
"""Parts of names of modules that are not the end of a stage."""


class Library(NamedTuple):
    """A model of a library.

    Attributes:
        network: the model, with a classifier for the wanted classes.
        side: height and width of the images that it is made for.
        is_pretrained: its name asks for pretrained weights.
        mean, std: of the images that these were trained on.
    """

    network: nn.Module
    side: int
    is_pretrained: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class LibraryModel(Backbone):
    """A classifier of torchvision or timm. Its state dict has the library's own names.

    Args:
        model: the name in kdbench, such as "torchvision/resnet50" or, pretrained, "torchvision/resnet50:IMAGENET1K_V2".
        classes: number of logits K.
        channels: of the images.
        pretrained: False leaves out the weights that the name asks for.

    Raises:
        UserError: there is no such model, its weights cannot be loaded, or it has no linear classifier.
    """

    scale: Tensor
    shift: Tensor

    signed_maps = True  # not for all of them; what reads it is right for maps without negative values too

    def __init__(self, *, model: str, classes: int, channels: int, pretrained: bool = True):
        super().__init__()
        self.model = model
        loaded = _loaded(model, classes, channels, pretrained)
        self.network, self._side = loaded.network, loaded.side
        self._own = loaded.mean, loaded.std
        self._fits = False
        if loaded.is_pretrained:  # part of its state, because the weights belong to it
            self.register_buffer("scale", torch.ones(channels, 1, 1))
            self.register_buffer("shift", torch.zeros(channels, 1, 1))
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)
        self._classifier = _classifier(self.network, model, classes)
        self._stages = _stages(self, channels)

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        """The classifier."""
        return cast(nn.Linear, self.network.get_submodule(self._classifier))

    def forward(self, images: Tensor, features: bool | Iterable[Extra] = False) -> Tensor | Features:
        extras = () if isinstance(features, bool) else tuple(features)
        if extras:
            raise UserError(f"{self.model} does not offer {' and '.join(extras)}: its stages cannot run on their own")
        if features is False:
            return at_least_float32(self._called(images))
        maps: dict[str, Tensor] = {}
        pooled: list[Tensor] = []
        with _recorded(self.network, self._stages, maps), _entering(self.fc, pooled):
            logits = self._called(images)
        stages = tuple(_as_map(maps[name]) for name in self._stages)
        return Features(at_least_float32(logits), stages, at_least_float32(pooled[0].flatten(1)))

    def stem(self, images: Tensor) -> Tensor:
        raise self._refused("a stem that runs on its own")

    def stage_modules(self) -> tuple[nn.Module, ...]:
        raise self._refused("stages that run on their own")

    def classify(self, x: Tensor) -> Tensor:
        """Logits (B, K) of pooled features (B, fc.in_features)."""
        if x.dim() != 2:
            raise self._refused("a classifier of its deepest map")
        return super().classify(x)

    def neck_modules(self) -> tuple[nn.Module, ...]:
        return ()

    @torch.no_grad()
    def stage_shapes(self, image_shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        out = cast(Features, self.forward(torch.zeros(1, *image_shape, device=device), features=True))
        self.train(was_training)
        return tuple((channels, height, width) for _, channels, height, width in (x.shape for x in out.stages))

    def _refused(self, what: str) -> UserError:
        return UserError(
            f"{self.model} does not offer {what}; use one of kdbench's own networks (kdbench list students)"
        )

    def _called(self, images: Tensor) -> Tensor:
        if "scale" in self._buffers:
            images = torch.addcmul(self.shift, images, self.scale)
        try:
            logits: Tensor = self.network(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            height, width = images.shape[-2:]
            if self._fits or (height, width) == (self._side, self._side):
                raise
            raise UserError(
                f"{self.model} cannot take images of {width}x{height}; it is made for {self._side}x{self._side} "
                f"({' '.join(str(error).split())[:120]}); for image files pass Dataset.size={self._side}"
            ) from error
        self._fits = True
        return logits

    def renormalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take images with this mean and standard deviation; pretrained weights belong to the library's own."""
        own_mean, own_std = self._own
        if own_mean is None or own_std is None or "scale" not in self._buffers:
            return
        theirs, ours = ([torch.tensor(each).reshape(-1, 1, 1) for each in pair] for pair in ((mean, std), self._own))
        self.scale.copy_(theirs[1] / ours[1])
        self.shift.copy_((theirs[0] - ours[0]) / ours[1])


_PREFIX = "network."


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + _PREFIX)]:
        state[prefix + name.removeprefix(prefix + _PREFIX)] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = {prefix + name for name in module._buffers}
    for name in [name for name in state if name.startswith(prefix) and name not in own]:
        state[prefix + _PREFIX + name.removeprefix(prefix)] = state.pop(name)


def _loaded(model: str, classes: int, channels: int, pretrained: bool) -> Library:
    library, _, name = model.partition("/")
    return (_of_torchvision if library == "torchvision" else _of_timm)(model, name, classes, channels, pretrained)


def _of_torchvision(model: str, name: str, classes: int, channels: int, pretrained: bool) -> Library:
    from torchvision import models

    if channels != 3:
        raise UserError(f"{model} takes images of 3 channels, not {channels}")
    name, _, weights = name.partition(":")
    check_torchvision(name, weights)
    side = 299 if name == "inception_v3" else 224
    every: Any = models.get_model_weights(name)
    if not weights or not pretrained:
        options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        network = models.get_model(name, weights=None, num_classes=classes, **options)
        return Library(network, side, bool(weights))
    network = _pretrained(model, lambda: models.get_model(name, weights=every[weights]))
    if hasattr(network, "aux_logits"):
        network.aux_logits = False  # type: ignore[assignment]  # auxiliary classifiers would be a second output
    preset: Any = every[weights].transforms()
    _replace_classifier(network, model, classes)
    return Library(network, side, True, tuple(preset.mean), tuple(preset.std))


def _of_timm(model: str, name: str, classes: int, channels: int, pretrained: bool) -> Library:
    timm = check_timm(name)
    tagged = "." in name
    options = {"num_classes": classes, "in_chans": channels, "pretrained": tagged and pretrained}
    network = _pretrained(model, lambda: timm.create_model(name, **options))
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    side = int(config.get("input_size", (3, 224, 224))[-1])
    if not tagged:
        return Library(network, side)
    return Library(network, side, True, tuple(config["mean"]), tuple(config["std"]))


def _pretrained(model: str, load: Any) -> nn.Module:
    try:
        return cast(nn.Module, load())
    except UserError:
        raise
    except Exception as error:  # no network, a full disk, an incomplete file in the cache
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the weights of {model} cannot be loaded ({type(error).__name__}: {reason[:200]})") from error


def check_torchvision(name: str, weights: str = "") -> None:
    """Refuse a name that is not one of torchvision's classifiers, and one of weights that the classifier does not have.

    Raises:
        UserError: with the nearest names, or all of the weights.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise _unknown("torchvision", name, names)
    every: Any = models.get_model_weights(name)
    if weights and weights not in every.__members__:
        raise UserError(f"{name} has no weights '{weights}'; valid: {', '.join(every.__members__)}")


def check_timm(name: str) -> Any:
    """The package timm, which has a model of this name.

    Raises:
        UserError: timm is not installed, or there is no such model; the sentence has the nearest names.
    """
    if find_spec("timm") is None:
        raise UserError(f"timm/{name} needs the package timm; install it with: pip install 'kdbench[timm]'")
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown("timm", name, timm.list_models())
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        raise _unknown("timm", name, timm.list_pretrained(f"{architecture}.*"))
    return timm


def _unknown(library: str, name: str, names: Iterable[str]) -> UserError:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(f'{library}/{each}' for each in near)}?" if near else ""
    return UserError(f"{library} has no model '{name}'{hint}")


def _classifier(network: nn.Module, model: str, classes: int) -> str:
    """The name of the last linear layer, which gives the logits."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear or cast(nn.Linear, network.get_submodule(linear[-1])).out_features != classes:
        raise UserError(f"{model} has no linear classifier at its end, which every student and teacher needs")
    return linear[-1]


def _replace_classifier(network: nn.Module, model: str, classes: int) -> None:
    """A fresh classifier where the pretrained one has another number of classes."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{model} does not end in a linear classifier, which every student and teacher needs")
    old = cast(nn.Linear, network.get_submodule(linear[-1]))
    if old.out_features != classes:
        parent, _, name = linear[-1].rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Linear(old.in_features, classes))


class _Output(NamedTuple):
    """What a module of a network returned: the side of its map, of dimensions 4, or of its grid of tokens, of dimensions 3."""

    name: str
    module: nn.Module
    side: int
    dimensions: int


@torch.no_grad()
def _stages(backbone: LibraryModel, channels: int) -> tuple[str, ...]:
    """The names of the modules that end the stages, shallowest first."""
    network, side = backbone.network, backbone._side
    outputs: list[_Output] = []

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and len(output) == 1 and _is_map(output):
                outputs.append(_Output(name, module, _as_map(output).shape[-1], output.dim()))

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in network.named_modules() if name]
    pooled: list[Tensor] = []
    was_training = network.training
    network.eval()
    try:
        with _entering(backbone.fc, pooled):
            logits = network(torch.zeros(1, channels, side, side))
        is_last = torch.allclose(backbone.fc(pooled[-1]), logits)
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    stages = _of_blocks(network, outputs) or _of_resolutions(outputs)
    if not is_last or not stages:
        what = "stage maps" if is_last else "single linear classifier at its end"
        raise UserError(f"{backbone.model} has no {what}, which every student and teacher needs")
    return stages


def _of_resolutions(outputs: list[_Output]) -> tuple[str, ...]:
    """The last module of each resolution on the way from the image to the deepest map."""
    last: dict[int, str] = {}
    largest = 1
    for output in reversed(outputs):
        is_pooling = any(word in type(output.module).__name__ for word in _POOLING)
        if output.dimensions != 4 or output.side <= 1 or is_pooling or _is_inside(output, outputs):
            continue
        # Squeeze-excitation makes small maps inside blocks, which are followed by larger ones.
        if output.side > largest:
            largest = output.side
            last[largest] = output.name
    return tuple(last[side] for side in sorted(last, reverse=True)[-STAGES:])


def _is_inside(output: _Output, outputs: list[_Output]) -> bool:
    """True for a map inside a block that returns a smaller one: the block is where the resolution falls."""
    for block in outputs:
        if output.name.startswith(f"{block.name}.") and block.side < output.side:
            sides = {each.side for each in outputs if each.name.startswith(f"{block.name}.") and each.side > 1}
            if len(sides) <= 2:
                return True
    return False


def _of_blocks(network: nn.Module, outputs: list[_Output]) -> tuple[str, ...]:
    """The blocks at the quarters of a transformer's depth; none for a network whose resolution falls."""
    tokens = {output.name: output.side for output in outputs if output.dimensions == 3}
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Sequential, nn.ModuleList)):
            continue
        children = [f"{name}.{child}" if name else child for child, _ in module.named_children()]
        blocks = [child for child in children if child in tokens]
        if len(blocks) >= STAGES and len({tokens[block] for block in blocks}) == 1:
            return tuple(blocks[(number + 1) * len(blocks) // STAGES - 1] for number in range(STAGES))
    return ()


def _is_map(x: Tensor) -> bool:
    """True for tokens, and for a square map in either order."""
    return x.dim() == 3 or (x.dim() == 4 and x.shape[2] in (x.shape[1], x.shape[3]))


def _as_map(x: Tensor) -> Tensor:
    """A map (B, C, H, W) of one in that order, of one with the channels last, or of tokens (B, N, C) that form a square grid.

    Class and other tokens in front of the grid are left out.
    """
    if x.dim() == 3:
        side = math.isqrt(x.shape[1])
        return x[:, x.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))
    _, first, second, third = x.shape
    if second != third and first == second:
        return x.permute(0, 3, 1, 2)
    return x


@contextmanager
def _recorded(network: nn.Module, names: Iterable[str], into: dict[str, Tensor]) -> Iterator[None]:
    """Keep what the modules of these names return."""

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            into[name] = output

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _entering(module: nn.Module, into: list[Tensor]) -> Iterator[None]:
    """Keep what enters a module."""
    handle = module.register_forward_pre_hook(lambda _, inputs: into.append(inputs[0]))
    try:
        yield
    finally:
        handle.remove()
