"""The backbones, by name. Importing this is cheap: a network's own file, and torch with it, is loaded by `build`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kdbench.errors import unknown

if TYPE_CHECKING:
    from kdbench.backbones.backbone import Backbone

_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)

# name: (class as "module:name", its arguments). Adding a backbone is adding a line.
_BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"resnet{depth}": ("kdbench.backbones.cifar_resnet:CifarResNet", {"depth": depth, "widths": _NARROW})
        for depth in (8, 14, 20, 32, 44, 56, 110)
    },
    **{
        f"resnet{depth}x4": ("kdbench.backbones.cifar_resnet:CifarResNet", {"depth": depth, "widths": _WIDE})
        for depth in (8, 32)
    },
    **{
        f"resnet{depth}": ("kdbench.backbones.torchvision_resnet:TorchvisionResNet", {"depth": depth})
        for depth in (18, 34, 50)
    },
}

NAMES = tuple(_BACKBONES)


def build(name: str, classes: int, channels: int = 3) -> Backbone:
    """A freshly initialised backbone.

    Args:
        name: one of `NAMES`.
        classes: number of logits K.
        channels: of the images.

    Raises:
        UserError: there is no backbone of that name.
    """
    if name not in _BACKBONES:
        raise unknown("student", name, NAMES)
    path, arguments = _BACKBONES[name]
    module, cls = path.split(":")
    return getattr(import_module(module), cls)(classes=classes, channels=channels, **arguments)
