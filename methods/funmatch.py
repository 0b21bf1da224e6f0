"""FunMatch: the student matches the teacher as a function, on the same mixed images, without labels and for long.

Beyer, Zhai, Royer, Markeeva, Anil and Kolesnikov, "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022.

Family: training
Loss: T² · KL(softmax(z^t(x̃) / T) ‖ softmax(z(x̃) / T)) alone, T = 1, x̃ = a · x + (1 − a) · x', x' the image before x in the batch
Source: the authors' code (big_vision, trainers/proj/distill)
Choice: `mixup` is 1, as in the authors' code: a = max(b, 1 − b), b ~ Beta(1, 1), one for a batch. At 0 images are not mixed
    (`funmatch_no_mixup`). Other methods of a table do not mix their images, so rows of this method are marked as a control's.
Choice: the budget is that of other methods; the patience, more than a thousand epochs in the paper, is
    `funmatch_3x` or Train.epochs
Choice: crop and mirror image are the recipe's; the authors' crops are those of ImageNet, between a small part and all of the image
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, RunError, distillation
from kdbench.method.mixing import drawn_share


def mixed(images: Tensor, share: float) -> Tensor:
    """Each image (B, C, H, W) with the given share, and the image before it in the batch with the rest."""
    return share * images + (1 - share) * images.roll(1, dims=0)


class FunMatch(Method):
    """T² · KL from the teacher, both networks seeing the same mixed images, and nothing else.

    Args:
        temperature: T.
        mixup: p of Beta(p, p), from which the shares of the mixed images are drawn; 0: images are not mixed.
    """

    needs_teacher = True

    temperature: float
    mixup: float

    def setup(self) -> None:
        if self.mixup < 0:
            raise RunError(f"FunMatch.mixup={self.mixup:g} must be at least 0 (0: no mixup)")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if not self.mixup:
            images, taught = batch.images, self.teach(batch, "logits")
        else:
            # Neighbours are those of the whole batch, on however many GPUs it lies.
            images = batch.share.own(mixed(batch.share.gather(batch.images), self._share(batch)))
            taught = self.teach_images(images, "logits")
        return {"kd": distillation(self.student(images), taught.logits, self.temperature)}

    def _share(self, batch: Batch) -> float:
        drawn = drawn_share(batch, self.mixup)
        return max(drawn, 1 - drawn)
