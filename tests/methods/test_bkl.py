import numpy as np
import pytest
import torch
from scipy.special import softmax

from kdbench.method import distillation, softened_kl
from kdbench.methods.bkl import bkl_loss


def slow(z, t, a, b):
    total = 0.0
    for one, other in zip(z, t, strict=True):
        for q, p in zip(softmax(one), softmax(other), strict=True):
            both = a * p * np.log(p / q) + (1 - a) * q * np.log(q / p)
            total += both / ((p**2 + q**2) ** ((1 - b) / 2) + 1e-12)
    return total / len(z)


def test_the_term_is_the_reference(reference, terms_of_logits):
    case = reference("bkl")
    inputs = case.student["student_logits"], case.fixed["teacher_logits"]
    case.check(terms_of_logits("bkl", *inputs, kd_weight=1.0)["bkl"])


def test_the_variant_is_the_reference_of_reverse_kl(reference, terms_of_logits, gin_parameters):
    case = reference("reverse_kl")
    inputs = case.student["student_logits"], case.fixed["teacher_logits"]
    case.check(terms_of_logits("bkl", *inputs, **gin_parameters("reverse_kl") | {"kd_weight": 1.0})["bkl"])


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.2), (0.9, 0.0), (0.0, 0.7)])
def test_the_loss_is_its_definition(logits, alpha, beta):
    z, t, _ = logits()
    expected = slow(z.detach().numpy(), t.numpy(), alpha, beta)
    assert bkl_loss(z, t, alpha, beta).item() == pytest.approx(expected, rel=1e-10)


def test_without_denominators_it_is_kl_of_either_direction(logits):
    z, t, _ = logits()
    torch.testing.assert_close(16 * bkl_loss(z / 4, t / 4, 1.0, 1.0), distillation(z, t, 4.0))
    torch.testing.assert_close(bkl_loss(z, t, 0.0, 1.0), softened_kl(t, z, 1.0))


def test_the_gradient_is_that_of_finite_differences(logits):
    z, t, _ = logits(3)
    assert torch.autograd.gradcheck(lambda z: bkl_loss(z, t, 0.5, 0.2), z)


def test_by_hand_on_four_images():
    """b = −1: each class over p² + q². Odds 1 : 1 against 3 : 1, a = ½: (p − q) log(p / q) / 2 with p − q = ±¼."""
    a = float(np.log(3))
    z = torch.zeros(4, 2, dtype=torch.float64)
    t = torch.tensor([[0.0, 0.0], [a, 0.0], [0.0, a], [2.0, 2.0]], dtype=torch.float64)
    high = np.log(3 / 2) / 8 / (9 / 16 + 1 / 4)
    low = np.log(2) / 8 / (1 / 16 + 1 / 4)
    assert bkl_loss(z, t, 0.5, -1.0).item() == pytest.approx(2 * (high + low) / 4, rel=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_of_fifty_are_finite_in_float32(terms_of_logits, temperature):
    signs = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.0]])
    z, t = (50 * signs).requires_grad_(), -50 * signs
    loss = terms_of_logits("bkl", z, t, temperature=temperature)["bkl"]
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    z, t = (1000 * signs).requires_grad_(), 1000 * signs
    (gradient,) = torch.autograd.grad(terms_of_logits("bkl", z, t, temperature=temperature)["bkl"], z)
    assert gradient.isfinite().all(), "probabilities that underflow"


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.2), (0.5, 1.0), (0.0, 1.0)])
def test_a_student_like_its_teacher_has_nothing_to_learn(logits, alpha, beta):
    _, t, _ = logits()
    z = t.clone().requires_grad_()
    loss = bkl_loss(z, t, alpha, beta)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0
    assert gradient.abs().max() < 1e-12


def test_with_unequal_parts_and_denominators_the_teacher_is_no_minimum(logits):
    _, t, _ = logits()
    z = t.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(bkl_loss(z, t, 0.9, 0.2), z)
    assert bkl_loss(z - gradient, t, 0.9, 0.2) < 0


def test_offsets_and_the_order_of_the_images_do_not_matter(logits):
    z, t, _ = logits()
    loss = bkl_loss(z, t, 0.5, 0.2)
    torch.testing.assert_close(bkl_loss(z + 3, t - 7, 0.5, 0.2), loss)
    torch.testing.assert_close(bkl_loss(z.flip(0), t.flip(0), 0.5, 0.2), loss)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make("bkl", student=student, teacher=teacher, ce_weight=2.0, kd_weight=3.0, alpha=0.3, beta=0.4).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["bkl"].item() == pytest.approx(3 * 16 * bkl_loss(z / 4, t / 4, 0.3, 0.4).item(), rel=1e-4)
    ce = make("ce", student=student).eval().losses(one)["ce"].item()
    assert terms["ce"].item() == pytest.approx(2 * ce, rel=1e-5)
