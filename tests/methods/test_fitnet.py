import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError
from kdbench.method.connectors import Regressor
from kdbench.methods.fitnet import hint_loss, summed_hint_loss


@pytest.mark.parametrize("name", ["fitnet_same", "fitnet_down", "fitnet_up", "fitnet_crop"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    x, t = case.student["student_map"], case.fixed["teacher_map"]
    regressor = Regressor(tuple(x.shape[1:]), tuple(t.shape[1:]), relu=True).double()
    weights = {key.replace("_", "."): case.fixed[key] for key in ("conv_weight", "conv_bias", "bn_weight", "bn_bias")}
    regressor.load_state_dict(regressor.state_dict() | weights)
    case.check(hint_loss(regressor(x), t))


def test_both_losses_are_their_definitions():
    generator = torch.Generator().manual_seed(2)
    x, t = (torch.randn(3, 4, size, size, generator=generator, dtype=torch.float64) for size in (2, 4))
    squares = (x.numpy() - F.avg_pool2d(t, 2).numpy()) ** 2
    assert hint_loss(x, t).item() == pytest.approx(np.mean(squares), rel=1e-10)
    pixels = [0.5 * sum(squares[n, :, i, j]) for n in range(3) for i in range(2) for j in range(2)]
    assert summed_hint_loss(x, t).item() == pytest.approx(np.mean(pixels), rel=1e-10)


def hint_of(method, one):
    """Mean squared difference of the maps that the method is to compare, each at its own stage."""
    x, t = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    stages = min(len(x), len(t))
    return hint_loss(method.regressor(x[-stages:][method.stage - 1]), t[-stages:][method.stage - 1])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_terms_are_the_weighted_losses_of_the_stage(make, batch, stage):
    method = make("fitnet", stage=stage, teacher="resnet8x4").eval()
    one = batch(method)
    losses = method.losses(one)
    assert losses["hint"].item() == pytest.approx(100 * hint_of(method, one).item(), rel=1e-5)
    assert losses["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_added_with_its_weight_and_temperature(make, batch, temperature):
    terms = []
    for name in ("fitnet", "kd"):
        method = make(name, kd_weight=0.5, temperature=temperature)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        terms.append(method.losses(batch(method))["kd"].item())
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)


def test_parameters_reach_their_terms(make, batch):
    one = batch(make("fitnet"))
    base = make("fitnet").losses(one)
    assert base.keys() == {"ce", "hint"}
    changed = make("fitnet", hint_weight=1.0).losses(one)
    assert changed["hint"].item() == pytest.approx(base["hint"].item() / 100)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "mobilenetv2"), ("mobilenetv2", "wrn_16_1")])
def test_stages_resolutions_and_widths_may_differ(make, batch, student, teacher):
    method = make("fitnet", student=student, teacher=teacher, image=(1, 16, 16)).eval()
    one = batch(method)
    assert method.losses(one)["hint"].item() == pytest.approx(100 * hint_of(method, one).item(), rel=1e-5)


def test_maps_of_zeros_and_equal_images_have_a_finite_gradient(make, batch):
    for identical in (False, True):
        method = make("fitnet")
        one = batch(method, identical=identical)
        one = one if identical else dataclasses.replace(one, images=torch.zeros_like(one.images))
        terms = method.losses(one)
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_the_first_phase_trains_the_guided_part_and_moves_nothing_else(make, batch):
    method = make("fitnet", joint=False)
    first, second = method.phases()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    first.losses(batch(method))["hint"].backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    trained, later = ({id(p) for p in phase.trains} for phase in (first, second))
    assert reached == {name for name, parameter in method.named_parameters() if id(parameter) in trained}
    assert later == {id(p) for p in method.student.parameters()}
    deepest = {id(p) for p in (*method.student.stage_modules()[2].parameters(), *method.student.fc.parameters())}
    assert not trained & deepest
    assert deepest | trained == later | {id(p) for p in method.regressor.parameters()}
    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    middle = {f"student.{name}" for name, _ in method.student.named_buffers()} - moved
    assert moved, "running statistics of the guided part"
    assert middle, "and not those of the deepest stage"


def test_the_phases_have_the_losses_of_the_paper(make, batch):
    method = make("fitnet", joint=False, temperature=3.0, teacher="resnet8x4").eval()
    one = batch(method)
    first, second = method.phases()
    assert (first.share, first.on_top, second.share) == (0.125, False, None)
    x, t = method.student(one.images, features=True), method.teacher(one.images, features=True)
    hint = summed_hint_loss(method.regressor(x.stages[1]), t.stages[1])
    assert first.losses(one)["hint"].item() == pytest.approx(hint.item(), rel=1e-5)
    p, q = (F.softmax(out.logits.double() / 3, 1) for out in (x, t))
    soft = -(q * p.log()).sum(1).mean().item()
    for progress, weight in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        terms = second.losses(dataclasses.replace(one, phase_progress=progress))
        assert terms["soft"].item() == pytest.approx(weight * soft, rel=1e-5)
        assert terms["ce"].item() == pytest.approx(F.cross_entropy(x.logits, one.labels).item(), rel=1e-5)
    assert [phase.name for phase in make("fitnet").phases()] == ["training"]


def test_parameters_reach_the_phases(make, batch):
    method = make("fitnet", joint=False, share=0.25, on_top=True, curriculum=(2.0, 0.5), stage=1).eval()
    first, second = method.phases()
    assert (first.share, first.on_top, first.rate) == (0.25, True, "constant")
    one = batch(method)
    x, t = (network(one.images, features=True).stages[0] for network in (method.student, method.teacher))
    assert first.losses(one)["hint"].item() == pytest.approx(summed_hint_loss(method.regressor(x), t).item(), rel=1e-5)
    start, end = (second.losses(dataclasses.replace(one, phase_progress=p))["soft"].item() for p in (0.0, 1.0))
    assert start == pytest.approx(4 * end)
    both = make("fitnet", joint=False, kd_weight=0.5).phases()[1].losses(one)
    assert both["kd"].item() == pytest.approx(make("fitnet", kd_weight=0.5).losses(one)["kd"].item(), rel=1e-4)


def test_a_stage_that_is_not_in_both_networks_is_refused(make):
    with pytest.raises(RunError, match=r"FitNet\.stage=4 must be from 1 to 3, the stages that both networks have"):
        make("fitnet", stage=4)
    with pytest.raises(RunError, match=r"FitNet\.curriculum must be two weights"):
        make("fitnet", curriculum=(4.0,))


def test_the_regressor_is_not_in_half_precision(make, batch):
    method = make("fitnet", teacher="resnet8x4").eval()
    one = batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.losses(one)["hint"]
        hint = hint_of(method, one)
    assert loss.dtype == hint.dtype == torch.float32
    assert loss.item() == pytest.approx(100 * hint.item(), rel=1e-5)
    assert method.regressor(torch.randn(2, 32, 4, 4).bfloat16()).dtype == torch.float32
