"""Classifiers of other libraries, and of the user, as backbones: the stage maps are what their modules return on the way.

Their own forward pass computes the logits. So they have no stages that could run on their own, which a few methods need.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from kdbench.backbones import library_models, library_stages
from kdbench.backbones.backbone import Backbone, Extra, Features
from kdbench.backbones.library_stages import as_map, entering, recorded
from kdbench.errors import UserError
from kdbench.precision import at_least_float32


class RecordedModel(Backbone):
    """A classifier whose forward pass is its own.

    Attributes:
        model: its name in messages.
        network: images (B, C, H, W) to logits (B, K).
    """

    signed_maps = True  # not for all of them; what reads it is right for maps without negative values too

    model: str
    network: nn.Module
    _ends_in_average: bool | None = None

    def _called(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network(images))

    def _stage_names(self, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
        """The modules of the network that end its stages, shallowest first."""
        raise NotImplementedError

    def forward(self, images: Tensor, features: bool | Iterable[Extra] = False) -> Tensor | Features:
        extras = () if isinstance(features, bool) else tuple(features)
        if missing := [extra for extra in extras if extra != "unpooled"]:
            raise UserError(f"{self.model} does not offer {' and '.join(missing)}: its stages cannot run on their own")
        if features is False:
            return at_least_float32(self._called(images))
        maps: dict[str, Tensor] = {}
        pooled: list[Tensor] = []
        names = self._stage_names(cast("tuple[int, int, int]", tuple(images.shape[1:])))
        with recorded(self.network, names, maps), entering(self.fc, pooled):
            logits = self._called(images)
        stages = tuple(as_map(maps[name]) for name in names)
        out = Features(at_least_float32(logits), stages, at_least_float32(pooled[0].flatten(1)))
        return out._replace(unpooled=self._unpooled(out)) if extras else out

    def _unpooled(self, out: Features) -> Tensor:
        """The deepest map, if its average is what the classifier reads; looked at once, as it waits for the device."""
        if self._ends_in_average is None:
            average, pooled = at_least_float32(out.stages[-1]).mean(dim=(2, 3)).detach(), out.pooled.detach()
            self._ends_in_average = average.shape == pooled.shape and torch.allclose(average, pooled, 0.02, 1e-3)
        if not self._ends_in_average:
            raise UserError(
                f"{self.model} does not offer unpooled: its classifier does not read the average of its last map"
            )
        return out.stages[-1]

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


class OwnNetwork(RecordedModel):
    """A network of the user's own. Logits need nothing of it; features need a linear layer at its end, and square maps.

    Args:
        network: images (B, C, H, W) to logits (B, K).
        classes: number of logits K.
        model: its name in messages.
    """

    def __init__(self, network: nn.Module, classes: int, model: str):
        super().__init__()
        self.network = network
        self.model = model
        self._classes = classes
        self._stages: dict[tuple[int, int, int], tuple[str, ...]] = {}

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        """The classifier."""
        return cast(nn.Linear, self.network.get_submodule(self._classifier))

    @cached_property
    def _classifier(self) -> str:
        try:
            return library_models.classifier(self.network, self.model, self._classes)
        except UserError:
            raise self._lacks(f"a linear layer with {self._classes} outputs at its end") from None

    def _stage_names(self, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
        if image_shape not in self._stages:
            modes = {module: module.training for module in self.network.modules()}
            try:
                with torch.device(next(self.parameters()).device):
                    names = library_stages.stages(self.network, self.fc, self.model, image_shape)
            except UserError:
                raise self._lacks("square stage maps and a linear layer that alone gives the logits") from None
            finally:
                for module, training in modes.items():
                    module.training = training
            self._stages[image_shape] = names
        return self._stages[image_shape]

    def _lacks(self, what: str) -> UserError:
        return UserError(f"{self.model} does not have {what}, which methods that read features need")
