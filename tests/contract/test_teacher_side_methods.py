<<<<<<< ours
"""SRRL and SimKD: the teacher's classifier."""
=======
"""OFD: pre-activations of both networks, and the teacher's normalisation."""
>>>>>>> theirs

import pytest
import torch


<<<<<<< ours
@pytest.mark.parametrize("name", ["srrl", "simkd"])
=======
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


@pytest.mark.parametrize("name", ["ofd", "ab"])
>>>>>>> theirs
def test_widths_of_the_networks_may_differ(make, batch, name):
    method = make(name, teacher="resnet8x4")
    phase = method.phases()[0]
    losses = (phase.losses or method.losses)(batch(method))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    first = next(method.student.parameters())
    assert first.grad.abs().max() > 0
