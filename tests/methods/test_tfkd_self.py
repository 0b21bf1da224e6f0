import pytest
import torch.nn.functional as F

from kdbench.methods.takd import averaged_distillation
from kdbench.plan import expand, request


def test_the_total_is_the_reference(reference):
    case = reference("tfkd_self")
    logits, target, given = case.student["student_logits"], case.fixed["teacher_logits"], case.params
    kl = averaged_distillation(logits, target, given["temperature"], "elements")
    ce = F.cross_entropy(logits, case.fixed["labels"])
    case.check((1 - given["alpha"]) * ce + given["alpha"] * given["multiplier"] * kl)


def test_terms_are_the_weighted_losses(make, batch):
    method = make("tfkd_self", student="resnet14", ce_weight=0.5, kd_weight=2.0, temperature=3.0, average="elements")
    one = batch(method.eval())
    logits, losses = method.student(one.images), method.losses(one)
    expected = 2 * averaged_distillation(logits, method.teacher(one.images), 3.0, "elements")
    assert losses["kd"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert losses["ce"].item() == pytest.approx(0.5 * F.cross_entropy(logits, one.labels).item(), rel=1e-5)


def test_the_default_weight_is_that_of_the_authors_on_a_hundred_classes(gin_parameters):
    given = gin_parameters("tfkd_self")
    assert given["kd_weight"] == pytest.approx(0.95 * 50 / 100)
    assert given["ce_weight"] == pytest.approx(1 - 0.95)


def test_a_twin_of_the_student_teaches_whatever_teacher_is_named():
    words = ["methods=tfkd_self", "dataset=cifar100", "student=resnet8", "teacher=resnet56"]
    twin, student = expand.plan(request.parse(words))
    assert (twin.method, twin.student) == ("ce", "resnet8")
    assert student.teacher_runs == (twin.id,)
    assert twin.seed != student.seed
