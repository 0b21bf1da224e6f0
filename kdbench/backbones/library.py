"""Networks of torchvision and timm as backbones, by the library's own name: `torchvision/resnet50`, `timm/vit_tiny_patch16_224`.

The library's own forward pass computes the logits (`kdbench.backbones.recorded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdbench.backbones import library_models, library_stages
from kdbench.backbones.recorded import RecordedModel
from kdbench.errors import UserError


class LibraryModel(RecordedModel):
    """A classifier of torchvision or timm. Its state dict has the library's own names.

    Args:
        model: the name in kdbench, such as "torchvision/resnet50" or, pretrained, "torchvision/resnet50:IMAGENET1K_V2".
        classes: number of logits K.
        channels: of the images.
        pretrained: False leaves out the weights that the name asks for.

    Raises:
        UserError: the library does not have the model, its weights cannot be loaded, or it has no linear classifier.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, model: str, classes: int, channels: int, pretrained: bool = True):
        super().__init__()
        self.model = model
        loaded = library_models.load(model, classes, channels, pretrained)
        self.network, self._side = loaded.network, loaded.side
        self._own = loaded.mean, loaded.std
        self._fits = False
        if loaded.is_pretrained:  # part of its state, because the weights belong to it
            self.register_buffer("scale", torch.ones(channels, 1, 1))
            self.register_buffer("shift", torch.zeros(channels, 1, 1))
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)
        self._classifier = library_models.classifier(self.network, model, classes)
        self._stages = library_stages.stages(self.network, self.fc, model, (channels, self._side, self._side))

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        """The classifier."""
        return cast(nn.Linear, self.network.get_submodule(self._classifier))

    def _stage_names(self, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
        return self._stages

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
