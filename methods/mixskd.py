"""MixSKD: exits judge a mixed image as they judge its two parts, mixed in the same shares, and a fusion of all exits teaches.

Yang, An, Zhou, Cai, Zhi, Wu, Xu and Zhang, "MixSKD: self-knowledge distillation from mixup for image recognition", ECCV 2022.

Family: self
Loss: Σ_i CE(z_i(x), y) + λ₁ · [λ CE(·, y) + (1 − λ) CE(·, y_π)] of all z̃_i, z_e and z̃_e
    + λ₂ · T² · [KL(z̃_e → m_S) + KL(z_e → z̃_S) + Σ_{i<S} (KL(z̃_i → m_i) + KL(m_i → z̃_i))]
    + λ₃ · Σ_i mean (λ F_i(x) + (1 − λ) F_i(x_π) − F_i(x̃))² + λ₄ · Σ_i BCE of a discriminator between these two maps;
    x̃ = λ x + (1 − λ) x_π, z̃ its logits, m = λ z(x) + (1 − λ) z(x_π), z_e and z̃_e those of the fusion, left of each arrow detached
Source: the authors' code in Self-KD-Lib (main_mixskd_cifar.py, main_mixskd_imagenet.py)
Choice: `mixed_ce_weight` is 1, as in the paper and the authors' script for ImageNet; their script for CIFAR computes this term and
    leaves it out, which is 0
Choice: x_π is an image of the same batch, so that two images pass for each anchor, x and x̃; the batch is the whole one, on any
    number of GPUs
Fault: in the authors' code the discriminators and the network descend on the same loss, which moves the features apart;
    `adversary` is "reversed" here, with the gradient towards the features reversed, "published" in the code, and "off" for none
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Method, RunError, at_least_float32, distillation, full_precision
from kdbench.method.exits import numbered
from kdbench.method.mixing import check_alpha, drawn_share, partners_of
from kdbench.methods.ctkd import with_scaled_gradient

HIDDEN = 128  # of the authors' discriminators

# In all losses: E exits, shallowest first, the last of which is the network itself.


def blended(x: Tensor, partners: Tensor, share: float) -> Tensor:
    """`share` of `x` and the rest of `partners`, two tensors of one shape."""
    return share * x + (1 - share) * partners


def mutual_loss(
    means: Sequence[Tensor], mixed: Sequence[Tensor], fused: Tensor, fused_mixed: Tensor, temperature: float
) -> Tensor:
    """Divergences between what is said of the mixed images and of their parts, with T²; targets are detached.

    Args:
        means: E blended logits (B, K) of the parts.
        mixed: E logits (B, K) of the mixed images.
        fused, fused_mixed: (B, K), those of the fusion from blended maps and from maps of the mixed images.
    """
    pairs = [(means[-1], fused_mixed), (mixed[-1], fused)]
    for mean, other in zip(means[:-1], mixed[:-1], strict=True):
        pairs += [(mean, other), (other, mean)]
    return torch.stack([distillation(logits, target.detach(), temperature) for logits, target in pairs]).sum()


def map_loss(means: Sequence[Tensor], mixed: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of blended maps (B, C, H, W) and those of the mixed images, summed over the E exits."""
    return torch.stack([F.mse_loss(mean, other) for mean, other in zip(means, mixed, strict=True)]).sum()


def adversarial_loss(of_means: Tensor, of_mixed: Tensor) -> Tensor:
    """Binary cross-entropy of a discriminator's logits (B, 2), with (1, 0) for blended maps and (0, 1) for mixed images."""
    target = torch.eye(2, dtype=of_means.dtype, device=of_means.device).repeat_interleave(len(of_means), dim=0)
    return F.binary_cross_entropy_with_logits(torch.cat([of_means, of_mixed]), target)


def discriminator(width: int) -> nn.Sequential:
    """From a pooled map (B, width) to logits (B, 2)."""
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))


