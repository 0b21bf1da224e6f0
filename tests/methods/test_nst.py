import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import UserError
from kdbench.methods.nst import selectivity_loss


def maps(*shapes, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", ["nst", "nst_resolution", "nst_dead_channel"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    ours, theirs = case.maps("student"), case.maps("teacher")
    case.check(selectivity_loss(ours or [case.student["student_map"]], theirs or [case.fixed["teacher_map"]]))


def slow_kernel(x: np.ndarray, y: np.ndarray) -> float:
    products = []
    for one, other in zip(x, y, strict=True):
        for a in one:
            for b in other:
                products.append((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    return np.mean(np.square(products))


def test_the_loss_is_its_definition():
    ours, theirs = maps((3, 2, 4, 4), (3, 5, 2, 2)), maps((3, 3, 8, 8), (3, 4, 2, 2), seed=5)
    x = [each.detach().numpy() for each in ours]
    t = [F.avg_pool2d(theirs[0], 2).detach().numpy(), theirs[1].detach().numpy()]
    expected = sum(slow_kernel(b, b) + slow_kernel(a, a) - 2 * slow_kernel(a, b) for a, b in zip(x, t, strict=True))
    assert selectivity_loss(ours, theirs).item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: selectivity_loss([x], [theirs[1].detach()]), ours[1])


def test_maps_and_channels_of_zeros_have_a_moderate_gradient():
    (x,), (t,) = maps((4, 3, 4, 4)), maps((4, 3, 4, 4), seed=5)
    usual = torch.autograd.grad(selectivity_loss([x], [t.detach()]), x)[0].norm()
    with torch.no_grad():
        x[0] = 0
        x[1, 2] = 0
        t[2] = 0
    loss = selectivity_loss([x], [t.detach()])
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[0] == 0).all()
    assert (gradient[1, 2] == 0).all()
    assert 0 < gradient.norm() < 10 * usual


def test_the_discrepancy_of_a_map_from_itself_is_0_and_never_negative():
    (x,), (t,) = maps((4, 3, 4, 4)), maps((4, 7, 4, 4), seed=5)
    torch.testing.assert_close(selectivity_loss([x], [x]), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(selectivity_loss([x], [x.repeat(1, 2, 1, 1)]), torch.zeros((), dtype=torch.float64))
    assert selectivity_loss([x], [t]) > 0


def test_order_and_scale_of_channels_do_not_matter_and_images_are_averaged():
    (x,), (t,) = maps((4, 3, 4, 4)), maps((4, 5, 4, 4), seed=5)
    whole = selectivity_loss([x], [t])
    torch.testing.assert_close(selectivity_loss([-3 * x.flip(1)], [2 * t.flip(1)]), whole)
    torch.testing.assert_close(selectivity_loss([x.flip(0)], [t.flip(0)]), whole)
    halves = [selectivity_loss([x[part]], [t[part]]) for part in (slice(2), slice(2, None))]
    torch.testing.assert_close(sum(halves) / 2, whole)


def features(method, one):
    return (network(one.images, features=("preactivations",)) for network in (method.student, method.teacher))


def test_terms_are_the_weighted_losses_of_the_chosen_maps(make, batch):
    for stages in ("all", "deepest"):
        for preactivation in (False, True):
            method = make("nst", stages=stages, preactivation=preactivation).eval()
            one = batch(method)
            x, t = (
                (f.preactivations if preactivation else f.stages)[-3 if stages == "all" else -1 :]
                for f in features(method, one)
            )
            loss = method.losses(one)["selectivity"].item()
            assert loss == pytest.approx(50 * selectivity_loss(x, t).item(), rel=1e-4), (stages, preactivation)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_added_with_its_weight_and_temperature(make, batch, temperature):
    terms = []
    for name in ("nst", "kd"):
        method = make(name, kd_weight=0.5, temperature=temperature)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        terms.append(method.losses(batch(method))["kd"].item())
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)


def test_parameters_reach_their_terms(make, batch):
    one = batch(make("nst"))
    base = make("nst").losses(one)
    assert base.keys() == {"ce", "selectivity"}
    assert base["ce"].item() == pytest.approx(make("ce").losses(one)["ce"].item(), rel=1e-5)
    changed = make("nst", selectivity_weight=5.0).losses(one)
    assert changed["selectivity"].item() == pytest.approx(base["selectivity"].item() / 10)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "mobilenetv2"), ("mobilenetv2", "wrn_16_1")])
def test_stages_resolutions_and_widths_may_differ(make, batch, student, teacher):
    method = make("nst", student=student, teacher=teacher, image=(1, 16, 16)).eval()
    one = batch(method)
    x, t = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    stages = min(len(x), len(t))
    expected = 50 * selectivity_loss(x[-stages:], t[-stages:])
    assert method.losses(one)["selectivity"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_networks_without_preactivations_are_refused(make, batch):
    method = make("nst", student="vit_tiny", teacher="resnet8", preactivation=True, image=(1, 16, 16))
    with pytest.raises(UserError, match="does not offer pre-activation maps"):
        method.losses(batch(method))


def test_maps_in_half_precision_are_compared_in_single(make, batch):
    method = make("nst").eval()
    one = batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.losses(one)["selectivity"]
        x, t = (
            [m.float() for m in network(one.images, features=True).stages]
            for network in (method.student, method.teacher)
        )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(50 * selectivity_loss(x, t).item(), rel=1e-4)
