import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.method.connectors import ConvBN
from kdbench.methods.ofd import margin, ofd_loss


def maps(batch=3, widths=(2, 4), sides=(4, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, side, side, generator=generator, dtype=torch.float64)
        for width, side in zip(widths, sides, strict=True)
    ]


LOW = [torch.tensor([-0.5, -0.1], dtype=torch.float64), torch.tensor([-0.2, -0.3, -0.9, 0.0], dtype=torch.float64)]


def slow(student, teacher, margins):
    total = 0.0
    for stage, (ours, theirs, low) in enumerate(zip(student, teacher, margins, strict=True), start=1):
        for b in range(len(ours)):
            for c in range(len(low)):
                for p, t in zip(ours[b, c].flatten().tolist(), theirs[b, c].flatten().tolist(), strict=True):
                    target = max(t, low[c].item())
                    if p > target or target > 0:
                        total += 2.0 ** (stage - len(student)) * (p - target) ** 2
    return total / 1000 / len(student[0])


def test_margins_are_the_reference(reference):
    case = reference("ofd_margin")
    margins = margin(case.fixed["bn_weight"], case.fixed["bn_bias"])
    assert margins.tolist() == pytest.approx(case.entry["parts"]["margin"], rel=1e-6)
    assert margins.sum().item() == pytest.approx(case.entry["loss"], rel=1e-6)


def test_the_connected_loss_is_the_reference(reference):
    case = reference("ofd_connected")
    connected = []
    for number, x in enumerate(case.maps("student"), start=1):
        connector = ConvBN(x.shape[1], len(case.fixed[f"margin_{number}"])).double()
        values = {f"bn.{part}": case.fixed[f"bn_{number}_{part}"] for part in ("weight", "bias")}
        values["conv.weight"] = case.fixed[f"connector_{number}_weight"].view_as(connector.conv.weight)
        connector.load_state_dict(values, strict=False)
        connected.append(connector(x))
    case.check(ofd_loss(connected, case.maps("teacher"), [case.fixed[f"margin_{n}"] for n in (1, 2)]))


def test_the_margin_is_the_mean_of_the_negative_responses():
    scale, shift = torch.tensor([0.7, -1.2]), torch.tensor([0.3, -0.4])
    responses = shift + scale * torch.randn(2_000_000, 2, generator=torch.Generator().manual_seed(0))
    means = [column[column < 0].mean().item() for column in responses.T]
    assert margin(scale, shift).tolist() == pytest.approx(means, abs=3e-3)


def test_the_margin_of_a_channel_without_spread_is_its_own_negative_value():
    assert margin(torch.zeros(3), torch.tensor([-0.5, 0.5, 0.0])).tolist() == [-0.5, 0.0, 0.0]
    assert margin(torch.full((3,), 1e-30), torch.tensor([-0.5, 0.5, 0.0])).isfinite().all()


def test_the_loss_is_its_definition():
    student, teacher = maps(), maps(seed=1)
    assert ofd_loss(student, teacher, LOW).item() == pytest.approx(slow(student, teacher, LOW), rel=1e-12)


def test_gradients_are_those_of_finite_differences():
    student, teacher = maps(batch=2), maps(batch=2, seed=1)
    assert torch.autograd.gradcheck(lambda *x: ofd_loss(x, teacher, LOW), [x.requires_grad_() for x in student])


def test_each_stage_counts_half_of_the_next_and_nothing_below_the_margin():
    x, low = torch.full((2, 3, 4, 4), 0.5), torch.full((3,), -0.25)
    one = ofd_loss([x], [-x], [low]).item()
    assert one == pytest.approx(0.75**2 * 48 / 1000)
    assert ofd_loss([x, x, x], [-x, -x, -x], [low, low, low]).item() == pytest.approx(1.75 * one)
    assert math.isclose(ofd_loss([-x], [-x], [low]).item(), 0.0)


def test_what_the_teacher_suppresses_and_the_order_and_size_of_the_batch_do_not_matter():
    student, teacher = maps(), maps(seed=1)
    loss = ofd_loss(student, teacher, LOW).item()
    deeper = [torch.where(t < low[:, None, None], t - 3, t) for t, low in zip(teacher, LOW, strict=True)]
    assert ofd_loss(student, deeper, LOW).item() == loss
    assert ofd_loss([x.flip(0) for x in student], [x.flip(0) for x in teacher], LOW).item() == pytest.approx(loss)
    twice = ([x.repeat(2, 1, 1, 1) for x in each] for each in (student, teacher))
    assert ofd_loss(*twice, LOW).item() == pytest.approx(loss)


