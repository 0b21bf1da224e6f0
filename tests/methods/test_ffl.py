import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.methods.ffl import Fusion, fusion_loss


def test_the_loss_is_the_reference(reference):
    case = reference("ffl")
    logits, labels = [case.student[name] for name in ("logits_1", "logits_2", "fused_logits")], case.fixed["labels"]
    ramp = math.exp(-5 * (1 - case.params["epoch"] / case.params["rampup"]) ** 2)
    kl = fusion_loss(*logits, case.params["temperature"], case.params["eps"])
    case.check(sum(F.cross_entropy(z, labels) for z in logits) + ramp * kl)


def test_without_floor_it_is_three_divergences_with_fixed_targets():
    first, second, fused = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits = [each.requires_grad_() for each in (first, second, fused)]
    target, mean = fused.detach(), ((first + second) / 2).detach()
    expected = distillation(first, target, 3.0) + distillation(second, target, 3.0) + distillation(fused, mean, 3.0)
    loss = fusion_loss(*logits, 3.0)
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_fusion_has_the_authors_number_of_parameters():
    assert sum(p.numel() for p in Fusion(64, 100).parameters()) == 16228


@pytest.mark.parametrize(("progress", "ramp"), [(0.0, math.exp(-5)), (0.1, math.exp(-1.25)), (0.2, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize(("student", "image"), [("resnet8", (1, 8, 8)), ("four_stages", (1, 16, 16))])
def test_terms_are_the_weighted_losses(make, batch, student, image, progress, ramp):
    method = make("ffl", student=student, image=image, fusion_weight=2.0, ramp=0.2).eval()
    one = batch(method, progress=progress)
    out = method.student(one.images, features=True)
    branch = method.branch(out.stages[-2])
    fused = method.fusion(out.stages[-1], branch.stages[-1])
    logits = (out.logits, branch.logits, fused)
    ce = [F.cross_entropy(z, one.labels).item() for z in logits]
    expected = {"ce": ce[0] + ce[1], "fused_ce": ce[2], "fusion": 2 * ramp * fusion_loss(*logits, 3.0).item()}
    assert {name: term.item() for name, term in method.losses(one).items()} == pytest.approx(expected, rel=1e-4)
    exits = method.exits(one.images)
    torch.testing.assert_close(exits["branch2"], branch.logits)
    torch.testing.assert_close(exits["fused"], fused)
    assert method.deployed() is method.student
