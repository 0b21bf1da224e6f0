"""FFL: two branches learn from a classifier of their fused maps, and that classifier learns from the mean of their logits.

Kim, Hyun, Chung and Kwak, "Feature fusion for online mutual knowledge distillation", ICPR 2020.

Family: online
Loss: CE(z_1) + CE(z_2) + CE(z_f) + w · T² · [KL(p_f ‖ p_1) + KL(p_f ‖ p_2) + KL(p_m ‖ p_f)], p = softmax(z / T),
    z_m = (z_1 + z_2) / 2, w = exp(−5 · (1 − min(e / E, 1))²)
Source: the authors' code (FFL-pytorch, train_FFL.py)
Choice: `ramp` is 80/300, the authors' 80 of 300 epochs, as a share of the training
Choice: `floor` is 0; the authors' code adds 1e-7 to the probabilities of targets, without normalising them
Choice: the fusion is trained by the recipe's optimiser. The authors' has an SGD of its own with weight decay 1e-5.
Choice: the two are branches, copies of the last stage. The authors' other form, two networks, is not offered.
Choice: the student keeps the first branch; the fused classifier is an exit
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision
from kdbench.method.branches import floored_distillation, fork, last_stage, ramp_up


def fusion_loss(first: Tensor, second: Tensor, fused: Tensor, temperature: float, floor: float = 0.0) -> Tensor:
    """The sum of three divergences: from the fused logits to each branch's, and from the mean of these to the fused ones.

    Args:
        first, second, fused: logits (B, K).
    """
    pairs = ((first, fused), (second, fused), (fused, (first + second) / 2))
    return torch.stack([floored_distillation(z, target.detach(), temperature, floor) for z, target in pairs]).sum()


class Fusion(nn.Module):
    """Logits (B, K) of two maps (B, C, H, W): a depth-wise 3×3 and a 1×1 convolution, BN and ReLU after each, a linear layer."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width, bias=False),
            *(nn.BatchNorm2d(2 * width), nn.ReLU()),
            nn.Conv2d(2 * width, width, 1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU()),
        )
        self.fc = nn.Linear(width, classes)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        with full_precision(first.device):
            logits: Tensor = self.fc(self.layers(at_least_float32(torch.cat([first, second], dim=1))).mean(dim=(2, 3)))
            return logits


class FFL(Method):
    """Cross-entropy of two branches and of their fusion, and `fusion_loss`. The student is the first branch.

    Args:
        fusion_weight: of `fusion_loss`, after the ramp.
        temperature, floor: of `fusion_loss`.
        ramp: share of the training in which the weight grows.
    """

    fusion_weight: float
    temperature: float
    floor: float
    ramp: float

    def setup(self) -> None:
        self.branch = self.student.fresh_stages(last_stage("ffl", self.student))
        self.fusion = Fusion(self.stage_shapes()[-1][0], self.info.classes)

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = fork(self.student, [self.branch], images)
        return first.logits, second.logits, self.fusion(first.stages[-1], second.stages[-1])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        first, second, fused = self._logits(batch.images)
        weight = self.fusion_weight * ramp_up(batch.progress, self.ramp)
        return {
            "ce": self.cross_entropy(first, batch.labels) + self.cross_entropy(second, batch.labels),
            "fused_ce": self.cross_entropy(fused, batch.labels),
            "fusion": weight * fusion_loss(first, second, fused, self.temperature, self.floor),
        }

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        _, second, fused = self._logits(images)
        return {"branch2": second, "fused": fused}
