"""Models of torchvision and timm by their names, with fresh or pretrained weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

from torch import nn

from kdbench.errors import UserError


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


def load(model: str, classes: int, channels: int, pretrained: bool) -> Library:
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
    is_inception = name in ("googlenet", "inception_v3")
    if not weights or not pretrained:
        # Auxiliary classifiers would be a second output. With weights, torchvision's inceptions change their input.
        made = {"aux_logits": False, "init_weights": True, "transform_input": bool(weights)}
        options = made if is_inception else {}
        network = models.get_model(name, weights=None, num_classes=classes, **options)
        return Library(network, side, bool(weights))
    network = _pretrained(model, lambda: models.get_model(name, weights=every[weights]))
    if is_inception:
        network.aux_logits = False  # type: ignore[assignment]
        for auxiliary in {"aux1", "aux2", "AuxLogits"} & set(dict(network.named_children())):
            setattr(network, auxiliary, None)
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
        UserError: timm is not installed, or does not have the model; the sentence has the nearest names.
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


def classifier(network: nn.Module, model: str, classes: int) -> str:
    """The name of the last linear layer, which gives the logits."""
    linear: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear or cast(nn.Linear, network.get_submodule(linear[-1])).out_features != classes:
        raise UserError(f"{model} has no linear classifier at its end, which every student and teacher needs")
    return linear[-1]


def _replace_classifier(network: nn.Module, model: str, classes: int) -> None:
    """A fresh classifier where the pretrained one has another number of classes."""
    linear: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{model} does not end in a linear classifier, which every student and teacher needs")
    old = cast(nn.Linear, network.get_submodule(linear[-1]))
    if old.out_features != classes:
        parent, _, name = linear[-1].rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Linear(old.in_features, classes))
