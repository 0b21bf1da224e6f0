from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.methods.sld import swapped_divergence

TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def logits(batch=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z, t = (2 * torch.randn(batch, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z, t, torch.randint(classes, (batch,), generator=generator)


class Answers(torch.nn.Module):
    """A network that answers with given logits, one call after another."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = list(logits)

    def forward(self, images):
        return self.logits.pop(0)


@pytest.mark.parametrize("epoch", [100, 151])
def test_the_method_is_the_reference_where_the_target_is_not_detached(reference, make, batch, monkeypatch, epoch):
    case = reference(f"sld_total_epoch{epoch}")
    method = make("sld", labels=range(7), detach=False)
    one = replace(batch(method, anchors=5), labels=case.fixed["labels"].repeat(2), epoch=epoch)
    target = torch.cat([case.fixed["teacher_weak"], case.fixed["teacher_strong"]])
    taught = method.teach(one, "logits")._replace(logits=target)
    monkeypatch.setattr(type(method), "teach", lambda *_: taught)
    method.student = Answers(case.student["student_weak"], case.student["student_strong"])
    terms = method.losses(one)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(terms.values()))


def test_the_divergence_is_that_of_kd_from_logits_swapped_by_hand():
    z, t, labels = logits()
    targets = t.clone()
    for row, label in zip(targets, labels.tolist(), strict=True):
        largest = max(range(5), key=lambda k, row=row: row[k].item())
        row[[label, largest]] = row[[largest, label]]
    expected = sum(distillation(z, targets, temperature) for temperature in TEMPERATURES)
    torch.testing.assert_close(swapped_divergence(z, t, labels, TEMPERATURES), expected)


def test_where_the_teacher_is_right_it_is_kd():
    z, t, _ = logits()
    expected = sum(distillation(z, t, temperature) for temperature in TEMPERATURES)
    torch.testing.assert_close(swapped_divergence(z, t, t.argmax(dim=1), TEMPERATURES), expected)


def test_the_order_of_the_images_and_offsets_do_not_matter():
    z, t, labels = logits()
    flipped = swapped_divergence(z.flip(0) + 3, t.flip(0) - 5, labels.flip(0), TEMPERATURES)
    torch.testing.assert_close(flipped, swapped_divergence(z, t, labels, TEMPERATURES))


@pytest.mark.parametrize("detach", [True, False])
def test_terms_are_the_weighted_losses_of_both_views(make, batch, detach):
    method = make("sld", ce_weight=0.5, kd_weight=3.0, temperatures=(2.0, 4.0), student_target_epoch=7, detach=detach)
    method.eval().teacher.fc.weight.mul_(20)
    one = batch(method)
    values = []
    for epoch in (6, 7):
        terms = method.losses(replace(one, epoch=epoch))
        expected = {"ce": 0.0, "kd": 0.0}
        for images in one.views():
            z, t, labels = method.student(images), method.teacher(images), one.labels[:6]
            expected["ce"] += 0.5 * F.cross_entropy(z, labels).item()
            for target in (t, z)[: 1 + (epoch >= 7)]:
                expected["kd"] += 3 * swapped_divergence(z, target, labels, (2.0, 4.0)).item()
        assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)
        values.append(terms["kd"].item())
    assert values[1] > values[0]


def test_a_detached_target_changes_the_gradient_and_not_the_value(make, batch):
    values, gradients = [], []
    for detach in (True, False):
        method = make("sld", student_target_epoch=1, detach=detach).eval()
        term = method.losses(batch(method))["kd"]
        values.append(term.item())
        gradients.append(torch.autograd.grad(term, method.student.fc.bias)[0])
    assert values[0] == values[1]
    assert not torch.allclose(*gradients)


def test_large_and_equal_logits_in_half_precision():
    z = torch.tensor([[50.0, -50.0, 0.0], [2.0, 2.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    t = torch.tensor([[-50.0, 50.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    loss = swapped_divergence(z, t, torch.tensor([2, 1]), TEMPERATURES)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.isfinite().all()
