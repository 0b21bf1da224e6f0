"""FitNets: a regressor on the student's middle map predicts the teacher's.

Romero, Ballas, Kahou, Chassang, Gatta and Bengio, "FitNets: hints for thin deep nets", ICLR 2015.

Family: feature
Loss: CE + 100 · MSE(r(F_m), F_m^t), m the middle stage, r a convolution with batch normalisation and ReLU
Source: RepDistiller (distiller_zoo/FitNet.py); the curriculum of the two-phase form is that of the authors' CIFAR-100 file
Choice: `joint` is True by default: both terms are trained together, as everyone does since RepDistiller. False is the paper's
    training: first the student up to its middle stage on ½ · squared differences, summed over the channels, then all of it on
    CE + λ · soft CE with λ falling from 4 to 1; the paper's temperature is 3 (`fitnet_phases` has it).
Choice: `stage` is 2 by default, as in RepDistiller; 1 is the SimKD toolbox's. Stages are counted among those that both networks
    have, paired from the deepest.
Choice: `share` of the budget is the first phase's, so that all methods see equally many images; `on_top` adds them instead.
Choice: a student map of lower resolution than half the teacher's gets a 3 × 3 convolution, and the teacher's map is averaged, as
    in the SimKD toolbox. RepDistiller fails there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Method, Phase, RunError, kd_term, soft_cross_entropy
from kdbench.method.connectors import Regressor, equal_resolution, paired


def hint_loss(x: Tensor, target: Tensor) -> Tensor:
    """Squared difference of two maps (B, C, H, W), averaged over all elements; the larger is averaged to the smaller first."""
    return F.mse_loss(*equal_resolution(x, target))


def summed_hint_loss(x: Tensor, target: Tensor) -> Tensor:
    """Half the squared difference of two maps (B, C, H, W), summed over the channels and averaged over images and pixels.

    The first phase of the paper, in the form of the authors' code.
    """
    return hint_loss(x, target) * x.shape[1] / 2


class FitNet(Method):
    """Cross-entropy and `hint_loss` together, or in two phases: `summed_hint_loss`, then hard and soft cross-entropy.

    Args:
        hint_weight: of `hint_loss`; the two-phase form does not use it.
        stage: of the hint, from 1.
        joint: train both terms together.
        share: of the budget that the first of two phases gets.
        on_top: give the first phase its images in addition to the budget.
        curriculum: weights of the cross-entropy with the teacher's softened classes at the start and the end of the second phase.
        kd_weight: of knowledge distillation on the logits, in the joint form and in the second phase.
        temperature: of `kd_weight` and `curriculum`.
    """

    needs_teacher = True

    hint_weight: float
    stage: int
    joint: bool
    share: float
    on_top: bool
    curriculum: tuple[float, ...]
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        pairs = paired(tuple(enumerate(self.stage_shapes())), tuple(enumerate(self.stage_shapes(self.teacher))))
        if not 1 <= self.stage <= len(pairs):
            raise RunError(
                f"FitNet.stage={self.stage} must be from 1 to {len(pairs)}, the stages that both networks have"
            )
        if len(self.curriculum) != 2:
            raise RunError("FitNet.curriculum must be two weights, such as (4.0, 1.0)")
        (self.ours, shape), (self.theirs, target) = pairs[self.stage - 1]
        self.regressor = Regressor(shape, target, relu=True)

    def phases(self) -> Sequence[Phase]:
        if self.joint:
            return (Phase(),)
        later = {id(p) for stage in self.student.stage_modules()[self.ours + 1 :] for p in stage.parameters()}
        guided = [p for p in self.student.body().parameters() if id(p) not in later]
        trains = [*guided, *self.regressor.parameters()]
        first = Phase("hints", self.share, self.hints, trains=trains, rate="constant", on_top=self.on_top)
        return first, Phase("classes", losses=self.classes, trains=list(self.student.parameters()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch, "logits", "stages")
        hint = hint_loss(self.regressor(out.stages[self.ours]), taught.stages[self.theirs])
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "hint": self.hint_weight * hint,
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }

    def hints(self, batch: Batch) -> dict[str, Tensor]:
        # The deeper stages neither learn nor move their running statistics.
        x = self.student.start(batch.images)
        for stage in self.student.stage_modules()[: self.ours + 1]:
            x = stage(x)
        return {"hint": summed_hint_loss(self.regressor(x), self.teach(batch, "stages").stages[self.theirs])}

    def classes(self, batch: Batch) -> dict[str, Tensor]:
        logits, target = self.student(batch.images), self.teach(batch, "logits").logits
        start, end = self.curriculum
        weight = start + (end - start) * batch.phase_progress
        soft = soft_cross_entropy(logits / self.temperature, F.softmax(target / self.temperature, dim=1))
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "soft": weight * soft,
            **kd_term(logits, target, self.kd_weight, self.temperature),
        }
