import math

import pytest
import torch
from torch import nn

from kdbench.method import distillation
from kdbench.methods.srd import srd_loss, standardised


def features(batch: int = 6, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    x, t = torch.randn(2, batch, dim, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return x.requires_grad_(), t


def test_the_loss_is_the_reference(reference):
    case = reference("srd")
    parts = {
        "feature": srd_loss(case.student["student_features"], case.fixed["teacher_features"], case.params["exponent"]),
        "kl": distillation(case.student["student_logits"], case.fixed["teacher_logits"], 1.0),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(2 * parts["feature"] + parts["kl"])


@pytest.mark.parametrize("exponent", [4.0, 3.0])
def test_the_loss_is_its_definition(exponent):
    x, t = features()
    differences = [abs(a - b) for a, b in zip(x.flatten().tolist(), t.flatten().tolist(), strict=True)]
    assert srd_loss(x, t, exponent).item() == pytest.approx(math.log(sum(d**exponent for d in differences)), rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: srd_loss(standardised(x), t, exponent), x)


def test_standardised_features_are_those_of_batch_normalisation():
    x, _ = features()
    bn = nn.BatchNorm1d(5, eps=1e-4, affine=False).double()
    torch.testing.assert_close(standardised(3 * x + 1), bn(3 * x + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_equal_and_zero_rows(dtype, value):
    x, t = (each.detach().to(dtype) for each in features())
    equal = torch.full_like(x, value)
    for ours, theirs in ((equal, t), (x, equal), (equal, equal)):
        ours = ours.clone().requires_grad_()
        loss = srd_loss(standardised(ours), standardised(theirs), 4.0)
        (gradient,) = torch.autograd.grad(loss, ours)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert gradient.norm() < 1e3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_that_is_equal_to_the_teacher_has_a_finite_loss(dtype):
    x, _ = features()
    x = x.detach().to(dtype).requires_grad_()
    loss = srd_loss(x, x.detach(), 4.0)
    assert loss.isfinite()
    assert (torch.autograd.grad(loss, x)[0] == 0).all()


def test_the_batch_adds_a_constant_and_its_order_does_not_matter():
    x, t = features()
    torch.testing.assert_close(srd_loss(x.repeat(2, 1), t.repeat(2, 1), 4.0), srd_loss(x, t, 4.0) + math.log(2))
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    torch.testing.assert_close(
        srd_loss(standardised(x[order]), standardised(t[order]), 4.0), srd_loss(standardised(x), standardised(t), 4.0)
    )


def test_terms_are_the_weighted_losses_of_the_pooled_features(make, batch):
    method = make("srd", weight=3.0, exponent=3.0, kd_weight=0.5, temperature=2.0).eval()
    one = batch(method)
    terms = method.losses(one)
    out, taught = (network(one.images, features=True) for network in (method.student, method.teacher))
    ours, theirs = standardised(method.projector(out.pooled)), standardised(taught.pooled)
    assert terms.keys() == {"ce", "srd", "kd"}
    assert terms["srd"].item() == pytest.approx(3 * srd_loss(ours, theirs, 3.0).item(), rel=1e-4)
    assert terms["kd"].item() == pytest.approx(0.5 * distillation(out.logits, taught.logits, 2.0).item(), rel=1e-4)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-4)


def test_the_projector_is_trained(make, batch):
    method = make("srd")
    method.losses(batch(method))["srd"].backward()
    assert method.projector.weight.grad.norm() > 0


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("wrn_16_1", "resnet8x4")])
def test_widths_of_student_and_teacher_may_differ(make, batch, student, teacher):
    method = make("srd", student=student, teacher=teacher)
    assert all(term.isfinite() for term in method.losses(batch(method)).values())
