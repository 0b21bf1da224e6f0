"""What frozen features (N, D) tell about the classes of images: a linear probe, and the nearest neighbours.

Both are deterministic and have nothing to tune by hand: no learning rate, no epochs, no augmentation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Values of λ that the validation images choose from, the largest first."""
CHOICE = 1e-5
"""The tolerance of the classifiers that are compared: their accuracies are those of the minimum, a few images aside."""

NEIGHBOURS, TEMPERATURE = 20, 0.07
CHUNK = 1000
"""Images whose similarities to all others are held at once."""


class Linear(NamedTuple):
    """A classifier of standardised features.

    Attributes:
        mean, scale: (D,) each; features become (x − mean) / scale. What does not vary has the scale 1.
        weight, bias: (K, D) and (K,), float64.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (N, K) of features (N, D)."""
        return F.linear((features.double() - self.mean) / self.scale, self.weight, self.bias)


def fit_linear(
    features: Tensor,
    labels: Tensor,
    classes: int,
    penalty: float,
    start: Linear | None = None,
    tolerance: float = 1e-7,
) -> Linear:
    """Multinomial logistic regression: the minimum of mean cross-entropy + λ / 2 · |W|², which has no penalty on the bias.

    The objective is strictly convex in W, so the result does not depend on `start`, a seed or an order of the images but for
    rounding. In float64, by L-BFGS with the line search of strong Wolfe conditions, as in Kornblith, Shlens and Le (CVPR 2019,
    appendix A.4) and CLIP (Radford et al., 2021, appendix A.3).

    Args:
        features: (N, D).
        labels: (N,) from 0 to `classes` − 1.
        penalty: λ.
        start: a classifier for another λ, from which fewer steps lead to this one.
        tolerance: largest entry of the gradient at the end.
    """
    x = features.double()
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    # What varies by rounding alone is not scaled up.
    scale = torch.where(scale > 1e-7 * (1 + mean.abs()), scale, torch.ones_like(scale))
    x = (x - mean) / scale
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device) if start is None else start.weight.clone()
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device) if start is None else start.bias.clone()
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=1000, tolerance_grad=tolerance, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(objective)
    return Linear(mean, scale, weight.detach(), bias.detach())


def choose_penalty(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], classes: int
) -> tuple[float, Linear]:
    """The λ of `PENALTIES` with the highest validation accuracy, the largest of equals, and its classifier.

    Args:
        train, validation: features (N, D) and labels (N,).
    """
    best: tuple[int, float, Linear] | None = None
    fitted: Linear | None = None
    for penalty in PENALTIES:
        fitted = fit_linear(*train, classes, penalty, fitted, CHOICE)
        features, labels = validation
        hits = int((fitted(features).argmax(dim=1) == labels).sum())
        if best is None or hits > best[0]:
            best = hits, penalty, fitted
    assert best is not None
    return best[1], best[2]


def nearest_neighbours(train: Tensor, labels: Tensor, features: Tensor, classes: int) -> Tensor:
    """Class (M,) of features (M, D): weighted votes of the 20 training features with the largest cosine.

    A vote weighs exp(cosine / 0.07). Wu, Xiong, Yu and Lin, CVPR 2018, section 3.4; k = 20 as in DINO (Caron et al., 2021). Of
    classes with equal votes the first one counts.

    Args:
        train: (N, D); all N if there are fewer than 20.
        labels: (N,).
    """
    bank, k = F.normalize(train.double(), dim=1), min(NEIGHBOURS, len(train))
    guesses = []
    for chunk in F.normalize(features.double(), dim=1).split(CHUNK):
        cosine, place = (chunk @ bank.T).topk(k, dim=1)
        votes = cosine.new_zeros(len(chunk), classes)
        # Less the largest, which changes no order and keeps the exponential small.
        votes.scatter_add_(1, labels[place], ((cosine - cosine[:, :1]) / TEMPERATURE).exp())
        guesses.append(votes.argmax(dim=1))
    return torch.cat(guesses)
