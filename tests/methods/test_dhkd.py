"""DHKD, one gradient changed by another."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.dhkd import aligned, binary_kl, binary_kl_norm


@pytest.mark.parametrize("loss", [binary_kl, binary_kl_norm])
def test_the_losses_are_the_reference(reference, loss):
    case = reference(f"dhkd_{loss.__name__}")
    case.check(loss(case.student["student_logits"], case.fixed["teacher_logits"], case.params["temperature"]))


def test_the_losses_are_their_definitions_in_plain_python():
    z, t, T = [[0.5, -1.0, 2.0], [3.0, 0.0, -2.5]], [[1.5, 0.2, -0.3], [-1.0, 4.0, 0.7]], 2.0

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    def kl(p, q):
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    pairs = [[(a / T, b / T) for a, b in zip(*rows, strict=True)] for rows in zip(z, t, strict=True)]
    plain = T**2 * sum(kl(sigmoid(b), sigmoid(a)) for row in pairs for a, b in row) / 2
    difference = T**2 * sum(kl(0.5, sigmoid(a - b)) for row in pairs for a, b in row) / 2
    z, t = (torch.tensor(x, dtype=torch.float64) for x in (z, t))
    assert binary_kl(z, t, T).item() == pytest.approx(plain, rel=1e-10)
    assert binary_kl_norm(z, t, T).item() == pytest.approx(difference, rel=1e-10)


def test_equal_logits_give_zero_and_extreme_ones_need_no_clamp():
    logits = torch.tensor([[-300.0, 300.0]], requires_grad=True)
    for loss in (binary_kl, binary_kl_norm):
        assert loss(logits, logits.detach(), 2.0).item() == 0
        value = loss(logits, torch.tensor([[200.0, -300.0]]), 2.0)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert (gradient != 0).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["dhkd_align_conflict", "dhkd_align_agree"])
@pytest.mark.parametrize("cuts", [[6], [2, 1, 3]])
def test_alignment_is_the_reference_over_all_parameters_together(reference, name, cuts):
    case = reference(name)
    task, distilled = (list(case.fixed[f"{whose}_gradient"].split(cuts)) for whose in ("task", "kd"))
    both = torch.cat([g + h for g, h in zip(task, aligned(distilled, task), strict=True)])
    assert both.tolist() == pytest.approx(case.entry["parts"]["gradient"], rel=1e-9)
    assert both.norm().item() == pytest.approx(case.entry["loss"], rel=1e-9)


def test_what_one_term_does_not_reach_is_left_as_it_is():
    g, h = torch.tensor([1.0, 0.0]), torch.tensor([-2.0, 1.0])
    first, second, third = aligned([h, h, None], [g, None, g])
    assert torch.equal(first, torch.tensor([0.0, 1.0]))
    assert second is h
    assert third is None


@pytest.mark.parametrize("align", [True, False])
def test_a_step_moves_along_the_aligned_gradients(make, batch, updater, take, sgd, align):
    method, twin = (make("dhkd", kd_weight=20.0, head="linear", align=align) for _ in range(2))
    update, one = updater(method), batch(method)
    take(method, update, one)
    terms = twin.losses(one)
    parameters = list(twin.parameters())
    task, distilled = (
        torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True) for name in ("ce", "kd")
    )
    assert sum((g * h).sum() for g, h in zip(task, distilled, strict=True) if g is not None and h is not None) < 0
    added = aligned(distilled, task) if align else distilled
    for moved, before, g, h in zip(method.parameters(), parameters, task, added, strict=True):
        gradient = sum(part for part in (g, h) if part is not None)
        torch.testing.assert_close(moved, before - sgd.lr * (gradient + sgd.weight_decay * before))
    assert not torch.equal(method.second.last.weight, twin.second.last.weight)


@pytest.mark.parametrize(("form", "loss"), [("difference", binary_kl_norm), ("binary", binary_kl)])
@pytest.mark.parametrize("head", ["nonlinear", "linear"])
def test_the_terms_are_the_weighted_losses(make, batch, form, loss, head):
    method = make("dhkd", kd_weight=0.5, temperature=3.0, form=form, head=head).eval()
    one = batch(method)
    out, target = method.student(one.images, features=True), method.teacher(one.images)
    second = method.second
    x = out.pooled if head == "linear" else F.relu(second.bn(second.first(out.pooled)))
    terms = method.losses(one)
    expected = 0.5 * loss(x @ second.last.weight.T + second.last.bias, target, 3.0)
    assert terms["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(out.logits, one.labels).item(), rel=1e-5)


def test_the_head_drops_a_tenth_and_draws_it_from_the_step(make, batch):
    method = make("dhkd")
    one = batch(method)
    values = [method.losses(each)["kd"].item() for each in (one, one)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    other = dataclasses.replace(one, streams=batch(method, step=1).streams)
    assert abs(method.losses(other)["kd"].item() - values[0]) > 1e-5


def test_the_second_head_is_not_part_of_what_is_kept(make):
    method = make("dhkd")
    assert method.deployed().state_dict().keys() == method.student.state_dict().keys()
    assert {"second.last.weight", "second.bn.weight"} <= method.state_dict().keys()
