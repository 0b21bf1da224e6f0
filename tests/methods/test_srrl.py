import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.method import distillation
from kdbench.methods.srrl import Connector


@pytest.mark.parametrize("form", ["map", "pooled"])
def test_the_terms_are_the_reference(reference, form):
    case = reference(f"srrl_{form}")
    x = case.student["student_map" if form == "map" else "student_features"]
    target = case.fixed["teacher_map"].mean(dim=(2, 3)) if form == "map" else case.fixed["teacher_features"]
    connector = Connector(x.shape[1], target.shape[1]).double()
    connector.conv.weight.data.copy_(case.fixed["connector_weight"].view_as(connector.conv.weight))
    connector.load_state_dict({"bn.weight": case.fixed["bn_weight"], "bn.bias": case.fixed["bn_bias"]}, strict=False)
    classify = nn.Linear(target.shape[1], len(case.fixed["fc_bias"])).double()
    classify.load_state_dict({"weight": case.fixed["fc_weight"], "bias": case.fixed["fc_bias"]})
    feature = connector(x)
    parts = {"feature": F.mse_loss(feature, target), "regression": F.mse_loss(classify(feature), classify(target))}
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


@pytest.mark.parametrize("connect", ["map", "pooled"])
@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet14"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_each_term_is_its_definition(make, batch, connect, student, teacher):
    method = make("srrl", student=student, teacher=teacher, connect=connect, feature_weight=2.0, regression_weight=3.0)
    one = batch(method.eval())
    ours, theirs = method.student(one.images, features=True), method.teacher(one.images, features=True)
    x = ours.stages[-1] if connect == "map" else ours.pooled[:, :, None, None]
    feature = F.relu(method.connector.bn(method.connector.conv(x))).mean(dim=(2, 3))
    losses = method.losses(one)
    assert losses["feature"].item() == pytest.approx(2 * F.mse_loss(feature, theirs.pooled).item(), rel=1e-5)
    logits = feature @ method.teacher.fc.weight.T + method.teacher.fc.bias
    assert losses["regression"].item() == pytest.approx(3 * F.mse_loss(logits, theirs.logits).item(), rel=1e-5)


def test_the_map_is_averaged_behind_the_relu_and_the_pooled_feature_before_it(make):
    connector = Connector(5, 7).eval()
    x = torch.randn(4, 5, 3, 3)
    assert connector(x).shape == connector(x.mean(dim=(2, 3))).shape == (4, 7)
    assert (connector(x) > connector(x.mean(dim=(2, 3))) - 1e-6).all(), "Jensen's inequality"
    assert not torch.allclose(connector(x), connector(x.mean(dim=(2, 3))))


def test_the_gradient_passes_through_the_teachers_classifier_and_stays_out_of_it(make, batch):
    method = make("srrl")
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    method.losses(batch(method))["regression"].backward()
    assert method.connector.conv.weight.grad.abs().max() > 0
    assert next(method.student.parameters()).grad.abs().max() > 0
    assert method.student.fc.weight.grad is None, "the student's own classifier is not trained"
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())


def test_maps_of_zeros_and_equal_images():
    connector = Connector(5, 7).train()
    for x in (torch.zeros(4, 5, 3, 3), torch.ones(4, 5, 3, 3)):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(connector(x).square().mean(), x)
        assert gradient.isfinite().all()


def test_kd_comes_in_addition(make, batch):
    method = make("srrl", kd_weight=2.0, temperature=3.0).eval()
    one = batch(method)
    expected = 2 * distillation(method.student(one.images), method.teacher(one.images), 3.0)
    assert method.losses(one)["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
