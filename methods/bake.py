"""BAKE: soft labels of an image are made of its own prediction and those of the images of the batch that resemble it.

Ge, Zhang, Choi, Cheung, Zhao, Zhu, Wang, Zhao and Li, "Self-distillation with batch knowledge ensembling improves ImageNet
classification", arXiv 2021.

Family: self
Loss: CE + λ · T² · KL((1 − ω) · (I − ω · A)⁻¹ · P ‖ P), P = softmax(z / T), A the softmax of the cosines of pooled features over
    the other images of the batch; the target is detached
Source: the authors' code (yxgeee/BAKE, small_scale)
Choice: each anchor comes with M = 3 other images of its class, as in the authors' code for CIFAR-100, all different where the
    class has enough. All are in the cross-entropy and count against the budget: in the authors' runs an epoch has four times the
    baseline's images.
Choice: the gathered images are those of the whole batch, on any number of GPUs
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, ClassIndex, Method, RunError, Streams, at_least_float32, full_precision
from kdbench.method.connectors import normalised

PARTNERS = 3  # M: other images of the class for each anchor


@torch.no_grad()
def ensembled(logits: Tensor, features: Tensor, omega: float, temperature: float) -> Tensor:
    """Soft labels (B, K): each row a mixture of the softened predictions of all images, by how alike they are.

    Args:
        logits: (B, K) of the whole batch.
        features: (B, D), pooled.
        omega: ω, the share of the others in each step of an endless propagation.
        temperature: T.
    """
    features = normalised(at_least_float32(features))
    cosines = features @ features.mT
    eye = torch.eye(len(cosines), dtype=cosines.dtype, device=cosines.device)
    # The lowest number and not −∞, with which a batch of a single image would be NaN; here it is its own label.
    affinity = F.softmax(cosines.masked_fill(eye.bool(), torch.finfo(cosines.dtype).min), dim=1)
    p = F.softmax(at_least_float32(logits) / temperature, dim=1)
    mixed: Tensor = (1 - omega) * torch.linalg.solve(eye - omega * affinity, p.to(cosines.dtype))
    return mixed.clamp(min=0)  # below it by rounding alone


def ensemble_loss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T² · KL(target ‖ softmax(logits / T)), batch mean; logits and target (B, K), rows of the target distributions."""
    log_p = F.log_softmax(at_least_float32(logits) / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, target, reduction="batchmean")


class BAKE(Method):
    """Cross-entropy of anchors and partners, and `ensemble_loss` with the soft labels of the batch.

    Args:
        weight: λ.
        temperature: T.
        omega: ω, from 0 to below 1.

    Raises:
        ValueError: all training images are of one class.
        RunError: `omega` is out of range.
    """

    images_per_anchor = 4

    weight: float
    temperature: float
    omega: float

    def setup(self) -> None:
        if not 0 <= self.omega < 1:
            raise RunError(f"BAKE.omega={self.omega:g} must be at least 0 and below 1")
        self.class_index = ClassIndex(self.info.train_labels.cpu())  # `sample` draws there, on any device

    def sample(self, anchors: Tensor, streams: Streams) -> Tensor:
        """Anchors, then the first partner of each, then the second, then the third."""
        partners = self.class_index.several_of_class(anchors, PARTNERS, streams("partners"))
        return torch.cat([anchors, partners.T.flatten()])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        with full_precision(batch.images.device):
            logits, features = (batch.share.gather(x.detach()) for x in (out.logits, out.pooled))
            target = batch.share.own(ensembled(logits, features, self.omega, self.temperature))
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "ensemble": self.weight * ensemble_loss(out.logits, target, self.temperature),
        }
