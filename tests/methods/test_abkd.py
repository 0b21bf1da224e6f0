import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from kdbench.method import softened_kl
from kdbench.methods.abkd import ab_divergence, published_factor

CASES = ["abkd", "abkd_forward_kl", "abkd_reverse_kl", "abkd_log_squared", "abkd_sum_zero"]
EXPONENTS = [(0.8, 0.3), (0.3, 0.8), (1.5, 0.5), (-0.4, 1.2), (1.2, -0.4)]


def slow(z, t, a, b):
    log_p, log_q = log_softmax(t, axis=1), log_softmax(z, axis=1)
    terms = (
        np.exp(a * log_p + b * log_q) - a / (a + b) * np.exp((a + b) * log_p) - b / (a + b) * np.exp((a + b) * log_q)
    )
    return -terms.sum(axis=1).mean() / (a * b)


@pytest.mark.parametrize("name", CASES)
def test_the_term_is_the_reference(reference, terms_of_logits, name):
    case = reference(name)
    limits = "published" if name == "abkd_sum_zero" else "true"
    inputs = case.student["student_logits"], case.fixed["teacher_logits"]
    case.check(terms_of_logits("abkd", *inputs, weight=1.0, limits=limits, **case.params)["ab"])


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
def test_the_divergence_is_its_definition(logits, alpha, beta):
    z, t, _ = logits()
    expected = slow(z.detach().numpy(), t.numpy(), alpha, beta)
    assert ab_divergence(z, t, alpha, beta).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("alpha", "beta"), [*EXPONENTS, (0.5, 0.0), (0.0, 0.5), (0.5, -0.5), (0.0, 0.0)])
def test_the_gradient_is_that_of_finite_differences(logits, alpha, beta):
    z, t, _ = logits(3)
    assert torch.autograd.gradcheck(lambda z: ab_divergence(z, t, alpha, beta), z)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 1.0), (0.0, 0.5), (0.0, -0.5)])
def test_it_is_continuous_where_an_exponent_is_zero(logits, alpha, beta):
    z, t, _ = logits()
    near = slow(z.detach().numpy(), t.numpy(), alpha or 1e-6, beta or 1e-6)
    assert ab_divergence(z, t, alpha, beta).item() == pytest.approx(near, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.5, -1.0, 2.0])
def test_it_is_continuous_where_the_exponents_cancel(logits, alpha):
    z, t, _ = logits()
    near = slow(z.detach().numpy(), t.numpy(), alpha, 1e-5 - alpha)
    assert ab_divergence(z, t, alpha, -alpha).item() == pytest.approx(near, rel=1e-3)


def test_special_cases(logits):
    z, t, _ = logits()
    difference = z.log_softmax(dim=1) - t.log_softmax(dim=1)
    torch.testing.assert_close(ab_divergence(z, t, 1.0, 0.0), softened_kl(z, t, 1.0))
    torch.testing.assert_close(ab_divergence(z, t, 0.0, 1.0), softened_kl(t, z, 1.0))
    torch.testing.assert_close(ab_divergence(z, t, 0.0, 0.0), difference.square().sum(dim=1).mean() / 2)


@pytest.mark.parametrize(
    ("alpha", "beta", "factor"),
    [
        (0.5, 0.0, 0.5),
        (0.0, 0.5, 0.5),
        (0.5, -0.5, 0.5),
        (1.0, 0.0, 1.0),
        (0.0, 1.0, 1.0),
        (0.0, 0.0, 1.0),
        (0.8, 0.3, 1.0),
    ],
)
def test_published_limits_lack_a_factor(logits, terms_of_logits, alpha, beta, factor):
    z, t, _ = logits()
    assert published_factor(alpha, beta) == factor
    true, published = (
        terms_of_logits("abkd", z, t, alpha=alpha, beta=beta, limits=limits)["ab"] for limits in ("true", "published")
    )
    torch.testing.assert_close(published, factor * true)


@pytest.mark.parametrize(("alpha", "beta"), [*EXPONENTS, (1.0, 0.0), (0.0, 1.0), (0.5, -0.5), (0.0, 0.0)])
def test_a_student_like_its_teacher_has_nothing_to_learn(logits, alpha, beta):
    _, t, _ = logits()
    z = t.clone().requires_grad_()
    loss = ab_divergence(z, t, alpha, beta)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0
    assert gradient.abs().max() == 0
    assert ab_divergence(z + 0.5 * torch.randn_like(z), t, alpha, beta) > 0


@pytest.mark.parametrize(("alpha", "beta"), [(0.8, 0.3), (1.0, 0.0), (0.0, 1.0), (0.5, -0.5)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 25.0])
def test_float32_is_exact_near_the_teacher_and_far_from_it(alpha, beta, scale):
    t = torch.randn(6, 10, generator=torch.Generator().manual_seed(1))
    z = (t + scale * torch.randn(6, 10, generator=torch.Generator().manual_seed(2))).requires_grad_()
    loss = ab_divergence(z, t, alpha, beta)
    (gradient,) = torch.autograd.grad(loss, z)
    # Near the teacher the logarithms themselves differ by some float32 steps of 1e-4.
    assert loss.item() == pytest.approx(ab_divergence(z.double(), t.double(), alpha, beta).item(), rel=1e-2)
    assert gradient.isfinite().all()


def test_logits_of_fifty_are_finite(terms_of_logits):
    signs = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.0]])
    z, t = (50 * signs).requires_grad_(), -50 * signs
    for alpha, beta in ((0.8, 0.3), (1.0, 0.0), (0.0, 1.0)):
        loss = terms_of_logits("abkd", z, t, alpha=alpha, beta=beta, temperature=1.0)["ab"]
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_offsets_and_the_order_of_the_images_do_not_matter(logits):
    z, t, _ = logits()
    loss = ab_divergence(z, t, 0.8, 0.3)
    torch.testing.assert_close(ab_divergence(z + 3, t - 7, 0.8, 0.3), loss)
    torch.testing.assert_close(ab_divergence(z.flip(0), t.flip(0), 0.8, 0.3), loss)


def test_by_hand_on_four_images():
    """α = β = ½: four times the squared Hellinger distance, 4 · (1 − Σ √(pq)); odds 1 : 1 and 9 : 1 have Σ √(pq) = 4 / √20."""
    a = float(np.log(9))
    z = torch.zeros(4, 2, dtype=torch.float64)
    t = torch.tensor([[0.0, 0.0], [a, 0.0], [0.0, a], [1.0, 1.0]], dtype=torch.float64)
    expected = 4 * (1 - 4 / 20**0.5) * 2 / 4
    assert ab_divergence(z, t, 0.5, 0.5).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make("abkd", student=student, teacher=teacher, weight=2.0, alpha=0.5, beta=0.7, temperature=3.0).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["ab"].item() == pytest.approx(2 * ab_divergence(z / 3, t / 3, 0.5, 0.7).item(), rel=1e-4)
    assert terms["ce"].item() == pytest.approx(make("ce", student=student).eval().losses(one)["ce"].item(), rel=1e-5)
