"""Manifold mixup: the maps of two images are mixed after a stage that is drawn for each batch, and so are their classes.

Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz and Bengio, "Manifold mixup: Better representations by interpolating hidden
states", ICML 2019.

Family: regulariser
Base: mixup
Loss: λ · CE(z̃, y) + (1 − λ) · CE(z̃, y_π), z̃ from h̃ = λ · h + (1 − λ) · h_π, h the map after a stage drawn from `layers`
Source: the authors' code (manifold_mixup, supervised/main.py)
Choice: `loss` is "ce", as in other code. "bce" is the authors' own: the binary cross-entropy of each class's probability, averaged
    over images and classes, which is K times smaller than a sum and counts wrong classes twice.
Choice: `layers` are the image (0) and the first two stages, as in the authors' code; other code draws from all stages, (1, 2, 3)
Choice: this row alone sees mixed images, so it is marked as a control's
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32
from kdbench.method.mixing import check_alpha, drawn_share, partners_of
from kdbench.methods.mixup import mixed, mixed_cross_entropy


def mixed_binary_cross_entropy(logits: Tensor, labels: Tensor, partners: Tensor, share: float) -> Tensor:
    """Binary cross-entropy of softmax probabilities and mixed labels, averaged over images and classes.

    Logarithms are at least −100, as in torch.

    Args:
        logits: (B, K) of the mixed images.
        labels, partners: (B,) classes of the images and of their partners.
        share: λ.
    """
    logits = at_least_float32(logits)
    own, other = (F.one_hot(y, logits.shape[1]).to(logits.dtype) for y in (labels, partners))
    target, log_p = mixed(own, other, share), F.log_softmax(logits, dim=1)
    rest = -torch.expm1(log_p)
    log_rest = rest.clamp(min=torch.finfo(rest.dtype).tiny).log().clamp(min=-100)
    of_each: Tensor = target * log_p.clamp(min=-100) + (1 - target) * log_rest
    return -of_each.mean()


class ManifoldMixup(Method):
    """Cross-entropy of what the network makes of mixed maps, with both classes in their shares.

    Args:
        alpha: α of Beta(α, α), from which the share of an image is drawn.
        layers: where maps are mixed, each equally likely: 0 is the image, s the map after stage s.
        loss: "ce" or "bce".
    """

    alpha: float
    layers: tuple[int, ...]
    loss: Literal["ce", "bce"]

    def setup(self) -> None:
        check_alpha("ManifoldMixup", self.alpha)
        stages = len(self.student.stage_modules())
        if not self.layers or not all(0 <= layer <= stages for layer in self.layers):
            raise RunError(f"manifold_mixup needs ManifoldMixup.layers from 0 to {stages}, the stages of this student")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        share = drawn_share(batch, self.alpha)
        drawn = int(torch.randint(len(self.layers), (), generator=batch.streams("layer")))
        logits, labels = self._mixed_at(self.layers[drawn], batch, share)
        if self.loss == "bce":
            return {"bce": mixed_binary_cross_entropy(logits, batch.labels, labels, share)}
        return {"ce": mixed_cross_entropy(logits, batch.labels, labels, share, self.info.label_smoothing)}

    def _mixed_at(self, layer: int, batch: Batch, share: float) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of the mixed maps or images, and the labels (B,) of the partners."""
        if layer == 0:
            images, labels = partners_of(batch, batch.images, batch.labels)
            return self.student(mixed(batch.images, images, share)), labels
        x = self.student.start(batch.images)
        for stage in self.student.stage_modules()[:layer]:
            x = stage(x)
        partners, labels = partners_of(batch, x, batch.labels)
        return self.student.run_from(layer, mixed(x, partners, share)).logits, labels
