import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from kdbench.method import distillation
from kdbench.methods.dtkd import dynamic_loss, temperatures


def slow(z, t, temperature):
    values = []
    for one, other in zip(z, t, strict=True):
        ours, theirs = (2 * temperature * x.max() / (one.max() + other.max()) for x in (one, other))
        log_p, log_q = log_softmax(one / ours), log_softmax(other / theirs)
        values.append(ours * theirs * (np.exp(log_q) * (log_q - log_p)).sum())
    return np.mean(values)


@pytest.mark.parametrize("clamped", [True, False])
@pytest.mark.parametrize("name", ["dtkd_total", "dtkd_dynamic"])
def test_the_terms_are_the_reference(reference, terms_of_logits, name, clamped):
    case = reference(name)
    terms = terms_of_logits(
        "dtkd", case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"],
        alpha=case.params["alpha"], beta=case.params["beta"], epoch=case.params["epoch"], clamped=clamped,
    )  # fmt: skip
    case.check(case.params["ce_weight"] * terms["ce"] + terms["dynamic"] + terms["kd"])


@pytest.mark.parametrize("clamped", [True, False])
def test_the_loss_is_its_definition(logits, clamped):
    z, t, _ = logits()
    assert min(z.amax(dim=1).min(), t.amax(dim=1).min()) > 1e-3
    expected = slow(z.detach().numpy(), t.numpy(), 3.0)
    assert dynamic_loss(z, t, 3.0, clamped).item() == pytest.approx(expected, rel=1e-10)


def test_the_gradient_is_that_of_finite_differences(logits):
    z, t, _ = logits(3)
    assert torch.autograd.gradcheck(lambda z: dynamic_loss(z, t, 4.0), z)


def test_by_hand_on_four_images():
    """Largest logits 1 and 3: temperatures T / 2 and 3T / 2, at which both have odds e^(2 / T) : 1 and nothing is to learn."""
    z = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    t = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    ours, theirs = temperatures(z, t, 4.0, clamped=True)
    assert ours.flatten().tolist() == [2, 6, 4, 4]
    assert theirs.flatten().tolist() == [6, 2, 4, 4]
    p = 1 / (1 + np.exp(-2 / 4))
    assert dynamic_loss(z, t, 4.0).item() == pytest.approx(16 * (2 * p - 1) * 0.5 / 4, rel=1e-12)


def test_the_mean_of_both_temperatures_is_the_temperature(logits):
    z, t, _ = logits()
    ours, theirs = temperatures(z, t, 4.0, clamped=False)
    torch.testing.assert_close((ours + theirs) / 2, torch.full((7, 1), 4.0, dtype=torch.float64))


@pytest.mark.parametrize(("ours", "theirs"), [(-1.0, 5.0), (5.0, -1.0), (-1.0, 1.0), (0.0, 0.0), (-2.0, -3.0)])
def test_clamped_temperatures_stay_positive(ours, theirs, terms_of_logits):
    fall = torch.tensor([[0.0, -1.0, -4.0]])
    z, t = (ours + fall).requires_grad_(), theirs + 2 * fall
    assert all((each > 0).all() for each in temperatures(z, t, 4.0, clamped=True))
    loss = terms_of_logits("dtkd", z, t)["dynamic"]
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert loss >= 0
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10


def test_the_published_temperatures_may_be_negative():
    z, t = torch.tensor([[-1.0, -2.0]]), torch.tensor([[5.0, 0.0]])
    ours, theirs = temperatures(z, t, 4.0, clamped=False)
    assert (ours.item(), theirs.item()) == (-2, 10)


@pytest.mark.parametrize("scale", [1.0, 25.0])
def test_a_student_like_its_teacher_has_nothing_to_learn(logits, scale):
    _, t, _ = logits(scale=scale)
    z = t.clone().requires_grad_()
    loss = dynamic_loss(z, t, 4.0)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-10


def test_the_order_of_the_images_does_not_matter_and_an_offset_does(logits):
    z, t, _ = logits()
    loss = dynamic_loss(z, t, 4.0)
    torch.testing.assert_close(dynamic_loss(z.flip(0), t.flip(0), 4.0), loss)
    assert dynamic_loss(z + 3, t, 4.0).item() != pytest.approx(loss.item(), rel=1e-2)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make(
        "dtkd", student=student, teacher=teacher, alpha=2.0, beta=6.0, temperature=3.0, warmup_epochs=2
    ).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["dynamic"].item() == pytest.approx(dynamic_loss(z, t, 3.0).item(), rel=1e-4)
    assert terms["kd"].item() == pytest.approx(3 * distillation(z, t, 3.0).item(), rel=1e-4)
    assert terms["ce"].item() == pytest.approx(make("ce", student=student).eval().losses(one)["ce"].item(), rel=1e-5)
