import math

import numpy as np
import pytest
import torch

from kdbench.method import softened_kl
from kdbench.method.logits import deviation, divergence_of_each, log_softmax_among, standardised, warm_up


def logits(images: int = 4, classes: int = 6) -> torch.Tensor:
    return 3 * torch.randn(images, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_standardised_is_its_definition():
    x = logits().numpy()
    expected = (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-7)
    np.testing.assert_allclose(standardised(torch.tensor(x)).numpy(), expected, rtol=1e-12)


def test_shift_and_scale_do_not_matter():
    torch.testing.assert_close(standardised(5 * logits() - 9), standardised(logits()), rtol=1e-6, atol=1e-6)


def test_equal_logits_become_zero_with_a_finite_gradient():
    x = torch.full((2, 6), 0.7, dtype=torch.float64, requires_grad=True)
    result = standardised(x)
    assert result.abs().max() < 1e-8
    (gradient,) = torch.autograd.grad(result.square().sum() + result[0, 0], x)
    assert gradient.isfinite().all()
    assert deviation(x).tolist() == [[pytest.approx(1e-7)]] * 2


def test_half_precision_is_widened():
    assert standardised(logits().bfloat16()).dtype == deviation(logits().half()).dtype == torch.float32


def test_the_divergences_average_to_the_shared_one():
    z, t = logits(), logits().flip(0)
    torch.testing.assert_close(divergence_of_each(z / 3, t / 3).mean(), softened_kl(z, t, 3.0))


def test_a_softmax_among_some_classes_leaves_the_others_out():
    x = logits().requires_grad_()
    classes = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    classes[:, 2] = True
    result = log_softmax_among(x, classes)
    for row, among, values in zip(x.tolist(), classes.tolist(), result.tolist(), strict=True):
        total = math.log(sum(math.exp(value) for value, kept in zip(row, among, strict=True) if kept))
        assert values == pytest.approx([v - total if kept else 0.0 for v, kept in zip(row, among, strict=True)])
    (gradient,) = torch.autograd.grad(result.square().sum(), x)
    assert gradient.isfinite().all()
    assert (gradient[~classes] == 0).all()


@pytest.mark.parametrize(("epoch", "epochs", "factor"), [(1, 20, 0.05), (20, 20, 1.0), (200, 20, 1.0), (1, 0, 1.0)])
def test_the_warm_up_counts_epochs_from_1(epoch, epochs, factor):
    assert warm_up(epoch, epochs) == pytest.approx(factor)
