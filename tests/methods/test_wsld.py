import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.wsld import image_weights, wsld_loss


def example(images: int = 5, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    z, t = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), t, torch.randint(classes, (images,), generator=generator)


@pytest.mark.parametrize("name", ["cifar", "extreme", "imagenet_total"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(f"wsld_{name}")
    z, t, labels = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    loss = case.params["alpha"] * wsld_loss(z, t, labels, case.params["temperature"])
    parts = case.entry.get("parts", {})
    if "weights" in parts:
        assert image_weights(z, t, labels).tolist() == pytest.approx(parts["weights"], rel=1e-6)
    if "ce" in parts:
        ce = F.cross_entropy(z, labels)
        assert [ce.item(), loss.item()] == pytest.approx([parts["ce"], parts["soft"]], rel=1e-6)
        loss = ce + loss
    case.check(loss)


def test_the_loss_is_its_definition():
    z, t, labels = example()
    total = 0.0
    for ours, theirs, y in zip(z.tolist(), t.tolist(), labels.tolist(), strict=True):
        hard = [math.log(sum(math.exp(v) for v in row)) - row[y] for row in (ours, theirs)]
        p, q = ([math.exp(v / 3) for v in row] for row in (ours, theirs))
        soft = -sum(b / sum(q) * math.log(a / sum(p)) for a, b in zip(p, q, strict=True))
        total += (1 - math.exp(-hard[0] / hard[1])) * 9 * soft
    assert wsld_loss(z, t, labels, 3.0).item() == pytest.approx(total / 5, rel=1e-6)


def test_weights_are_shares_without_gradient_which_grow_with_the_students_error():
    z, t, labels = example()
    weights = image_weights(z, t, labels)
    assert not weights.requires_grad
    assert ((weights > 0) & (weights < 1)).all()
    better = z + 2 * F.one_hot(labels, 6)
    assert (image_weights(better, t, labels) < weights).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_and_equal_logits(dtype):
    labels = torch.tensor([0, 1, 2])
    certain = 200 * torch.eye(3, dtype=dtype)
    level = torch.zeros(3, 3, dtype=dtype)
    assert image_weights(certain, level, labels).tolist() == [0, 0, 0]
    assert image_weights(level, certain, labels).tolist() == [1, 1, 1]
    assert image_weights(level, level, labels).tolist() == pytest.approx([1 - math.exp(-1)] * 3, rel=1e-5)
    for z in (certain, level):
        z.requires_grad_()
        (gradient,) = torch.autograd.grad(wsld_loss(z, level.detach(), labels, 4.0), z)
        assert gradient.isfinite().all()


def test_offsets_and_the_order_of_the_images_do_not_matter():
    z, t, labels = example()
    order = torch.tensor([3, 0, 4, 1, 2])
    loss = wsld_loss(z, t, labels, 4.0)
    torch.testing.assert_close(wsld_loss(z + 3, t - 7, labels, 4.0), loss)
    torch.testing.assert_close(wsld_loss(z[order], t[order], labels[order], 4.0), loss)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "vit_tiny"), ("wrn_16_1", "resnet8")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make("wsld", student=student, teacher=teacher, alpha=3.0, temperature=2.0, label_smoothing=0.1).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["wsld"].item() == pytest.approx(3 * wsld_loss(z, t, one.labels, 2.0).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(z, one.labels, label_smoothing=0.1).item(), rel=1e-5)
