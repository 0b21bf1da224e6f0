import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.method.connectors import dropout
from kdbench.methods.ddgsd import mutual_loss


def test_the_total_is_the_reference(reference):
    case = reference("sd_dropout")
    logits, first, second = (case.student[name] for name in ("logits", "dropout_logits_1", "dropout_logits_2"))
    ce = F.cross_entropy(logits, case.fixed["labels"])
    kd = mutual_loss(first, second, case.params["temperature"])
    assert {"ce": ce.item(), "kl": kd.item()} == pytest.approx(case.entry["parts"], rel=1e-9)
    case.check(ce + case.params["weight"] * kd)


def test_terms_are_the_weighted_losses_with_two_masks(make, batch):
    method = make("sd_dropout", weight=2.0, temperature=3.0, dropped=0.3).eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    first, second = (dropout(out.pooled, 0.3, one, stream) for stream in ("first", "second"))
    assert not torch.equal(first == 0, second == 0)
    assert torch.equal(first, dropout(out.pooled, 0.3, one, "first"))
    a, b = method.student.fc(first), method.student.fc(second)
    kd = 2 * (distillation(a, b, 3.0) + distillation(b, a, 3.0))
    terms = method.losses(one)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(out.logits, one.labels).item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(kd.item(), rel=1e-4)


def test_dropping_pooled_features_is_dropping_channels_of_the_deepest_map(make, batch):
    method = make("sd_dropout").eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    dropped = dropout(out.pooled, 0.5, one, "first")
    mask = dropout(torch.ones_like(out.pooled), 0.5, one, "first")
    assert set(mask.flatten().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(
        method.student.classify(out.stages[-1] * mask[:, :, None, None]), method.student.fc(dropped)
    )


def test_masks_change_from_step_to_step_and_are_none_at_zero(make, batch):
    method = make("sd_dropout").eval()
    x = torch.ones(6, 20)
    assert not torch.equal(*(dropout(x, 0.5, batch(method, step=step), "first") for step in (0, 1)))
    assert make("sd_dropout", dropped=0.0).losses(batch(method))["kd"].item() == pytest.approx(0, abs=1e-6)


def test_dropping_all_is_refused(make):
    with pytest.raises(RunError, match=r"SDDropout\.dropped=1 must be at least 0 and below 1"):
        make("sd_dropout", dropped=1.0)
