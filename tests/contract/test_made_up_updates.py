"""Methods made up here that turn gradients into steps themselves: one clips a term, one has two optimisers in turn."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.backbones import registry
from kdbench.config.schedules import Cosine
from kdbench.config.settings import Augment, Dataset, Machine, Measures, Settings, Split, Train
from kdbench.data import task as tasks
from kdbench.method import Info, Method, Teacher
from kdbench.run.checkpoint import weights_sha256
from kdbench.run.loop.train import train
from kdbench.run.resume import Keeper, Stopped
from kdbench.store.folder import RunFolder
from kdbench.streams import Streams

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


def test_the_gradient_of_one_term_is_clipped_alone(made_up, batch, updater, take, sgd):
    method, twin = made_up(ClippedTerm), made_up(ClippedTerm)
    one = batch(method)
    take(method, updater(method), one)
    terms, parameters = twin.losses(one), list(twin.parameters())
    ce, length = (torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True) for name in terms)
    norm = torch.cat([g.flatten() for g in length if g is not None]).norm()
    assert norm > 1
    for moved, before, g, h in zip(method.parameters(), parameters, ce, length, strict=True):
        gradient = g if h is None else g + h * 1e-3 / norm
        torch.testing.assert_close(moved, before - sgd.lr * (gradient + sgd.weight_decay * before))


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


def test_two_optimisers_step_in_turn_each_with_its_own_parameters(made_up, batch, updater, take, sgd):
    method = made_up(Adversarial)
    update, before = updater(method), {n: p.detach().clone() for n, p in method.named_parameters()}
    assert [group["lr"] for o in update.optimisers.values() for group in o.param_groups] == [0.02 * sgd.lr, sgd.lr]
    take(method, update, batch(method))
    named = dict(method.named_parameters())
    # Adam's first step has the size of the rate, whatever the gradient.
    for name in ("discriminator.weight", "discriminator.bias"):
        step = (named[name] - before[name]).abs()
        torch.testing.assert_close(step, torch.full_like(step, 0.02 * sgd.lr), rtol=1e-3, atol=1e-7)
    assert not torch.equal(named["student.conv1.weight"], before["student.conv1.weight"])


def test_the_recipes_clipping_has_each_optimisers_own_norm(made_up, batch, updater, take, sgd):
    """The student's gradient, which also goes into the discriminator, is clipped by what the student gets of it."""
    method, twin = made_up(Adversarial), made_up(Adversarial)
    one = batch(method)
    take(method, updater(method, clip_norm=0.1), one)
    terms, parameters = twin.losses(one), list(twin.student.parameters())
    gradient = torch.autograd.grad(terms["ce"] + terms["deceive"], parameters)
    factor = 0.1 / torch.cat([g.flatten() for g in gradient]).norm()
    assert factor < 1
    for moved, before, g in zip(method.student.parameters(), parameters, gradient, strict=True):
        torch.testing.assert_close(moved, before - sgd.lr * (factor * g + sgd.weight_decay * before))


def test_the_discriminator_learns_while_the_student_is_trained(made_up, batch, updater, take):
    method = made_up(Adversarial)
    update, one = updater(method), batch(made_up(Adversarial), anchors=12)
    values = [{name: term.item() for name, term in take(method, update, one).items()} for _ in range(20)]
    assert values[-1]["ce"] < 0.5 * values[0]["ce"]
    assert values[5]["discriminate"] != values[0]["discriminate"]


def trained(cls, runs, sgd, stop=lambda: False):
    """A short run of a made-up method on digits; resumes from the state in the folder."""
    digits = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)
    task = tasks.load(digits, Split(validation=0.2, seed=0), None, torch.device("cpu"))
    recipe = Train(2.0, 16, Cosine(final=0.0), 0.0, 0.0, "float32", 0.5)
    machine = Machine("cpu", 1, False, False, 0.0, 1, "")
    given = Settings(
        digits, Split(0.0, 0), Augment(0.125, 0, False, 0.0), sgd, recipe, machine, Measures((), False, 0, ())
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
def test_made_up_methods_resume_at_any_step_to_the_same_bits(cls, tmp_path, sgd):
    whole, stops = trained(cls, tmp_path / "whole", sgd), 0
    while True:
        try:
            parts = trained(cls, tmp_path / "parts", sgd, lambda: True)
            break
        except Stopped:
            stops += 1
    assert stops == 8
    assert parts == whole
