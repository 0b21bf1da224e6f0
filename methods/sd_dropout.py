"""SD-Dropout: the classifier is to judge an image alike with two different sets of channels dropped.

Lee, Park, Seo and Kang, "Self-knowledge distillation via dropout", arXiv 2022.

Family: self
Loss: CE(z) + λ · T² · [KL(d₂ → d₁) + KL(d₁ → d₂)], d_i the classifier's logits of the pooled feature after drop-out of channels
    with probability p, with masks of their own; targets (left of each arrow) detached
Source: the authors' class SelfKD_KL, from a stored text
Choice: T is not given by the stored text; 4 is that of the case in it
Choice: channels are dropped from the pooled feature, which is what dropping them from the deepest map comes to; in a network
    with layers between the two, it is the feature that the classifier reads
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, RunError
from kdbench.method.connectors import dropout
from kdbench.methods.ddgsd import mutual_loss


class SDDropout(Method):
    """Cross-entropy, and divergences in both directions between the logits of two dropped features.

    Args:
        weight: λ.
        temperature: T.
        dropped: p, share of the channels that is dropped.

    Raises:
        RunError: `dropped` is out of range.
    """

    weight: float
    temperature: float
    dropped: float

    def setup(self) -> None:
        if not 0 <= self.dropped < 1:
            raise RunError(f"SDDropout.dropped={self.dropped:g} must be at least 0 and below 1")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        first, second = (
            self.student.classify(dropout(out.pooled, self.dropped, batch, stream)) for stream in ("first", "second")
        )
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "kd": self.weight * mutual_loss(first, second, self.temperature),
        }
