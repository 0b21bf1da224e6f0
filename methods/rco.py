"""RCO: the student follows the route of its teacher, whose states along its own training teach one after another.

Jin, Peng, Wu, Liu, Liu, Liang, Yan and Hu, "Knowledge distillation via route constrained optimization", ICCV 2019.

Family: training
Loss: α · CE + β · T² · KL(softmax(z^a / T) ‖ softmax(z / T)), a = ⌊A · progress⌋ of A states of the teacher, the last its end
Source: the paper; the authors published no code
Choice: A = 4 states at equal shares of the teacher's training, each of which teaches for an equal share of the student's
    (`ce_four_states` trains the teacher). The paper's other way, the farthest state that the student can still follow, is left out.
Choice: the weights and the temperature are KD's; the learning rate does not restart with a new state
Fault: the loss of KD_Lib has a cross-entropy of a softmax and a divergence between logarithms; here it is KD's
"""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Batch, Method, distillation


class RCO(Method):
    """Cross-entropy, and `distillation` from the state of the teacher's training that the student has come to.

    Args:
        ce_weight, kd_weight: of the two.
        temperature: of the distillation.
    """

    needs_teacher = True

    ce_weight: float
    kd_weight: float
    temperature: float

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.student(batch.images)
        target = self.teach(batch, "logits", teacher=int(batch.progress * len(self.teachers))).logits
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * distillation(logits, target, self.temperature),
        }
