import dataclasses

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import Share, distillation
from kdbench.methods.ddgsd import discrepancy_loss, mutual_loss

generator = torch.Generator().manual_seed(1)
FIRST, SECOND = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)


def test_the_total_of_the_source_is_the_reference(reference):
    case = reference("ddgsd")
    logits, others, features, other_features = (
        case.student[name] for name in ("logits_a", "logits_b", "features_a", "features_b")
    )
    ce = 0.5 * F.cross_entropy(torch.cat([logits, others]), case.fixed["labels"].repeat(2))
    kd = mutual_loss(logits, others, case.params["temperature"])
    entries = discrepancy_loss(features, other_features, "entries")
    parts = {"ce": ce, "kl": kd, "mmd_scalar": entries}
    parts["mmd_mean_embedding"] = discrepancy_loss(features, other_features, "features")
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-9)
    case.check(ce + kd + case.params["mmd_weight"] * entries)


def test_each_direction_teaches_one_view_alone():
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    gradients = torch.autograd.grad(mutual_loss(first, second, 3.0), [first, second])
    for gradient, own, other in zip(gradients, (FIRST, SECOND), (SECOND, FIRST), strict=True):
        torch.testing.assert_close(gradient, 3 / 4 * (F.softmax(own / 3, dim=1) - F.softmax(other / 3, dim=1)))


def test_the_discrepancy_is_that_of_the_means():
    rows, others = FIRST.tolist(), SECOND.tolist()
    means = [sum(row[c] for row in rows) / 4 - sum(row[c] for row in others) / 4 for c in range(6)]
    assert discrepancy_loss(FIRST, SECOND, "features").item() == pytest.approx(sum(m * m for m in means))
    assert discrepancy_loss(FIRST, SECOND, "entries").item() == pytest.approx((sum(means) / 6) ** 2)
    shifted = FIRST + torch.tensor([1.0, -1.0] * 3)
    assert discrepancy_loss(FIRST, shifted, "features").item() == pytest.approx(6)
    assert discrepancy_loss(FIRST, shifted, "entries").item() == pytest.approx(0, abs=1e-20)


def test_terms_are_the_weighted_losses_of_two_views_in_one_pass(make, batch):
    weights = {"ce_weight": 2.0, "kd_weight": 3.0, "discrepancy_weight": 4.0}
    method = make("ddgsd", **weights).eval()
    one = batch(method)
    first, second = (method.student(view, features=True) for view in one.views())
    labels = one.labels[:6]
    kd = distillation(first.logits, second.logits, 4.0) + distillation(second.logits, first.logits, 4.0)
    expected = {
        "ce": F.cross_entropy(first.logits, labels) + F.cross_entropy(second.logits, labels),
        "kd": 3 * kd,
        "discrepancy": 4 * discrepancy_loss(first.pooled, second.pooled, "features"),
    }
    before = method.student.images_passed
    terms = method.losses(one)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-4
    )
    assert method.student.images_passed - before == 12


def test_means_are_those_of_the_whole_batch(make, batch):
    class Zeros(Share):
        """Another rank, whose features are zero in the first view and one in the second."""

        calls = 0

        def gather(self, x):
            self.calls += 1
            return torch.cat([x, torch.full_like(x, float(self.calls - 1))])

    method = make("ddgsd", discrepancy_weight=1.0).eval()
    one = batch(method)
    first, second = method.student(one.images, features=True).pooled.chunk(2)
    expected = ((first.mean(dim=0) - second.mean(dim=0) - 1) / 2).square().sum()
    term = method.losses(dataclasses.replace(one, share=Zeros()))["discrepancy"]
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)
