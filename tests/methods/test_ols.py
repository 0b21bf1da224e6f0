from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.ols import class_means, class_sums


def test_the_total_and_the_next_matrix_are_the_reference(make, batch, reference, monkeypatch):
    case = reference("ols")
    method = make("ols", labels=range(6), **case.params).double()
    method.matrix.copy_(case.fixed["matrix"])
    monkeypatch.setattr(type(method.student), "forward", lambda *_: case.student["logits"])
    terms = method.losses(replace(batch(method, anchors=4), labels=case.fixed["labels"], epoch=2))
    assert terms["ce"].item() == pytest.approx(0.5 * case.entry["parts"]["ce"], rel=1e-9)
    case.check(sum(terms.values()))
    method.after_epoch(2)
    torch.testing.assert_close(method.matrix, torch.tensor(case.entry["matrix_after"], dtype=torch.float64))


def test_means_are_of_the_rightly_classified_images_and_uniform_without_one():
    logits = torch.tensor([[3.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    means = class_means(*class_sums(logits, torch.tensor([0, 0, 1])))
    torch.testing.assert_close(means[0], logits[:2].softmax(dim=1).mean(dim=0))
    torch.testing.assert_close(means[1:], torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize(("first", "ce", "soft"), [("zero", 0.5, 0.0), ("ce", 1.0, 0.0), ("uniform", 0.5, 0.5)])
def test_the_first_epoch_has_no_matrix_yet(make, batch, first, ce, soft):
    method = make("ols", first=first).eval()
    one = batch(method)
    logits, terms = method.student(one.images), method.losses(one)
    assert terms["ce"].item() == pytest.approx(ce * F.cross_entropy(logits, one.labels).item(), rel=1e-5)
    assert terms["soft"].item() == pytest.approx(-soft * logits.log_softmax(dim=1).mean(dim=1).mean().item(), rel=1e-5)
    later = method.losses(replace(one, epoch=2))["ce"].item()
    assert later == pytest.approx(0.5 * F.cross_entropy(logits, one.labels).item(), rel=1e-5)


def test_a_row_that_is_sure_enough_is_kept_where_asked(make):
    matrix = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    for frozen_at, kept in ((1.0, []), (0.88, [0, 2])):
        method = make("ols", frozen_at=frozen_at)
        method.matrix.copy_(matrix)
        method.after_epoch(1)
        same = [row for row in range(4) if torch.equal(method.matrix[row], matrix[row])]
        assert same == [*kept, 3], "the last row is uniform, as are new ones"
