import numpy as np
import pytest
import torch

from kdbench.methods.at import attention, attention_loss


def maps(*shapes, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", ["at", "at_student_larger", "at_teacher_larger", "at_zero_map", "at_paper"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    ours, theirs = case.maps("student"), case.maps("teacher")
    form = "norm" if name == "at_paper" else "squared"
    case.check(attention_loss(ours or [case.student["student_map"]], theirs or [case.fixed["teacher_map"]], form=form))


def slow_attention(image: np.ndarray) -> np.ndarray:
    channels, height, width = image.shape
    a = np.array(
        [[sum(image[c, i, j] ** 2 for c in range(channels)) / channels for j in range(width)] for i in range(height)]
    )
    return a / np.sqrt((a**2).sum())


def test_both_forms_are_their_definitions():
    ours, theirs = maps((3, 2, 4, 4), (3, 5, 2, 2)), maps((3, 3, 4, 4), (3, 4, 2, 2), seed=5)
    squared, norm = 0.0, 0.0
    for x, t in zip(ours, theirs, strict=True):
        differences = [
            slow_attention(a) - slow_attention(b) for a, b in zip(x.detach().numpy(), t.detach().numpy(), strict=True)
        ]
        squared += np.mean([d**2 for d in differences])
        norm += np.mean([np.sqrt((d**2).sum()) for d in differences])
    assert attention_loss(ours, theirs, "squared").item() == pytest.approx(squared, rel=1e-10)
    assert attention_loss(ours, theirs, "norm").item() == pytest.approx(norm, rel=1e-10)


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_gradients_are_those_of_finite_differences(form):
    (x,), (t,) = maps((2, 3, 4, 4)), maps((2, 2, 2, 2), seed=5)
    assert torch.autograd.gradcheck(lambda x: attention_loss([x], [t.detach()], form), x, fast_mode=True)


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_maps_of_zeros_and_equal_maps_have_a_finite_gradient(form):
    (x,), (t,) = maps((4, 3, 4, 4)), maps((4, 3, 4, 4), seed=5)
    with torch.no_grad():
        x[0] = 0
        t[1] = 0
        x[2] = t[2]
    (gradient,) = torch.autograd.grad(attention_loss([x], [t.detach()], form), x)
    assert gradient.isfinite().all()
    assert (gradient[[0, 2]] == 0).all()
    assert 0 < gradient.norm() < 10


def test_attention_ignores_scale_sign_and_the_order_of_channels():
    (x,) = maps((3, 4, 5, 5))
    torch.testing.assert_close(attention(-7 * x.flip(1)), attention(x))
    assert not torch.allclose(attention(x.flip(2)), attention(x))


def test_the_loss_is_a_mean_over_images():
    (x,), (t,) = maps((4, 3, 4, 4)), maps((4, 3, 4, 4), seed=5)
    for form in ("squared", "norm"):
        whole = attention_loss([x], [t], form)
        torch.testing.assert_close(attention_loss([x.flip(0)], [t.flip(0)], form), whole)
        halves = [attention_loss([x[part]], [t[part]], form) for part in (slice(2), slice(2, None))]
        torch.testing.assert_close(sum(halves) / 2, whole)


def test_terms_are_the_weighted_losses_of_all_stages(make, batch):
    method = make("at").eval()
    one = batch(method)
    x, t = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    losses = method.losses(one)
    assert losses["attention"].item() == pytest.approx(1000 * attention_loss(x, t, "squared").item(), rel=1e-5)
    assert losses["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_added_with_its_weight_and_temperature(make, batch, temperature):
    terms = []
    for name in ("at", "kd"):
        method = make(name, kd_weight=0.5, temperature=temperature)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        terms.append(method.losses(batch(method))["kd"].item())
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)


def test_parameters_reach_their_terms(make, batch):
    one = batch(make("at"))
    base = make("at").losses(one)
    assert base.keys() == {"ce", "attention"}
    changed = make("at", attention_weight=10.0, form="norm").losses(one)
    method = make("at")
    x, t = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    assert changed["attention"].item() == pytest.approx(10 * attention_loss(x, t, "norm").item(), rel=1e-5)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "mobilenetv2"), ("mobilenetv2", "wrn_16_1")])
def test_stages_resolutions_and_widths_may_differ(make, batch, student, teacher):
    method = make("at", student=student, teacher=teacher, image=(1, 16, 16)).eval()
    one = batch(method)
    x, t = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    stages = min(len(x), len(t))
    expected = 1000 * attention_loss(x[-stages:], t[-stages:], "squared")
    assert method.losses(one)["attention"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_maps_in_half_precision_are_compared_in_single():
    (x,), (t,) = maps((2, 3, 4, 4)), maps((2, 3, 4, 4), seed=5)
    half = attention_loss([x.bfloat16()], [t.bfloat16()], "squared")
    assert half.dtype == torch.float32
    assert torch.equal(half, attention_loss([x.bfloat16().float()], [t.bfloat16().float()], "squared"))
