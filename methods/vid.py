"""VID: variational information distillation, from the student's maps the teacher's are predicted with a learned variance.

Ahn, Hu, Damianou, Lawrence and Dai, "Variational information distillation for knowledge transfer", CVPR 2019.

Family: feature
Loss: CE + Σ_s mean_bci ½ · ((μ_s(F_s) − F^t_s)² / σ_c² + ln σ_c²), σ_c² = softplus(α_c) + 1e-5
Source: RepDistiller, distiller_zoo/VID.py
Choice: weight decay acts on α as on every other parameter, which draws σ² to ln 2; so it does in the source.
Choice: μ has no batch normalisation, as in the source. The authors' own code, which is gone, is said to have had one.
Fault: mdistiller keeps α where its optimiser does not see it, so that σ² stays at 5. Here α is trained, as in the source.
Fault: the source computes ln(1 + e^α), which overflows in float32 for α > 88. Here it is a softplus that does not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, full_precision, kd_term
from kdbench.method.connectors import equal_resolution, paired

EPSILON = 1e-5  # the smallest variance


def vid_loss(mean: Tensor, target: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log-likelihood of the teacher's map without its constant, averaged over all elements.

    Args:
        mean: (B, C, H, W), the prediction.
        target: (B, C, H, W), of the teacher.
        log_scale: (C,), α: the variance of each channel is softplus(α) + 1e-5.
    """
    variance = F.softplus(log_scale) + EPSILON
    errors = (mean - target).square().mean(dim=(0, 2, 3))
    return 0.5 * (errors / variance + variance.log()).mean()


class Prediction(nn.Module):
    """The normal distribution of a teacher's map given the student's: three 1×1 convolutions, and a variance per channel.

    Args:
        width, target: channels of the student's map and of the teacher's.
        variance: initial variance of every channel.
    """

    def __init__(self, width: int, target: int, variance: float):
        super().__init__()
        layers = [nn.Conv2d(channels, target, 1, bias=False) for channels in (width, target, target)]
        self.mean = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        self.log_scale = nn.Parameter(torch.full((target,), math.log(math.expm1(variance - EPSILON))))

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """`vid_loss` of two maps (B, C, H, W) and (B, C^t, H', W'); the larger is averaged to the smaller first."""
        with full_precision(x.device):
            x, target = equal_resolution(x, target)
            return vid_loss(self.mean(x), target, self.log_scale)


class VID(Method):
    """Cross-entropy, and `vid_loss` summed over the stages, which are paired from the deepest.

    Args:
        weight: weight of this sum.
        initial_variance: σ² of every channel at the start, greater than 1e-5.
        kd_weight, temperature: weight and temperature of an additional distillation term; 0: without it.
    """

    needs_teacher = True

    weight: float
    initial_variance: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        if self.initial_variance <= EPSILON:
            raise RunError(f"VID.initial_variance is {self.initial_variance}; it must be greater than {EPSILON}")
        pairs = paired(self.stage_shapes(), self.stage_shapes(self.teacher))
        self.predictions = nn.ModuleList(Prediction(a[0], b[0], self.initial_variance) for a, b in pairs)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "stages", "logits")
        pairs = zip(self.predictions, paired(out.stages, taught.stages), strict=True)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "vid": self.weight * torch.stack([prediction(*maps) for prediction, maps in pairs]).sum(),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }
