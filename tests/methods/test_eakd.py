import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kdbench.method import distillation
from kdbench.methods.eakd import entropy, weights


def slow(z, t, temperature, low, bound):
    values = []
    for one, other in zip(z, t, strict=True):
        ours, theirs = (-(p * np.log(p + 1e-10)).sum() for p in (softmax(one / low), softmax(other / low)))
        p, q = softmax(one / temperature), softmax(other / temperature)
        values.append((theirs + theirs * ours / bound) / 2 * temperature**2 * (q * np.log(q / p)).sum())
    return np.mean(values)


@pytest.mark.parametrize(("name", "bound"), [("eakd_cifar_as_published", 100.0), ("eakd_log_classes", None)])
def test_the_term_is_the_reference(reference, terms_of_logits, name, bound):
    case = reference(name)
    assert case.params["entropy_bound"] == (bound or math.log(8))
    inputs = case.student["student_logits"], case.fixed["teacher_logits"]
    case.check(terms_of_logits("eakd", *inputs, kd_weight=1.0, entropy_bound=bound)["eakd"])


@pytest.mark.parametrize("bound", [None, 100.0])
def test_the_term_is_its_definition(logits, terms_of_logits, bound):
    z, t, _ = logits()
    given = {"temperature": 3.0, "entropy_temperature": 2.0, "entropy_bound": bound, "kd_weight": 0.7}
    expected = 0.7 * slow(z.detach().numpy(), t.numpy(), 3.0, 2.0, bound or math.log(5))
    assert terms_of_logits("eakd", z, t, **given)["eakd"].item() == pytest.approx(expected, rel=1e-10)


def test_entropies_by_hand_on_four_images():
    """Uniform over 4, over 2, certain, and odds 3 : 1 at T = 1 as logits of 2 log 3 at T = 2."""
    x = torch.tensor(
        [
            [1.0, 1.0, 1.0, 1.0],
            [0.0, 0.0, -900.0, -900.0],
            [900.0, 0.0, 0.0, 0.0],
            [2 * math.log(3), 0.0, -900.0, -900.0],
        ],
        dtype=torch.float64,
    )
    expected = [math.log(4), math.log(2), 0.0, -0.75 * math.log(0.75) - 0.25 * math.log(0.25)]
    assert entropy(x, 2.0).tolist() == pytest.approx(expected, abs=1e-9)
    assert weights(x, x.flip(0), 2.0).tolist() == pytest.approx(
        [h * (1 + other / math.log(4)) / 2 for h, other in zip(reversed(expected), expected, strict=True)], abs=1e-9
    )


def test_weights_are_between_half_the_teachers_entropy_and_all_of_it_and_have_no_gradient(logits):
    z, t, _ = logits()
    weight = weights(z, t, 3.0)
    assert not weight.requires_grad
    assert (weight > entropy(t, 3.0) / 2).all()
    assert (weight < entropy(t, 3.0)).all()
    assert (weights(z, t, 3.0, 100.0) < weight).all()


def test_a_student_like_its_teacher_has_nothing_to_learn(logits, terms_of_logits):
    _, t, _ = logits()
    z = t.clone().requires_grad_()
    loss = terms_of_logits("eakd", z, t)["eakd"]
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_logits_of_fifty_and_equal_logits_are_finite_in_float32(terms_of_logits):
    signs = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    z, t = (50 * signs).requires_grad_(), -50 * signs
    loss = terms_of_logits("eakd", z, t, temperature=1.0, entropy_temperature=1.0)["eakd"]
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_offsets_and_the_order_of_the_images_do_not_matter(logits, terms_of_logits):
    z, t, _ = logits()
    loss = terms_of_logits("eakd", z, t)["eakd"]
    torch.testing.assert_close(terms_of_logits("eakd", z + 3, t - 7)["eakd"], loss)
    torch.testing.assert_close(terms_of_logits("eakd", z.flip(0), t.flip(0))["eakd"], loss)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make("eakd", student=student, teacher=teacher, ce_weight=2.0, kd_weight=3.0).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    expected = np.mean([
        weight.item() * distillation(z[i : i + 1], t[i : i + 1], 4.0).item()
        for i, weight in enumerate(weights(z, t, 3.0))
    ])  # fmt: skip
    assert terms["eakd"].item() == pytest.approx(3 * expected, rel=1e-4)
    ce = make("ce", student=student).eval().losses(one)["ce"].item()
    assert terms["ce"].item() == pytest.approx(2 * ce, rel=1e-5)