def test_zero_maps_have_a_finite_value_and_gradient():
    x = torch.zeros(2, 2, 4, 4, requires_grad=True)
    loss = ofd_loss([x], [torch.zeros(2, 2, 4, 4)], [torch.tensor([-0.5, -0.1])])
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == 0
    assert (gradient == 0).all()


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


def test_margins_come_from_the_last_normalisation_of_each_stage_of_the_teacher(make):
    method = make("ofd")
    for stage, width in enumerate((16, 32, 64)):
        bn = method.teacher.last_bn(stage)
        margins = method.get_buffer(f"margin_{stage}")
        assert margins.shape == (width,)
        assert (margins < 0).all()
        assert torch.equal(margins, margin(bn.weight, bn.bias))
        assert f"margin_{stage}" in method.state_dict(), "what is worked out once is in the checkpoint"


def test_the_term_is_its_definition_on_the_pre_activations_of_both_networks(make, batch):
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


def test_the_teacher_can_be_normalised_with_the_batch_and_keeps_its_running_statistics(make, batch):
    usual, switched = (seasoned(make("ofd", batch_statistics=switch)) for switch in (False, True))
    one, before = batch(usual), buffers(switched.teacher)
    terms = [method.losses(one)["ofd"].item() for method in (usual, switched)]
    assert terms[0] != pytest.approx(terms[1], rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in buffers(switched.teacher).items())
    assert not switched.teacher.training
    assert torch.equal(usual.teach(one).logits, switched.teach(one).logits), "the switch is off again"


def test_distillation_is_a_term_if_it_has_a_weight(make, batch):
    method = make("ofd", kd_weight=0.5, temperature=2.0).eval()
    one = batch(method)
    expected = 0.5 * distillation(method.student(one.images), method.teacher(one.images), 2.0).item()
    assert method.losses(one)["kd"].item() == pytest.approx(expected, rel=1e-5)
    assert list(make("ofd").losses(one)) == ["ce", "ofd"]


def test_of_a_teacher_with_more_stages_the_deepest_count_with_their_own_margins(make, batch):
    method = make("ofd", student="resnet8", teacher="resnet18")
    assert [len(method.get_buffer(f"margin_{n}")) for n in range(3)] == [128, 256, 512]
    assert torch.equal(
        method.get_buffer("margin_2"), margin(*(getattr(method.teacher.last_bn(3), p) for p in ("weight", "bias")))
    )
    assert method.losses(batch(method))["ofd"].isfinite()


@pytest.mark.parametrize(
    ("student", "teacher"),
    [("resnet8", "resnet18"), ("resnet18", "resnet8"), ("wrn_16_1", "resnet8x4"), ("vgg8", "wrn_16_1")],
)
def test_widths_and_resolutions_may_differ(make, batch, student, teacher):
    method = make("ofd", student=student, teacher=teacher)
    one = batch(method)
    terms = method.losses(one)
    terms["ofd"].backward()
    first = next(method.student.parameters())
    assert first.grad.isfinite().all()
    assert first.grad.abs().max() > 0
    ours, theirs = (
        net(one.images, features=("preactivations",)).preactivations[-1] for net in (method.student, method.teacher)
    )
    x = F.adaptive_avg_pool2d(ours, [min(a, b) for a, b in zip(ours.shape[2:], theirs.shape[2:], strict=True)])
    assert method.connectors[-1](x).shape[1] == theirs.shape[1]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"student": "vit_tiny"},
            "ofd needs maps before the last ReLU of each stage, which VisionTransformer does not offer",
        ),
        (
            {"teacher": "vit_tiny"},
            "ofd needs maps before the last ReLU of each stage, which VisionTransformer does not offer",
        ),
        (
            {"teacher": "shufflenetv2_x0_5"},
            "ofd needs the last batch normalisation of each stage of the teacher, which Shuf",
        ),
    ],
)
def test_a_network_without_what_it_reads_is_refused(make, given, sentence):
    with pytest.raises(RunError, match=f"^{sentence}"):
        make("ofd", **given)
