"""ITRD: the student's feature correlates with the teacher's channel by channel, and shares its similarities of images.

Miles, Lopez-Rodriguez and Mikolajczyk, "Information theoretic representation distillation", BMVC 2022.

Family: relation
Loss: CE + 2 · log₂ Σ_d |c_d − 1|^(2α) + 1 · Σ_ij ((G_s / tr G_s)² − (G_st / tr G_st)²), c_d the correlation of channel d of
    e = L g with that of g^t, G_s the Gram matrix of normalised e, G_st = G_s ∘ G_t
Source: ITRD (authors' code), distiller_zoo/IT.py
Choice: `alpha` is 1.01 and `mutual_weight` 1, as in the command of the authors' README. The defaults of their parser are
    1.5 and 0.05.
Choice: a channel of the teacher that is constant in the batch is left out of the correlations; the authors' code gives NaN
    there. A constant channel of the student has correlation 0. Neither has a gradient; this cannot be changed.
Choice: the mutual information reads e where the widths differ and g itself where they agree, as the authors' code does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import normalised

EPSILON = 1e-12


def correlation_loss(embedding: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Binary logarithm of Σ_d |c_d − 1|^(2α); 0 if the teacher has the same feature for all images.

    c_d is the product of both channels, standardised over the batch with the sample deviation, over B: (B − 1) / B at most.

    Args:
        embedding: (B, D), of the student.
        target: (B, D), of the teacher.
    """
    x, y = _centred(embedding), _centred(target)
    images = len(x)
    correlations = (images - 1) / images * (normalised(x, dim=0) * normalised(y, dim=0)).sum(dim=0)
    varies = torch.linalg.vector_norm(y, dim=0) >= EPSILON
    total = ((correlations - 1).abs() ** (2 * alpha) * varies).sum()
    return torch.where(varies.any(), total, 1.0).log2()


def _centred(x: Tensor) -> Tensor:
    # Equal rows become exactly 0: their mean alone may be off by a rounding error.
    x = x - x[:1].detach()
    return x - x.mean(dim=0)


def mutual_loss(features: Tensor, target: Tensor) -> Tensor:
    """Sum of squares of the student's Gram matrix minus that of the joint one, each over its trace.

    Args:
        features: (B, D), of the student.
        target: (B, D'), of the teacher.
    """
    x, y = normalised(features), normalised(target)
    ours = x @ x.T
    joint = ours * (y @ y.T)
    return (_over_trace(ours).square() - _over_trace(joint).square()).sum()


def _over_trace(gram: Tensor) -> Tensor:
    return gram / gram.trace().clamp(min=EPSILON)


class ITRD(Method):
    """Cross-entropy, `correlation_loss` and `mutual_loss` on the pooled features of student and teacher.

    Args:
        correlation_weight: weight of `correlation_loss`.
        mutual_weight: weight of `mutual_loss`.
        alpha: half the exponent in `correlation_loss`.
        kd_weight, temperature: weight and temperature of an additional distillation term; 0: without it.
    """

    needs_teacher = True

    correlation_weight: float
    mutual_weight: float
    alpha: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        self.embedding = nn.Linear(self.student.fc.in_features, self.teacher.fc.in_features)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "pooled", "logits")
        with full_precision(batch.images.device):
            features, target = (batch.share.gather(at_least_float32(x.pooled)) for x in (out, taught))
            embedding = self.embedding(features)
            same_width = features.shape == target.shape
            terms = {
                "correlation": self.correlation_weight * correlation_loss(embedding, target, self.alpha),
                "mutual": self.mutual_weight * mutual_loss(features if same_width else embedding, target),
            }
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            **terms,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
