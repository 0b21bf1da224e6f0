"""DKS and SLA+SD: branches of fresh stages with their exits, and rotations that are counted as passes."""

import pytest
import torch
from torch import nn

from kdbench.errors import RunError
from kdbench.measures import cost
from kdbench.run.group import Group
from kdbench.run.loop.passes import Passes


@pytest.fixture(scope="module")
def results(run_all, tmp_path_factory):
    done = run_all(tmp_path_factory.mktemp("self"), "methods=dks,sla_sd,ce")
    assert all(result["status"] == "finished" for result in done), [result.get("error") for result in done]
    return {result["method"]: result for result in done}


def test_dks_reports_its_exits_and_deploys_the_student_alone(results):
    assert {key for key in results["dks"] if key.startswith("exits.")} == {
        "exits.branch1", "exits.branch2", "exits.ensemble",
    }  # fmt: skip
    assert results["dks"]["cost.parameters"] == results["ce"]["cost.parameters"]
    assert results["dks"]["cost.flops"] == results["ce"]["cost.flops"]


def test_dks_trains_and_pays_for_its_branches(results, make):
    method = make("dks")
    stages = method.student.stage_modules()
    later = [sum(cost.parameters(stage) for stage in stages[first:]) + 64 * 10 + 10 for first in (1, 2)]
    assert results["dks"]["cost.parameters_training"] == results["dks"]["cost.parameters"] + sum(later)
    flops = [results["dks"][f"cost.flops.{name}"] for name in ("branch1", "branch2", "ensemble")]
    assert flops[0] == flops[1] == results["dks"]["cost.flops"], "each runs what the main path runs, in its own copy"
    assert results["dks"]["cost.flops.ensemble"] == results["dks"]["cost.flops_training"]
    assert results["dks"]["passes.student"] == results["dks"]["images_seen"] == results["ce"]["images_seen"]


def test_branches_share_nothing_with_the_student_or_one_another(make):
    method = make("dks")
    owned = [{id(p) for p in module.parameters()} for module in (method.student, *method.branches)]
    assert sum(map(len, owned)) == len(set().union(*owned))
    first, second = method.branches
    assert not torch.equal(first.fc.weight, method.student.fc.weight)
    assert not torch.equal(first.fc.weight, second.fc.weight)


def test_every_classifier_of_dks_teaches_the_others_and_none_is_taught_by_itself():
    from kdbench.methods.dks import synergy

    logits = torch.randn(3, 5, 7, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(synergy(list(logits), 1.0), logits)
    p = logits.softmax(dim=2)
    expected = torch.stack([sum(p[i] - p[j] for j in range(3) if j != i) for i in range(3)]) / 5
    torch.testing.assert_close(gradient, expected)
    assert synergy([logits[0]] * 3, 4.0).item() == pytest.approx(0, abs=1e-12)


def test_four_rotations_are_paid_for(results):
    images, steps = results["sla_sd"]["images_seen"], 3 * 72 // 16
    assert images == results["sla_sd"]["passes.student"] == steps * 16 == results["ce"]["images_seen"]
    assert results["sla_sd"]["cost.flops_training"] == results["ce"]["cost.flops_training"] + 2 * 64 * 40


def test_rotations_turn_the_image_and_keep_it_apart_from_its_label():
    from kdbench.methods.sla_sd import aggregated, joint_labels, rotated

    images = torch.arange(2 * 9.0).view(2, 1, 3, 3)
    turned = rotated(images).unflatten(0, (4, 2))
    assert torch.equal(turned[0], images)
    assert torch.equal(turned[1].rot90(-1, dims=(2, 3)), images)
    assert torch.equal(turned[2], images.flip(2, 3))
    assert joint_labels(torch.tensor([0, 3])).tolist() == [0, 12, 1, 13, 2, 14, 3, 15]
    # A head that is sure of the class in every rotation is sure of it in the mean.
    joint = nn.functional.one_hot(joint_labels(torch.tensor([0, 3])), 16).float()
    assert torch.equal(aggregated(joint), nn.functional.one_hot(torch.tensor([0, 3]), 4).float())


@pytest.mark.parametrize(("declared", "word"), [(None, "1 image"), (3, "3 images"), (8, "8 images")])
def test_a_wrong_declaration_is_refused(make, batch, declared, word):
    method = make("sla_sd")
    wrong = type("Wrong", (type(method),), {"passes": declared})
    method.__class__ = wrong
    passes, one = Passes(method, Group()), batch(method)
    with passes.counted():
        method.losses(one)
    with pytest.raises(RunError, match=f"Wrong declares {word} through the student for each anchor, but 4 pass"):
        passes.check(len(one.images), declared or 1)


def test_images_that_cannot_be_rotated_are_refused(make):
    with pytest.raises(RunError, match="must be square, not 8 × 10"):
        make("sla_sd", image=(1, 8, 10))


def test_the_single_head_learns_from_the_unrotated_image_alone(make, batch):
    method = make("sla_sd")
    one = batch(method)
    outputs = []
    method.student.register_forward_hook(
        lambda module, given, out: outputs.append(out.logits) or out.logits.retain_grad()
    )
    sum(method.losses(one).values()).backward()
    gradient = outputs[0].grad.unflatten(0, (4, -1))
    assert gradient[0].abs().max() > 0
    assert not gradient[1:].any()
