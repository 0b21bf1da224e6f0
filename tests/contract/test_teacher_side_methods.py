"""OFD and SRRL: pre-activations of both networks, the teacher's normalisation and classifier."""

import pytest
import torch
import torch.nn.functional as F


def buffers(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def seasoned(method):
    """Give the teacher statistics of its own, as after some training."""
    network = method.teacher
    network.train()
    with torch.no_grad():
        network(torch.randn(64, *method.info.image_shape, generator=torch.Generator().manual_seed(7)))
        for stage in range(3):
            network.last_bn(stage).bias.normal_(0, 0.5, generator=torch.Generator().manual_seed(stage))
    network.eval()
    return method


def test_ofd_takes_its_margins_from_the_last_normalisation_of_each_stage_of_the_teacher(make):
    from kdbench.methods.ofd import margin

    method = make("ofd")
    for stage, width in enumerate((16, 32, 64)):
        bn = method.teacher.last_bn(stage)
        margins = method.get_buffer(f"margin_{stage}")
        assert margins.shape == (width,)
        assert (margins < 0).all()
        assert torch.equal(margins, margin(bn.weight, bn.bias))
        assert f"margin_{stage}" in method.state_dict(), "what is worked out once is in the checkpoint"


def test_ofd_is_its_definition_on_the_pre_activations_of_both_networks(make, batch):
    method = seasoned(make("ofd", weight=2.0)).eval()
    one = batch(method)
    ours, theirs = (net(one.images, features=("preactivations",)) for net in (method.student, method.teacher))
    total = 0.0
    for stage in range(3):
        x = method.connectors[stage](ours.preactivations[stage])
        target = torch.maximum(theirs.preactivations[stage], method.get_buffer(f"margin_{stage}")[:, None, None])
        counts = (x > target) | (target > 0)
        total += 2.0 ** (stage - 2) * ((x - target)[counts] ** 2).sum().item() / len(one.images) / 1000
    assert method.losses(one)["ofd"].item() == pytest.approx(2 * total, rel=1e-5)
    assert any((p < 0).any() for p in ours.preactivations)


def test_ofd_can_normalise_the_teacher_with_the_batch_and_leaves_its_running_statistics(make, batch):
    usual, switched = (seasoned(make("ofd", batch_statistics=switch)) for switch in (False, True))
    one, before = batch(usual), buffers(switched.teacher)
    terms = [method.losses(one)["ofd"].item() for method in (usual, switched)]
    assert terms[0] != pytest.approx(terms[1], rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in buffers(switched.teacher).items())
    assert not switched.teacher.training
    assert torch.equal(usual.teach(one).logits, switched.teach(one).logits), "the switch is off again"


@pytest.mark.parametrize("name", ["ofd", "srrl", "simkd", "ab"])
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
