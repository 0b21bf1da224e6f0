import numpy as np
import pytest
import torch

from kdbench.method import distillation
from kdbench.method.connectors import ConvBN
from kdbench.methods.ickd import correlations, ickd_loss


def maps(batch=3, widths=(5, 5), sides=(4, 2)):
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(batch, width, side, side, generator=generator, dtype=torch.float64)
        for width, side in zip(widths, sides, strict=True)
    ]


@pytest.mark.parametrize("name", ["ickd", "ickd_resolution"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    x, target = case.student["student_map"], case.fixed["teacher_map"]
    embedding = ConvBN(x.shape[1], target.shape[1]).double()
    embedding.conv.weight.data.copy_(case.fixed["embed_weight"])
    embedding.load_state_dict({"bn.weight": case.fixed["bn_weight"], "bn.bias": case.fixed["bn_bias"]}, strict=False)
    case.check(ickd_loss(embedding(x), target))


def slow_correlations(x):
    """Channel by channel, of one image (C, H, W)."""
    products = np.array([[(a * b).sum() for b in x] for a in x])
    return np.array([row / max(np.sqrt((row**2).sum()), 1e-12) for row in products])


def test_the_loss_is_its_definition():
    x, target = maps()
    x[1, 2] = 0  # a dead channel
    total = sum(
        ((slow_correlations(a) - slow_correlations(b)) ** 2).sum()
        for a, b in zip(x.numpy(), target.numpy(), strict=True)
    )
    assert ickd_loss(x, target).item() == pytest.approx(total / (3 * 5), rel=1e-10)


def test_correlations_do_not_depend_on_the_scale_or_the_place_of_pixels():
    x, _ = maps()
    torch.testing.assert_close(correlations(3 * x), correlations(x))
    torch.testing.assert_close(correlations(x.flip(3).transpose(2, 3)), correlations(x))


def test_dead_channels_and_equal_images():
    x, target = maps()
    x[0] = 0
    x[1] = x[2]
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(ickd_loss(x, target), x)
    assert gradient.isfinite().all()
    assert (gradient[0] == 0).all()
    torch.testing.assert_close(correlations(x)[1], correlations(x)[2])


def test_the_term_is_the_weighted_loss(make, batch):
    method = make("ickd", weight=3.0, kd_weight=0.0, teacher="resnet8x4").eval()
    one = batch(method)
    ours, theirs = (network(one.images, features=True).stages[-1] for network in (method.student, method.teacher))
    losses = method.losses(one)
    assert losses.keys() == {"ce", "ickd"}
    assert losses["ickd"].item() == pytest.approx(3 * ickd_loss(method.embedding(ours), theirs).item(), rel=1e-5)


def test_kd_comes_in_addition(make, batch):
    method = make("ickd", kd_weight=2.0, temperature=3.0).eval()
    one = batch(method)
    expected = 2 * distillation(method.student(one.images), method.teacher(one.images), 3.0)
    assert method.losses(one)["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
