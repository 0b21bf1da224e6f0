"""TTM: the temperature is the teacher's alone, as a power of its probabilities; the student is not softened.

Zheng and Yang, "Knowledge distillation based on transformed teacher matching", ICLR 2024.

Family: logit
Loss: CE + β · mean_i U_i · KL(softmax(γ · zᵗ_i) ‖ softmax(z_i)), U = 1, or in WTTM U_i = Σ_k p^t_ik^γ, p^t = softmax(zᵗ)
Source: the authors' code (zkxufo/TTM, distiller_zoo/ttm.py and wttm.py)
Choice: γ = 0.1 and β = 45 are the README's example, vgg13 → vgg8. The paper has values for each pair in its appendix.
Choice: WTTM (`methods=wttm`) has the values of the README's example with CRD, γ = 0.2 and β = 4, without CRD.
Fault: the authors raise a softmax to the power γ, which in float32 loses classes that are far below the largest; softmax(γ · zᵗ)
    is the same and exact.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32


def power_sum(logits: Tensor, gamma: float) -> Tensor:
    """Σ_k p_k^γ of p = softmax(logits), (B,) for logits (B, K): 1 at γ = 1, and up to K^(1 − γ) for an even p at γ < 1."""
    return ((gamma * logits).logsumexp(dim=1) - gamma * logits.logsumexp(dim=1)).exp()


def ttm_loss(logits: Tensor, target_logits: Tensor, gamma: float, weighted: bool = False) -> Tensor:
    """KL(softmax(γ · target) ‖ softmax(logits)), averaged over the batch; logits (B, K) of student and teacher.

    Args:
        gamma: the power γ, which is 1 / T of the teacher.
        weighted: weight each image by `power_sum`, which is large where the teacher is unsure.
    """
    logits, target_logits = at_least_float32(logits), at_least_float32(target_logits)
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(gamma * target_logits, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1)
    return (power_sum(target_logits, gamma) * divergence if weighted else divergence).mean()


class TTM(Method):
    """Cross-entropy and `ttm_loss`.

    Args:
        weight: β, of the loss.
        gamma: γ, the power of the teacher's probabilities.
        weighted: weight each image, as in WTTM.
    """

    needs_teacher = True

    weight: float
    gamma: float
    weighted: bool

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "ttm": self.weight * ttm_loss(logits, target, self.gamma, self.weighted),
        }
