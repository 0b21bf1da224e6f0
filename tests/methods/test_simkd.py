from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.methods.simkd import Projector, simkd_loss


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_the_loss_is_the_reference(reference, larger):
    case = reference(f"simkd_{larger}_larger")
    x, target = case.student["student_map"], case.fixed["teacher_map"]
    projector = Projector(x.shape[1], target.shape[1], case.params["factor"], tuple(target.shape[2:])).double()
    state = {f"{n}.conv.weight": case.fixed[f"conv{n + 1}_weight"] for n in range(3)}
    state |= {f"{n}.bn.{part}": case.fixed[f"bn{n + 1}_{part}"] for n in range(3) for part in ("weight", "bias")}
    missing, unexpected = projector.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("running" in name or "tracked" in name for name in missing)
    projected = projector(x)
    logits = F.linear(projected.mean(dim=(2, 3)), case.fixed["fc_weight"], case.fixed["fc_bias"])
    assert logits.square().mean().item() == pytest.approx(case.entry["parts"]["logits_mean_square"], rel=1e-6)
    case.check(simkd_loss(projected, target))


def test_the_projector_is_its_definition():
    projector = Projector(3, 8, 4, (2, 2)).double().eval()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = x.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5))
    for adapter, padding in zip(projector, (0, 1, 0), strict=True):
        expected = F.conv2d(expected, adapter.conv.weight, padding=padding) / (1 + 1e-5) ** 0.5
        expected = expected.clamp(min=0)
    assert [adapter.conv.out_channels for adapter in projector] == [2, 2, 8]
    torch.testing.assert_close(projector(x), expected)


def test_the_one_term_is_the_weighted_loss_and_does_not_use_the_labels(make, batch):
    method = make("simkd", weight=3.0).eval()
    one = batch(method)
    losses = method.losses(one)
    projected = method.network.projector(method.student(one.images, features=True).stages[-1])
    target = method.teacher(one.images, features=True).stages[-1]
    assert losses.keys() == {"simkd"}
    assert losses["simkd"].item() == pytest.approx(3 * simkd_loss(projected, target).item(), rel=1e-5)
    other = method.losses(replace(one, labels=one.labels.flip(0)))
    assert losses["simkd"].item() == pytest.approx(other["simkd"].item())


def test_kd_is_on_the_logits_of_the_deployed_network(make, batch):
    method = make("simkd", kd_weight=2.0, temperature=3.0).eval()
    one = batch(method)
    taught = method.teacher(one.images)
    expected = 2 * distillation(method.deployed()(one.images), taught, 3.0)
    assert method.losses(one)["kd"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("teacher", ["resnet18", "wrn_16_1", "mobilenetv2", "shufflenetv2_x0_5"])
@torch.no_grad()
def test_the_kept_classifier_reads_the_target_as_the_teacher_does(make, batch, teacher):
    """Also where layers lie between the teacher's deepest map and its classifier."""
    method = make("simkd", teacher=teacher, image=(1, 16, 16))
    images = batch(method).images
    target = method.teacher(images, features=("unpooled",)).unpooled
    torch.testing.assert_close(method.network.classify(target), method.teacher(images))
    projected = method.network.projector(method.network.body(images))
    assert projected.shape[1] == target.shape[1]
    assert method.deployed()(images).shape == (6, 4)


@pytest.mark.parametrize("student", ["resnet8", "wrn_16_1", "mobilenetv2"])
def test_what_is_not_deployed_is_not_trained(make, batch, student):
    method = make("simkd", student=student)
    trained = [parameter for parameter in method.student.parameters() if parameter.requires_grad]
    sum(method.losses(batch(method)).values()).backward()
    assert all(parameter.grad is not None for parameter in trained)
    kept = {id(parameter) for parameter in method.deployed().parameters()}
    assert {id(parameter) for parameter in trained} <= kept


def test_maps_of_zeros_and_equal_images():
    projector = Projector(3, 8, 2, (2, 2))
    for value in (0.0, 1.0):
        x = torch.full((4, 3, 4, 4), value, requires_grad=True)
        (gradient,) = torch.autograd.grad(simkd_loss(projector(x), torch.zeros(4, 8, 4, 4)), x)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("factor", [0, 65])
def test_a_factor_that_leaves_no_channel_is_refused(make, factor):
    with pytest.raises(RunError, match=rf"SimKD.factor={factor} must be between 1 and the 64 channels"):
        make("simkd", factor=factor)
