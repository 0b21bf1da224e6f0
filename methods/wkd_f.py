"""Wasserstein distillation of features: the means and deviations of each channel of the deepest map, cell by cell.

Lv, Yang and Li, "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation", NeurIPS 2024 (WKD-F).

Family: feature
Loss: CE + w · mean over images and cells of (ρ · Σ_c (μ_c − μ_c^t)² + Σ_c (σ_c − σ_c^t)²), σ = √(sample variance + 1e-5)
Source: WKD (mdistiller/distillers/WKD.py, CIFAR-100)
Choice: the student passes FitNets' regressor, also from one resolution to another, as in the authors' code; where it does not
    reach the teacher's resolution, the teacher's map is averaged to the student's.
Choice: the weight falls by step, and not by epoch; WKDF.decay_from=1.0 keeps it constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdbench.method import Batch, Method, RunError, at_least_float32, kd_term
from kdbench.method.connectors import Regressor, equal_resolution


def cells(size: int, grid: int) -> list[slice]:
    """The borders of `grid` cells along a side of `size` pixels, those of adaptive pooling."""
    return [slice(cell * size // grid, -(-(cell + 1) * size // grid)) for cell in range(grid)]


def statistics(x: Tensor, grid: int, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and √(sample variance + `eps`) of each channel in each cell of a map (B, C, H, W), (grid², B, C) each."""
    rows, columns = (cells(size, grid) for size in x.shape[2:])
    parts = [at_least_float32(x[:, :, row, column]).flatten(2) for row in rows for column in columns]
    variances = torch.stack([part.var(dim=2) for part in parts])
    return torch.stack([part.mean(dim=2) for part in parts]), (variances + eps).sqrt()


def wkd_loss(x: Tensor, target: Tensor, mean_weight: float, grid: int) -> Tensor:
    """Squared Wasserstein distance of normal distributions with diagonal covariance, mean over images and cells.

    Args:
        x, target: maps (B, C, H, W) of the student (adapted) and of the teacher.
        mean_weight: ρ, of the squared differences of the means; those of the deviations have 1.
        grid: cells along a side; each must have at least two pixels.
    """
    (mean, deviation), (target_mean, target_deviation) = (statistics(each, grid) for each in (x, target))
    distance = mean_weight * (mean - target_mean).square() + (deviation - target_deviation).square()
    return distance.sum(dim=2).mean()


def falling(progress: float, start: float) -> float:
    """Factor of a weight at a share of the training (0 to 1): 1 until `start`, then half a cosine to 0 at its end."""
    if progress <= start:
        return 1.0
    return (1 + math.cos(math.pi * (progress - start) / (1 - start))) / 2


class WKDF(Method):
    """Cross-entropy and `wkd_loss` of the deepest maps, whose weight falls to 0 at the end.

    Args:
        weight: of `wkd_loss`.
        mean_weight: ρ in `wkd_loss`.
        grid: cells along a side of the map.
        decay_from: share of the training after which the weight falls by half a cosine.
        kd_weight, temperature: of distillation.
    """

    needs_teacher = True

    weight: float
    mean_weight: float
    grid: int
    decay_from: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        ours, theirs = self.stage_shapes()[-1], self.stage_shapes(self.teacher)[-1]
        self.regressor = Regressor(ours, theirs, relu=True)
        reached = theirs if ours[1] >= theirs[1] or 2 * ours[1] == theirs[1] else ours
        if self.grid < 1:
            raise RunError(f"wkd_f needs at least one cell, not WKDF.grid={self.grid}")
        if self.grid >= max(reached[1:]):
            maps = " and ".join(f"{height}×{width}" for _, height, width in (ours, theirs))
            raise RunError(
                f"wkd_f needs cells of more than one pixel, because it compares variances: the deepest maps of student and "
                f"teacher have {maps} pixels, which WKDF.grid={self.grid} cuts into single ones; take "
                f"{'a smaller grid' if self.grid > 1 else 'larger images'} or networks with larger deepest maps"
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch)
        x, target = equal_resolution(self.regressor(out.stages[-1]), taught.stages[-1])
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "wkd": self.weight
            * falling(batch.progress, self.decay_from)
            * wkd_loss(x, target, self.mean_weight, self.grid),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
