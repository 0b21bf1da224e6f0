"""KD++. tests/contract/test_memory_methods.py has the class means in whole runs."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import Features, distillation
from kdbench.methods.kdpp import nd_loss


def test_norm_and_direction_are_the_reference(reference):
    case = reference("kdpp_nd")
    fixed = case.fixed
    case.check(
        nd_loss(case.student["student_feature"], fixed["teacher_feature"], fixed["class_means"], fixed["labels"])
    )


@pytest.mark.parametrize(("first_epoch", "epoch"), [(1, 5), (0, 6)])
def test_all_terms_are_the_reference(make, batch, reference, monkeypatch, first_epoch, epoch):
    case = reference("kdpp_total")
    fixed, given = case.fixed, dict(case.params)
    assert given.pop("epoch") == 5
    method = make("kdpp", labels=[0, 1, 2, 3], first_epoch=first_epoch, **given).double()
    ours, theirs = (
        Features(of[f"{whose}_logits"], (), of[f"{whose}_feature"])
        for whose, of in (("student", case.student), ("teacher", fixed))
    )
    one = batch(method)
    monkeypatch.setattr(method.student, "forward", lambda images, features: ours)
    monkeypatch.setattr(method, "teach", lambda batch, *want: theirs)
    method.class_means = fixed["class_means"]
    terms = method.losses(dataclasses.replace(one, labels=fixed["labels"], epoch=epoch))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(terms.values()))


def test_norm_and_direction_are_their_definition_in_plain_python():
    f, h = [[3.0, 4.0], [0.3, -0.4], [1.0, 1.0], [-2.0, 0.5]], [[1.0, 0.0], [0.0, 2.0], [1.0, -1.0], [3.0, 3.0]]
    means, labels = [[2.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0]
    total = 0.0
    for x, t, y in zip(f, h, labels, strict=True):
        e = [number / math.hypot(*means[y]) for number in means[y]]
        total += 1 - sum(a * b for a, b in zip(x, e, strict=True)) / max(math.hypot(*x), math.hypot(*t))
    value = nd_loss(*(torch.tensor(x, dtype=torch.float64) for x in (f, h, means)), torch.tensor(labels))
    assert value.item() == pytest.approx(total / 4, rel=1e-10)


def test_features_and_means_of_zeros_have_no_gradient():
    means = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    feature = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    loss = nd_loss(feature, torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 4.0]]), means, torch.tensor([0, 1, 0]))
    (gradient,) = torch.autograd.grad(loss, feature)
    assert loss.item() == 1
    assert torch.equal(gradient[:2], torch.zeros(2, 2))
    torch.testing.assert_close(gradient[2], torch.tensor([-1 / 15, 0.0]))


@pytest.mark.parametrize("student", ["resnet8", "resnet8x4"])
def test_terms_are_the_weighted_losses(make, batch, student):
    given = {"ce_weight": 0.5, "kd_weight": 2.0, "nd_weight": 3.0, "temperature": 2.0, "warmup_epochs": 10}
    method = make("kdpp", student=student, **given).eval()
    method.class_means.normal_()
    one = dataclasses.replace(batch(method), epoch=4)
    ours, theirs = (network(one.images, features=True) for network in (method.student, method.teacher))
    feature = ours.pooled
    if student == "resnet8x4":
        feature = method.connector.linear(method.connector.bn(feature))
    else:
        assert method.connector is None
    terms = method.losses(one)
    expected = {
        "ce": 0.5 * F.cross_entropy(ours.logits, one.labels),
        "kd": 0.4 * 2.0 * distillation(ours.logits, theirs.logits, 2.0),
        "nd": 3.0 * nd_loss(feature, theirs.pooled, method.class_means, one.labels),
    }
    assert terms.keys() == expected.keys()
    for name, term in expected.items():
        assert terms[name].item() == pytest.approx(term.item(), rel=1e-5)


def test_the_warm_up_begins_where_it_is_to_and_may_be_left_out(make, batch):
    def kd(epoch, **given):
        method = make("kdpp", **given)
        return method.losses(dataclasses.replace(batch(method), epoch=epoch))["kd"].item()

    full = kd(1, warmup_epochs=0)
    assert [kd(epoch) / full for epoch in (1, 10, 20, 21)] == pytest.approx([0.05, 0.5, 1, 1], rel=1e-4)
    assert [kd(epoch, first_epoch=0) / full for epoch in (1, 11, 21)] == pytest.approx([0, 0.5, 1], rel=1e-4)


def test_the_connector_drops_numbers_in_training_alone(make, batch):
    def nd(train, dropped):
        method = make("kdpp", student="resnet8x4", dropped=dropped).train(train)
        method.class_means.normal_(generator=torch.Generator().manual_seed(0))
        return method.losses(batch(method))["nd"].item()

    assert nd(False, 0.5) == pytest.approx(nd(False, 0.0), rel=1e-6)
    assert nd(True, 0.5) == pytest.approx(nd(True, 0.5), rel=1e-6)
    assert abs(nd(True, 0.5) - nd(True, 0.0)) > 1e-4


def test_the_variant_has_the_weights_of_its_pair(gin_parameters):
    base, variant = gin_parameters("kdpp"), gin_parameters("kdpp_paper")
    assert {key: value for key, value in variant.items() if value != base[key]} == {"kd_weight": 3.5}
