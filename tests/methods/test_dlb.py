from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.run.loop.accumulate import portions


def test_the_total_is_the_reference(reference, make, batch, monkeypatch):
    case = reference("dlb")
    method = make(
        "dlb", labels=range(6), batch_size=8, temperature=case.params["temperature"], weight=case.params["alpha"]
    )
    method.double().before.copy_(case.fixed["stored_logits"])
    labels = torch.cat([case.fixed["labels"], case.fixed["previous_labels"].long()])
    one = replace(batch(method, anchors=4, step=1), labels=labels)
    given = iter([case.student["logits"], case.student["previous_logits"]])
    monkeypatch.setattr(type(method.student), "forward", lambda *_: next(given))
    terms = method.losses(one)
    assert terms["ce"].item() == pytest.approx(case.entry["parts"]["ce"], rel=1e-9)
    assert terms["last"].item() == pytest.approx(case.entry["parts"]["kl"], rel=1e-9)
    case.check(sum(terms.values()))
    torch.testing.assert_close(method.before, case.student["logits"].detach())


def test_the_images_of_the_step_before_come_second_and_in_the_first_step_its_own(make):
    method = make("dlb")
    first, second = torch.tensor([3, 1, 5]), torch.tensor([0, 2, 4])
    assert method.sample_after(None, first, None).tolist() == [3, 1, 5, 3, 1, 5]
    assert method.sample_after(first, second, None).tolist() == [0, 2, 4, 3, 1, 5]


def test_in_the_first_step_both_halves_have_the_cross_entropy_alone(make, batch):
    method = make("dlb").eval()
    one = batch(method, anchors=3)
    terms = method.losses(one)
    assert terms["last"] == 0
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(method.student(one.images), one.labels).item(), rel=1e-5)


def test_the_second_half_is_distilled_from_the_step_before(make, batch):
    method = make("dlb", batch_size=6, weight=2.0, temperature=3.0).eval()
    one, two = batch(method, anchors=3), batch(method, anchors=3, step=1)
    method.losses(one)
    kept = method.student(one.images[:3]).detach()
    torch.testing.assert_close(method.before, kept)
    assert not method.before.requires_grad
    expected = 2 * distillation(method.student(two.images[3:]), kept, 3.0)
    assert method.losses(two)["last"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_halves_are_normalised_apart(make, batch):
    method = make("dlb", batch_size=6)
    one = batch(method, anchors=3)
    changed = replace(one, images=torch.cat([one.images[:3], 5 * one.images[3:]]))
    method.losses(one)
    kept = method.before.clone()
    method.losses(changed)
    torch.testing.assert_close(method.before, kept)


def test_parts_of_a_batch_keep_to_their_own_rows_of_the_step_before(make, batch):
    method = make("dlb", weight=2.0, temperature=3.0, batch_size=10).eval()
    steps = [list(portions(batch(method, anchors=5, step=step), 5, 2)) for step in range(2)]
    for part in steps[0]:
        method.losses(part)
    kept = [method.student(part.images.chunk(2)[0]).detach() for part in steps[0]]
    torch.testing.assert_close(method.before, torch.cat(kept))
    for part, before in zip(steps[1], kept, strict=True):
        expected = 2 * distillation(method.student(part.images.chunk(2)[1]), before, 3.0)
        assert method.losses(part)["last"].item() == pytest.approx(expected.item(), rel=1e-5)
