"""ABKD: the α-β-divergence from the teacher, of which KL and reverse KL are special cases.

Wang, Yang, Wang, Wang, Xu and Huang, "ABKD: pursuing a proper allocation of the probability mass in knowledge distillation via
α-β-divergence", ICML 2025.

Family: logit
Loss: CE − w / (αβ) · Σ_k [p^α q^β − α/(α+β) · p^(α+β) − β/(α+β) · q^(α+β)], p = softmax(zᵗ / T), q = softmax(z / T)
Source: abkd (standard_classification/distiller_zoo/abkl.py)
Choice: w, α and β are the authors' for resnet56 to resnet20, the only pair whose values they publish; a comment in their script has
    w = 64.
Choice: the factor T² is left out, as in the source.
Choice: where α, β or α + β is 0, the divergence is its limit. ABKD.limits='published' has the source's values there, which are 1/α
    or 1/β where the limit has its square.
Fault: the source's formula cancels near β = 0 and near z = zᵗ; here the same terms are summed in another order.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, at_least_float32

NEAR_ZERO = 1e-3
"""Below this |α + β| the divergence is that at α + β = 0."""


def ab_divergence(logits: Tensor, target_logits: Tensor, alpha: float, beta: float) -> Tensor:
    """α-β-divergence of softmax(logits) from softmax(target), summed over the classes and averaged over the batch.

    With r = log p − log q it is Σ p^α q^β · r² · (β φ(βr) − (−α) φ(−αr)) / (α + β), φ(x) = (eˣ − 1 − x) / x². All of it is smooth
    at α = 0 and at β = 0; where α + β = 0 the limit is Σ r² φ(αr).

    Args:
        logits, target_logits: (B, K) of student and teacher, over the temperature.
        alpha, beta: 1, 0 is KL(p ‖ q); 0, 1 is KL(q ‖ p); 0, 0 half the squared difference of the logarithms.
    """
    log_p, log_q = (F.log_softmax(at_least_float32(each), dim=1) for each in (target_logits, logits))
    r = log_p - log_q
    if abs(alpha + beta) < NEAR_ZERO:
        terms = _curve(alpha * r, torch.zeros_like(r))
    else:
        log_m = alpha * log_p + beta * log_q
        terms = (beta * _curve(beta * r, log_m) + alpha * _curve(-alpha * r, log_m)) / (alpha + beta)
    return (r.square() * terms).sum(dim=1).mean()


def _curve(x: Tensor, log_m: Tensor) -> Tensor:
    """m · φ(x) with φ(x) = (eˣ − 1 − x) / x², by its series near 0, where the formula cancels."""
    small = x.abs() < 0.1
    near, far = x.masked_fill(~small, 0.0), x.masked_fill(small, 1.0)
    series = torch.zeros_like(x)
    for factorial in (40320, 5040, 720, 120, 24, 6, 2):
        series = series * near + 1 / factorial
    # e^x may be too large for a number where m · e^x is not.
    formula = ((log_m + far).exp() - log_m.exp() * (1 + far)) / far.square()
    return torch.where(small, log_m.exp() * series, formula)


def published_factor(alpha: float, beta: float) -> float:
    """Factor by which the source's value differs from the limit where α, β or α + β is 0; 1 elsewhere."""
    if alpha == 0:
        return beta or 1.0
    return alpha if beta == 0 or alpha + beta == 0 else 1.0


class ABKD(Method):
    """Cross-entropy and `ab_divergence`.

    Args:
        weight: of the divergence.
        alpha, beta: its two exponents.
        temperature: T.
        limits: values where an exponent or their sum is 0: "true" limits, or "published" ones.
    """

    needs_teacher = True

    weight: float
    alpha: float
    beta: float
    temperature: float
    limits: Literal["true", "published"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        factor = published_factor(self.alpha, self.beta) if self.limits == "published" else 1.0
        loss = ab_divergence(logits / self.temperature, target / self.temperature, self.alpha, self.beta)
        return {"ce": self.cross_entropy(logits, batch.labels), "ab": self.weight * factor * loss}
