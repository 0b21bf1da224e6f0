from dataclasses import replace

import pytest
import torch

from kdbench.method import RunError, distillation


def of_length(method, epochs):
    method.info = replace(method.info, epochs=epochs)
    return method


def test_the_total_is_the_reference(reference, make, batch, monkeypatch):
    case = reference("lwr")
    logits, labels = case.student["logits"], case.fixed["labels"]
    horizon = case.params["horizon"] / 200
    given = {name: case.params[name] for name in ("temperature", "gamma")}
    method = of_length(make("lwr", labels=range(6), every=case.params["k"], horizon=horizon, **given), 200).double()
    one = replace(batch(method, anchors=4), labels=labels, epoch=case.params["epoch"])
    method.targets.rows[one.index] = case.fixed["stored_logits"]
    monkeypatch.setattr(type(method.student), "forward", lambda *_: logits)
    assert method.weight(one.epoch) == pytest.approx(case.entry["parts"]["kl_weight"])
    case.check(sum(method.losses(one).values()))


def test_there_are_no_targets_up_to_the_first_replacement(make):
    method = of_length(make("lwr", every=5, gamma=0.0, horizon=1.0), 100)
    assert [method.weight(epoch) for epoch in (1, 4, 5)] == [0, 0, 0]
    assert [method.weight(epoch) for epoch in (6, 9, 10, 11, 100)] == pytest.approx([0.05, 0.05, 0.1, 0.1, 1.0])


def test_targets_are_replaced_after_every_kth_epoch_by_what_the_student_said_in_it(make, batch):
    method = of_length(make("lwr", every=2, temperature=3.0), 6).eval()
    one = batch(method)
    logits = method.student(one.images).detach()
    method.losses(one)
    method.after_epoch(1)
    assert not method.targets.rows.any()
    terms = method.losses(replace(one, epoch=2))
    assert terms["past"] == 0
    assert not method.targets.rows.any()
    method.after_epoch(2)
    torch.testing.assert_close(method.targets.rows[one.index], logits)
    method.targets.rows[one.index] += torch.randn(6, 4)
    past = method.losses(replace(one, epoch=3))["past"]
    expected = method.weight(3) * distillation(logits, method.targets.read(one), 3.0)
    assert past.item() == pytest.approx(expected.item(), rel=1e-5)
    assert method.weight(3) == pytest.approx(0.9 * 2 / 7.2)
    method.after_epoch(3)
    assert not torch.equal(method.targets.rows[one.index], logits), "kept for the next two epochs"


def test_images_in_a_step_over_the_end_of_the_epoch_before_have_targets_too(make, batch):
    method = of_length(make("lwr", every=2), 6).eval()
    over_the_end, rest = replace(batch(method), epoch=1), replace(batch(method, step=1), epoch=2)
    for one in (over_the_end, rest):
        method.losses(one)
    method.after_epoch(2)
    seen = torch.cat([over_the_end.index, rest.index])
    assert method.targets.rows[seen].any(dim=1).all()


def test_what_is_remembered_has_no_gradient(make, batch):
    method = of_length(make("lwr", every=1), 4)
    method.losses(batch(method))
    assert not method.gathered.rows.requires_grad


def test_a_memory_over_its_limit_is_refused(make):
    with pytest.raises(RunError, match="more than its limit of 1e-08 GiB"):
        make("lwr", limit_gib=1e-8)
