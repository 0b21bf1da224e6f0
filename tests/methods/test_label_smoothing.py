import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError
from kdbench.methods.label_smoothing import spread_over_all


@pytest.mark.parametrize(("name", "others"), [("label_smoothing", "all"), ("label_smoothing_km1", "wrong")])
def test_the_loss_is_the_reference(reference, name, others):
    case = reference(name)
    logits = case.student["logits"]
    share = spread_over_all(case.params["epsilon"], logits.shape[1], others)
    case.check(F.cross_entropy(logits, case.fixed["labels"], label_smoothing=share))


@pytest.mark.parametrize(("others", "own", "other"), [("all", 0.925, 0.025), ("wrong", 0.9, 0.1 / 3)])
def test_the_term_is_the_cross_entropy_with_these_labels(make, batch, others, own, other):
    method = make("label_smoothing", others=others, label_smoothing=0.5).eval()  # the recipe's plays no part
    one = batch(method)
    target = torch.full((6, 4), other).scatter(1, one.labels.unsqueeze(1), own)
    expected = -(target * F.log_softmax(method.student(one.images), dim=1)).sum(dim=1).mean()
    assert method.losses(one)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_it_is_the_control_ce_smooth(make, batch, gin_parameters):
    method, control = make("label_smoothing").eval(), gin_parameters("ce_smooth")
    other = make("ce", **control).eval()
    one = batch(method)
    assert method.losses(one)["ce"].item() == other.losses(one)["ce"].item()


@pytest.mark.parametrize("smoothing", [-0.1, 0.8])
def test_a_share_that_labels_do_not_have_is_refused(make, smoothing):
    with pytest.raises(RunError, match=r"LabelSmoothing\.smoothing=.* must leave a label"):
        make("label_smoothing", smoothing=smoothing, others="wrong")
