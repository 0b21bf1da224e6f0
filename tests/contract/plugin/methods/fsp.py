"""Flow of the solution procedure: the student first learns how the teacher's maps relate, then the classes.

Yim, Joo, Bae and Kim, "A gift from knowledge distillation: fast optimization, network minimization and transfer learning",
CVPR 2017. Average pooling and the unweighted sum are RepDistiller's (distiller_zoo/FSP.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, Phase, RunError, at_least_float32, full_precision


def fsp_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Products of all channels of two maps, averaged over the pixels, (B, C_1, C_2); the larger map is pooled first.

    Args:
        first, second: (B, C, H, W).
    """
    size = [min(sides) for sides in zip(first.shape[2:], second.shape[2:], strict=True)]
    with full_precision(first.device):
        rows, columns = (F.adaptive_avg_pool2d(at_least_float32(x), size).flatten(2) for x in (first, second))
        return rows @ columns.transpose(1, 2) / (size[0] * size[1])


def fsp_loss(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the matrices of neighbouring maps, summed over the pairs.

    Raises:
        RunError: the maps of the two networks do not have the same widths.
    """
    terms = []
    for place in range(len(student_maps) - 1):
        ours, theirs = (fsp_matrix(maps[place], maps[place + 1]) for maps in (student_maps, teacher_maps))
        if ours.shape != theirs.shape:
            widths = [" and ".join(str(width) for width in x.shape[1:]) for x in (ours, theirs)]
            raise RunError(
                f"fsp needs a teacher as wide as the student; maps {place} and {place + 1} of the student have "
                f"{widths[0]} channels, the teacher's {widths[1]}"
            )
        terms.append(F.mse_loss(ours, theirs))
    return torch.stack(terms).sum()


class FSP(Method):
    """Phase 1 trains the student without its classifier on `fsp_loss`, phase 2 all of it on cross-entropy.

    Args:
        share: of the budget that phase 1 gets.
        on_top: give phase 1 its images in addition to the budget.
    """

    needs_teacher = True

    share: float
    on_top: bool

    def phases(self) -> Sequence[Phase]:
        body = list(self.student.body().parameters())
        first = Phase("relations", self.share, self.relations, trains=body, rate="constant", on_top=self.on_top)
        return first, Phase("classes")

    def relations(self, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = self.student(batch.images, features=("stem",)), self.teach(batch, "stem")
        return {"fsp": fsp_loss([ours.stem, *ours.stages], [theirs.stem, *theirs.stages])}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}
