import itertools

import numpy as np
import pytest
import torch

from kdbench.method import RunError
from kdbench.methods.kdsvd import aligned, singular_vectors, svd_loss


def maps(*shapes, seed=2):
    """Non-negative, as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def test_the_loss_is_the_reference(reference):
    case = reference("kdsvd")
    case.check(svd_loss(case.maps("student"), case.maps("teacher"), case.params["k"]))


def slow_vectors(image: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    _, values, rows = np.linalg.svd(image.reshape(len(image), -1).T, full_matrices=False)
    vectors = np.array([row if row.sum() > 0 else -row for row in rows[:count]])
    return vectors, values[:count]


def slow_loss(ours: list[np.ndarray], theirs: list[np.ndarray], k: int) -> float:
    """Of one image; its maps are (C, H, W)."""
    chosen = []
    for x, t in zip(ours, theirs, strict=True):
        (v, _), (w, values) = slow_vectors(x, k + 3), slow_vectors(t, k)
        scale = values / np.sqrt((values**2).sum())
        nearest = [max(v, key=lambda each: abs(each @ wanted)) for wanted in w]
        chosen.append([(s * np.sign(n @ b) * n, s * b) for n, b, s in zip(nearest, w, scale, strict=True)])
    total = 0.0
    for before, here in itertools.pairwise(chosen):
        for (v1, w1), (v0, w0) in zip(here, before, strict=True):
            for i in range(len(v1)):
                for j in range(len(v0)):
                    r = np.exp(-((v1[i] - v0[j]) ** 2) / 8) - np.exp(-((w1[i] - w0[j]) ** 2) / 8)
                    total += r**2
    return total


@pytest.mark.parametrize("k", [1, 2])
def test_the_loss_is_its_definition(k):
    ours = maps((3, 4, 4, 4), (3, 6, 2, 2), (3, 9, 2, 1))  # more pixels than channels, and fewer
    theirs = maps((3, 4, 4, 4), (3, 6, 3, 3), (3, 9, 2, 2), seed=5)
    arrays = [[x.detach().numpy() for x in each] for each in (ours, theirs)]
    expected = np.mean([slow_loss(*([m[n] for m in each] for each in arrays), k) for n in range(3)])
    assert svd_loss(ours, theirs, k).item() == pytest.approx(expected, rel=1e-9)


def test_gradients_are_those_of_finite_differences():
    x, y = maps((2, 4, 3, 3), (2, 5, 2, 2))
    targets = [t.detach() for t in maps((2, 4, 2, 2), (2, 5, 2, 2), seed=5)]
    assert torch.autograd.gradcheck(lambda x, y: svd_loss([x, y], targets, 1), (x, y))


@pytest.mark.parametrize("shape", [(3, 4, 4, 4), (3, 9, 2, 2)])
def test_vectors_are_those_of_numpy(shape):
    (x,) = maps(shape)
    vectors, values = singular_vectors(x, 3)
    for image, ours, sigma in zip(x.detach().numpy(), vectors.detach().numpy(), values.detach().numpy(), strict=True):
        rows, expected = slow_vectors(image, 3)
        assert np.allclose(ours.T, rows, rtol=0, atol=1e-9)
        assert sigma == pytest.approx(expected, rel=1e-9)
    assert (vectors[:, :, 0] > 0).all(), "the first vector of a non-negative matrix"


def test_the_nearest_vector_is_taken_from_its_own_side():
    (v,) = maps((2, 5, 4))
    v = torch.linalg.qr(v - 0.5).Q
    target = torch.stack([-v[:, :, 2], v[:, :, 0]], dim=2)
    torch.testing.assert_close(aligned(v, target), target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_of_zeros_and_equal_pixels_have_a_finite_gradient(dtype):
    ours = [x.detach().to(dtype) for x in maps((5, 4, 4, 4), (5, 6, 2, 2))]
    theirs = [x.detach().to(dtype) for x in maps((5, 4, 4, 4), (5, 6, 2, 2), seed=5)]
    for x, t in zip(ours, theirs, strict=True):
        x[0] = 0
        t[1] = 0
        x[2] = 0.7
        x[3, 1:] = 0
        x.requires_grad_()
    loss = svd_loss(ours, theirs, 1)
    assert loss.isfinite()
    gradients = torch.autograd.grad(loss, ours)
    assert all(g.isfinite().all() for g in gradients)
    assert all((g[0] == 0).all() for g in gradients)
    assert all((g[4] != 0).any() for g in gradients), "the other images keep theirs"


def test_equal_maps_have_no_loss_and_scale_and_order_of_images_do_not_matter():
    x = maps((4, 4, 3, 3), (4, 6, 2, 2))
    t = maps((4, 4, 3, 3), (4, 6, 2, 2), seed=5)
    torch.testing.assert_close(svd_loss(x, x, 1), torch.zeros((), dtype=torch.float64))
    whole = svd_loss(x, t, 1)
    torch.testing.assert_close(svd_loss([3 * m for m in x], [m / 7 for m in t], 1), whole)
    torch.testing.assert_close(svd_loss([m.flip(0) for m in x], [m.flip(0) for m in t], 1), whole)
    torch.testing.assert_close(svd_loss([m.flip(2) for m in x], t, 1), whole)  # the order of the pixels


def test_terms_are_the_weighted_losses_of_all_stages(make, batch):
    method = make("kdsvd").eval()
    one = batch(method)
    x, t = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    losses = method.losses(one)
    assert losses["svd"].item() == pytest.approx(svd_loss(x, t, 1).item(), rel=1e-4)
    assert losses["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_added_with_its_weight_and_temperature(make, batch, temperature):
    terms = []
    for name in ("kdsvd", "kd"):
        method = make(name, kd_weight=0.5, temperature=temperature)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        terms.append(method.losses(batch(method))["kd"].item())
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)


def test_parameters_reach_their_terms(make, batch):
    one = batch(make("kdsvd"))
    base = make("kdsvd").losses(one)
    assert base.keys() == {"ce", "svd"}
    assert make("kdsvd", svd_weight=10.0).losses(one)["svd"].item() == pytest.approx(10 * base["svd"].item())
    assert make("kdsvd", k=2).losses(one)["svd"].item() != pytest.approx(base["svd"].item(), rel=1e-3)


def test_networks_of_other_widths_are_refused(make, batch):
    method = make("kdsvd", student="wrn_16_1", teacher="resnet8")
    assert all(loss.isfinite() for loss in method.losses(batch(method)).values())
    with pytest.raises(RunError, match="student's have 16, 32 and 64, the teacher's 12, 16, 48 and 160"):
        make("kdsvd", teacher="mobilenetv2")


def test_parameters_that_are_impossible_are_refused(make):
    with pytest.raises(RunError, match=r"KDSVD\.k must be a positive integer, not 0"):
        make("kdsvd", k=0)


def test_the_decomposition_is_not_in_half_precision(make, batch):
    method = make("kdsvd").eval()
    one = batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.losses(one)["svd"]
    assert loss.dtype == torch.float32
    assert loss.isfinite()
