"""LumiNet: KD of logits that are standardised for each class over the batch.

Hossain et al., "LumiNet: the bright side of perceptual knowledge distillation", arXiv 2310.03669, 2023.

Family: logit
Loss: c · CE + w(e) · a² · KL(softmax(h(zᵗ) / T) ‖ softmax(h(z) / T)), h(z)_ik = (z_ik − mean_i z_ik) / √(var_i z_ik + 1e-5),
    w(e) = min(e / 20, 1)
Source: LumiNet (distillers/Luminet.py)
Choice: a² takes the place of T², as in the source; the weights of its pairs go from 1000 to 5600.
Choice: c, a and T are the authors' for resnet32x4 to resnet8x4; they set all three for each pair.
Choice: on several GPUs the statistics are those of the whole batch; the source's are of each GPU's share.
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32, softened_kl
from kdbench.method.logits import warm_up

EPSILON = 1e-5
"""Added to the variance of a class's logits."""


def perception(logits: Tensor) -> Tensor:
    """Logits (B, K) minus the mean of their class over the batch, over its standard deviation (with B in the denominator).

    A class with equal logits for all images becomes 0, with a gradient of the order of 300.
    """
    logits = at_least_float32(logits)
    centred = logits - logits.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + EPSILON).sqrt()


def luminet_loss(logits: Tensor, target_logits: Tensor, alpha: float, temperature: float) -> Tensor:
    """a² · KL of the softmaxes of both perceptions at T; logits of student and teacher for the whole batch, (B, K)."""
    return alpha**2 * softened_kl(perception(logits), perception(target_logits), temperature)


class LumiNet(Method):
    """Cross-entropy and `luminet_loss`, which grows over the first epochs.

    Args:
        ce_weight: c.
        alpha: a; its square is the weight of the divergence.
        temperature: T.
        warmup_epochs: epochs until the divergence has its full weight; 0: from the start.
    """

    needs_teacher = True

    ce_weight: float
    alpha: float
    temperature: float
    warmup_epochs: int

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images), self.teach(batch, "logits").logits
        logits, target = (batch.share.gather(at_least_float32(each)) for each in (out, taught))
        loss = luminet_loss(logits, target, self.alpha, self.temperature)
        return {
            "ce": self.ce_weight * self.cross_entropy(out, batch.labels),
            "luminet": warm_up(batch.epoch, self.warmup_epochs) * loss,
        }
