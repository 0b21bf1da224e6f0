"""Top-5 accuracy, calibration, and agreement with the teacher: pure functions of logits (N, K) and labels (N,)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.measures.evaluation import OWN, Evaluation, Values

MEASURES = {
    "calibration": (
        "predictions",
        {
            "keys": {
                "accuracy.top5": ("float", "percent", "test images whose class has one of the five largest logits"),
                "calibration.ece": ("float", "percent", "expected calibration error over 15 equally wide bins"),
                "calibration.nll": ("float", "nats", "mean of −log p(true class), without label smoothing"),
                "calibration.brier": ("float", "", "Brier score: mean squared distance from the true class, from 0 to 2"),
                "teacher.agreement": ("float", "percent", "test images on which network and teacher predict the same class"),
            },
            "columns": {
                "top5": {"key": "accuracy.top5", "title": "Top-5 %", "about": "the true class is among the first five"},
                "ece": {
                    "key": "calibration.ece", "title": "ECE %", "about": "expected calibration error", "better": "lower",
                },
                "nll": {
                    "key": "calibration.nll", "title": "NLL", "about": "negative log-likelihood of the true class",
                    "digits": 3, "better": "lower",
                },
                "brier": {
                    "key": "calibration.brier", "title": "Brier", "about": "Brier score of the predicted probabilities",
                    "digits": 3, "better": "lower",
                },
                "agreement": {
                    "key": "teacher.agreement", "title": "Agreement %",
                    "about": "test images of which the teacher says the same", "better": "", "taught": True,
                },
            },
        },
    )
}  # fmt: skip

BINS = 15
"""Of the expected calibration error, as in Guo et al."""


def predictions(evaluation: Evaluation) -> Values:
    """`accuracy.top5`, `calibration.*` and `teacher.agreement` of the deployed network."""
    own, taught, labels = evaluation.logits[OWN], evaluation.teacher_logits, evaluation.test.labels
    return {
        "accuracy.top5": top_accuracy(own, labels, 5),
        "calibration.ece": round(expected_calibration_error(own, labels), 6),
        "calibration.nll": round(negative_log_likelihood(own, labels), 6),
        "calibration.brier": round(brier_score(own, labels), 6),
        "teacher.agreement": None if taught is None else agreement(own, taught),
    }


def top_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Percent of images whose label is among the k classes with the largest logits (among all, where K < k)."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return 100 * (best == labels[:, None]).any(dim=1).double().mean().item()


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Σ_m |B_m| / N · |accuracy(B_m) − confidence(B_m)| in percent.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, equation 3. The confidence is
    the largest softmax probability; bin m of `bins` equally wide ones holds those in ((m − 1) / bins, m / bins].
    """
    confidence, guess = logits.double().softmax(dim=1).max(dim=1)
    edges = torch.arange(1, bins, device=logits.device, dtype=torch.float64) / bins
    gap = (guess == labels).double() - confidence
    by_bin = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    by_bin.index_add_(0, torch.bucketize(confidence, edges), gap)
    return 100 * by_bin.abs().sum().item() / len(labels)


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean of −log p(true label) in nats, without label smoothing."""
    return torch.nn.functional.cross_entropy(logits.double(), labels).item()


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """Mean over the images of Σ_k (p_k − [k is the label])², from 0 to 2 (Brier, Monthly Weather Review 1950, equation 2)."""
    p = logits.double().softmax(dim=1)
    p[torch.arange(len(labels), device=labels.device), labels] -= 1
    return p.square().sum(dim=1).mean().item()


def agreement(logits: Tensor, others: Tensor) -> float:
    """Percent of images on which two networks' first guesses are the same; both (N, K)."""
    return 100 * (logits.argmax(dim=1) == others.argmax(dim=1)).double().mean().item()
