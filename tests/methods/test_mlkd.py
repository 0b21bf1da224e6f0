import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.method.logits import standardised
from kdbench.methods.mlkd import divergences, lower_half, masked_mean, relation_errors, relation_losses, unsure

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)


def logits(batch=6, classes=5, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(batch, classes, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("name", ["mlkd_batch", "mlkd_class"])
def test_a_relation_is_the_reference(reference, name):
    case = reference(name)
    p, q = (F.softmax(x / case.params["temperature"], 1) for x in (*case.student.values(), *case.fixed.values()))
    case.check((relation_errors(p, q) if name == "mlkd_batch" else relation_errors(p.T, q.T)).mean())


class Answers(torch.nn.Module):
    """A network that answers with given logits, one call after another."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = list(logits)

    def forward(self, images):
        return self.logits.pop(0)


@pytest.mark.parametrize("name", ["mlkd", "ls_mlkd"])
def test_the_method_is_the_reference(reference, make, batch, gin_parameters, monkeypatch, name):
    case = reference(f"{name}_total")
    method = make("mlkd", labels=range(7), **gin_parameters(name))
    one = replace(batch(method), labels=case.fixed["labels"].repeat(2))
    target = torch.cat([case.fixed["teacher_weak"], case.fixed["teacher_strong"]])
    taught = method.teach(one, "logits")._replace(logits=target)
    monkeypatch.setattr(type(method), "teach", lambda *_: taught)
    method.student = Answers(case.student["student_weak"], case.student["student_strong"])
    terms = method.losses(one)
    names = {"ce": "ce", "kd": "kd", "classes": "cc", "images": "bc"}
    assert {names[name]: t.item() for name, t in terms.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(terms.values()))


def test_divergences_are_those_of_kd():
    z, t = logits()
    for temperature, values in zip(TEMPERATURES, divergences(z, t, TEMPERATURES), strict=True):
        assert values.mean().item() == pytest.approx(distillation(z, t, temperature).item(), rel=1e-10)


@pytest.mark.parametrize("mask", ["share", "image", "off"])
@pytest.mark.parametrize("batch_size", [6, 7])
def test_relations_are_their_definition(mask, batch_size):
    z, t = logits(batch_size)
    certain = np.exp(t.numpy()) / np.exp(t.numpy()).sum(1, keepdims=True)
    chosen_classes, chosen_images = (
        x <= np.percentile(x, 50) for x in (certain.sum(0), certain.max(1))
    )  # the authors' threshold
    totals = [0.0, 0.0]
    for temperature in (2.0, 3.0):
        p, q = (np.exp(x.numpy() / temperature) for x in (z, t))
        p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
        for place, (a, b, chosen) in enumerate(((p.T, q.T, chosen_classes), (p, q, chosen_images))):
            for i in range(len(a)):
                row = sum((a[i] @ a[j] - b[i] @ b[j]) ** 2 for j in range(len(a)))
                totals[place] += row / len(a) * {"share": chosen.mean(), "image": chosen[i], "off": 1}[mask]
    values = [loss.item() for loss in relation_losses(z, t, (2.0, 3.0), mask)]
    assert values == pytest.approx(totals, rel=1e-10)


def test_the_unsure_are_half_of_the_images():
    (t,) = logits(9, count=1)
    assert unsure(t).sum() == 5
    assert lower_half(torch.tensor([3.0, 1.0, 2.0, 4.0])).tolist() == [False, True, True, False]
    assert lower_half(torch.ones(4)).all()


def test_masks():
    values, mask = torch.tensor([1.0, 3.0, 4.0, 8.0]), torch.tensor([True, False, False, True])
    assert [masked_mean(values, mask, how).item() for how in ("share", "image", "off")] == [2.0, 2.25, 4.0]


def test_the_same_images_twice_double_one_relation_and_quadruple_the_other_unless_they_are_scaled():
    z, t = logits()
    twice = z.repeat(2, 1), t.repeat(2, 1)
    (classes, images), (more_classes, more_images) = (
        relation_losses(*x, TEMPERATURES, "share") for x in ((z, t), twice)
    )
    torch.testing.assert_close(more_classes, 4 * classes)
    torch.testing.assert_close(more_images, 2 * images)
    for one, other in zip(
        *(relation_losses(*x, TEMPERATURES, "share", reference_batch=6) for x in ((z, t), twice)), strict=True
    ):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(relation_losses(z, t, TEMPERATURES, "share", reference_batch=6), (classes, images))


@pytest.mark.parametrize("mask", ["share", "image"])
def test_the_order_of_the_images_and_offsets_do_not_matter(mask):
    z, t = logits()
    losses = relation_losses(z, t, TEMPERATURES, mask)
    torch.testing.assert_close(relation_losses(z.flip(0) + 3, t.flip(0) - 5, TEMPERATURES, mask), losses)
    for loss in relation_losses(t, t, TEMPERATURES, mask):
        assert loss.item() == 0


@pytest.mark.parametrize("strong", [(4.0, 3.0, 5.0), TEMPERATURES])
@pytest.mark.parametrize("mask", ["share", "image"])
def test_terms_are_the_weighted_losses(make, batch, strong, mask):
    weak = TEMPERATURES[len(strong) :]
    given = {"strong_temperatures": strong, "weak_temperatures": weak, "mask": mask, "reference_batch": 3}
    method = make("mlkd", ce_weight=0.5, kd_weight=2.0, **given).eval()
    method.teacher.fc.weight.mul_(20)
    one = batch(method)
    (z, t), (z_strong, t_strong) = (
        [network(images) for network in (method.student, method.teacher)] for images in one.views()
    )
    terms = method.losses(one)
    labels = one.labels[:6]
    ce = F.cross_entropy(z, labels) + F.cross_entropy(z_strong, labels)
    kd = sum(distillation(z_strong, t_strong, x) for x in strong) + sum(distillation(z, t, x) for x in weak)
    kd = kd + masked_mean(divergences(z, t, TEMPERATURES).sum(0), unsure(t), mask)
    expected = (0.5 * ce, *(2 * x for x in (kd, *relation_losses(z, t, TEMPERATURES, mask, 3))))
    assert list(terms) == ["ce", "kd", "classes", "images"]
    assert [x.item() for x in terms.values()] == pytest.approx([x.item() for x in expected], rel=1e-4)


def test_standardised_logits_are_those_of_the_divergences_alone(make, batch):
    method, other = (make("mlkd", standardise=on).eval() for on in (False, True))
    one = batch(method)
    plain, terms = method.losses(one), other.losses(one)
    assert all(terms[name].item() == pytest.approx(plain[name].item()) for name in ("ce", "classes", "images"))
    z, t = (standardised(network(one.views()[1])) for network in (other.student, other.teacher))
    shift = 0.9 * sum(distillation(z, t, x) for x in (4.0, 3.0, 5.0)).item()
    assert terms["kd"].item() > shift > 0


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it(make, batch):
    method = make("mlkd", student="resnet14").eval()
    method.student.load_state_dict(method.teacher.state_dict())
    terms = method.losses(batch(method))
    assert [terms[each].item() for each in ("kd", "classes", "images")] == pytest.approx([0, 0, 0], abs=1e-6)


def test_large_and_equal_logits_are_finite():
    z = torch.tensor([[50.0, -50.0, 0.0], [2.0, 2.0, 2.0]], requires_grad=True)
    t = torch.tensor([[-50.0, 50.0, 0.0], [0.0, 0.0, 0.0]])
    for loss in (*relation_losses(z, t, TEMPERATURES, "share"), divergences(z, t, (1.0,)).sum()):
        (gradient,) = torch.autograd.grad(loss, z, retain_graph=True)
        assert math.isfinite(loss.item())
        assert gradient.isfinite().all()
