"""Methods that turn the gradients of their terms into steps themselves: dot and dhkd."""

import pytest
import torch
from torch import nn


@pytest.fixture
def dot(module):
    return module("dot")


@pytest.fixture
def dhkd(module):
    return module("dhkd")


def apart(method, other):
    """Largest difference between two methods' trained parameters."""
    return max((p - q).abs().max().item() for p, q in zip(method.parameters(), other.parameters(), strict=True))


# dot: a momentum for each term.


@pytest.mark.parametrize("name", ["dot_steps", "dot_delta_zero"])
def test_the_steps_of_two_momenta_are_the_reference(dot, reference, name):
    case = reference(name)
    parameter = nn.Parameter(case.fixed["parameters"])
    optimiser = dot.TwoMomenta([parameter], **case.params)
    for g, h, expected in zip(
        case.fixed["task_gradients"], case.fixed["kd_gradients"], case.entry["parts"]["parameters"], strict=True
    ):
        optimiser.step([g], [h])
        assert parameter.tolist() == pytest.approx(expected, rel=1e-9)
    assert parameter.norm().item() == pytest.approx(case.entry["loss"], rel=1e-9)


def test_a_parameter_that_one_term_reaches_has_the_plain_momentum(dot):
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    ours, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimiser = dot.TwoMomenta([ours], 0.1, 0.9, 0.075, 0.0)
    sgd = torch.optim.SGD([plain], 0.1, 0.9)
    for number in range(4):
        gradient = torch.tensor([0.3, number - 1.0], dtype=torch.float64)
        optimiser.step([None], [gradient])
        plain.grad = gradient.clone()
        sgd.step()
    torch.testing.assert_close(ours, plain)


def test_dot_with_delta_zero_is_knowledge_distillation(make, batch, updater, take):
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


# dhkd: one gradient changed by another.


@pytest.mark.parametrize("name", ["dhkd_binary_kl", "dhkd_binary_kl_norm"])
def test_the_losses_of_dhkd_are_the_reference(dhkd, reference, name):
    case = reference(name)
    loss = getattr(dhkd, name.removeprefix("dhkd_"))
    case.check(loss(case.student["student_logits"], case.fixed["teacher_logits"], case.params["temperature"]))


def test_extreme_logits_need_no_clamp(dhkd):
    logits = torch.tensor([[-300.0, 300.0]], requires_grad=True)
    for loss in (dhkd.binary_kl, dhkd.binary_kl_norm):
        value = loss(logits, torch.tensor([[200.0, -300.0]]), 2.0)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["dhkd_align_conflict", "dhkd_align_agree"])
@pytest.mark.parametrize("cuts", [[6], [2, 1, 3]])
def test_alignment_is_the_reference_over_all_parameters_together(dhkd, reference, name, cuts):
    case = reference(name)
    task, distilled = (list(case.fixed[f"{whose}_gradient"].split(cuts)) for whose in ("task", "kd"))
    both = torch.cat([g + h for g, h in zip(task, dhkd.aligned(distilled, task), strict=True)])
    assert both.tolist() == pytest.approx(case.entry["parts"]["gradient"], rel=1e-9)
    assert both.norm().item() == pytest.approx(case.entry["loss"], rel=1e-9)


def test_what_one_term_does_not_reach_is_left_as_it_is(dhkd):
    g, h = torch.tensor([1.0, 0.0]), torch.tensor([-2.0, 1.0])
    first, second, third = dhkd.aligned([h, h, None], [g, None, g])
    assert torch.equal(first, torch.tensor([0.0, 1.0]))
    assert second is h
    assert third is None


def test_a_step_of_dhkd_moves_along_the_aligned_gradients(make, batch, dhkd, updater, take, sgd):
    method, twin = make("dhkd", kd_weight=20.0), make("dhkd", kd_weight=20.0)
    update, one = updater(method), batch(method)
    take(method, update, one)
    terms = twin.losses(one)
    parameters = list(twin.parameters())
    task, distilled = (
        torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True) for name in ("ce", "kd")
    )
    assert sum((g * h).sum() for g, h in zip(task, distilled, strict=True) if g is not None and h is not None) < 0
    aligned = dhkd.aligned(distilled, task)
    for moved, before, g, h in zip(method.parameters(), parameters, task, aligned, strict=True):
        gradient = sum(part for part in (g, h) if part is not None)
        torch.testing.assert_close(moved, before - sgd.lr * (gradient + sgd.weight_decay * before))
    assert not torch.equal(method.second.weight, twin.second.weight)


def test_the_second_head_is_not_part_of_what_is_kept(make):
    method = make("dhkd")
    assert method.deployed().state_dict().keys() == method.student.state_dict().keys()
    assert {"second.weight", "second.bias"} <= method.state_dict().keys()
