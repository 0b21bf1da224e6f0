import math

import pytest
import torch

from kdbench.method import RunError, distillation
from kdbench.methods.pefd import Projectors, direction_loss


def test_the_loss_is_the_reference(reference):
    case = reference("pefd")
    ensemble = Projectors(5, 6, 3).double()
    weights, biases = ([case.fixed[f"projector{n}_{part}"] for n in (1, 2, 3)] for part in ("weight", "bias"))
    ensemble.load_state_dict({"linear.weight": torch.cat(weights), "linear.bias": torch.cat(biases)})
    case.check(direction_loss(ensemble(case.student["student_features"]), case.fixed["teacher_features"]))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_projectors_are_averaged(count):
    torch.manual_seed(0)
    ensemble, x = Projectors(4, 3, count).double(), torch.randn(5, 4, dtype=torch.float64)
    weight, bias = ensemble.linear.weight.tolist(), ensemble.linear.bias.tolist()
    for row, projected in zip(x.tolist(), ensemble(x).tolist(), strict=True):
        dots = [sum(w * v for w, v in zip(line, row, strict=True)) + b for line, b in zip(weight, bias, strict=True)]
        mean = [sum(max(dots[q * 3 + c], 0) for q in range(count)) / count for c in range(3)]
        assert projected == pytest.approx(mean, rel=1e-12)


def test_projectors_are_initialised_independently_as_single_layers_are():
    torch.manual_seed(0)
    first, second, third = Projectors(100, 50, 3).linear.weight.unflatten(0, (3, 50))
    bound = 1 / math.sqrt(100)
    for weight in (first, second, third):
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.05


def test_the_loss_is_its_definition():
    x, t = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cosines = [a @ b / a.norm() / b.norm() for a, b in zip(x, t, strict=True)]
    assert direction_loss(x, t).item() == pytest.approx(1 - sum(cosines).item() / 5, rel=1e-12)
    assert direction_loss(x, 3 * x).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(direction_loss(2 * x.flip(0), t.flip(0)), direction_loss(x, t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_projection_of_zeros_has_cosine_0_and_no_gradient(dtype):
    t = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    x = t.clone()
    x[1] = 0
    x.requires_grad_()
    loss = direction_loss(x, t)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(0.25, rel=1e-5)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()
    (gradient,) = torch.autograd.grad(direction_loss(x, torch.zeros_like(t)), x)
    assert (gradient == 0).all()


def test_terms_are_the_weighted_losses_of_the_pooled_features(make, batch):
    method = make("pefd", weight=5.0, projectors=2, kd_weight=0.5, temperature=3.0).eval()
    one = batch(method)
    terms = method.losses(one)
    out, taught = (network(one.images, features=True) for network in (method.student, method.teacher))
    expected = 5 * direction_loss(method.ensemble(out.pooled), taught.pooled)
    assert terms.keys() == {"ce", "pefd", "kd"}
    assert terms["pefd"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.5 * distillation(out.logits, taught.logits, 3.0).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)
    assert len(method.ensemble.linear.weight) == 2 * taught.pooled.shape[1], "no projector that is not used"


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("wrn_16_1", "resnet8x4")])
def test_widths_of_student_and_teacher_may_differ(make, batch, student, teacher):
    method = make("pefd", student=student, teacher=teacher)
    terms = method.losses(batch(method))
    assert terms.keys() == {"ce", "pefd"}
    assert all(term.isfinite() for term in terms.values())


def test_no_projectors_are_refused(make):
    with pytest.raises(RunError, match=r"PEFD.projectors is 0; it must be 1 or more"):
        make("pefd", projectors=0)
