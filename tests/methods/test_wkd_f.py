from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.method import RunError, distillation
from kdbench.methods.wkd_f import cells, statistics, wkd_loss


def maps(shape=(3, 2, 4, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


def slow(x, target, mean_weight, grid):
    total, (images, channels, height, width) = 0.0, x.shape
    for b in range(images):
        for i in range(grid):
            for j in range(grid):
                rows = slice(int(np.floor(i * height / grid)), int(np.ceil((i + 1) * height / grid)))
                columns = slice(int(np.floor(j * width / grid)), int(np.ceil((j + 1) * width / grid)))
                for c in range(channels):
                    a, t = (each[b, c, rows, columns].numpy() for each in (x, target))
                    deviations = [np.sqrt(each.var(ddof=1) + 1e-5) for each in (a, t)]
                    total += mean_weight * (a.mean() - t.mean()) ** 2 + (deviations[0] - deviations[1]) ** 2
    return total / images / grid**2


@pytest.mark.parametrize("name", ["wkdf_global", "wkdf_grid2"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    x, target = case.student["student_map"], case.fixed["teacher_map"]
    case.check(wkd_loss(x, target, case.params["mean_weight"], case.params["grid"]))


@pytest.mark.parametrize(
    ("shape", "grid"), [((3, 2, 4, 4), 1), ((3, 2, 4, 4), 2), ((2, 3, 5, 7), 4), ((2, 3, 7, 7), 3)]
)
def test_the_loss_is_its_definition(shape, grid):
    x, target = maps(shape)
    assert wkd_loss(x, target, 3.0, grid).item() == pytest.approx(slow(x, target, 3.0, grid), rel=1e-12)


def test_four_images_by_hand():
    """Pixels 0 and 2: mean 1, variance 2. Pixels 3 and 3: mean 3, variance 0. ρ = 4: 4 · 2² + (√2 − 0)² = 18 for one of four."""
    x = torch.tensor([[0.0, 2.0], [3.0, 3.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64).view(4, 1, 1, 2)
    target = torch.tensor([[3.0, 3.0], [3.0, 3.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64).view(4, 1, 1, 2)
    deviation = 2.00001**0.5 - 0.00001**0.5
    assert wkd_loss(x, target, 4.0, 1).item() == pytest.approx((16 + deviation**2) / 4, rel=1e-12)


@pytest.mark.parametrize(("size", "grid"), [(8, 1), (8, 4), (5, 4), (7, 3)])
def test_cells_are_those_of_adaptive_pooling(size, grid):
    x = torch.arange(float(size)).square()
    pooled = torch.nn.functional.adaptive_avg_pool1d(x[None], grid)[0]
    assert [x[cell].mean().item() for cell in cells(size, grid)] == pytest.approx(pooled.tolist())


def test_gradients_are_those_of_finite_differences():
    x, target = maps((2, 2, 3, 3))
    assert torch.autograd.gradcheck(lambda x: wkd_loss(x, target, 4.0, 2), x.requires_grad_())


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_map_has_a_finite_value_and_gradient(value):
    _, target = maps()
    x = torch.full_like(target, value).requires_grad_()
    loss = wkd_loss(x, target, 4.0, 2)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert wkd_loss(x, x.detach(), 4.0, 2) == 0


def test_the_place_within_a_cell_and_the_order_and_size_of_the_batch_do_not_matter():
    x, target = maps()
    loss = wkd_loss(x, target, 4.0, 1).item()
    assert wkd_loss(x.flip(2), target.flip(3), 4.0, 1).item() == pytest.approx(loss)
    assert wkd_loss(x.flip(2), target, 4.0, 2).item() != pytest.approx(wkd_loss(x, target, 4.0, 2).item())
    assert wkd_loss(x.flip(0), target.flip(0), 4.0, 1).item() == pytest.approx(loss)
    assert wkd_loss(x.repeat(2, 1, 1, 1), target.repeat(2, 1, 1, 1), 4.0, 1).item() == pytest.approx(loss)


def test_large_values_keep_their_deviation_in_float32():
    x, _ = maps()
    _, deviation = statistics(x.float() + 1000, 1)
    assert torch.allclose(deviation, statistics(x, 1)[1].float(), rtol=1e-3)


def test_terms_are_the_weighted_losses(make, batch):
    method = make("wkd_f", teacher="resnet8x4", weight=2.0, mean_weight=3.0, grid=1).eval()
    one = batch(method)
    x, target = (net(one.images, features=True).stages[-1] for net in (method.student, method.teacher))
    expected = 2 * wkd_loss(method.regressor(x), target, 3.0, 1).item()
    terms = method.losses(one)
    assert list(terms) == ["ce", "wkd"]
    assert terms["wkd"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


def test_distillation_is_a_term_if_it_has_a_weight(make, batch):
    method = make("wkd_f", kd_weight=0.5, temperature=2.0).eval()
    one = batch(method)
    expected = 0.5 * distillation(method.student(one.images), method.teacher(one.images), 2.0).item()
    assert method.losses(one)["kd"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("decay_from", "progress", "factor"),
    [
        (0.625, 0.0, 1.0),
        (0.625, 0.625, 1.0),
        (0.625, 0.8125, 0.5),
        (0.625, 1.0, 0.0),
        (1.0, 0.99, 1.0),
        (0.0, 0.5, 0.5),
    ],
)
def test_the_weight_falls_by_half_a_cosine(make, batch, decay_from, progress, factor):
    method = make("wkd_f", decay_from=decay_from).eval()
    one = batch(method)
    full = method.losses(one)["wkd"].item()
    assert method.losses(replace(one, progress=progress))["wkd"].item() == pytest.approx(factor * full, abs=1e-7)


@pytest.mark.parametrize(
    ("student", "teacher", "image"),
    [("resnet8", "resnet18", (3, 32, 32)), ("resnet18", "resnet8", (3, 16, 16)), ("resnet8", "vgg8", (3, 32, 32))],
)
def test_widths_and_resolutions_may_differ(make, batch, student, teacher, image):
    method = make("wkd_f", student=student, teacher=teacher, image=image)
    loss = method.losses(batch(method))["wkd"]
    loss.backward()
    first = next(method.student.parameters())
    assert loss.isfinite()
    assert first.grad.isfinite().all()
    assert first.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"teacher": "resnet18"},
            "have 2×2 and 1×1 pixels, which WKDF.grid=1 cuts into single ones; take larger images",
        ),
        ({"grid": 2}, "have 2×2 and 2×2 pixels, which WKDF.grid=2 cuts into single ones; take a smaller grid or"),
        ({"grid": 5}, "WKDF.grid=5 cuts into single ones; take a smaller grid or"),
        ({"grid": 0}, "wkd_f needs at least one cell, not WKDF.grid=0"),
    ],
)
def test_a_cell_of_one_pixel_is_refused(make, given, sentence):
    with pytest.raises(RunError) as error:
        make("wkd_f", **given)
    assert sentence in str(error.value)
