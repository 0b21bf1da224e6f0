from dataclasses import replace

import pytest
import torch

from kdbench.method import RunError, soft_cross_entropy


def of_length(method, epochs):
    method.info = replace(method.info, epochs=epochs)
    return method


@pytest.mark.parametrize("name", ["ps_kd", "ps_kd_first_epoch"])
def test_targets_are_the_reference(make, batch, reference, monkeypatch, name):
    case = reference(name)
    method = of_length(make("ps_kd", labels=range(6), final=case.params["alpha_T"]), case.params["epochs"]).double()
    one = replace(batch(method, anchors=4), labels=case.fixed["labels"], epoch=case.params["epoch"] + 1)
    method.predictions.rows[one.index] = case.fixed["previous_prediction"]
    monkeypatch.setattr(type(method.student), "forward", lambda *_: case.student["logits"])
    case.check(sum(method.losses(one).values()))
    after = torch.tensor(case.entry["bank_after"], dtype=torch.float64)
    torch.testing.assert_close(method.predictions.rows[one.index], after)


def test_the_share_of_the_last_prediction_grows_with_the_epoch_or_the_step(make, batch):
    for growth, expected in (("epoch", [0.0, 0.2, 0.8]), ("step", [0.0, 0.24, 0.76])):
        method = of_length(make("ps_kd", growth=growth), 4)
        one = batch(method)
        at = [replace(one, epoch=epoch, progress=progress) for epoch, progress in ((1, 0.2), (2, 0.3), (4, 0.95))]
        shares = [method.alpha(each) for each in at]
        assert shares == pytest.approx(expected if growth == "step" else [0.0, 0.4, 0.8])


def test_terms_are_the_two_parts_of_the_softened_label(make, batch):
    method = of_length(make("ps_kd", final=0.5), 2).eval()
    one = replace(batch(method), epoch=2)
    before = torch.randn(6, 4).softmax(dim=1)
    method.predictions.rows[one.index] = before
    logits = method.student(one.images)
    onehot = torch.nn.functional.one_hot(one.labels, 4)
    expected = soft_cross_entropy(logits, 0.5 * onehot + 0.5 * before)
    assert sum(method.losses(one).values()).item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(method.predictions.rows[one.index], logits.softmax(dim=1).detach())


def test_a_memory_over_its_limit_is_refused_before_anything_starts(make):
    with pytest.raises(RunError, match="more than its limit of 1e-08 GiB; take a smaller type or a higher limit"):
        make("ps_kd", limit_gib=1e-8)
