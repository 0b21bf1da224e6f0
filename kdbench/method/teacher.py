"""A teacher as a method sees it: a frozen network that is fed what it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

import torch
from torch import Tensor

from kdbench.backbones.backbone import Backbone, Extra, Features
from kdbench.errors import UserError, unknown

if TYPE_CHECKING:
    from kdbench.method.base import Method


WANTED = ("logits", "pooled", "stages", *get_args(Extra))
"""What a method can ask a teacher for."""


class KeptOutputs(Protocol):
    """Outputs of a teacher on the batches of training (`kdbench.run.training_outputs`)."""

    images_read: int

    def get(self, step: int, images: Tensor, widths: tuple[int, int], compute: Callable[[], Features]) -> Features:
        """Logits (B, K) and pooled features (B, D) of the batch of a step; `widths` are K and D."""


@dataclass(frozen=True)
class Teacher:
    """A finished network, frozen and in evaluation mode.

    Attributes:
        network: its backbone. A network that is not one, deployed by a method that changes the student, shows logits alone.
        method: the method that trained it, with the exits and heads that it trained; None where only the network is known.
        scale, shift: (C, 1, 1) each, from the student's normalisation to the teacher's own; None where they are the same.
        kept: logits and pooled features that other runs have computed of the same images; None: all are computed.
    """

    network: Backbone
    method: Method | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    kept: KeptOutputs | None = None

    def freeze(self) -> None:
        """Evaluation mode, no gradients."""
        for module in (self.network, self.method):
            if module is not None:
                module.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor, want: Sequence[str] = (), batch_statistics: bool = False) -> Features:
        """Return the outputs of the network for images (B, C, H, W) in the student's normalisation; see `Method.teach`.

        Raises:
            UserError: a word of `want` is not an output of a backbone.
        """
        for word in want:
            if word not in WANTED:
                raise unknown("output of a teacher", word, WANTED)
        extras = tuple(word for word in want if word in get_args(Extra))
        with self.network.batch_statistics() if batch_statistics else nullcontext():
            if set(want) == {"logits"}:
                logits = self.network(self.own_normalisation(images))
                return Features(logits, (), logits.new_empty(len(logits), 0))
            features: Features = self.network(self.own_normalisation(images), features=extras or True)
        return features

    @torch.no_grad()
    def of_step(self, step: int, images: Tensor, want: Sequence[str]) -> Features:
        """The outputs for the batch of a step; as `__call__`, but logits and pooled features alone may have been kept."""
        if self.kept is None or not want or not {*want} <= {"logits", "pooled"}:
            return self(images, want)
        widths = self.network.fc.out_features, self.network.fc.in_features
        return self.kept.get(step, images, widths, lambda: self(images, ("logits", "pooled")))

    @torch.no_grad()
    def exits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) of the classifiers that were trained in addition to the network's own, by name, as `Method.exits` has them.

        Args:
            images: (B, C, H, W) in the student's normalisation.

        Raises:
            UserError: there are none, or they were not kept.
        """
        logits = self.method.exits(self.own_normalisation(images)) if self.method is not None else {}
        if not logits:
            raise UserError("the teacher has no exits; pass teacher=RUN with a run of a method that trains some")
        return logits

    def own_normalisation(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in the student's normalisation as the teacher was trained on them."""
        if self.scale is None or self.shift is None:
            return images
        return torch.addcmul(self.shift, images, self.scale)
