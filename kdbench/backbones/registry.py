"""Builds backbones by name. Importing this is cheap: a network's own file, and torch with it, is loaded by `build`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from kdbench.config import extensions
from kdbench.errors import UserError

if TYPE_CHECKING:
    from kdbench.backbones.backbone import Backbone


def build(name: str, classes: int, channels: int = 3) -> Backbone:
    """A freshly initialised backbone.

    Args:
        name: one of `extensions.members("backbone")`.
        classes: number of logits K.
        channels: channels of the images.

    Raises:
        UserError: there is no backbone of that name, or its file does not define it properly.
    """
    from kdbench.backbones.backbone import Backbone

    extension = extensions.member("backbone", name, "student")
    cls = extensions.load(extension)
    if not isinstance(cls, type) or not issubclass(cls, Backbone):
        raise UserError(
            f"{extension.path}: '{extension.object}' is not a subclass of kdbench.backbones.backbone.Backbone"
        )
    try:
        # Of __init__, because Backbone.__new__ takes anything.
        inspect.signature(cls.__init__).bind(None, classes=classes, channels=channels, **extension.options)
    except TypeError as error:
        raise UserError(f"{extension.path}: BACKBONES['{name}'] does not fit {extension.object}: {error}") from None
    return cls(classes=classes, channels=channels, **extension.options)
