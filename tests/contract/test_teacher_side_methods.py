"""SRRL and SimKD: the teacher's classifier."""

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("name", ["srrl", "simkd"])
def test_widths_of_the_networks_may_differ(make, batch, name):
    method = make(name, teacher="resnet8x4")
    phase = method.phases()[0]
    losses = (phase.losses or method.losses)(batch(method))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    first = next(method.student.parameters())
    assert first.grad.abs().max() > 0


@pytest.mark.parametrize("connect", ["map", "pooled"])
def test_srrl_is_its_definition(make, batch, connect):
    method = make("srrl", connect=connect, feature_weight=2.0, regression_weight=3.0).eval()
    one = batch(method)
    ours, theirs = method.student(one.images, features=True), method.teacher(one.images, features=True)
    x = ours.stages[-1] if connect == "map" else ours.pooled[:, :, None, None]
    feature = F.relu(method.connector.bn(method.connector.conv(x))).mean(dim=(2, 3))
    losses = method.losses(one)
    assert losses["feature"].item() == pytest.approx(2 * F.mse_loss(feature, theirs.pooled).item(), rel=1e-5)
    logits = feature @ method.teacher.fc.weight.T + method.teacher.fc.bias
    assert losses["regression"].item() == pytest.approx(3 * F.mse_loss(logits, theirs.logits).item(), rel=1e-5)


def test_the_gradient_passes_through_the_teachers_classifier_and_stays_out_of_it(make, batch):
    method = make("srrl")
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    method.losses(batch(method))["regression"].backward()
    assert method.connector.conv.weight.grad.abs().max() > 0
    assert next(method.student.parameters()).grad.abs().max() > 0
    assert method.student.fc.weight.grad is None, "the student's own classifier is not trained"
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())
