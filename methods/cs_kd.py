"""CS-KD: an image is to be judged as another image of its class is.

Yun, Park, Lee and Shin, "Regularizing class-wise predictions via self-knowledge distillation", CVPR 2020.

Family: self
Loss: CE(z(x)) + λ · T² · KL(softmax(z(x') / T) ‖ softmax(z(x) / T)), x' another image of the class of x, z(x') detached
Source: the authors' code (alinlab/cs-kd)
Choice: `joint` is False, as in the authors' code: anchors and partners pass one after the other, each normalised with their own
    statistics, and both move the running ones. True is one pass of both.
Choice: `itself` is False; True lets an image be its own partner by chance, as in the authors' code, where the term is 0 for it.
    With hundreds of images in a class that is rare.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.method import Batch, ClassIndex, Method, Streams, distillation


class CSKD(Method):
    """Cross-entropy of the anchors, and T² · KL from a partner of the same class, which gets no gradient.

    Args:
        weight: λ.
        temperature: T.
        joint: anchors and partners pass together.
        itself: an image may be its own partner.

    Raises:
        ValueError: all training images are of one class.
    """

    images_per_anchor = 2

    weight: float
    temperature: float
    joint: bool
    itself: bool

    def setup(self) -> None:
        self.class_index = ClassIndex(self.info.train_labels.cpu())  # `sample` draws there, on any device

    def sample(self, anchors: Tensor, streams: Streams) -> Tensor:
        """Anchors, then a partner for each."""
        return torch.cat([anchors, self.class_index.same_class(anchors, streams("partners"), itself=self.itself)])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.joint:
            logits, target = self.student(batch.images).chunk(2)
        else:
            anchors, partners = batch.images.chunk(2)
            logits = self.student(anchors)
            with torch.no_grad():
                target = self.student(partners)
        return {
            "ce": self.cross_entropy(logits, batch.labels.chunk(2)[0]),
            "partner": self.weight * distillation(logits, target.detach(), self.temperature),
        }