class Fusion(nn.Module):
    """Logits of the maps of all exits: a 1×1 convolution of all their channels, global pooling, and a linear layer."""

    def __init__(self, exits: int, width: int, classes: int):
        super().__init__()
        self.conv = nn.Conv2d(exits * width, width, 1, bias=False)
        self.fc = nn.Linear(width, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, K) of E maps (B, width, H, W)."""
        with full_precision(maps[0].device):
            x: Tensor = self.fc(self.conv(torch.cat([at_least_float32(x) for x in maps], dim=1)).mean(dim=(2, 3)))
            return x


class MixSKD(Method):
    """Cross-entropy of all exits, and of all exits and the fusion on mixed images, and what the two must have in common.

    Each stage but the last is followed by an exit: a copy of the remaining stages, newly initialised.

    Args:
        mixed_ce_weight, kd_weight, map_weight, adversary_weight: λ₁ to λ₄.
        temperature: T.
        alpha: of Beta(α, α), from which the share λ of a batch is drawn.
        adversary: what the discriminators' loss does to the features.

    Raises:
        RunError: the student has a single stage, or `alpha` is not positive.
    """

    passes = 2

    mixed_ce_weight: float
    kd_weight: float
    map_weight: float
    adversary_weight: float
    temperature: float
    alpha: float
    adversary: Literal["reversed", "published", "off"]

    def setup(self) -> None:
        shapes = self.stage_shapes()
        if len(shapes) < 2:
            raise RunError(f"mixskd needs a student with at least two stages; this one has {len(shapes)}")
        check_alpha("MixSKD", self.alpha)
        exits, width = len(shapes), shapes[-1][0]
        self.branches = nn.ModuleList(self.student.fresh_stages(stage) for stage in range(1, exits))
        self.fusion = Fusion(exits, width, self.info.classes)
        self.discriminators = nn.ModuleList(discriminator(width) for _ in range(exits) if self.adversary != "off")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        share, labels = drawn_share(batch, self.alpha), batch.labels
        others, partners = partners_of(batch, labels, batch.images)
        out = self._outputs(torch.cat([batch.images, blended(batch.images, partners, share)]))
        plain, z_mixed = zip(*(each.logits.chunk(2) for each in out), strict=True)
        maps, mixed_maps = zip(*(at_least_float32(each.stages[-1]).chunk(2) for each in out), strict=True)
        theirs = partners_of(batch, *plain, *maps)  # by the same permutation
        means = [blended(*pair, share) for pair in zip(plain, theirs, strict=False)]
        mean_maps = [blended(*pair, share) for pair in zip(maps, theirs[len(plain) :], strict=True)]
        fused, fused_mixed = self.fusion(mean_maps), self.fusion(mixed_maps)

        def mixed_ce(logits: Tensor) -> Tensor:
            return blended(self.cross_entropy(logits, labels), self.cross_entropy(logits, others), share)

        terms = {
            "ce": torch.stack([self.cross_entropy(z, labels) for z in plain]).sum(),
            "mixed_ce": self.mixed_ce_weight * torch.stack([mixed_ce(z) for z in (*z_mixed, fused, fused_mixed)]).sum(),
            "kd": self.kd_weight * mutual_loss(means, z_mixed, fused, fused_mixed, self.temperature),
            "maps": self.map_weight * map_loss(mean_maps, mixed_maps),
        }
        if self.adversary != "off":
            adversarial = [
                adversarial_loss(self._judged(judge, mean), self._judged(judge, other))
                for judge, mean, other in zip(self.discriminators, mean_maps, mixed_maps, strict=True)
            ]
            terms["adversary"] = self.adversary_weight * torch.stack(adversarial).sum()
        return terms

    def exits(self, images: Tensor) -> dict[str, Tensor]:
        out = self._outputs(images)
        named = numbered("exit", [each.logits for each in out[:-1]])
        return named | {"fused": self.fusion([each.stages[-1] for each in out])}

    def _outputs(self, images: Tensor) -> list[Features]:
        """Of all exits, shallowest first, and of the network itself."""
        out = self.student(images, features=True)
        return [branch(stage) for branch, stage in zip(self.branches, out.stages, strict=False)] + [out]

    def _judged(self, judge: nn.Module, x: Tensor) -> Tensor:
        """Logits (B, 2) of a discriminator for a map (B, C, H, W)."""
        with full_precision(x.device):
            pooled = x.mean(dim=(2, 3))
            logits: Tensor = judge(with_scaled_gradient(pooled, -1.0) if self.adversary == "reversed" else pooled)
            return logits
