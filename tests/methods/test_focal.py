import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError
from kdbench.methods.focal import focal_loss


def test_the_loss_is_the_reference(reference):
    case = reference("focal")
    case.check(focal_loss(case.student["logits"], case.fixed["labels"], case.params["gamma"]))


def test_gamma_0_is_the_cross_entropy(make, batch):
    method = make("focal", gamma=0.0).eval()
    one = batch(method)
    expected = F.cross_entropy(method.student(one.images), one.labels)
    assert method.losses(one)["focal"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_term_is_the_loss(make, batch):
    method = make("focal", gamma=3.0).eval()
    one = batch(method)
    p = F.softmax(method.student(one.images), dim=1)[torch.arange(6), one.labels]
    expected = -((1 - p) ** 3 * p.log()).mean()
    assert method.losses(one)["focal"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_sure_and_very_wrong_logits_have_finite_gradients(gamma):
    logits = torch.tensor([[300.0, 0.0], [0.0, 300.0], [0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(focal_loss(logits, torch.tensor([0, 0, 1]), gamma), logits)
    assert gradient.isfinite().all()


def test_a_negative_gamma_is_refused(make):
    with pytest.raises(RunError, match=r"Focal\.gamma=-1 must be at least 0"):
        make("focal", gamma=-1.0)
