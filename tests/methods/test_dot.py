"""DOT, a momentum for each term."""

import dataclasses

import pytest
import torch
from torch import nn

from kdbench.method.optimiser import build
from kdbench.methods.dot import SeparateMomenta


def apart(method, other):
    """Largest difference between two methods' trained parameters."""
    return max((p - q).abs().max().item() for p, q in zip(method.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["dot_steps", "dot_delta_zero"])
def test_the_steps_are_the_reference(reference, name):
    case = reference(name)
    lr, momentum, delta, decay = (case.params[key] for key in ("lr", "momentum", "delta", "weight_decay"))
    parameter = nn.Parameter(case.fixed["parameters"])
    optimiser = SeparateMomenta([parameter], lr, (momentum - delta, momentum + delta), momentum, decay)
    gradients = case.fixed["task_gradients"], case.fixed["kd_gradients"]
    for g, h, expected in zip(*gradients, case.entry["parts"]["parameters"], strict=True):
        optimiser.step([g], [h])
        assert parameter.tolist() == pytest.approx(expected, rel=1e-9)
    assert parameter.norm().item() == pytest.approx(case.entry["loss"], rel=1e-9)


def test_a_step_is_its_definition_in_plain_python():
    theta, v, u = 2.0, 0.0, 0.0
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimiser = SeparateMomenta([parameter], 0.1, (0.8, 0.95), 0.9, 0.01)
    for g, h in ((0.3, -1.0), (-0.7, 0.2), (1.1, 0.4)):
        v, u = 0.8 * v + g + 0.01 * theta, 0.95 * u + h
        theta -= 0.1 * (v + u)
        optimiser.step([torch.tensor([g])], [torch.tensor([h])])
        assert parameter.item() == pytest.approx(theta, rel=1e-7)


def test_a_parameter_that_one_term_reaches_has_the_plain_momentum(sgd):
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    ours, both, plain = (nn.Parameter(start.clone()) for _ in range(3))
    optimiser = SeparateMomenta([ours, both], 0.1, (0.825, 0.975), 0.9, 0.0)
    theirs = build([plain], dataclasses.replace(sgd, lr=0.1, weight_decay=0.0))["sgd"]
    for number in range(4):
        gradient = torch.tensor([0.3, number - 1.0], dtype=torch.float64)
        optimiser.step([None, gradient], [gradient, gradient])
        plain.grad = gradient.clone()
        theirs.step()
    torch.testing.assert_close(ours, plain)
    assert not torch.allclose(both, plain)


def test_the_terms_are_those_of_knowledge_distillation(make, batch):
    given = {"ce_weight": 0.3, "kd_weight": 0.6, "temperature": 2.0}
    dot, kd = make("dot", **given), make("kd", **given)
    assert dot.losses(batch(dot)) == kd.losses(batch(kd))


def test_with_delta_zero_it_is_knowledge_distillation(make, batch, updater, take):
    dot, kd = make("dot", delta=0.0), make("kd")
    ours, theirs = updater(dot), updater(kd)
    for step in range(4):
        one = batch(dot, step=step)
        assert take(dot, ours, one).keys() == take(kd, theirs, one).keys()
    assert apart(dot, kd) < 1e-5
    other = make("dot")
    ours = updater(other)
    for step in range(4):
        take(other, ours, batch(other, step=step))
    assert apart(other, kd) > 1e-3


def test_the_recipes_clipping_scales_both_gradients_alike(make, batch, updater, take):
    """With Δ = 0 the clipped steps are those of clipped knowledge distillation."""
    dot, kd = make("dot", delta=0.0), make("kd")
    ours, theirs = updater(dot, clip_norm=0.05), updater(kd, clip_norm=0.05)
    for step in range(3):
        one = batch(dot, step=step)
        take(dot, ours, one)
        take(kd, theirs, one)
    assert apart(dot, kd) < 1e-6
    unclipped = make("kd")
    take(unclipped, updater(unclipped), batch(unclipped))
    first = make("kd")
    take(first, updater(first, clip_norm=0.05), batch(first))
    assert apart(unclipped, first) > 1e-3


def test_both_momenta_are_in_the_state_of_the_optimiser(make, batch, updater, take):
    whole, parts = make("dot"), make("dot")
    update = updater(whole)
    for step in range(4):
        take(whole, update, batch(whole, step=step))
    before = updater(parts)
    for step in range(2):
        take(parts, before, batch(parts, step=step))
    after = updater(parts)
    after.optimisers["dot"].load_state_dict(before.optimisers["dot"].state_dict())
    for step in range(2, 4):
        take(parts, after, batch(parts, step=step))
    assert apart(whole, parts) == 0


def test_the_control_has_weights_in_the_ratio_of_the_steps(gin_parameters):
    dot, control = gin_parameters("dot"), gin_parameters("kd_dot_weights")
    for name, momentum in (("ce_weight", 0.9 - dot["delta"]), ("kd_weight", 0.9 + dot["delta"])):
        assert control[name] == pytest.approx(dot[name] * (1 - 0.9) / (1 - momentum), rel=0.01)
