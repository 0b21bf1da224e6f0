import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from kdbench.method.connectors import ConvBN, Regressor, equal_resolution, normalised, paired, pooled


@given(st.integers(1, 5), st.integers(1, 5))
def test_stages_are_paired_from_the_deepest(ours, theirs):
    pairs = paired([f"s{n}" for n in range(ours)], list(range(theirs)))
    assert pairs[-1] == (f"s{ours - 1}", theirs - 1)
    assert len(pairs) == min(ours, theirs)
    assert all(theirs - t == ours - int(s[1:]) for s, t in pairs)


def test_the_larger_map_is_averaged():
    small, large = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)
    for one, other in ((small, large), (large, small)):
        a, b = equal_resolution(one, other)
        assert torch.equal(a if one is small else b, small)
        assert torch.equal(b if one is small else a, F.adaptive_avg_pool2d(large, 4))


def test_a_map_of_the_right_size_is_not_copied():
    x = torch.randn(2, 3, 4, 4)
    assert pooled(x, (4, 4)) is x
    assert pooled(x.bfloat16(), (2, 2)).dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (4, 2), (3, 3), (8, 8), (8, 4), (12, 4)])
def test_every_size_is_what_torchs_adaptive_average_gives(size):
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    ours, theirs = pooled(x, size), F.adaptive_avg_pool2d(x, size)
    assert torch.equal(ours, theirs)
    weights = torch.randn(size, dtype=torch.float64)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs)]
    assert torch.allclose(*gradients)


@pytest.mark.parametrize("dim", [1, (1, 2)])
def test_normalised_rows_have_length_1_and_small_ones_no_gradient(dim):
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    x[1] = 0
    x[2] = 1e-14
    x.requires_grad_()
    y = normalised(x, dim)
    norm = torch.linalg.vector_norm(y, dim=dim)
    assert torch.allclose(norm[[0, 3]], torch.ones_like(norm[[0, 3]]))
    assert torch.equal(y[1], torch.zeros(3, 5, dtype=torch.float64))
    assert torch.allclose(y[2], x[2] / 1e-12)
    (gradient,) = torch.autograd.grad((y * torch.arange(5)).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient[1:3] == 0).all()
    assert gradient[0].norm() > 0


def test_normalised_is_torchs_own_where_nothing_is_small():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    ours, theirs = normalised(x), F.normalize(x)
    weights = torch.randn(4, 6, dtype=torch.float64)
    assert torch.allclose(ours, theirs, rtol=1e-14)
    (a,), (b,) = (torch.autograd.grad((y * weights).sum(), x) for y in (ours, theirs))
    assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("height", "target", "result"), [(8, 8, 8), (8, 4, 4), (4, 8, 8), (8, 3, 3), (8, 6, 6), (3, 8, 3), (1, 1, 1)]
)
@pytest.mark.parametrize("relu", [True, False])
def test_a_regressor_leads_from_any_resolution_to_any(height, target, result, relu):
    regressor = Regressor((3, height, height), (5, target, target), relu=relu)
    y = regressor(torch.randn(4, 3, height, height))
    assert y.shape == (4, 5, result, result)
    assert bool((y < 0).any()) != relu or height == 1


@pytest.mark.parametrize("adapter", [ConvBN(3, 5, relu=True), Regressor((3, 4, 4), (5, 4, 4), relu=True)])
def test_adapters_compute_in_float32(adapter):
    x = torch.randn(4, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert adapter(x.bfloat16()).dtype == torch.float32
        y = adapter(x)
    assert torch.equal(y, adapter(x))


def test_weights_of_adapters_can_be_drawn_wide():
    torch.manual_seed(0)
    assert ConvBN(64, 128, wide_normal=True).conv.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
