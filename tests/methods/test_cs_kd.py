import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.method import Batch, distillation
from kdbench.streams import Streams


class Passes(nn.Module):
    """A network whose passes give one table of logits after another."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = list(logits)

    def forward(self, images):
        return self.logits.pop(0)


def test_the_total_is_the_reference(make, reference):
    case = reference("cs_kd")
    method = make("cs_kd", labels=[0, 1, 2, 3, 4, 5] * 4, **case.params)
    method.student = Passes(case.student["logits"], case.fixed["partner_logits"])
    batch = Batch(torch.zeros(8, 1, 8, 8), case.fixed["labels"].repeat(2), torch.arange(8), 0, Streams(0))
    terms = method.losses(batch)
    assert terms["ce"].item() == pytest.approx(case.entry["parts"]["ce"], rel=1e-9)
    case.check(sum(terms.values()))


def test_anchors_learn_the_labels_and_their_partners_logits_which_get_no_gradient(make, batch):
    method = make("cs_kd", weight=2.0, temperature=3.0)
    other = copy.deepcopy(method.student)
    one = batch(method)
    anchors, partners = one.images.chunk(2)
    logits, target = other(anchors), other(partners).detach()
    expected = {"ce": F.cross_entropy(logits, one.labels[:6]), "partner": 2 * distillation(logits, target, 3.0)}
    terms = method.losses(one)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    gradients = (
        torch.autograd.grad(sum(losses.values()), list(network.parameters()))
        for losses, network in ((terms, method.student), (expected, other))
    )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_pass_of_both_has_common_statistics_and_still_teaches_without_gradient(make, batch):
    method = make("cs_kd", joint=True)
    other = copy.deepcopy(method.student)
    one = batch(method)
    logits, target = other(one.images).chunk(2)
    terms = method.losses(one)
    expected = distillation(logits, target.detach(), 4.0)
    assert terms["partner"].item() == pytest.approx(expected.item())
    counts = {m.num_batches_tracked.item() for m in method.student.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts == {1}
    ours, theirs = (
        torch.autograd.grad(terms["partner"], method.student.fc.weight),
        torch.autograd.grad(expected, other.fc.weight),
    )
    torch.testing.assert_close(ours, theirs)


def test_an_image_is_its_own_partner_only_if_that_is_allowed(make):
    anchors = torch.arange(24).repeat(20)
    for itself in (False, True):
        partners = make("cs_kd", itself=itself).sample(anchors, Streams(0)).chunk(2)[1]
        assert (partners == anchors).any() == itself


def test_one_class_alone_is_refused(make):
    with pytest.raises(ValueError, match="at least two classes"):
        make("cs_kd", labels=[0] * 8)
