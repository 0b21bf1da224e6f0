"""TOFD against reference values, a slow definition, and its wiring to a teacher with exits."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.backbones.registry import build
from kdbench.errors import RunError
from kdbench.method import Teacher
from kdbench.methods.tofd import Exit, feature_loss, orthogonality, soft_loss


def test_terms_of_the_reference(reference):
    case = reference("tofd_terms")
    links = [case.student["link_1"], case.student["link_2"]]
    features = [F.linear(case.student[f"student_feature_{n}"], link) for n, link in enumerate(links, 1)]
    feature = feature_loss(features, [case.fixed["teacher_feature_1"], case.fixed["teacher_feature_2"]])
    orthogonal = orthogonality(links)
    assert feature.item() == pytest.approx(case.entry["parts"]["feature"], rel=1e-6)
    assert orthogonal.item() == pytest.approx(case.entry["parts"]["orthogonal"], rel=1e-6)
    case.check(case.params["alpha"] * feature + case.params["beta"] * orthogonal)


def test_orthogonality_by_hand():
    weight = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    # W Wᵀ − I = [4]; Wᵀ W − I = [[0, 2], [2, 3]].
    assert orthogonality([weight, weight]).item() == pytest.approx(2 * (4 + math.sqrt(4 + 4 + 9)), rel=1e-12)
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    assert orthogonality([rotation]).item() == pytest.approx(0, abs=1e-12)
    of_long = orthogonality([torch.eye(5, dtype=torch.float64)[:3]]).item()
    assert of_long == pytest.approx(math.sqrt(2)), "a link that is not square cannot be orthogonal on both sides"


def test_feature_loss_by_hand_and_at_0():
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    assert feature_loss([x, x], [target, 2 * target]).item() == pytest.approx(3 + 6)
    feature_loss([x], [torch.zeros_like(target)]).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize(("squared", "factor"), [(False, 1.0), (True, 9.0)])
def test_soft_loss(squared, factor):
    logits, target = torch.randn(2, 4, 5, dtype=torch.float64)
    expected = factor * F.cross_entropy(logits / 3, (target / 3).softmax(1)).item()
    assert soft_loss(logits, target, 3.0, squared).item() == pytest.approx(expected, rel=1e-12)


def test_an_exit_doubles_the_width_with_each_block():
    exit_ = Exit(4, 2, 5)
    assert exit_.body(torch.randn(2, 4, 8, 8)).shape == (2, 16, 2, 2)
    logits, feature = exit_(torch.randn(2, 4, 8, 8))
    assert (logits.shape, feature.shape) == ((2, 5), (2, 16))


def outputs(method, batch):
    """Logits and feature of every classifier of the student, and of the teacher."""
    out, taught = method.student(batch.images, features=True), method.teach(batch)
    exits = method.teachers[0].method.shallow
    theirs = [exit_(x) for exit_, x in zip(exits, taught.stages[:-1], strict=True)]
    ours = [exit_(x) for exit_, x in zip(method.shallow, out.stages[:-1], strict=True)]
    return [*ours, (out.logits, out.pooled)], [*theirs, (taught.logits, taught.pooled)]


def test_terms_are_the_weighted_losses(make, batch):
    method = make("tofd", alpha=2.0, beta=3.0, kd_weight=0.5, temperature=5.0, squared=True)
    one = batch(method)
    terms = method.losses(one)
    ours, theirs = outputs(method, one)
    ce = [F.cross_entropy(logits, one.labels).item() for logits, _ in ours]
    soft = [soft_loss(a, b, 5.0, True).item() for (a, _), (b, _) in zip(ours, theirs, strict=True)]
    norms = [(link(a) - b).norm().item() for link, (_, a), (_, b) in zip(method.links, ours, theirs, strict=True)]
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {
            "ce": ce[-1],
            "exit_ce": sum(ce[:-1]),
            "soft": 0.5 * sum(soft),
            "feature": 2 * sum(norms),
            "orthogonal": 3 * orthogonality([link.weight for link in method.links]).item(),
        },
        rel=1e-5,
    )
    exits = method.exits(one.images)
    assert all(torch.equal(a, b) for a, (b, _) in zip(exits.values(), ours[:-1], strict=True))
    assert method.teachers[0].exits(one.images).keys() == exits.keys()


@pytest.mark.parametrize(("epoch", "temperature"), [(1, 2.0), (2, 3.0), (3, 4.0)])
def test_the_temperature_rises_with_the_epochs(make, batch, epoch, temperature):
    method = make("tofd", temperature=4.0)
    method.info = replace(method.info, epochs=3)
    one = batch(method)
    ours, theirs = outputs(method, one)
    expected = sum(soft_loss(a, b, temperature, False).item() for (a, _), (b, _) in zip(ours, theirs, strict=True))
    assert method.losses(replace(one, epoch=epoch))["soft"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "resnet18"), ("resnet18", "resnet8"), ("resnet8", "wrn_16_1")]
)
def test_exits_are_paired_from_the_deepest(make, batch, student, teacher):
    method = make("tofd", student=student, teacher=teacher, image=(1, 16, 16))
    assert len(method.shallow) == 2
    assert len(method.links) == 3
    assert [exit_.body[0][0].in_channels for exit_ in method.shallow] == [c for c, *_ in method.stage_shapes()[-3:-1]]
    assert all(term.isfinite() for term in method.losses(batch(method)).values())


def test_a_teacher_without_exits_is_refused(make, gin_parameters):
    method = make("tofd")
    with pytest.raises(RunError, match="tofd needs a teacher that was trained with exits"):
        type(method)(method.student, [Teacher(build("resnet8", 4, 1))], method.info, **gin_parameters("tofd"))


def test_a_run_of_the_method_can_teach_it(make, batch):
    first = make("tofd")
    second = type(first)(
        build("resnet8", 4, 1), [Teacher(first.student, method=first)], first.info,
        **{name: getattr(first, name) for name in first.fields()},
    )  # fmt: skip
    assert all(term.isfinite() for term in second.losses(batch(second)).values())
