"""IKL and GKL: soft cross-entropy, and squared differences of logit differences, weighted by the teacher's probabilities.

Cui, Tian, Zhong, Qi, Yu and Zhang, "Decoupled Kullback-Leibler divergence loss", NeurIPS 2024, and their "Generalized
Kullback-Leibler divergence loss", TPAMI 2026.

Family: logit
Loss: CE + w(e) · (α · H(softmax(zᵗ / T), softmax(z / T)) + β/4 · Σ_i Σ_jk w_ij w_ik (d_ij − d_ik)² / Σ_i Σ_jk w_ij w_ik),
    d = zᵗ − z, w = q^γ, q = softmax(zᵗ / T₂) or its mean over the images of the class in the epoch before, w(e) = min(e / 20, 1)
Source: the authors' code (jiequancui/DKL, KD-dkl, distillers/IKL_KD.py and GKL_KD.py)
Choice: IKL is the power γ = 1, where the weights of each image add up to 1 and the second part is a mean over the images. GKL
    (`methods=gkl`) has smaller powers and the weights' sum over the whole batch below the line.
Choice: α and β are those of resnet32x4 → resnet8x4 for all pairs of networks, where the authors choose β from 4 to 16; so is
    γ in GKL, from 0 to 0.3.
Choice: `prior` is off in IKL and on in GKL, as in the authors' configurations for CIFAR-100; for ImageNet it is on in both. The
    mean of a class is taken over the images of it that were seen in the epoch, and is even in the first one.
Choice: the first part has no factor T², as in the authors' code, so that its gradient is a sixteenth of KD's at T = 4.
Fault: the authors' code builds matrices of K × K for each image; the sum over pairs has a closed form in K terms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, full_precision, soft_cross_entropy
from kdbench.method.logits import warm_up


def pair_errors(logits: Tensor, target_logits: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over pairs of classes of (difference of student and teacher in the pair's logit difference)², and the pairs' weights.

    Args:
        logits, target_logits: (B, K), of student and teacher.
        weights: (B, K), at least 0; a pair's weight is the product of its classes' weights.

    Returns:
        The weighted mean (B,) of each image, and the sum (B,) of the weights of its pairs.
    """
    difference = at_least_float32(target_logits) - at_least_float32(logits)
    total = weights.sum(dim=1, keepdim=True)
    share = weights / total
    # Over all pairs, the mean squared difference is twice the variance, which needs no matrix of pairs.
    centred = difference - (share * difference).sum(dim=1, keepdim=True)
    return 2 * (share * centred.square()).sum(dim=1), total.square().squeeze(1)


def teacher_probabilities(target_logits: Tensor, temperature: float) -> Tensor:
    """softmax(target / temperature), (B, K)."""
    return F.softmax(at_least_float32(target_logits) / temperature, dim=1)


class IKL(Method):
    """Cross-entropy, soft cross-entropy, and the errors of `pair_errors`.

    Args:
        alpha: weight of the soft cross-entropy.
        beta: four times the weight of the errors.
        gamma: power of the probabilities that weight the classes; 1 in IKL.
        temperature: of the soft cross-entropy.
        weight_temperature: T₂, of these probabilities.
        prior: weight by the mean probabilities of an image's class in the epoch before, not by the image's own.
        warmup_epochs: epochs over which both parts come to their full weight; 0: without a warm-up.
    """

    needs_teacher = True

    class_means: Tensor
    class_sums: Tensor

    alpha: float
    beta: float
    gamma: float
    temperature: float
    weight_temperature: float
    prior: bool
    warmup_epochs: int

    def setup(self) -> None:
        if self.prior:
            classes = self.info.classes
            self.register_buffer("class_means", torch.full((classes, classes), 1 / classes))
            self.register_buffer("class_sums", torch.zeros(classes, classes))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        probabilities = teacher_probabilities(target, self.weight_temperature)
        if self.prior:
            self._count(batch, probabilities)
            probabilities = self.class_means[batch.labels]
        soft = soft_cross_entropy(logits / self.temperature, teacher_probabilities(target, self.temperature))
        errors, weights = map(batch.share.gather, pair_errors(logits, target, probabilities**self.gamma))
        factor = warm_up(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "soft": factor * self.alpha * soft,
            "pairs": factor * self.beta / 4 * (weights * errors).sum() / weights.sum(),
        }

    def _count(self, batch: Batch, probabilities: Tensor) -> None:
        """Add the images of the whole batch to the sums of their classes."""
        with full_precision(batch.images.device):
            labels, rows = batch.share.gather(batch.labels), batch.share.gather(probabilities)
            # A product and not an indexed sum, whose order of addition is not the same each time on a GPU.
            self.class_sums += F.one_hot(labels, self.info.classes).to(rows.dtype).T @ rows

    def after_epoch(self, epoch: int) -> None:
        if self.prior:
            images = self.class_sums.sum(dim=1, keepdim=True)  # each image adds 1
            means = self.class_sums / images.clamp(min=1)
            self.class_means.copy_(torch.where(images > 0, means, self.class_means))
            self.class_sums.zero_()
