import math

import pytest
import torch

from kdbench.method import distillation
from kdbench.methods.pkt import pkt_loss, similarities


def features(batch: int = 7, dim: int = 5, other: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.randn(batch, other, generator=generator, dtype=torch.float64)


def slow_similarities(rows):
    norms = [math.sqrt(sum(v * v for v in row)) + 1e-7 for row in rows]
    cosines = [[sum(v * w for v, w in zip(a, b, strict=True)) for b in rows] for a in rows]
    c = [[(cosines[i][j] / norms[i] / norms[j] + 1) / 2 for j in range(len(rows))] for i in range(len(rows))]
    return [[value / sum(row) for value in row] for row in c]


@pytest.mark.parametrize("name", ["pkt", "pkt_equal_images", "pkt_zero_feature"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    case.check(pkt_loss(case.student["student_features"], case.fixed["teacher_features"]))


def test_the_loss_is_its_definition():
    x, t = features()
    p, q = slow_similarities(x.tolist()), slow_similarities(t.tolist())
    terms = [q[i][j] * math.log((q[i][j] + 1e-7) / (p[i][j] + 1e-7)) for i in range(7) for j in range(7)]
    assert pkt_loss(x, t).item() == pytest.approx(sum(terms) / 49, rel=1e-10)


def test_the_gradient_is_that_of_finite_differences():
    x, t = features()
    assert torch.autograd.gradcheck(lambda x: pkt_loss(x, t), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_where_a_feature_has_no_direction(dtype):
    x, t = (each.detach().to(dtype) for each in features())
    x[2], x[3] = 0, 1e-9
    x[5] = x[6]
    x.requires_grad_()
    loss = pkt_loss(x, t)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert (gradient[2:4] == 0).all()
    assert gradient.isfinite().all()
    assert 0 < gradient.norm() < 1


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_all_rows_equal(value):
    _, t = features()
    x = torch.full((7, 5), value, dtype=torch.float64, requires_grad=True)
    loss = pkt_loss(x, t)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient.norm() < 1e-6


def test_a_row_of_similarities_is_a_distribution_that_does_not_depend_on_scale():
    x, _ = features()
    p = similarities(x)
    assert p.sum(dim=1).tolist() == pytest.approx([1] * 7)
    torch.testing.assert_close(similarities(3 * x), p, rtol=1e-6, atol=0)


def test_the_order_of_the_images_does_not_matter():
    x, t = features()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(pkt_loss(x[order], t[order]), pkt_loss(x, t))
    assert pkt_loss(x, x).item() == pytest.approx(0, abs=1e-12)


def test_terms_are_the_weighted_losses_of_the_pooled_features(make, batch):
    method = make("pkt", weight=50.0, kd_weight=0.5, temperature=3.0).eval()
    one = batch(method)
    terms = method.losses(one)
    out, taught = (network(one.images, features=True) for network in (method.student, method.teacher))
    assert terms.keys() == {"ce", "pkt", "kd"}
    assert terms["pkt"].item() == pytest.approx(50 * pkt_loss(out.pooled, taught.pooled).item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.5 * distillation(out.logits, taught.logits, 3.0).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("wrn_16_1", "resnet8x4")])
def test_widths_of_student_and_teacher_may_differ(make, batch, student, teacher):
    method = make("pkt", student=student, teacher=teacher)
    terms = method.losses(batch(method))
    assert terms.keys() == {"ce", "pkt"}
    assert all(term.isfinite() for term in terms.values())
