import math

import pytest
import torch

from kdbench.method import RunError, distillation
from kdbench.methods.vid import Prediction, vid_loss


def maps(batch: int = 3, width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    x, t = torch.randn(2, batch, width, 2, 2, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), t, torch.linspace(-2, 6, width, dtype=torch.float64)


@pytest.mark.parametrize("name", ["vid", "vid_student_larger", "vid_teacher_larger"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    prediction = Prediction(3, 4, 5.0).double()
    weights = {f"mean.{2 * n}.weight": case.fixed[f"conv{n + 1}_weight"] for n in range(3)}
    given = {**weights, "log_scale": case.student["log_scale"]}
    prediction.load_state_dict(weights | {"log_scale": given["log_scale"].detach()})
    maps = case.student["student_map"], case.fixed["teacher_map"]
    case.check(torch.func.functional_call(prediction, given, maps))


def test_the_loss_is_its_definition():
    x, t, scale = maps()
    total = 0.0
    for c in range(4):
        variance = math.log(1 + math.exp(scale[c])) + 1e-5
        for a, b in zip(x[:, c].flatten().tolist(), t[:, c].flatten().tolist(), strict=True):
            total += 0.5 * ((a - b) ** 2 / variance + math.log(variance))
    assert vid_loss(x, t, scale).item() == pytest.approx(total / x.numel(), rel=1e-12)
    assert torch.autograd.gradcheck(lambda x, scale: vid_loss(x, t, scale), (x, scale.requires_grad_()))


def test_the_prediction_is_three_layers_without_normalisation_after_pooling():
    torch.manual_seed(0)
    prediction = Prediction(3, 4, 5.0).double()
    x, t = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 4, 2, 2, dtype=torch.float64)
    first, second, third = (layer.weight[:, :, 0, 0] for layer in prediction.mean if hasattr(layer, "weight"))
    mean = x.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean(dim=(3, 5))
    for weight, relu in ((first, True), (second, True), (third, False)):
        mean = torch.einsum("oc,bchw->bohw", weight, mean)
        mean = mean.clamp(min=0) if relu else mean
    torch.testing.assert_close(prediction(x, t), vid_loss(mean, t, prediction.log_scale))


def test_the_variance_starts_at_its_initial_value_and_does_not_overflow():
    for variance in (5.0, 0.1):
        scale = Prediction(3, 4, variance).log_scale
        assert (torch.nn.functional.softplus(scale) + 1e-5).tolist() == pytest.approx([variance] * 4, rel=1e-5)
    x, t, _ = (each.float() for each in maps())
    scale = torch.tensor([100.0, 1000.0, -100.0, -1000.0], requires_grad=True)
    loss = vid_loss(x, t, scale)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, scale)[0].isfinite().all()


def test_a_perfect_prediction_wants_the_smallest_variance():
    x, _, _ = maps()
    assert vid_loss(x, x.detach(), torch.full((4,), -50.0)).item() == pytest.approx(0.5 * math.log(1e-5), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_zero_maps_and_equal_images(value):
    torch.manual_seed(0)
    prediction = Prediction(3, 4, 5.0)
    x = torch.full((2, 3, 4, 4), value, requires_grad=True)
    loss = prediction(x, torch.full((2, 4, 4, 4), value))
    gradients = torch.autograd.grad(loss, [x, *prediction.parameters()])
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_order_of_the_images_does_not_matter():
    x, t, scale = maps()
    torch.testing.assert_close(vid_loss(x.flip(0), t.flip(0), scale), vid_loss(x, t, scale))


def test_terms_are_the_weighted_sum_over_the_stages(make, batch):
    method = make("vid", weight=3.0, initial_variance=2.0, kd_weight=0.5, temperature=3.0).eval()
    one = batch(method)
    terms = method.losses(one)
    out, taught = (network(one.images, features=True) for network in (method.student, method.teacher))
    stages = zip(method.predictions, out.stages, taught.stages, strict=True)
    expected = 3 * sum(prediction(x, target).item() for prediction, x, target in stages)
    assert terms.keys() == {"ce", "vid", "kd"}
    assert terms["vid"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.5 * distillation(out.logits, taught.logits, 3.0).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)
    assert {round(p.log_scale.exp().log1p().mean().item(), 3) for p in method.predictions} == {2.0}


def test_everything_is_trained(make, batch):
    method = make("vid")
    method.losses(batch(method))["vid"].backward()
    assert all(parameter.grad.norm() > 0 for parameter in method.predictions.parameters())


@pytest.mark.parametrize(("student", "teacher", "widths"), [
    ("resnet8", "resnet18", (128, 256, 512)), ("resnet18", "resnet8", (16, 32, 64)), ("wrn_16_1", "resnet8x4", (64, 128, 256)),
])  # fmt: skip
def test_stages_are_paired_from_the_deepest(make, batch, student, teacher, widths):
    method = make("vid", student=student, teacher=teacher)
    assert tuple(len(prediction.log_scale) for prediction in method.predictions) == widths
    assert all(term.isfinite() for term in method.losses(batch(method)).values())


def test_a_variance_that_cannot_be_is_refused(make):
    with pytest.raises(RunError, match=r"VID.initial_variance is 0.0; it must be greater than 1e-05"):
        make("vid", initial_variance=0.0)
