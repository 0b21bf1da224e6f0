import pytest
import torch
import torch.nn.functional as F

from kdbench.method.branches import fork
from kdbench.methods.dml import mutual_loss


def test_terms_are_the_weighted_losses(make, batch):
    method = make("cl_ilr", weight=2.0, ramp=0.0).eval()
    one = batch(method)
    logits = [out.logits for out in fork(method.student, method.branches, one.images)]
    assert len(logits) == 3
    terms = method.losses(one)
    torch.testing.assert_close(terms["ce"], sum(F.cross_entropy(z, one.labels) for z in logits))
    torch.testing.assert_close(terms["mutual"], 2 * sum(mutual_loss(logits, b, 3.0, "mean") for b in range(3)))


def test_the_shared_stages_get_a_share_of_the_gradient(make, batch):
    method = make("cl_ilr", ramp=0.0).eval()
    one = batch(method)
    logits = [out.logits for out in fork(method.student, method.branches, one.images)]
    ce = sum(F.cross_entropy(z, one.labels) for z in logits)
    shared = [p for stage in method.student.stage_modules()[:-1] for p in stage.parameters()]
    rest = [*method.student.stage_modules()[-1].parameters(), *method.branches.parameters()]
    full = torch.autograd.grad(ce, [*shared, *rest])
    scaled = torch.autograd.grad(method.losses(one)["ce"], [*shared, *rest])
    for place, (one_, other) in enumerate(zip(scaled, full, strict=True)):
        torch.testing.assert_close(one_, other / 3 if place < len(shared) else other)


def test_images_pass_once_and_the_first_branch_is_kept(make, batch):
    method = make("cl_ilr", count=4)
    one = batch(method)
    before = method.student.images_passed
    method.losses(one)
    assert method.student.images_passed - before == len(one.images)
    assert method.deployed() is method.student
    assert list(method.eval().exits(one.images)) == ["branch2", "branch3", "branch4"]


@pytest.mark.parametrize("student", ["four_stages", "wrn_16_1", "vit_tiny"])
def test_students_of_other_families(make, batch, student):
    method = make("cl_ilr", student=student, image=(1, 16, 16))
    sum(method.losses(batch(method, progress=0.5)).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
