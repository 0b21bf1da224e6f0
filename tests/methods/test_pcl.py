import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import softened_kl
from kdbench.method.branches import fork, ramp_up
from kdbench.methods.one import ensemble_loss
from kdbench.methods.pcl import averages_loss, of_views, published_ramp_up

generator = torch.Generator().manual_seed(2)
LOGITS, AVERAGES = (list(each.unbind()) for each in torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64))


def test_the_total_is_the_reference(apart):
    case = apart("pcl")
    *logits, fused = case.student.values()
    labels, averages = case.fixed["labels"], list(case.fixed["mean_teacher_logits"].unbind())
    parts = {
        "ce_ensemble": F.cross_entropy(fused, labels),
        "ce_peers": sum(F.cross_entropy(z, labels) for z in logits),
        "kl_ensemble": ensemble_loss(logits, fused, 3.0),
        "kl_mean_teachers": averages_loss(logits, averages, 3.0),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


def test_each_branch_learns_from_the_averages_of_the_others():
    logits, averages = ([z.clone().requires_grad_() for z in each] for each in (LOGITS, AVERAGES))
    loss = averages_loss(logits, averages, 2.0)
    expected = sum(2 * softened_kl(LOGITS[i], AVERAGES[j], 2.0) for i in range(3) for j in range(3) if i != j)
    torch.testing.assert_close(loss.detach(), expected)
    gradients = torch.autograd.grad(loss, [*logits, *averages], allow_unused=True)
    assert [gradient is None for gradient in gradients] == [False] * 3 + [True] * 3


def test_the_published_weight_is_1_in_the_second_epoch_and_from_the_ramps_end():
    weights = [published_ramp_up(epoch, epoch / 10, 0.5) for epoch in (1, 2, 3, 4, 5)]
    assert weights == pytest.approx([math.exp(-5), 1, math.exp(-5), math.exp(-20), 1])
    assert published_ramp_up(79, 0.26, 0.2667) == 0


@pytest.mark.parametrize(("student", "image"), [("resnet8", (1, 8, 8)), ("four_stages", (3, 16, 16))])
@pytest.mark.parametrize("published", [False, True])
def test_terms_are_the_weighted_losses(make, batch, student, image, published):
    given = {"published_ramp": published, "ensemble_weight": 2.0, "average_weight": 0.5, "ramp": 0.5}
    method = make("pcl", student=student, image=image, **given).eval()
    with torch.no_grad():
        for parameter in (*method.average.parameters(), *method.average_branches.parameters()):
            parameter.mul_(1.1)
    one = replace(batch(method, progress=0.3), epoch=3)
    views, labels = one.images.chunk(3), one.labels[: len(one.labels) // 3]
    out = [fork(method.student, method.branches, view)[n] for n, view in enumerate(views)]
    logits, pooled = [each.logits for each in out], [each.pooled for each in out]
    averages = [fork(method.average, method.average_branches, view)[n].logits for n, view in enumerate(views)]
    fused = method.classifier(torch.cat(pooled, dim=1))
    weight = math.exp(-5) if published else ramp_up(0.3, 0.5)
    terms = method.losses(one)
    torch.testing.assert_close(terms["ce"], sum(F.cross_entropy(z, labels) for z in logits))
    torch.testing.assert_close(terms["fused_ce"], F.cross_entropy(fused, labels))
    torch.testing.assert_close(terms["kd"], 2 * weight * ensemble_loss(logits, fused, 3.0))
    torch.testing.assert_close(terms["averages"], 0.5 * weight * averages_loss(logits, averages, 3.0))
    sum(terms.values()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())
    assert not any(p.requires_grad for p in (*method.average.parameters(), *method.average_branches.parameters()))


def test_views_pass_one_after_the_other(make, batch):
    method, other = make("pcl"), make("pcl")
    views = batch(method).views()
    out = of_views(method.student, method.branches, views)
    expected = [fork(other.student, other.branches, view)[n] for n, view in enumerate(views)]
    for ours, theirs in zip(out, expected, strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits)


def test_averages_follow_all_parameters_and_keep_statistics_of_their_own(make, batch, take, updater):
    method = make("pcl", decay=0.6)
    update, expected = updater(method), None
    followed = [*method.student.parameters(), *method.branches.parameters()]
    for step, share in enumerate([1.0, 0.5, 0.4, 0.4]):
        take(method, update, batch(method, step=step, progress=0.5))
        now = [p.detach().clone() for p in followed]
        expected = [e + share * (p - e) for e, p in zip(expected or now, now, strict=True)]
        averages = [*method.average.parameters(), *method.average_branches.parameters()]
        for average, wanted in zip(averages, expected, strict=True):
            torch.testing.assert_close(average.detach(), wanted)
    own, average = (network.state_dict()["bn1.running_mean"] for network in (method.student, method.average))
    assert average.any()
    assert not torch.equal(own, average)


@pytest.mark.parametrize(("kept", "first"), [("peer", "average1"), ("average", "branch1")])
def test_the_first_branch_or_its_average_is_kept_and_the_rest_is_shown(make, batch, kept, first):
    method = make("pcl", kept=kept).eval()
    images = batch(method).images
    exits = method.exits(images)
    assert list(exits) == [first, "branch2", "branch3", "fused"]
    assert method.deployed() is (method.student if kept == "peer" else method.average)
    shown = method.average if kept == "peer" else method.student
    torch.testing.assert_close(exits[first], shown(images))


def test_three_views_pass_through_the_student_and_through_the_averages(make, batch):
    method = make("pcl")
    one = batch(method)
    before = [network.images_passed for network in method.networks()]
    method.losses(one)
    passed = [network.images_passed - b for network, b in zip(method.networks(), before, strict=True)]
    assert passed == [len(one.images)] * 2
