from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import soft_cross_entropy
from kdbench.methods.ikl import pair_errors, teacher_probabilities


def logits(batch=6, classes=5, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(batch, classes, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("name", ["ikl", "ikl_class_prior", "gkl_class_prior"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    p, z, t = case.params, case.student["student_logits"], case.fixed["teacher_logits"]
    prior = case.fixed.get("class_prior")
    q = teacher_probabilities(t, p["weight_temperature"]) if prior is None else prior
    errors, weights = pair_errors(z, t, q ** p.get("gamma", 1.0))
    soft = soft_cross_entropy(z / p["temperature"], teacher_probabilities(t, p["temperature"]))
    # The prior of the case is rounded: the weights of an image add up to 1 only nearly, and IKL divides by the images.
    total = weights.sum() if "gamma" in p else len(z)
    case.check(p["alpha"] * soft + p["beta"] / 4 * (weights * errors).sum() / total)


def test_errors_are_those_of_all_pairs():
    z, t, w = logits(count=3)
    w = w.abs()
    errors, weights = pair_errors(z, t, w)
    for i in range(len(z)):
        pairs = [(w[i, j] * w[i, k], (t[i, j] - t[i, k] - z[i, j] + z[i, k]) ** 2) for j in range(5) for k in range(5)]
        total = sum(a for a, _ in pairs).item()
        assert weights[i].item() == pytest.approx(total, rel=1e-10)
        assert errors[i].item() == pytest.approx(sum(a * e for a, e in pairs).item() / total, rel=1e-10)


def test_the_gradient_is_that_of_finite_differences():
    z, t, w = logits(count=3)
    assert torch.autograd.gradcheck(lambda z: pair_errors(z, t, w.abs())[0], z.requires_grad_())


def test_offsets_do_not_matter_and_equal_logits_have_no_error():
    z, t, w = logits(count=3)
    errors, _ = pair_errors(z, t, w.abs())
    torch.testing.assert_close(pair_errors(z + 5, t - 7, w.abs())[0], errors)
    assert pair_errors(t + 2, t, w.abs())[0].abs().max() < 1e-25


def test_large_and_equal_logits_in_half_precision():
    z = torch.tensor([[50.0, -50.0, 0.0], [2.0, 2.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    t = torch.tensor([[-50.0, 50.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    errors, _ = pair_errors(z, t, teacher_probabilities(t, 1.0) ** 0.05)
    (gradient,) = torch.autograd.grad(errors.sum(), z)
    assert errors.dtype == torch.float32
    assert gradient.isfinite().all()
    assert errors[1] == 0


@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_terms_are_the_weighted_losses(make, batch, gamma):
    method = make("ikl", alpha=2.0, beta=12.0, gamma=gamma, temperature=3.0, weight_temperature=0.5).eval()
    method.teacher.fc.weight.mul_(20)
    one = replace(batch(method), epoch=5)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    w = teacher_probabilities(t, 0.5) ** gamma
    errors, weights = pair_errors(z, t, w)
    mean = (weights * errors).sum() / weights.sum() if gamma != 1 else errors.mean()
    assert list(terms) == ["ce", "soft", "pairs"]
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(z, one.labels).item(), rel=1e-5)
    soft = soft_cross_entropy(z / 3, F.softmax(t / 3, dim=1))
    assert terms["soft"].item() == pytest.approx(5 / 20 * 2 * soft.item(), rel=1e-5)
    assert terms["pairs"].item() == pytest.approx(5 / 20 * 3 * mean.item(), rel=1e-5)


def test_class_means_are_those_of_the_epoch_before(make, batch):
    method = make("ikl", prior=True, weight_temperature=2.0, labels=[0, 1, 2, 3, 3] * 4).eval()
    method.teacher.fc.weight.mul_(20)
    even = torch.full((4, 4), 0.25)
    ones = [batch(method, anchors=8, step=step) for step in range(3)]
    first = method.losses(ones[0])["pairs"]
    errors, _ = pair_errors(*(n(ones[0].images) for n in (method.student, method.teacher)), even[ones[0].labels])
    assert first.item() == pytest.approx(1 / 20 * 8 / 4 * errors.mean().item(), rel=1e-4)
    method.losses(ones[1])
    assert torch.equal(method.class_means, even)
    method.after_epoch(1)
    rows = torch.cat([F.softmax(method.teacher(one.images) / 2, dim=1) for one in ones[:2]])
    labels = torch.cat([one.labels for one in ones[:2]])
    for label in range(4):
        torch.testing.assert_close(method.class_means[label], rows[labels == label].mean(dim=0))
    second = method.losses(ones[2])["pairs"]
    z, t = method.student(ones[2].images), method.teacher(ones[2].images)
    errors, _ = pair_errors(z, t, method.class_means[ones[2].labels])
    assert second.item() == pytest.approx(1 / 20 * 8 / 4 * errors.mean().item(), rel=1e-4)


def test_a_class_without_images_keeps_its_means(make, batch):
    method = make("ikl", prior=True)
    one = batch(method)
    method.losses(replace(one, labels=torch.zeros_like(one.labels)))
    method.after_epoch(1)
    assert not torch.equal(method.class_means[0], torch.full((4,), 0.25))
    assert torch.equal(method.class_means[1:], torch.full((3, 4), 0.25))
    before = method.class_means.clone()
    method.after_epoch(2)
    assert torch.equal(method.class_means, before)


def test_gkl_is_ikl_with_other_values(gin_parameters):
    changed = {"beta": 16.0, "gamma": 0.05, "weight_temperature": 4.0, "prior": True}
    assert gin_parameters("gkl") == {**gin_parameters("ikl"), **changed}
