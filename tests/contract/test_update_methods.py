"""Methods that turn the gradients of their terms into steps themselves: dot, dhkd, and two made up here."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.backbones import registry
from kdbench.config import settings
from kdbench.config.schedules import Cosine
from kdbench.config.settings import Augment, Dataset, Machine, Measures, Settings, Split, Train
from kdbench.data import task as tasks
from kdbench.method import Info, Method, Share, Teacher, Update
from kdbench.run.checkpoint import weights_sha256
from kdbench.run.loop.train import train
from kdbench.run.resume import Keeper, Stopped
from kdbench.store.folder import RunFolder
from kdbench.streams import Streams

SGD = settings.SGD(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)


@pytest.fixture
def dot(module):
    return module("dot")


@pytest.fixture
def dhkd(module):
    return module("dhkd")


def updater(method, clip_norm=0.0):
    """What the loop makes for a method in one phase."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    made = Update(parameters, method.optimisers(parameters, SGD), Share(), lambda gradients: None, clip_norm)
    made.set_rate(SGD.lr)
    return made


def take(method, update, batch):
    terms = method.losses(batch)
    update.loss = update.total(terms)
    method.update(terms, update)
    method.after_step(batch)
    return terms


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


def test_dot_with_delta_zero_is_knowledge_distillation(make, batch):
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


def test_the_recipes_clipping_scales_both_gradients_alike(make, batch):
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


def test_both_momenta_are_in_the_state_of_the_optimiser(make, batch):
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


def test_a_step_of_dhkd_moves_along_the_aligned_gradients(make, batch, dhkd):
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
        torch.testing.assert_close(moved, before - SGD.lr * (gradient + SGD.weight_decay * before))
    assert not torch.equal(method.second.weight, twin.second.weight)


def test_the_second_head_is_not_part_of_what_is_kept(make):
    method = make("dhkd")
    assert method.deployed().state_dict().keys() == method.student.state_dict().keys()
    assert {"second.weight", "second.bias"} <= method.state_dict().keys()


# One term's gradient clipped.


class ClippedTerm(Method):
    """Cross-entropy, and a large term whose gradient is not to be longer than 1e-3."""

    def losses(self, batch):
        out = self.student(batch.images, features=True)
        return {"ce": self.cross_entropy(out.logits, batch.labels), "length": 100 * out.pooled.square().mean()}

    def update(self, terms, update):
        ce, length = update.gradient(terms["ce"], keep_graph=True), update.gradient(terms["length"])
        update.clip(length, norm=1e-3)
        update.set_gradient(ce, length)
        update.step()


def test_the_gradient_of_one_term_is_clipped_alone(made_up, batch):
    method, twin = made_up(ClippedTerm), made_up(ClippedTerm)
    one = batch(method)
    take(method, updater(method), one)
    terms, parameters = twin.losses(one), list(twin.parameters())
    ce, length = (torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True) for name in terms)
    norm = torch.cat([g.flatten() for g in length if g is not None]).norm()
    assert norm > 1
    for moved, before, g, h in zip(method.parameters(), parameters, ce, length, strict=True):
        gradient = g if h is None else g + h * 1e-3 / norm
        torch.testing.assert_close(moved, before - SGD.lr * (gradient + SGD.weight_decay * before))


# Two optimisers in turn.


class Adversarial(Method):
    """A discriminator tells the teacher's features from the student's, and the student learns to deceive it."""

    needs_teacher = True

    def setup(self):
        self.discriminator = nn.Linear(self.student.fc.in_features, 1)

    def losses(self, batch):
        out, taught = self.student(batch.images, features=True), self.teach(batch, "pooled").pooled
        real, fake = self.discriminator(taught), self.discriminator(out.pooled.detach())
        deceived = self.discriminator(out.pooled)
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "deceive": F.softplus(-deceived).mean(),
            "discriminate": F.softplus(-real).mean() + F.softplus(fake).mean(),
        }

    def optimisers(self, parameters, sgd):
        own = set(self.discriminator.parameters())
        rest = [p for p in parameters if p not in own]
        return {
            "discriminator": torch.optim.Adam([{"params": list(own), "rate_factor": 0.02}], betas=(0.5, 0.999)),
            **super().optimisers(rest, sgd),
        }

    def update(self, terms, update):
        # Both gradients before either step: the student's goes through the discriminator as it was.
        student = update.gradient(terms["ce"] + terms["deceive"], keep_graph=True)
        discriminator = update.gradient(terms["discriminate"])
        update.set_gradient(discriminator)
        update.step("discriminator")
        update.set_gradient(student)
        update.step("sgd")


