"""CDS: the features of every stage are to be alike within a class and different between classes.

Zhang, Chen, Zhang, Dong and Ma, "Contrastive deep supervision", ECCV 2022.

Family: self
Loss: CE(z of view 1) + w · Σ_s SupCon_τ(e_s of both views), e_s the normalised pooled feature of an exit after stage s, of the
    network itself for the last; SupCon: −mean over an image's positives of ln softmax(cosines with all other images / τ)
Source: the authors' code (ArchipLab-LinfengZhang/contrastive-deep-supervision, CIFAR)
Choice: `supervision` is "labels", where all images of a class are positives of each other; "views" is the authors' option without
    labels (SimCLR), where the only positive is the other view
Choice: both views are augmented as the recipe has it; the authors' first view has cutout in addition, and the second colour jitter
Choice: the contrast is over the whole batch, on any number of GPUs
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Method, at_least_float32, full_precision
from kdbench.method.connectors import normalised, separable
from kdbench.method.losses import supervised_contrast


def contrastive_loss(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """`supervised_contrast` of embeddings.

    Args:
        embeddings: (B, D) of the whole batch, of length 1.
        labels: (B,); positives of an image are the others with its label.
        temperature: τ.
    """
    return supervised_contrast(embeddings @ embeddings.mT / temperature, labels)


class Exit(nn.Module):
    """Separable blocks from a stage map to the shape of the deepest, then global pooling.

    Args:
        widths: channels of its own stage and of all after it.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.blocks = nn.Sequential(*map(separable, widths, widths[1:]))

    def forward(self, stage: Tensor) -> Tensor:
        """(B, C_S) of a map (B, C_s, H_s, W_s)."""
        with full_precision(stage.device):
            pooled: Tensor = self.blocks(at_least_float32(stage)).mean(dim=(2, 3))
            return pooled


class CDS(Method):
    """Cross-entropy of the first view, and `contrastive_loss` of both views at every stage.

    Args:
        weight: w of each stage.
        temperature: τ.
        supervision: which images are positives.
    """

    views = ("recipe", "recipe")

    weight: float
    temperature: float
    supervision: Literal["labels", "views"]

    def setup(self) -> None:
        widths = [channels for channels, _, _ in self.stage_shapes()]
        self.shallow = nn.ModuleList(Exit(widths[stage:]) for stage in range(len(widths) - 1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        labels = batch.labels.chunk(2)[0]
        pooled = [*(exit_(stage) for exit_, stage in zip(self.shallow, out.stages, strict=False)), out.pooled]
        with full_precision(batch.images.device):
            same = batch.share.gather(batch.labels)
            if self.supervision == "views":
                same = torch.arange(len(same) // 2, device=same.device).repeat(2)
            embeddings = [batch.share.gather(normalised(x)) for x in pooled]
            contrast = torch.stack([contrastive_loss(x, same, self.temperature) for x in embeddings]).sum()
        return {
            "ce": self.cross_entropy(out.logits.chunk(2)[0], labels),
            "contrast": self.weight * contrast,
        }
