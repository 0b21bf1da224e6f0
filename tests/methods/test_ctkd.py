import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.method.logits import divergence_of_each, standardised
from kdbench.methods.ctkd import reversal, with_scaled_gradient
from kdbench.methods.dkd import dkd_loss


class Table(torch.nn.Module):
    """A network that answers with the same logits whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_the_method_is_the_reference(reference, make, batch, base, monkeypatch):
    case = reference(f"ctkd_{base}_total")
    weights = {name: case.params[name] for name in ("ce_weight", "alpha", "beta", "kd_weight") if name in case.params}
    method = make("ctkd", labels=range(8), base=base, **{"kd_weight": 1.0, **weights})
    one = batch(method, anchors=5)
    epoch = {-0.5: 5, -1.0: 10}[case.params["reversal"]]
    method.student = Table(case.student["student_logits"])
    del method._parameters["theta"]
    method.theta = case.student["theta"].squeeze()
    taught = method.teach(one, "logits")._replace(logits=case.fixed["teacher_logits"])
    monkeypatch.setattr(type(method), "teach", lambda *_: taught)
    loss = sum(method.losses(replace(one, labels=case.fixed["labels"], epoch=epoch)).values())
    assert method.temperature(epoch).item() == pytest.approx(case.entry["parts"]["temperature"], rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, case.student["theta"], retain_graph=True)
    assert gradient.item() == pytest.approx(case.entry["parts"]["theta_gradient"], rel=1e-6)
    case.check(loss)


def test_the_divergence_at_a_temperature_for_each_image_is_the_reference_but_for_its_1e7(reference):
    case = reference("ctkd_instance_kl")
    temperatures = case.fixed["temperatures"].unsqueeze(1)
    z, t = case.student["student_logits"] / temperatures, case.fixed["teacher_logits"] / temperatures
    added = 1e-7 * (F.softmax(t, dim=1).log() - F.log_softmax(z, dim=1) + 1).sum(
        dim=1
    )  # to the teacher's probabilities
    case.check((temperatures.squeeze(1).square() * (divergence_of_each(z, t) + added)).mean())


def test_the_schedule_is_the_reference(reference):
    case = reference("ctkd_reversal_schedule")
    factors = [reversal(int(epoch), case.params["decay_loops"]) for epoch in case.fixed["epochs"]]
    assert factors == pytest.approx(case.entry["parts"]["reversal"], rel=1e-6, abs=1e-12)
    assert sum(factors) == pytest.approx(case.entry["loss"], rel=1e-6)


def test_without_epochs_the_gradient_is_reversed_at_once():
    assert [reversal(epoch, 0) for epoch in (1, 2)] == [-1.0, -1.0]


@pytest.mark.parametrize("factor", [0.0, -0.3, -1.0])
def test_the_gradient_alone_is_scaled(factor):
    x = torch.randn(100, requires_grad=True)
    y = with_scaled_gradient(x, factor)
    assert torch.equal(y, x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(gradient, 2 * factor * x.detach())


@pytest.mark.parametrize("base", ["kd", "dkd"])
@pytest.mark.parametrize("standardise", [False, True])
def test_at_its_temperature_it_is_the_base(make, batch, base, standardise):
    given = {"base": base, "standardise": standardise, "ce_weight": 0.5, "kd_weight": 3.0, "alpha": 2.0, "beta": 5.0}
    method = make("ctkd", lowest_temperature=2.0, temperature_range=6.0, **given).eval()
    one = batch(method)
    method.theta.data.fill_(-math.log(2))  # a sigmoid of 1/3
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms.keys() == {"ce", "kd"}
    assert terms["ce"].item() == pytest.approx(0.5 * F.cross_entropy(z, one.labels).item(), rel=1e-5)
    if standardise:
        z, t = standardised(z), standardised(t)
    expected = distillation(z, t, 4.0) if base == "kd" else dkd_loss(z, t, one.labels, 2.0, 5.0, 4.0)
    assert terms["kd"].item() == pytest.approx(3 * expected.item(), rel=1e-4)


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_a_step_moves_the_temperature_up_the_loss_and_the_student_down(make, batch, base):
    method = make("ctkd", base=base, reversal_epochs=10)
    method.teacher.fc.weight.mul_(20)
    one = batch(method)
    trained = [method.theta, *method.student.parameters()]
    plain = torch.autograd.grad(with_one_sign(method, one), trained)
    for epoch, factor in ((1, reversal(1, 10)), (10, -1.0), (200, -1.0)):
        gradients = torch.autograd.grad(method.losses(replace(one, epoch=epoch))["kd"], trained)
        torch.testing.assert_close(gradients[0], factor * plain[0], rtol=1e-4, atol=1e-8)
        for gradient, other in zip(gradients[1:], plain[1:], strict=True):
            torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-6)
    assert plain[0].abs() > 0


def with_one_sign(method, batch):
    """The term at the same temperature, without a reversal."""
    temperature = method.lowest_temperature + method.temperature_range * method.theta.sigmoid()
    z, t = method.student(batch.images), method.teacher(batch.images)
    if method.base == "kd":
        p, q = (F.log_softmax(x / temperature, dim=1) for x in (z, t))
        return method.kd_weight * temperature**2 * (q.exp() * (q - p)).sum(dim=1).mean()
    return method.kd_weight * dkd_loss(z, t, batch.labels, method.alpha, method.beta, temperature)


def test_the_temperature_starts_as_published_and_stays_within_its_bounds(make):
    method = make("ctkd")
    assert method.temperature(1).item() == pytest.approx(15.62, abs=0.01)
    for theta, bound in ((-200.0, 1.0), (200.0, 21.0)):
        method.theta.data.fill_(theta)
        assert method.temperature(1).item() == bound


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_large_logits_and_two_classes_are_finite(make, batch, base):
    method = make("ctkd", base=base, labels=[0, 1] * 6, lowest_temperature=1.0, temperature_range=1e-3)
    method.teacher.fc.weight.fill_(0)
    method.teacher.fc.bias.copy_(torch.tensor([50.0, -50.0]))
    method.student.fc.weight.data.mul_(1e3)
    terms = method.losses(batch(method))
    gradients = torch.autograd.grad(sum(terms.values()), [method.theta, *method.student.parameters()])
    assert all(each.isfinite().all() for each in (*terms.values(), *gradients))


def test_variants_bind_what_they_are_named_for(gin_parameters):
    assert gin_parameters("ctkd")["base"] == "kd"
    assert gin_parameters("ctkd_dkd") == {**gin_parameters("ctkd"), "base": "dkd", "ce_weight": 1.0, "kd_weight": 1.0}
    ls = {"standardise": True, "kd_weight": 9.0, "lowest_temperature": 2.0}
    assert gin_parameters("ls_ctkd") == {**gin_parameters("ctkd"), **ls}
