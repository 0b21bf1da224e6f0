import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError
from kdbench.methods.confidence_penalty import confidence_penalty, entropy_of_each

LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slow(threshold):
    total = 0.0
    for row in LOGITS.tolist():
        p = [math.exp(z) / sum(map(math.exp, row)) for z in row]
        entropy = -sum(each * math.log(each) for each in p)
        total += -entropy if threshold is None else max(0.0, threshold - entropy)
    return total / len(LOGITS)


def test_the_loss_is_the_reference(reference):
    case = reference("confidence_penalty")
    logits = case.student["logits"]
    assert entropy_of_each(logits).mean().item() == pytest.approx(case.entry["parts"]["entropy"], rel=1e-9)
    case.check(F.cross_entropy(logits, case.fixed["labels"]) + case.params["beta"] * confidence_penalty(logits))


def test_maximum_entropy_of_entries_is_the_reference(reference, make, gin_parameters):
    case = reference("max_entropy_selfkdlib")
    logits, given = case.student["logits"], gin_parameters("max_entropy")
    assert (given["weight"], given["over"]) == (case.params["weight"], "entries")
    weight = case.params["weight"] / logits.shape[1]
    case.check(F.cross_entropy(logits, case.fixed["labels"]) + weight * confidence_penalty(logits))


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_the_penalty_is_the_definition(threshold):
    assert confidence_penalty(LOGITS, threshold).item() == pytest.approx(slow(threshold), rel=1e-10)


@pytest.mark.parametrize(
    ("given", "progress", "weight"),
    [
        ({"weight": 0.5}, 0.0, 0.5),
        ({"weight": 0.5, "over": "entries"}, 0.0, 0.125),
        ({"weight": 0.5, "rise": 0.5}, 0.25, 0.25),
        ({"weight": 0.5, "rise": 0.5}, 0.75, 0.5),
        ({"weight": 0.5, "threshold": 1.0}, 0.0, 0.5),
    ],
)
def test_terms_are_the_weighted_losses(make, batch, given, progress, weight):
    method = make("confidence_penalty", label_smoothing=0.1, **given).eval()
    one = batch(method, progress=progress)
    logits = method.student(one.images)
    expected = {
        "ce": F.cross_entropy(logits, one.labels, label_smoothing=0.1).item(),
        "penalty": weight * confidence_penalty(logits, given.get("threshold")).item(),
    }
    assert {name: term.item() for name, term in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)


def test_it_rewards_entropy(make, batch):
    method = make("confidence_penalty").eval()
    one = batch(method)
    logits = method.student(one.images)
    sure = F.one_hot(one.labels, 4) * 50.0
    assert confidence_penalty(logits) < confidence_penalty(sure)
    zeros = torch.zeros(3, 4, requires_grad=True)
    assert confidence_penalty(zeros).item() == pytest.approx(-math.log(4), rel=1e-6)
    (gradient,) = torch.autograd.grad(confidence_penalty(zeros), zeros)
    assert not gradient.any()


def test_very_sure_predictions_have_finite_gradients():
    logits = torch.tensor([[500.0, 0.0, -500.0]], requires_grad=True)
    for threshold in (None, 1.0):
        (gradient,) = torch.autograd.grad(confidence_penalty(logits, threshold), logits)
        assert gradient.isfinite().all()


def test_a_rise_that_is_not_a_share_is_refused(make):
    with pytest.raises(RunError, match=r"ConfidencePenalty\.rise=2 must be between 0 and 1"):
        make("confidence_penalty", rise=2.0)
