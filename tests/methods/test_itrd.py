import math
import statistics

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.methods.itrd import correlation_loss, mutual_loss


def features(batch: int = 6, dim: int = 5, other: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.randn(batch, other, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ["itrd_correlation", "itrd_mutual"])
def test_each_loss_is_the_reference(reference, name):
    case = reference(name)
    target = case.fixed["teacher_features"]
    embedding = F.linear(case.student["student_features"], case.fixed["embed_weight"], case.fixed["embed_bias"])
    loss = mutual_loss(embedding, target) if name == "itrd_mutual" else correlation_loss(embedding, target, 1.01)
    case.check(loss)


def slow_correlation(x, t, alpha):
    total = 0.0
    for a, b in zip(x.T.tolist(), t.T.tolist(), strict=True):
        mean_a, mean_b = statistics.mean(a), statistics.mean(b)
        product = sum((v - mean_a) * (w - mean_b) for v, w in zip(a, b, strict=True))
        total += abs(product / statistics.stdev(a) / statistics.stdev(b) / len(a) - 1) ** (2 * alpha)
    return math.log2(total)


def slow_gram(x):
    unit = [[v / math.hypot(*row) for v in row] for row in x.tolist()]
    return [[sum(v * w for v, w in zip(a, b, strict=True)) for b in unit] for a in unit]


@pytest.mark.parametrize("alpha", [1.01, 1.5])
def test_the_correlation_is_its_definition(alpha):
    x, t = features()
    assert correlation_loss(x, t, alpha).item() == pytest.approx(slow_correlation(x, t, alpha), rel=1e-10)


def test_the_mutual_information_is_its_definition():
    x, t = features(other=8)
    ours, theirs = slow_gram(x), slow_gram(t)
    joint = [[ours[i][j] * theirs[i][j] for j in range(6)] for i in range(6)]
    traces = [sum(gram[i][i] for i in range(6)) for gram in (ours, joint)]
    places = [(i, j) for i in range(6) for j in range(6)]
    expected = sum((ours[i][j] / traces[0]) ** 2 - (joint[i][j] / traces[1]) ** 2 for i, j in places)
    assert mutual_loss(x, t).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("loss", [lambda x, t: correlation_loss(x, t, 1.01), mutual_loss])
def test_gradients_are_those_of_finite_differences(loss):
    x, t = features()
    assert torch.autograd.gradcheck(lambda x: loss(x, t), x)


def test_a_constant_channel_of_the_teacher_is_left_out():
    x, t = features()
    for value in (0.0, 0.1):
        t[:, 2] = value
        others = [0, 1, 3, 4]
        torch.testing.assert_close(correlation_loss(x, t, 1.01), correlation_loss(x[:, others], t[:, others], 1.01))
        (gradient,) = torch.autograd.grad(correlation_loss(x, t, 1.01), x)
        assert (gradient[:, 2] == 0).all()
        assert gradient.isfinite().all()


def test_a_constant_channel_of_the_student_has_correlation_0_and_no_gradient():
    x, t = features(dim=1, other=1)
    constant = torch.full_like(x, 0.1).requires_grad_()
    loss = correlation_loss(constant, t, 1.01)
    assert loss.item() == 0, "the logarithm of |0 - 1|"
    assert (torch.autograd.grad(loss, constant)[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_equal_and_zero_rows(dtype, value):
    x, t = (each.detach().to(dtype) for each in features())
    equal = torch.full_like(x, value)
    for ours, theirs in ((equal, t), (x, equal), (equal, equal)):
        for loss in (lambda x, t: correlation_loss(x, t, 1.01), mutual_loss):
            ours = ours.clone().requires_grad_()
            result = loss(ours, theirs)
            (gradient,) = torch.autograd.grad(result, ours)
            assert result.isfinite()
            assert gradient.isfinite().all()
            assert gradient.norm() < 10


def test_a_single_row_of_zeros_has_no_gradient():
    x, t = features()
    x = x.detach().clone()
    x[2] = 0
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(mutual_loss(x, t), x)
    assert (gradient[2] == 0).all()
    assert gradient.isfinite().all()
    assert gradient.norm() > 0


def test_invariances():
    x, t = features()
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    for loss in (lambda x, t: correlation_loss(x, t, 1.01), mutual_loss):
        torch.testing.assert_close(loss(x[order], t[order]), loss(x, t))
        torch.testing.assert_close(loss(3 * x, 2 * t), loss(x, t))
    torch.testing.assert_close(correlation_loss(x + 1, t - 2, 1.01), correlation_loss(x, t, 1.01))


def test_the_same_features_have_the_highest_correlation():
    x, _ = features()
    assert correlation_loss(x, x, 1.01).item() == pytest.approx(math.log2(5 * (1 / 6) ** 2.02), rel=1e-9)


@pytest.mark.parametrize(("teacher", "same_width"), [("resnet14", True), ("resnet8x4", False)])
def test_terms_are_the_weighted_losses_of_the_pooled_features(make, batch, teacher, same_width):
    given = {"correlation_weight": 3.0, "mutual_weight": 7.0, "alpha": 1.5, "kd_weight": 0.5, "temperature": 3.0}
    method = make("itrd", teacher=teacher, **given).eval()
    one = batch(method)
    terms = method.losses(one)
    out, taught = (network(one.images, features=True) for network in (method.student, method.teacher))
    embedding = method.embedding(out.pooled)
    expected = {
        "ce": make("ce").eval().losses(one)["ce"],
        "correlation": 3 * correlation_loss(embedding, taught.pooled, 1.5),
        "mutual": 7 * mutual_loss(out.pooled if same_width else embedding, taught.pooled),
        "kd": 0.5 * distillation(out.logits, taught.logits, 3.0),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}, rel=1e-4
    )


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("wrn_16_1", "resnet8x4")])
def test_widths_of_student_and_teacher_may_differ(make, batch, student, teacher):
    method = make("itrd", student=student, teacher=teacher)
    terms = method.losses(batch(method))
    assert terms.keys() == {"ce", "correlation", "mutual"}
    assert all(term.isfinite() for term in terms.values())
