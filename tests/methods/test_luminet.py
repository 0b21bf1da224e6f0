import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax

from kdbench.method import Share
from kdbench.methods.luminet import luminet_loss, perception


def slow(z, t, alpha, temperature):
    z, t = (log_softmax((x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5) / temperature, axis=1) for x in (z, t))
    return alpha**2 * (np.exp(t) * (t - z)).sum(axis=1).mean()


@pytest.mark.parametrize("name", ["luminet", "luminet_constant_column"])
def test_the_term_is_the_reference(reference, terms_of_logits, name):
    case = reference(name)
    inputs = case.student["student_logits"], case.fixed["teacher_logits"]
    case.check(terms_of_logits("luminet", *inputs, epoch=20, **case.params)["luminet"])


def test_the_loss_is_its_definition(logits):
    z, t, _ = logits()
    expected = slow(z.detach().numpy(), t.numpy(), 3.0, 2.0)
    assert luminet_loss(z, t, 3.0, 2.0).item() == pytest.approx(expected, rel=1e-10)


def test_the_gradient_is_that_of_finite_differences(logits):
    z, t, _ = logits(4)
    assert torch.autograd.gradcheck(lambda z: luminet_loss(z, t, 3.0, 2.0), z)


def test_by_hand_on_four_images():
    """A class with the logits −3, −3, 3, 3 becomes −1, −1, 1, 1; one with equal logits becomes 0."""
    z = torch.tensor([[-3.0, 7.0], [-3.0, 7.0], [3.0, 7.0], [3.0, 7.0]], dtype=torch.float64)
    ones = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(perception(z), ones, rtol=1e-5, atol=0)


def test_perception_is_batch_normalisation(logits):
    z, _, _ = logits()
    torch.testing.assert_close(perception(z), F.batch_norm(z, None, None, training=True, eps=1e-5))


@pytest.mark.parametrize("images", [1, 4])
def test_equal_logits_have_a_finite_gradient(logits, images):
    _, t, _ = logits(images)
    z = torch.full_like(t, 0.7).requires_grad_()
    loss = luminet_loss(z, t, 1.0, 4.0)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_student_like_its_teacher_has_nothing_to_learn(logits):
    _, t, _ = logits()
    z = t.clone().requires_grad_()
    loss = luminet_loss(z, t, 33.0, 4.0)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert gradient.abs().max() < 1e-9


def test_offsets_and_the_order_and_size_of_the_batch_do_not_matter(logits):
    z, t, _ = logits()
    loss = luminet_loss(z, t, 3.0, 4.0)
    offsets = torch.arange(5.0, dtype=torch.float64)
    for other in ((z + 3, t - 7), (z + offsets, t), (z.flip(0), t.flip(0)), (z.repeat(2, 1), t.repeat(2, 1))):
        torch.testing.assert_close(luminet_loss(*other, 3.0, 4.0), loss)


def test_on_several_gpus_the_statistics_are_those_of_the_whole_batch(logits, terms_of_logits):
    z, t, _ = logits()

    class Part(Share):
        def __init__(self):
            self.gathered = iter([z, t])

        def gather(self, x):
            return next(self.gathered)

    part = terms_of_logits("luminet", z[:3], t[:3], share=Part())
    torch.testing.assert_close(part["luminet"], terms_of_logits("luminet", z, t)["luminet"])


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make(
        "luminet", student=student, teacher=teacher, ce_weight=3.0, alpha=5.0, temperature=2.0, warmup_epochs=4
    ).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["luminet"].item() == pytest.approx(luminet_loss(z, t, 5.0, 2.0).item() / 4, rel=1e-4)
    ce = make("ce", student=student).eval().losses(one)["ce"].item()
    assert terms["ce"].item() == pytest.approx(3 * ce, rel=1e-5)