def test_two_optimisers_step_in_turn_each_with_its_own_parameters(made_up, batch):
    method = made_up(Adversarial)
    update, before = updater(method), {n: p.detach().clone() for n, p in method.named_parameters()}
    assert [group["lr"] for o in update.optimisers.values() for group in o.param_groups] == [0.02 * SGD.lr, SGD.lr]
    take(method, update, batch(method))
    named = dict(method.named_parameters())
    # Adam's first step has the size of the rate, whatever the gradient.
    for name in ("discriminator.weight", "discriminator.bias"):
        step = (named[name] - before[name]).abs()
        torch.testing.assert_close(step, torch.full_like(step, 0.02 * SGD.lr), rtol=1e-3, atol=1e-7)
    assert not torch.equal(named["student.conv1.weight"], before["student.conv1.weight"])


def test_the_recipes_clipping_has_each_optimisers_own_norm(made_up, batch):
    """The student's gradient, which also goes into the discriminator, is clipped by what the student gets of it."""
    method, twin = made_up(Adversarial), made_up(Adversarial)
    one = batch(method)
    take(method, updater(method, clip_norm=0.1), one)
    terms, parameters = twin.losses(one), list(twin.student.parameters())
    gradient = torch.autograd.grad(terms["ce"] + terms["deceive"], parameters)
    factor = 0.1 / torch.cat([g.flatten() for g in gradient]).norm()
    assert factor < 1
    for moved, before, g in zip(method.student.parameters(), parameters, gradient, strict=True):
        torch.testing.assert_close(moved, before - SGD.lr * (factor * g + SGD.weight_decay * before))


def test_the_discriminator_learns_while_the_student_is_trained(made_up, batch):
    method = made_up(Adversarial)
    update, one = updater(method), batch(made_up(Adversarial), anchors=12)
    values = [{name: term.item() for name, term in take(method, update, one).items()} for _ in range(20)]
    assert values[-1]["ce"] < 0.5 * values[0]["ce"]
    assert values[5]["discriminate"] != values[0]["discriminate"]


def trained(cls, runs, stop=lambda: False):
    """A short run of a made-up method on digits; resumes from the state in the folder."""
    digits = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)
    task = tasks.load(digits, Split(validation=0.2, seed=0), None, torch.device("cpu"))
    recipe = Train(2.0, 16, Cosine(final=0.0), 0.0, 0.0, "float32", 0.5)
    machine = Machine("cpu", 1, False, False, 0.0, 1, "")
    given = Settings(
        digits, Split(0.0, 0), Augment(0.125, 0, False, 0.0), SGD, recipe, machine, Measures((), False, 0, ())
    )
    with Streams(0).as_global("init"):
        teacher, student = (registry.build(name, task.classes, 1) for name in ("resnet14", "resnet8"))
        info = Info(task.classes, task.train.labels, (1, 8, 8), 0.0, torch.device("cpu"))
        method = cls(student, [Teacher(teacher)], info)
    folder = RunFolder(runs, cls.__name__)
    folder.begin("")
    train(method, task, given, Streams(0), folder / "epochs.csv", keeper=Keeper(folder, {}, 0.0, stop))
    return weights_sha256(method.state_dict())


@pytest.mark.parametrize("cls", [ClippedTerm, Adversarial])
def test_made_up_methods_resume_at_any_step_to_the_same_bits(cls, tmp_path):
    whole, stops = trained(cls, tmp_path / "whole"), 0
    while True:
        try:
            parts = trained(cls, tmp_path / "parts", lambda: True)
            break
        except Stopped:
            stops += 1
    assert stops == 8
    assert parts == whole
