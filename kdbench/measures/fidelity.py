"""Fidelity: how much of its teacher a student took over, right or wrong. Pure functions of logits and features.

Stanton, Izmailov, Kirichenko, Alemi and Wilson, "Does knowledge distillation really work?", NeurIPS 2021, show that a student
may score well and still agree little with its teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.measures.calibration import agreement
from kdbench.measures.evaluation import OWN, Evaluation, Values

MEASURES = {
    "fidelity": (
        "of_evaluation",
        {
            "keys": {
                "fidelity.agreement_right": (
                    "float", "percent", "of the test images that the teacher classifies rightly: those on which both agree",
                ),
                "fidelity.agreement_wrong": (
                    "float", "percent", "of the test images that the teacher classifies wrongly: those on which both agree",
                ),
                "fidelity.kl": ("float", "nats", "mean KL divergence of the network's predictions from the teacher's, T = 1"),
                "fidelity.cka": ("float", "", "linear CKA of the pooled features of network and teacher, 0 to 1"),
            },
            "columns": {
                "agreement_right": {
                    "key": "fidelity.agreement_right", "title": "Agreement (teacher right) %",
                    "about": "of the images that the teacher gets right: the same class predicted", "better": "", "taught": True,
                },
                "agreement_wrong": {
                    "key": "fidelity.agreement_wrong", "title": "Agreement (teacher wrong) %",
                    "about": "of the images that the teacher gets wrong: the same class predicted", "better": "", "taught": True,
                },
                "kl": {
                    "key": "fidelity.kl", "title": "KL to teacher", "about": "KL divergence from the teacher's predictions",
                    "digits": 3, "better": "", "taught": True,
                },
                "cka": {
                    "key": "fidelity.cka", "title": "CKA", "about": "linear CKA of pooled features with the teacher's",
                    "digits": 3, "better": "", "taught": True,
                },
            },
        },
    )
}  # fmt: skip

CHUNK = 4096
"""Images whose features are held in float64 at once."""


def of_evaluation(evaluation: Evaluation) -> Values:
    """`fidelity.*` of the deployed network; None without a teacher, and for images or features that there are none of."""
    taught = evaluation.teacher_logits
    if taught is None:
        return {f"fidelity.{name}": None for name in ("agreement_right", "agreement_wrong", "kl", "cka")}
    own, right = evaluation.logits[OWN], taught.argmax(dim=1) == evaluation.test.labels
    features = evaluation.features, evaluation.teacher_features
    return {
        "fidelity.agreement_right": agreement(own[right], taught[right]) if right.any() else None,
        "fidelity.agreement_wrong": agreement(own[~right], taught[~right]) if not right.all() else None,
        "fidelity.kl": round(divergence(taught, own), 6),
        "fidelity.cka": None if features[0] is None or features[1] is None else linear_cka(features[0], features[1]),
    }


def divergence(teacher: Tensor, student: Tensor) -> float:
    """Mean of KL(softmax(teacher) ‖ softmax(student)) in nats; logits (N, K) each."""
    log_p, log_q = teacher.double().log_softmax(dim=1), student.double().log_softmax(dim=1)
    return torch.nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item()


def linear_cka(x: Tensor, y: Tensor) -> float | None:
    """|YᵀX|² / (|XᵀX| · |YᵀY|) of centred features, with Frobenius norms; None where one of them does not vary.

    Kornblith, Norouzi, Lee and Hinton, "Similarity of neural network representations revisited", ICML 2019, equation 9. 1 if one
    is the other rotated and scaled. The products of (D, D) are summed over images in float64, so that no (N, N) matrix is held.

    Args:
        x, y: (N, D₁) and (N, D₂).
    """
    norm = torch.linalg.matrix_norm
    scale = norm(_covariance(x, x)) * norm(_covariance(y, y))
    return round((norm(_covariance(y, x)) ** 2 / scale).item(), 6) if scale > 0 else None


def _covariance(x: Tensor, y: Tensor) -> Tensor:
    """(D₁, D₂) xᵀy of centred features (N, D₁) and (N, D₂), float64."""
    centres = [each.mean(dim=0, dtype=torch.float64) for each in (x, y)]
    total = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    for parts in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        centred = [part.double() - centre for part, centre in zip(parts, centres, strict=True)]
        total += centred[0].T @ centred[1]
    return total
