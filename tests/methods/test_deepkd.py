import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.method import RunError
from kdbench.methods.deepkd import deepkd_losses, nontarget_of_each
from kdbench.methods.dot import SeparateMomenta


@pytest.mark.parametrize(("name", "weighted"), [("deepkd_kd", "means"), ("deepkd_dkd_topk", "no")])
def test_the_losses_are_the_reference(reference, name, weighted):
    case = reference(name)
    z, t, labels = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    given = case.params
    target, nontarget = deepkd_losses(z, t, labels, given["temperature"], weighted, given["topk"])
    if given["decoupled_weights"]:
        target, nontarget = given["alpha"] * target, given["beta"] * nontarget
    parts = {"target": target.item(), "nontarget": nontarget.item()}
    assert parts == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(target + nontarget)


def test_the_published_steps_are_the_reference(reference, make, sgd):
    case = reference("deepkd_steps_as_published")
    lr, decay = case.params["lr"], case.params["weight_decay"]
    parameter = nn.Parameter(case.fixed["parameters"])
    deltas = {f"{name}_delta": case.params[f"momentum_{name}"] - 0.9 for name in ("task", "target", "nontarget")}
    method = make("deepkd", as_published=True, **deltas)
    settings = dataclasses.replace(sgd, lr=lr, weight_decay=decay)
    optimiser = method.optimisers([parameter], settings)["deepkd"]
    gradients = (case.fixed[f"{name}_gradients"] for name in ("task", "nontarget", "target"))
    for *three, expected in zip(*gradients, case.entry["parts"]["parameters"], strict=True):
        optimiser.step(*([gradient] for gradient in three))
        assert parameter.tolist() == pytest.approx(expected, rel=1e-9)
    assert parameter.norm().item() == pytest.approx(case.entry["loss"], rel=1e-9)


def test_the_steps_of_the_paper_have_the_momenta_as_they_are_named(make, sgd):
    gradients = ((0.3, -1.0, 0.5), (-0.7, 0.2, 0.1), (1.1, 0.4, -0.6))  # task, target, other classes
    theta, buffers = 2.0, [0.0, 0.0, 0.0]
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimiser = make("deepkd").optimisers([parameter], sgd)["deepkd"]
    for task, target, nontarget in gradients:
        decayed = task + sgd.weight_decay * theta
        buffers = [
            momentum * old + new
            for momentum, old, new in zip((0.975, 0.825, 0.95), buffers, (decayed, target, nontarget), strict=True)
        ]
        theta -= sgd.lr * sum(buffers)
        optimiser.step(*([torch.tensor([g])] for g in (task, nontarget, target)))
        assert parameter.item() == pytest.approx(theta, rel=1e-7)


def test_the_parts_are_their_definitions_in_plain_python():
    z, t = [[1.0, 0.0, -2.0, 0.5], [0.3, 2.0, 1.0, -1.0]], [[3.0, 1.0, 0.0, -1.0], [2.0, 0.5, 1.5, 1.0]]
    labels, T, top = [0, 2], 2.0, 3

    def probabilities(row, classes):
        powers = [math.exp(row[k] / T) for k in classes]
        return [power / sum(powers) for power in powers]

    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    target = by_image = plain = 0.0
    for x, y, label in zip(z, t, labels, strict=True):
        ours, theirs = (probabilities(row, range(4))[label] for row in (x, y))
        target += kl((theirs, 1 - theirs), (ours, 1 - ours))
        best = sorted(range(4), key=lambda k: -y[k])[:top]
        left = [k for k in best if k != label]
        one = kl(probabilities(y, left), probabilities(x, left))
        plain, by_image = plain + one, by_image + (1 - theirs) * one
    tensors = torch.tensor(z, dtype=torch.float64), torch.tensor(t, dtype=torch.float64), torch.tensor(labels)
    for weighted, nontarget in (("no", plain), ("images", by_image)):
        first, second = deepkd_losses(*tensors, T, weighted, top)
        assert first.item() == pytest.approx(T**2 * target / 2, rel=1e-10)
        assert second.item() == pytest.approx(T**2 * nontarget / 2, rel=1e-10)


def test_all_classes_are_the_top_of_all_and_one_class_alone_gives_zero():
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 5, 1, 2])
    whole, top = (deepkd_losses(z, t, labels, 4.0, "images", top)[1] for top in (0, 100))
    torch.testing.assert_close(whole, top)
    z.requires_grad_()
    alone = nontarget_of_each(z, t, t.argmax(dim=1), 1)  # nothing but the label
    (gradient,) = torch.autograd.grad(alone.sum(), z)
    assert not alone.any()
    assert not gradient.any()


@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
def test_without_deltas_it_is_knowledge_distillation(make, batch, updater, take, clip_norm):
    zero = {"task_delta": 0.0, "target_delta": 0.0, "nontarget_delta": 0.0}
    deepkd, kd = make("deepkd", alpha=0.9, beta=0.9, **zero), make("kd")
    ours, theirs = (updater(method, clip_norm=clip_norm) for method in (deepkd, kd))
    for step in range(3):
        one = batch(deepkd, step=step)
        terms = take(deepkd, ours, one)
        both = (terms["target"] + terms["nontarget"]).item()
        assert both == pytest.approx(take(kd, theirs, one)["kd"].item(), rel=1e-4)
    for one, other in zip(deepkd.parameters(), kd.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_every_parameter_reaches_its_term(make, batch, gin_parameters):
    method = make("deepkd").eval()
    one = dataclasses.replace(batch(method), epoch=4)
    z, t = method.student(one.images), method.teacher(one.images)
    for given, weighted in (
        ({"ce_weight": 2.0, "alpha": 3.0, "beta": 5.0, "temperature": 2.0}, "images"),
        (gin_parameters("deepkd_dkd") | {"top": 2, "warmup_epochs": 8}, "no"),
        ({"as_published": True}, "means"),
    ):
        changed = make("deepkd", **given).eval()
        terms, share = changed.losses(one), 0.5 if "warmup_epochs" in given else 1.0
        target, nontarget = deepkd_losses(z, t, one.labels, changed.temperature, weighted, changed.top)
        assert terms["target"].item() == pytest.approx(share * changed.alpha * target.item(), rel=1e-4)
        assert terms["nontarget"].item() == pytest.approx(share * changed.beta * nontarget.item(), rel=1e-4)
        assert terms["ce"].item() == pytest.approx(changed.ce_weight * F.cross_entropy(z, one.labels).item(), rel=1e-5)


def test_extreme_logits_are_finite():
    z = torch.tensor([[300.0, -300.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    t = torch.tensor([[-300.0, 300.0, 0.0], [1.0, 1.0, 1.0]])
    loss = sum(deepkd_losses(z, t, torch.tensor([0, 2]), 1.0, "images", 2))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_negative_number_of_classes_is_refused(make):
    with pytest.raises(RunError, match=r"DeepKD\.top=-1 must be at least 0"):
        make("deepkd", top=-1)


def test_all_three_buffers_are_state(make, batch, updater, take):
    method = make("deepkd")
    update = updater(method)
    take(method, update, batch(method))
    assert isinstance(update.optimisers["deepkd"], SeparateMomenta)
    states = update.optimisers["deepkd"].state_dict()["state"].values()
    assert all(len(state) == 3 for state in states)
