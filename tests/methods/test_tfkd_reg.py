import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError
from kdbench.methods.tfkd_reg import regularisation, virtual_logits

LOGITS = torch.randn(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
LABELS = torch.tensor([0, 3, 4, 4])


@pytest.mark.parametrize("name", ["tfkd_reg", "tfkd_reg_mobilenetv2"])
def test_the_total_is_the_reference(reference, name):
    case = reference(name)
    logits, labels, given = case.student["student_logits"], case.fixed["labels"], case.params
    kl = regularisation(logits, labels, given["temperature"], given["correct_probability"], "elements")
    ce = F.cross_entropy(logits, labels)
    case.check((1 - given["alpha"]) * ce + given["alpha"] * given["multiplier"] * kl)


def test_both_averages_are_their_definitions():
    terms = []
    for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        v = [0.99 if i == label else 0.01 / 4 for i in range(5)]
        u = [math.exp(x / 2) / sum(math.exp(y / 2) for y in v) for x in v]
        p = [math.exp(x) / sum(math.exp(y) for y in row) for x in row]
        terms.append(sum(a * math.log(a / b) for a, b in zip(u, p, strict=True)))
    mean = sum(terms) / len(terms)
    assert regularisation(LOGITS, LABELS, 2.0, 0.99, "images").item() == pytest.approx(mean, rel=1e-10)
    assert regularisation(LOGITS, LABELS, 2.0, 0.99, "elements").item() == pytest.approx(mean / 5, rel=1e-10)


def test_the_virtual_teacher_is_right_with_its_probability_and_almost_uniform_when_softened():
    v = virtual_logits(torch.tensor([7]), 100, 0.99)
    assert v.sum().item() == pytest.approx(1)
    assert v[0, 7].item() == pytest.approx(0.99)
    u = F.softmax(v / 20, dim=1)
    assert u[0, 7].item() == pytest.approx(0.0105, abs=5e-5)


def test_a_student_that_is_the_softened_virtual_teacher_has_nothing_to_learn_from_it():
    logits = (virtual_logits(LABELS, 5, 0.9, torch.float64) / 2).requires_grad_()
    loss = regularisation(logits, LABELS, 2.0, 0.9, "images")
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_offsets_large_logits_and_equal_logits():
    base = regularisation(LOGITS, LABELS, 20.0, 0.99, "images")
    torch.testing.assert_close(regularisation(LOGITS + 7, LABELS, 20.0, 0.99, "images"), base)
    for logits in (torch.zeros(4, 5), torch.tensor([[50.0, -50.0, 0.0, 1.0, 2.0]]).repeat(4, 1)):
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(regularisation(logits, LABELS, 20.0, 1.0, "images"), logits)
        assert gradient.isfinite().all()


def test_terms_are_the_weighted_losses(make, batch):
    given = {"ce_weight": 0.5, "kd_weight": 2.0, "temperature": 3.0, "correct": 0.8, "average": "elements"}
    method = make("tfkd_reg", **given).eval()
    one = batch(method)
    logits, losses = method.student(one.images), method.losses(one)
    expected = 2 * regularisation(logits, one.labels, 3.0, 0.8, "elements")
    assert losses["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["ce"].item() == pytest.approx(0.5 * F.cross_entropy(logits, one.labels).item(), rel=1e-5)


def test_it_has_no_teacher_and_refuses_what_is_not_a_probability(make):
    assert make("tfkd_reg").teachers == ()
    with pytest.raises(RunError, match=r"TfKDReg.correct=1.5 must be a probability"):
        make("tfkd_reg", correct=1.5)
