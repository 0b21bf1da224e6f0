"""DeepKD: the gradients of the labels, of KD's target class and of its other classes have a momentum each.

Huang et al., "DeepKD: a deeply decoupled and denoised knowledge distillation trainer", arXiv 2505.15133, 2025.

Family: training
Loss: 0.1 · CE + T² · TCKD + T² · mean_b (1 − p^t_y) · NCKD, T = 4, the parts of KD as in DKD, with momenta μ + 0.075, μ − 0.075
    and μ + 0.05
Source: the paper's intent; parts and values as in the authors' code (engine/deepkd.py, distillers/_base.py)
Choice: `base` is "kd": each image's other classes count by 1 − p^t_y, so that the two parts add up to KD. "dkd" has DKD's
    weights instead (`deepkd_dkd`).
Choice: `top` is 0, for all other classes; a number leaves the teacher's `top` classes, less the label. The paper schedules it
    over the training; the authors' code has one number.
Choice: the non-target's momentum is the same for all pairs of networks, where the authors choose one for each; `deepkd_paper` has
    those of resnet32x4 and resnet8x4
Fault: the authors' optimiser gives the task's buffer the momentum of the target class, and adds the weight decay to the gradient
    of the target class, at parameters that the other buffers have already moved; 1 − p^t_y multiplies the batch's mean as its
    mean. `as_published` restores all three.
Fault: the authors' KD ignores `top` because of a misspelt name, and its kd_weight
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, RunError, Update, at_least_float32
from kdbench.method.logits import log_softmax_among, warm_up
from kdbench.methods.dkd import decoupled
from kdbench.methods.dot import SeparateMomenta


def nontarget_of_each(logits: Tensor, target_logits: Tensor, labels: Tensor, top: int) -> Tensor:
    """KL (B,) of the softmax over the `top` classes of the target logits, without the label; 0 where at most one is left.

    Args:
        logits, target_logits: (B, K) of student and teacher, over the temperature.
        labels: (B,) classes.
    """
    best = target_logits.topk(min(top, target_logits.shape[1]), dim=1).indices
    classes = torch.zeros_like(target_logits, dtype=torch.bool).scatter(1, best, True)
    classes = classes.scatter(1, labels.unsqueeze(1), False)
    log_p, log_q = (log_softmax_among(each, classes) for each in (logits, target_logits))
    return (F.kl_div(log_p, log_q, reduction="none", log_target=True) * classes).sum(dim=1)


def deepkd_losses(
    logits: Tensor,
    target_logits: Tensor,
    labels: Tensor,
    temperature: float,
    weighted: Literal["no", "images", "means"],
    top: int,
) -> tuple[Tensor, Tensor]:
    """T² · TCKD and T² · NCKD, each averaged over the batch.

    Args:
        logits, target_logits: (B, K) of student and teacher.
        labels: (B,) classes.
        weighted: NCKD counts by 1 − the teacher's probability of the label, at T: not at all, for each of the "images", or
            as a product of two "means".
        top: classes that NCKD leaves, as in `nontarget_of_each`; 0: all.
    """
    z, t = at_least_float32(logits) / temperature, at_least_float32(target_logits) / temperature
    target, nontarget = decoupled(z, t, labels)
    if top:
        nontarget = nontarget_of_each(z, t, labels, top)
    doubt = 1 - t.softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    if weighted == "images":
        nontarget = doubt * nontarget
    elif weighted == "means":
        nontarget = doubt.mean() * nontarget
    return temperature**2 * target.mean(), temperature**2 * nontarget.mean()


class DeepKD(Method):
    """Cross-entropy and the two parts of KD, trained with `SeparateMomenta`.

    Args:
        base: weights of the part of the other classes: "kd", 1 − the teacher's probability of the label; "dkd", 1.
        ce_weight, alpha, beta: of the cross-entropy, the target class's part and the other classes' part.
        temperature: T.
        top: classes of the teacher that the other classes' part leaves; 0: all.
        warmup_epochs: epochs over which both parts come to their full weight; 0: without a warm-up.
        task_delta, target_delta, nontarget_delta: what is added to the recipe's momentum for each of the three gradients.
        as_published: momenta, weight decay and the mean of 1 − p^t_y as in the authors' code.
    """

    needs_teacher = True

    base: Literal["kd", "dkd"]
    ce_weight: float
    alpha: float
    beta: float
    temperature: float
    top: int
    warmup_epochs: int
    task_delta: float
    target_delta: float
    nontarget_delta: float
    as_published: bool

    def setup(self) -> None:
        if self.top < 0:
            raise RunError(f"DeepKD.top={self.top} must be at least 0 (0: all classes)")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, taught = self.student(batch.images), self.teach(batch, "logits").logits
        weighted: Literal["no", "images", "means"] = "no"
        if self.base == "kd":
            weighted = "means" if self.as_published else "images"
        target, nontarget = deepkd_losses(logits, taught, batch.labels, self.temperature, weighted, self.top)
        share = warm_up(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * self.cross_entropy(logits, batch.labels),
            "target": share * self.alpha * target,
            "nontarget": share * self.beta * nontarget,
        }

    def optimisers(self, parameters: list[nn.Parameter], settings: Any) -> dict[str, torch.optim.Optimizer]:
        deltas = self.task_delta, self.target_delta, self.nontarget_delta
        task, target, nontarget = (settings.momentum + delta for delta in deltas)
        momenta, decayed = ((task, nontarget, target), 0) if not self.as_published else ((target, nontarget, target), 2)
        return {
            "deepkd": SeparateMomenta(
                parameters, settings.lr, momenta, settings.momentum, settings.weight_decay, decayed
            )
        }

    def update(self, terms: Mapping[str, Tensor], update: Update) -> None:
        task, nontarget = (update.gradient(terms[name], keep_graph=True) for name in ("ce", "nontarget"))
        target = update.gradient(terms["target"])
        update.clip(task, nontarget, target)
        cast(SeparateMomenta, update.optimisers["deepkd"]).step(task, nontarget, target)
