"""Builds backbones by name. Importing this is cheap: a network's own file, and torch with it, is loaded by `build`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from kdbench.config import extensions
from kdbench.errors import UserError, loading_torch

if TYPE_CHECKING:
    from kdbench.backbones.backbone import Backbone


def check(name: str, word: str) -> None:
    """Refuse a name that is not a backbone's; imports torch for a library's model alone.

    Args:
        word: the kind as the user knows it ("teacher"), for the sentence.

    Raises:
        UserError: there is no backbone of that name; the sentence names the nearest.
    """
    extensions.member("backbone", name, word)
    library, model = extensions.library_of(name), name.partition("/")[2]
    if library is None:
        return
    with loading_torch():
        from kdbench.backbones import library_models as models

    if library == "torchvision":
        models.check_torchvision(*model.partition(":")[::2])
    else:
        models.check_timm(model)


def build(name: str, classes: int, channels: int = 3, pretrained: bool = True) -> Backbone:
    """A freshly initialised backbone, or a library's pretrained one if its name says so.

    Args:
        name: one of `extensions.members("backbone")`, or a library's model (`extensions.library_of`).
        classes: number of logits K.
        channels: channels of the images.
        pretrained: False if other weights will be loaded, so that pretrained ones need not be there.

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
    options = {**extension.options}
    if not pretrained and extensions.library_of(name):
        options["pretrained"] = False
    try:
        # Of __init__, because Backbone.__new__ takes anything.
        inspect.signature(cls.__init__).bind(None, classes=classes, channels=channels, **options)
    except TypeError as error:
        raise UserError(f"{extension.path}: BACKBONES['{name}'] does not fit {extension.object}: {error}") from None
    return cls(classes=classes, channels=channels, **options)
