"""Contrastive distillation: student and teacher embed an image alike, and images of other classes apart.

Tian, Krishnan and Isola, "Contrastive representation distillation", ICLR 2020.

Family: relation
Loss: CE + β · (NCE(student; teacher's bank) + NCE(teacher; student's bank))
Source: RepDistiller
Fault: the negatives are drawn for each image on the CPU; here on the device, for the whole batch at once
Fault: scores of up to exp(1 / 0.07) overflow in half precision; here the head computes in float32
Fault: the banks are lost when a run resumes; here they are in its state
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, ClassIndex, Method, at_least_float32, full_precision, last_of_each

EPSILON = 1e-7  # in the denominators of the noise-contrastive estimate, as in the authors' code


def log_scores(embedding: Tensor, bank: Tensor, index: Tensor, temperature: float) -> Tensor:
    """embedding · entry / temperature, the logarithm of a score before its division by Z.

    Args:
        embedding: (B, D), L2-normalised.
        bank: (N, D) entries.
        index: (B, 1 + M) places in the bank, the positive first.

    Returns:
        (B, 1 + M)
    """
    # All N entries by one matrix product, then the wanted ones: on a CPU, with N = 45,000 and M = 16,384, an order of
    # magnitude faster than gathering B · M vectors.
    return ((embedding / temperature) @ bank.T).gather(1, index)


def normaliser(log_score: Tensor, images: int) -> Tensor:
    """Z: the mean score times the number of training images, a constant; log_score (B, 1 + M)."""
    return log_score.detach().exp().mean() * images


def contrast_loss(log_score: Tensor, z: Tensor, images: int) -> Tensor:
    """Noise-contrastive estimate (L_critic in the paper), summed over the entries, averaged over the batch.

    Args:
        log_score: (B, 1 + M) of `log_scores`, the positive first.
        z: Z, a scalar.
        images: N; the noise has probability 1 / N.
    """
    negatives = log_score.shape[1] - 1
    noise = negatives / images
    log_score = log_score - z.log()
    # −log(score / (score + noise + ε)) of a positive and −log(noise / (score + noise + ε)) of a negative share the
    # denominator. Over the noise it is 1 + the order of 1e-4, hence log1p.
    denominators = torch.log1p((log_score.exp() + EPSILON) / noise)
    positives = math.log(noise) - log_score[:, 0]
    return (denominators.sum() + positives.sum()) / len(log_score)


def moved_entries(entries: Tensor, embedding: Tensor, momentum: float) -> Tensor:
    """Bank entries (B, D) after one step towards the embeddings (B, D), L2-normalised; no gradient."""
    return F.normalize(momentum * entries + (1 - momentum) * embedding.detach(), dim=1)


class CRD(Method):
    """Cross-entropy, and contrast between each embedding and the memory bank of the other network's embeddings.

    Args:
        contrast_weight: of the student-anchored and the teacher-anchored loss together.
        embedding_dim: D, of both trainable linear embeddings.
        negatives: M, bank entries of other classes for each image, redrawn at every step.
        temperature: of the scores.
        momentum: share of a bank entry that stays when its image is met.

    Raises:
        ValueError: all training images are of one class, so that there are no negatives.
    """

    needs_teacher = True

    student_bank: Tensor
    teacher_bank: Tensor
    student_z: Tensor
    teacher_z: Tensor

    contrast_weight: float
    embedding_dim: int
    negatives: int
    temperature: float
    momentum: float

    def setup(self) -> None:
        self.student_head = nn.Linear(self.student.fc.in_features, self.embedding_dim)
        self.teacher_head = nn.Linear(self.teacher.fc.in_features, self.embedding_dim)

        images = self.info.images
        bound = 1 / math.sqrt(self.embedding_dim / 3)
        self.register_buffer("student_bank", torch.empty(images, self.embedding_dim).uniform_(-bound, bound))
        self.register_buffer("teacher_bank", torch.empty(images, self.embedding_dim).uniform_(-bound, bound))
        # Z of the scores that each network's embeddings anchor; negative until the first batch has set it.
        self.register_buffer("student_z", torch.tensor(-1.0))
        self.register_buffer("teacher_z", torch.tensor(-1.0))

        self.class_index = ClassIndex(self.info.train_labels.to(self.info.device))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.student(batch.images, features=True)
        pooled = at_least_float32(self.teach(batch, "pooled").pooled)
        # Scores reach exp(1 / 0.07) ≈ 1.6e6, and the bank adds up small steps.
        with full_precision(batch.images.device):
            student = F.normalize(self.student_head(at_least_float32(out.pooled)), dim=1)
            teacher = F.normalize(self.teacher_head(pooled), dim=1)
            contrast = self._contrast(student, teacher, batch)
        return {"ce": self.cross_entropy(out.logits, batch.labels), "contrast": self.contrast_weight * contrast}

    def _contrast(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Student-anchored plus teacher-anchored loss; then moves the banks."""
        # On several GPUs each has all of the banks: the same negatives are drawn, and the same entries moved, on all.
        share = batch.share
        generator = batch.streams("negatives", device=batch.index.device)
        negatives = share.own(self.class_index.other_images(share.gather(batch.labels), self.negatives, generator))
        index = torch.cat([batch.index.unsqueeze(1), negatives], dim=1)
        images = len(self.student_bank)

        # Of copies, because the backward pass needs the banks as they are now and they are moved in place before it.
        from_student = log_scores(student, self.teacher_bank.clone(), index, self.temperature)
        from_teacher = log_scores(teacher, self.student_bank.clone(), index, self.temperature)
        for z, scores in ((self.student_z, from_student), (self.teacher_z, from_teacher)):
            z.copy_(torch.where(z < 0, share.mean(normaliser(scores, images)), z))  # no synchronisation
        loss = contrast_loss(from_student, self.student_z.clone(), images)
        loss = loss + contrast_loss(from_teacher, self.teacher_z.clone(), images)

        with torch.no_grad():
            met = share.gather(batch.index)
            # Where a pass ends and the next begins an image may be met twice: the last stays, and not by chance.
            last = last_of_each(met)
            for bank, embedding in ((self.student_bank, student), (self.teacher_bank, teacher)):
                moved = moved_entries(bank[met], share.gather(embedding), self.momentum)
                bank.index_copy_(0, met, moved[last])
        return loss
