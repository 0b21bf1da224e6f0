import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.sad import attention, attention_loss

generator = torch.Generator().manual_seed(3)
MAPS = [torch.randn(2, width, size, size, generator=generator) for width, size in ((2, 4), (3, 4), (2, 2))]


def test_the_loss_is_the_reference(reference):
    case = reference("sad")
    case.check(case.params["weight"] * attention_loss(list(case.student.values()), "mean"))


@pytest.mark.parametrize("over", ["mean", "sum"])
def test_attention_is_a_softmax_over_the_positions(over):
    x = MAPS[1][0].tolist()
    sums = [sum(channel[i][j] ** 2 for channel in x) / (3 if over == "mean" else 1) for i in range(4) for j in range(4)]
    powers = [math.exp(value) for value in sums]
    assert attention(MAPS[1], over)[0].tolist() == pytest.approx([p / sum(powers) for p in powers], rel=1e-5)


def upsampled(x, size):
    """Bilinear, with the centres of pixels on a grid, in plain Python; a square of rows."""
    scale = len(x) / size

    def weights(place):
        at = min(max((place + 0.5) * scale - 0.5, 0), len(x) - 1)
        low = int(at)
        return low, min(low + 1, len(x) - 1), at - low

    rows = []
    for i in range(size):
        top, bottom, down = weights(i)
        row = []
        for j in range(size):
            left, right, across = weights(j)
            first = (1 - across) * x[top][left] + across * x[top][right]
            second = (1 - across) * x[bottom][left] + across * x[bottom][right]
            row.append((1 - down) * first + down * second)
        rows.append(row)
    return rows


def test_the_deeper_map_is_resized_and_then_squared():
    larger = torch.tensor([[upsampled(channel, 4) for channel in image] for image in MAPS[2].tolist()])
    expected = F.mse_loss(attention(MAPS[1], "mean"), attention(larger, "mean"))
    assert attention_loss(MAPS[1:], "mean").item() == pytest.approx(expected.item(), rel=1e-4)
    same = F.mse_loss(attention(MAPS[0], "mean"), attention(MAPS[1], "mean"))
    assert attention_loss(MAPS, "mean").item() == pytest.approx((expected + same).item(), rel=1e-4)


def test_the_deeper_map_of_a_pair_is_not_taught():
    maps = [x.clone().requires_grad_() for x in MAPS]
    gradients = torch.autograd.grad(attention_loss(maps, "mean"), maps, allow_unused=True)
    assert gradients[2] is None
    alone = torch.autograd.grad(attention_loss(maps[1:], "mean"), maps[1])[0]
    torch.testing.assert_close(gradients[1], alone)


def test_zero_and_large_maps_are_finite():
    for factor in (0.0, 1e3):
        maps = [(factor * x).requires_grad_() for x in MAPS]
        loss = attention_loss(maps, "sum")
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, maps[:2]))


@pytest.mark.parametrize("student", ["resnet8", "vit_tiny"])
def test_terms_are_the_weighted_losses(make, batch, student):
    method = make("sad", student=student, weight=7.0, attention="sum").eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    terms = method.losses(one)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(out.logits, one.labels).item(), rel=1e-5)
    assert terms["attention"].item() == pytest.approx(7 * attention_loss(out.stages, "sum").item(), rel=1e-4)
