import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import softened_kl
from kdbench.methods.ttm import power_sum, ttm_loss


def logits(batch=6, classes=5, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(batch, classes, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("name", ["ttm", "wttm", "ttm_equal_logits", "ttm_large_logits", "wttm_large_logits"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    z, t = case.student["student_logits"], case.fixed["teacher_logits"]
    case.check(ttm_loss(z, t, case.params["gamma"], weighted=name.startswith("wttm")))


def test_the_total_is_the_reference(reference):
    case = reference("ttm_total")
    z, t = case.student["student_logits"], case.fixed["teacher_logits"]
    parts = {
        "ce": F.cross_entropy(z, case.fixed["labels"]),
        "ttm": case.params["weight"] * ttm_loss(z, t, case.params["gamma"]),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_its_definition(weighted):
    z, t = logits()
    total = 0.0
    for a, b in zip(z.tolist(), t.tolist(), strict=True):
        p = [math.exp(v) / sum(map(math.exp, a)) for v in a]
        teacher = [math.exp(v) / sum(map(math.exp, b)) for v in b]
        powers = [v**0.3 for v in teacher]
        q = [v / sum(powers) for v in powers]
        kl = sum(v * math.log(v / w) for v, w in zip(q, p, strict=True))
        total += (sum(powers) if weighted else 1.0) * kl / len(z)
    assert ttm_loss(z, t, 0.3, weighted).item() == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_at_power_1_it_is_the_divergence(weighted):
    z, t = logits()
    torch.testing.assert_close(ttm_loss(z, t, 1.0, weighted), softened_kl(z, t, 1.0))


def test_the_weight_of_an_image_lies_between_1_and_that_of_even_probabilities():
    (t, _), gamma = logits(classes=7), 0.4
    weights = power_sum(t, gamma)
    assert (weights >= 1).all()
    assert (weights <= 7 ** (1 - gamma)).all()
    assert power_sum(torch.zeros(1, 7), gamma).item() == pytest.approx(7 ** (1 - gamma))


@pytest.mark.parametrize("weighted", [False, True])
def test_offsets_and_the_order_of_the_images_do_not_matter(weighted):
    z, t = logits()
    loss = ttm_loss(z, t, 0.1, weighted)
    torch.testing.assert_close(ttm_loss(z + 5, t - 7, 0.1, weighted), loss)
    torch.testing.assert_close(ttm_loss(z.flip(0), t.flip(0), 0.1, weighted), loss)
    torch.testing.assert_close(ttm_loss(z.repeat(2, 1), t.repeat(2, 1), 0.1, weighted), loss)


@pytest.mark.parametrize("weighted", [False, True])
def test_large_and_equal_logits_are_finite_in_half_precision(weighted):
    z = torch.tensor([[50.0, -50.0, 0.0], [2.0, 2.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    t = torch.tensor([[-50.0, 50.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    loss = ttm_loss(z, t, 0.1, weighted)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["ttm", "wttm"])
def test_terms_are_the_weighted_losses(make, batch, gin_parameters, name):
    assert gin_parameters(name)["weighted"] == (name == "wttm")
    given = {**gin_parameters(name), "weight": 3.0, "gamma": 0.5}
    method = make("ttm", **given).eval()
    method.teacher.fc.weight.mul_(20)  # with logits near 0 all powers are the same
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms.keys() == {"ce", "ttm"}
    assert terms["ttm"].item() == pytest.approx(3 * ttm_loss(z, t, 0.5, name == "wttm").item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(z, one.labels).item(), rel=1e-5)
