import numpy as np
import pytest
import torch

from kdbench.methods.dist import correlation, dist_loss

CASES = ["T1", "T4", "inter", "intra", "equal_logits", "constant_row", "batch_of_one", "large_logits"]


def example(images: int = 6, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    z, t = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), t


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_reference(reference, name):
    case = reference(f"dist_{name}")
    case.check(dist_loss(case.student["student_logits"], case.fixed["teacher_logits"], **case.params))


def test_the_loss_is_its_definition():
    z, t = example()
    p, q = ((torch.softmax(x / 3, 1)).numpy(force=True) for x in (z, t))
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    assert dist_loss(z, t, 2.0, 0.5, 3.0).item() == pytest.approx(9 * (2 * inter + 0.5 * intra), rel=1e-5)


def test_a_linear_change_does_not_change_a_correlation():
    a, b = (x.softmax(dim=1) for x in example())
    for dim in (0, 1):
        expected = correlation(a, b, dim)
        torch.testing.assert_close(correlation(3 * a + 1, b, dim), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(correlation(-a, b, dim), -expected, rtol=1e-6, atol=1e-6)


def test_offsets_and_the_order_of_the_images_do_not_matter():
    z, t = example()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = dist_loss(z, t, 1.0, 1.0, 4.0)
    torch.testing.assert_close(dist_loss(z + 3, t - 7, 1.0, 1.0, 4.0), loss)
    torch.testing.assert_close(dist_loss(z[order], t[order], 1.0, 1.0, 4.0), loss)
    torch.testing.assert_close(dist_loss(z.repeat(2, 1), t.repeat(2, 1), 1.0, 1.0, 4.0), loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_floor_bounds_the_gradient_of_constant_rows_and_columns(dtype):
    z, t = (x.detach().to(dtype) for x in example())
    z[2] = 0.3
    norms = []
    for floor in (0.0, 1e-3):
        z.requires_grad_()
        loss = dist_loss(z, t, 1.0, 1.0, 4.0, floor)
        (gradient,) = torch.autograd.grad(loss, z)
        assert gradient.isfinite().all()
        norms.append(gradient.norm().item())
    assert norms[0] > 1e4
    assert norms[1] < 1e4


def test_a_floor_below_all_norms_changes_nothing():
    z, t = example()
    assert torch.equal(dist_loss(z, t, 1.0, 1.0, 4.0, 1e-3), dist_loss(z, t, 1.0, 1.0, 4.0))


def test_equal_images_and_equal_logits():
    t = example()[1]
    for z in (torch.zeros(6, 5, dtype=torch.float64), t[:1].repeat(6, 1)):
        z.requires_grad_()
        loss = dist_loss(z, t, 1.0, 1.0, 4.0)
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "vit_tiny"), ("wrn_16_1", "resnet8")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    values = {"kd_weight": 3.0, "beta": 0.5, "gamma": 2.0, "temperature": 1.5, "floor": 0.01}
    method = make("dist", student=student, teacher=teacher, **values).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["dist"].item() == pytest.approx(3 * dist_loss(z, t, 0.5, 2.0, 1.5, 0.01).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce", student=student).eval().losses(one)["ce"].item(), rel=1e-5)
