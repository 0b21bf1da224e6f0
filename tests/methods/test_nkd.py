import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.nkd import nkd_loss, normalised_parts

CASES = ["cifar", "imagenet", "target_only", "two_classes", "equal_logits", "large_logits"]


def example(images: int = 6, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    z, t = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), t, torch.randint(classes, (images,), generator=generator)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_reference(reference, name):
    case = reference(f"nkd_{name}")
    case.check(
        nkd_loss(case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"], **case.params)
    )


def test_the_largest_share_of_a_mixed_label_is_the_target(reference):
    case = reference("nkd_soft_labels")
    labels = torch.as_tensor(case.entry["fixed"]["labels"])
    case.check(nkd_loss(case.student["student_logits"], case.fixed["teacher_logits"], labels, **case.params))


def test_the_loss_is_its_definition():
    z, t, labels = example()
    total = 0.0
    for ours, theirs, y in zip(z.tolist(), t.tolist(), labels.tolist(), strict=True):
        p, q = ([math.exp(v) for v in row] for row in (ours, theirs))
        total -= q[y] / sum(q) * math.log(p[y] / sum(p))
        p, q = ([math.exp(v / 3) for k, v in enumerate(row) if k != y] for row in (ours, theirs))
        total -= 3.5 * 9 * sum(b / sum(q) * math.log(a / sum(p)) for a, b in zip(p, q, strict=True))
    assert nkd_loss(z, t, labels, 3.5, 3.0).item() == pytest.approx(total / 6, rel=1e-10)


def test_the_gradient_is_that_of_finite_differences():
    z, t, labels = example()
    assert torch.autograd.gradcheck(lambda z: nkd_loss(z, t, labels, 3.5, 3.0), z)


def test_the_target_part_has_no_temperature_and_agreement_is_not_zero():
    z, t, labels = example()
    (first, other), (second, another) = (normalised_parts(z, t, labels, temperature) for temperature in (1.0, 4.0))
    assert torch.equal(first, second)
    assert not torch.allclose(other, another)
    loss = nkd_loss(z, z.detach(), labels, 3.5, 3.0)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss > 1
    assert gradient.norm() > 0.01


def test_the_non_target_part_has_the_gradient_of_a_divergence():
    z, _, labels = example()
    (gradient,) = torch.autograd.grad(normalised_parts(z, z.detach(), labels, 3.0)[1].sum(), z)
    assert gradient.abs().max() < 1e-12


def test_offsets_and_the_order_of_the_images_do_not_matter():
    z, t, labels = example()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = nkd_loss(z, t, labels, 3.5, 3.0)
    torch.testing.assert_close(nkd_loss(z + 3, t - 7, labels, 3.5, 3.0), loss)
    torch.testing.assert_close(nkd_loss(z[order], t[order], labels[order], 3.5, 3.0), loss)


def test_equal_logits():
    labels = torch.tensor([0, 1])
    z = torch.zeros(2, 5, requires_grad=True)
    loss = nkd_loss(z, torch.zeros(2, 5), labels, 3.5, 3.0)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(math.log(5) / 5 + 3.5 * 9 * math.log(4), rel=1e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "vit_tiny"), ("wrn_16_1", "resnet8")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make("nkd", student=student, teacher=teacher, gamma=2.0, temperature=1.5).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["nkd"].item() == pytest.approx(nkd_loss(z, t, one.labels, 2.0, 1.5).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(z, one.labels).item(), rel=1e-5)
