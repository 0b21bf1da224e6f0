"""RLD: refined logits, from which the classes that the teacher prefers to the label are taken out.

Sun, Chen, Lyu, Chen, Chen and Wang, "Knowledge distillation with refined logits", ICCV 2025.

Family: logit
Loss: CE + w(e) · (α · T'² · SCD + β · T² · MCD), w(e) = min(e / 20, 1),
    SCD = KL of the binary distributions (max pᵗ, 1 − max pᵗ) ‖ (p_y, 1 − p_y), both at T',
    MCD = KL of the softmaxes at T over the classes with zᵗ_k < zᵗ_y
Source: RLD (mdistiller/distillers/RLD.py)
Choice: T' is 1, the default of the authors' code, while the example in their README sets it to T;
    RLD.confidence_temperature=4.0 does that.
Choice: one α and one β for all pairs of networks. The paper often has a larger α, but its values are not published.
Fault: the original masks classes with −1e9 and takes the logarithm of a sum of probabilities, which is −inf in float32 where
    logits over T are more than 103 apart; here the sum is over the logarithms.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method
from kdbench.method.logits import divergence_of_each, log_softmax_among, warm_up
from kdbench.methods.dkd import binary_logits


def sample_confidence(logits: Tensor, target_logits: Tensor, labels: Tensor) -> Tensor:
    """SCD of each image, (B,): KL from the teacher's largest class and the rest to the student's label and the rest.

    Args:
        logits, target_logits: (B, K) of student and teacher, over the temperature.
        labels: (B,) classes.
    """
    others, not_largest = (
        ~F.one_hot(classes, logits.shape[1]).bool() for classes in (labels, target_logits.argmax(dim=1))
    )
    return divergence_of_each(binary_logits(logits, others), binary_logits(target_logits, not_largest))


def masked_correlation(logits: Tensor, target_logits: Tensor, labels: Tensor) -> Tensor:
    """MCD of each image, (B,): KL over the classes that the teacher ranks below the label; 0 where there is none.

    Args:
        logits, target_logits: (B, K) of student and teacher, over the temperature.
        labels: (B,) classes.
    """
    below = target_logits < target_logits.gather(1, labels.unsqueeze(1))
    none = ~below.any(dim=1)
    classes = below | none.unsqueeze(1)  # a softmax needs a class
    log_p, log_q = (log_softmax_among(each, classes) for each in (logits, target_logits))
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1).masked_fill(none, 0.0)


class RLD(Method):
    """Cross-entropy, and the batch means of `sample_confidence` and `masked_correlation`, which grow over the first epochs.

    Args:
        alpha, beta: weights of the confidence and of the correlation, without the squared temperatures.
        temperature: T, of the correlation.
        confidence_temperature: T', of the confidence.
        warmup_epochs: epochs until both have their full weight; 0: from the start.
    """

    needs_teacher = True

    alpha: float
    beta: float
    temperature: float
    confidence_temperature: float
    warmup_epochs: int

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        scale, low = self.temperature, self.confidence_temperature
        confidence = low**2 * sample_confidence(logits / low, target / low, batch.labels).mean()
        correlation = scale**2 * masked_correlation(logits / scale, target / scale, batch.labels).mean()
        warm = warm_up(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "confidence": warm * self.alpha * confidence,
            "correlation": warm * self.beta * correlation,
        }
