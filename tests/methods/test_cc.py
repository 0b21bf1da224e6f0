import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.methods.cc import correlations, kernel_loss, neighbours_loss


def features(batch: int = 6, dim: int = 5, other: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.randn(batch, other, generator=generator, dtype=torch.float64)


def test_neighbours_are_the_reference(reference):
    case = reference("cc")
    case.check(neighbours_loss(case.student["student_embedding"], case.fixed["teacher_embedding"]))


def test_embedded_neighbours_are_the_reference(reference):
    case = reference("cc_embedded")
    ours = F.linear(case.student["student_features"], case.student["student_weight"], case.fixed["student_bias"])
    theirs = F.linear(case.fixed["teacher_features"], case.student["teacher_weight"], case.fixed["teacher_bias"])
    case.check(neighbours_loss(ours, theirs))


def test_the_kernel_is_the_reference(reference):
    case = reference("cc_taylor")
    features, target = case.student["student_features"], case.fixed["teacher_features"]
    case.check(kernel_loss(features, target, case.params["gamma"], case.params["P"]))


def test_neighbours_are_their_definition():
    x, t = features()
    a, b = x.tolist(), t.tolist()
    terms = [abs(a[i][d] - b[i][d]) * abs(a[i + 1][d] - b[i + 1][d]) for i in range(5) for d in range(5)]
    assert neighbours_loss(x, t).item() == pytest.approx(sum(terms) / 5, rel=1e-12)


def slow_kernel(rows, gamma, order):
    unit = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows]
    dots = [[sum(v * w for v, w in zip(a, b, strict=True)) for b in unit] for a in unit]
    series = [
        [sum((2 * gamma * c) ** p / math.factorial(p) for p in range(order + 1)) for c in row] for row in dots
    ]  # fmt: skip
    return [[math.exp(-2 * gamma) * value for value in row] for row in series]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_kernel_is_its_definition(order):
    x, t = features(other=9)
    a, b = slow_kernel(x.tolist(), 0.3, order), slow_kernel(t.tolist(), 0.3, order)
    mean = sum((a[i][j] - b[i][j]) ** 2 for i in range(6) for j in range(6)) / 36
    assert kernel_loss(x, t, 0.3, order).item() == pytest.approx(mean, rel=1e-10)


def test_the_series_approaches_the_gaussian_kernel():
    x, _ = features()
    unit = F.normalize(x, dim=1)
    torch.testing.assert_close(correlations(x, 0.4, 12), torch.exp(-0.4 * torch.cdist(unit, unit).square()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_equal_and_zero_rows(dtype, value):
    _, t = features()
    x = torch.full((6, 5), value, dtype=dtype, requires_grad=True)
    for loss in (neighbours_loss(x, t.to(dtype)), neighbours_loss(x, x), kernel_loss(x, t.to(dtype), 0.4, 2)):
        (gradient,) = torch.autograd.grad(loss, x)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert gradient.norm() < 10
    assert neighbours_loss(x, x) == 0


def test_only_the_neighbours_depend_on_the_order_of_the_images():
    x, t = features()
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    torch.testing.assert_close(kernel_loss(x[order], t[order], 0.4, 2), kernel_loss(x, t, 0.4, 2))
    assert not torch.allclose(neighbours_loss(x[order], t[order]), neighbours_loss(x, t))
    torch.testing.assert_close(neighbours_loss(x.flip(0), t.flip(0)), neighbours_loss(x, t))


def test_a_single_image_has_no_neighbour():
    x, t = features(batch=1)
    assert neighbours_loss(x, t) == 0


def outputs(method, one):
    return [network(one.images, features=True) for network in (method.student, method.teacher)]


def test_terms_of_neighbours(make, batch):
    method = make("cc", weight=0.5, embedding_dim=7, kd_weight=0.5, temperature=3.0).eval()
    one = batch(method)
    terms = method.losses(one)
    out, taught = outputs(method, one)
    ours, theirs = method.student_embedding(out.pooled), method.teacher_embedding(taught.pooled)
    assert ours.shape == theirs.shape == (6, 7)
    assert terms.keys() == {"ce", "cc", "kd"}
    assert terms["cc"].item() == pytest.approx(0.5 * neighbours_loss(ours, theirs).item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.5 * distillation(out.logits, taught.logits, 3.0).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


def test_both_embeddings_are_trained(make, batch):
    method = make("cc")
    method.losses(batch(method))["cc"].backward()
    for embedding in (method.student_embedding, method.teacher_embedding):
        assert all(weight.grad.norm() > 0 for weight in embedding.parameters())


def test_terms_of_the_kernel(make, batch):
    method = make("cc", form="kernel", weight=100.0, gamma=0.3, order=3).eval()
    one = batch(method)
    terms = method.losses(one)
    out, taught = outputs(method, one)
    assert terms.keys() == {"ce", "cc"}
    assert terms["cc"].item() == pytest.approx(100 * kernel_loss(out.pooled, taught.pooled, 0.3, 3).item(), rel=1e-5)
    assert len(list(method.parameters())) == len(list(method.student.parameters())), "no embeddings"


@pytest.mark.parametrize("form", ["neighbours", "kernel"])
@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("wrn_16_1", "resnet8x4")])
def test_widths_of_student_and_teacher_may_differ(make, batch, form, student, teacher):
    method = make("cc", form=form, student=student, teacher=teacher)
    assert all(term.isfinite() for term in method.losses(batch(method)).values())
