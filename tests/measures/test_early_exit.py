"""Early exit: who leaves where, and what it costs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdbench.measures import early_exit, flops

P = torch.tensor  # probabilities, whose logarithms are logits
SHALLOW = P([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]).log()
DEEP = P([[0.1, 0.9], [0.1, 0.9], [0.55, 0.45]]).log()
LOGITS, FLOPS, LABELS = {"exit1": SHALLOW, "own": DEEP}, {"exit1": 10, "own": 100}, torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("confidence", "accuracy", "cost"),
    [
        (0.5, 200 / 3, 10),  # all leave at the first one, which is wrong about the second image
        (0.7, 100, 40),  # the second image goes to the end
        (0.85, 200 / 3, 70),  # the third one too, where it is wrong
        (0.95, 100 / 3, 100),
    ],
)
def test_by_hand(confidence, accuracy, cost):
    found = early_exit.leaving(LOGITS, FLOPS, LABELS, confidence)
    assert found == pytest.approx((accuracy, cost))


@given(st.integers(0, 10_000))
def test_more_confidence_costs_no_fewer_flops_and_the_ends_are_the_classifiers(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = {name: 2 * torch.randn(50, 4, generator=generator) for name in ("a", "b", "own")}
    labels = torch.randint(4, (50,), generator=generator)
    cost = {"a": 1, "b": 5, "own": 9}
    found = [early_exit.leaving(logits, cost, labels, c) for c in (0.0, *early_exit.CONFIDENCES, 1.1)]
    assert [flops for _, flops in found] == sorted(flops for _, flops in found)
    for (accuracy, _), name in ((found[0], "a"), (found[-1], "own")):
        assert accuracy == pytest.approx(100 * (logits[name].argmax(1) == labels).double().mean().item())


def test_flops_through_count_what_is_shared_once():
    stem, head, rest, own = nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 16), nn.Linear(16, 3)
    x = torch.zeros(1, 8)
    counted = flops.through(lambda: {"exit1": head(stem(x)), "own": own(rest(stem(x)))}, "own")
    first = 2 * (8 * 8 + 8 * 3)
    assert counted == {"exit1": first, "own": first + 2 * (8 * 16 + 16 * 3)}
