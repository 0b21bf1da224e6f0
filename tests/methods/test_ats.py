import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import soft_cross_entropy
from kdbench.methods.ats import asymmetric_target


def test_the_loss_is_the_reference(reference):
    case = reference("ats_total")
    z, t, labels = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    weight, s = case.params["lambda_"], case.params["student_temperature"]
    target = asymmetric_target(t, labels, case.params["tau_target"], case.params["tau_other"], False)
    parts = {
        "ce": (1 - weight) * F.cross_entropy(z, labels),
        "kd": weight * s**2 * soft_cross_entropy(z / s, target),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


@pytest.mark.parametrize("centred", [False, True])
def test_the_target_is_its_definition_in_plain_python(centred):
    logits, labels = [[2.0, -1.0, 0.5], [0.0, 3.0, 7.0], [1.0, 1.0, 1.0], [-2.0, 4.0, 0.0]], [0, 1, 2, 1]
    for row, label, ours in zip(
        logits,
        labels,
        asymmetric_target(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels), 4.0, 2.0, centred),
        strict=True,
    ):
        mean = sum(row) / 3 if centred else 0.0
        powers = [math.exp((x - mean) / (4 if k == label else 2)) for k, x in enumerate(row)]
        assert ours.tolist() == pytest.approx([power / sum(powers) for power in powers], rel=1e-10)


def test_an_offset_of_the_teacher_matters_only_at_unequal_temperatures_and_uncentred():
    logits, labels = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 5, 1])

    def moved(*rest):
        return (asymmetric_target(logits + 3, labels, *rest) - asymmetric_target(logits, labels, *rest)).abs().max()

    assert moved(4.0, 2.0, False) > 0.01
    assert moved(4.0, 2.0, True) < 1e-6
    assert moved(3.0, 3.0, False) < 1e-6


def test_equal_temperatures_give_the_gradient_of_knowledge_distillation(make, batch):
    given = {"target_temperature": 4.0, "other_temperature": 4.0, "student_temperature": 4.0, "kd_weight": 0.9}
    ats, kd = make("ats", ce_weight=0.1, **given).eval(), make("kd").eval()
    gradients = []
    for method in (ats, kd):
        terms = method.losses(batch(method))
        gradients.append(torch.autograd.grad(sum(terms.values()), list(method.student.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_every_parameter_reaches_its_term(make, batch):
    method = make("ats").eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    for given in ({}, {"ce_weight": 2.0, "kd_weight": 3.0, "student_temperature": 2.0}, {"centred": True},
                  {"target_temperature": 6.0, "other_temperature": 1.0}):  # fmt: skip
        terms = (changed := make("ats", **given).eval()).losses(one)
        s = changed.student_temperature
        target = asymmetric_target(
            t, one.labels, changed.target_temperature, changed.other_temperature, changed.centred
        )
        expected = changed.kd_weight * s**2 * soft_cross_entropy(z / s, target)
        assert terms["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert terms["ce"].item() == pytest.approx(changed.ce_weight * F.cross_entropy(z, one.labels).item(), rel=1e-5)


def test_equal_rows_and_large_logits_are_finite():
    logits = torch.tensor([[50.0, -50.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    target = asymmetric_target(
        torch.tensor([[-50.0, 50.0, 0.0], [1.0, 1.0, 1.0]]), torch.tensor([0, 2]), 4.0, 2.0, False
    )
    loss = soft_cross_entropy(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
