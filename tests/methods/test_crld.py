import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.methods.crld import confident, view_losses


def logits(batch=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(batch, classes, generator=generator, dtype=torch.float64) for _ in range(4)]


@pytest.mark.parametrize("name", ["crld_total", "crld_all_masked"])
def test_the_total_is_the_reference(reference, name):
    case = reference(name)
    p, student = case.params, tuple(case.student[f"student_{view}"] for view in ("weak", "strong"))
    target = tuple(case.fixed[f"teacher_{view}"] for view in ("weak", "strong"))
    within, across = view_losses(student, target, p["temperature"], (p["tau_weak"], p["tau_strong"]))
    ce = sum(F.cross_entropy(z, case.fixed["labels"]) for z in student)
    kd = p["wv_weight"] * within + p["cv_weight"] * across
    assert {"ce": ce.item(), "kd": kd.item()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(ce + kd)


def slow(z_w, z_s, t_w, t_s, own):
    """Both means by hand, at T = 2 and the thresholds 0.6 and 0.4."""

    def softmax(row, temperature):
        powers = [math.exp(v / temperature) for v in row]
        return [v / sum(powers) for v in powers]

    within = across = 0.0
    for rows in zip(z_w.tolist(), z_s.tolist(), t_w.tolist(), t_s.tolist(), strict=True):
        a, b, c, d = (softmax(row, 2.0) for row in rows)
        m_w, m_s = max(softmax(rows[2], 1.0)) >= 0.6, max(softmax(rows[3], 1.0)) >= 0.4

        def kl(q, p):
            return 4 * sum(v * math.log(v / w) for v, w in zip(q, p, strict=True)) / len(z_w)

        within += m_w * kl(c, a) + (m_s if own else m_w) * kl(d, b)
        across += (m_w if own else m_s) * kl(c, b) + m_s * kl(d, a)
    return [within, across]


@pytest.mark.parametrize("gate", ["term", "own"])
def test_losses_are_their_definition(gate):
    z_w, z_s, t_w, t_s = logits()
    losses = view_losses((z_w, z_s), (t_w, t_s), 2.0, (0.6, 0.4), gate)
    assert [x.item() for x in losses] == pytest.approx(slow(z_w, z_s, t_w, t_s, gate == "own"), rel=1e-10)


def test_an_image_of_exactly_the_threshold_counts():
    assert confident(torch.zeros(1, 4), 0.25).tolist() == [1.0]
    assert confident(torch.zeros(1, 4), 0.26).tolist() == [0.0]


@pytest.mark.parametrize("gate", ["term", "own"])
def test_without_thresholds_all_divergences_are_those_of_kd(gate):
    z_w, z_s, t_w, t_s = logits()
    within, across = view_losses((z_w, z_s), (t_w, t_s), 4.0, (0.0, 0.0), gate)
    torch.testing.assert_close(within, distillation(z_w, t_w, 4.0) + distillation(z_s, t_s, 4.0))
    torch.testing.assert_close(across, distillation(z_s, t_w, 4.0) + distillation(z_w, t_s, 4.0))


def test_the_order_of_the_images_and_offsets_do_not_matter():
    z_w, z_s, t_w, t_s = logits()
    losses = view_losses((z_w, z_s), (t_w, t_s), 4.0, (0.6, 0.4))
    flipped = [x.flip(0) + shift for x, shift in zip((z_w, z_s, t_w, t_s), (1, -2, 3, -4), strict=True)]
    torch.testing.assert_close(view_losses(tuple(flipped[:2]), tuple(flipped[2:]), 4.0, (0.6, 0.4)), losses)


def test_large_and_equal_logits_in_half_precision():
    z = torch.tensor([[50.0, -50.0, 0.0], [2.0, 2.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    t = torch.tensor([[-50.0, 50.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    loss = sum(view_losses((z, z), (t, t), 1.0, (0.0, 0.0)))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("gate", ["term", "own"])
def test_terms_are_the_weighted_losses(make, batch, gate):
    given = {"temperature": 3.0, "weak_threshold": 0.5, "strong_threshold": 0.4, "gate": gate}
    method = make("crld", within_weight=5.0, across_weight=7.0, **given).eval()
    method.teacher.fc.weight.mul_(20)
    one = batch(method, anchors=12)
    student, target = (tuple(n(x) for x in one.views()) for n in (method.student, method.teacher))
    terms = method.losses(one)
    within, across = view_losses(student, target, 3.0, (0.5, 0.4), gate)
    assert within > 0
    assert across > 0
    assert list(terms) == ["ce", "within", "across"]
    ce = sum(F.cross_entropy(z, one.labels[:12]) for z in student)
    expected = [ce.item(), 5 * within.item(), 7 * across.item()]
    assert [x.item() for x in terms.values()] == pytest.approx(expected, rel=1e-4)


def test_the_views_are_those_of_the_same_image(make, batch):
    method = make("crld", weak_threshold=0.0, strong_threshold=0.0).eval()
    one = batch(method)
    weak, strong = one.views()
    assert len(weak) == len(strong) == 6
    assert not torch.equal(weak, strong)
    assert torch.equal(*one.index.chunk(2))
