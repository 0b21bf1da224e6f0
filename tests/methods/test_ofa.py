"""OFA against reference values of the original, a slow definition, and its wiring."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.methods.ofa import Branch, ofa_loss


def slow(logits, target_logits, labels, gamma, temperature):
    """The formula of the paper, number by number."""
    total = 0.0
    for row, theirs, label in zip(logits.tolist(), target_logits.tolist(), labels.tolist(), strict=True):
        own, target = ([math.exp(x / temperature) for x in values] for values in (row, theirs))
        for place, (p, q) in enumerate(zip(own, target, strict=True)):
            is_label = float(place == label)
            weight = (q / sum(target) + is_label) ** gamma - is_label
            total -= weight * math.log(p / sum(own))
    return total / len(labels)


@pytest.mark.parametrize("name", ["ofa_gamma1", "ofa_gamma1.5", "ofa_eps1", "ofa_eps1_5"])
def test_loss(reference, name):
    case = reference(name)
    gamma, temperature = case.params.get("gamma", case.params.get("eps")), case.params["temperature"]
    inputs = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    case.check(ofa_loss(*inputs, gamma=gamma, temperature=temperature))


def test_branch(reference):
    case = reference("ofa_head")
    branch = Branch(3, 1, 5, 5).double()
    state = {
        "body.0.0": "dw1", "body.0.1": "pw1", "body.0.2": "bn1", "body.0.4": "dw2", "body.0.5": "pw2", "body.0.6": "bn2",
        "fc": "fc",
    }  # fmt: skip
    branch.load_state_dict(
        {
            f"{key}.{part}": case.fixed[f"{name}_{part}"]
            for key, name in state.items()
            for part in ("weight", "bias")
            if f"{name}_{part}" in case.fixed
        },
        strict=False,  # running statistics
    )
    logits = branch(case.student["student_map"])
    assert logits.square().mean().item() == pytest.approx(case.entry["parts"]["logits_mean_square"], rel=1e-6)
    case.check(ofa_loss(logits, case.fixed["teacher_logits"], case.fixed["labels"], **case.params))


@pytest.mark.parametrize(("gamma", "temperature"), [(1.0, 1.0), (1.5, 1.0), (1.3, 4.0)])
def test_loss_is_the_formula_of_the_paper(gamma, temperature):
    logits, target = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 3, 1])
    found = ofa_loss(logits, target, labels, gamma, temperature).item()
    assert found == pytest.approx(slow(logits, target, labels, gamma, temperature), rel=1e-12)


def test_gamma_1_is_the_soft_cross_entropy_whatever_the_labels():
    logits, target = torch.randn(2, 4, 5)
    expected = F.cross_entropy(logits, target.softmax(1))
    for labels in (torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 4, 4])):
        assert ofa_loss(logits, target, labels, 1.0, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_soft_labels_count_by_their_largest_share():
    logits, target = torch.randn(2, 4, 5)
    shares = torch.tensor([[0.1, 0.6, 0.3, 0.0, 0.0]]).expand(4, 5)
    of_shares = ofa_loss(logits, target, shares, 1.5, 1.0)
    assert of_shares.item() == ofa_loss(logits, target, torch.tensor([1, 1, 1, 1]), 1.5, 1.0).item()


def test_a_probability_that_underflows_gives_a_finite_loss_and_gradient():
    logits = torch.tensor([[0.0, -500.0]], requires_grad=True)
    loss = ofa_loss(logits, torch.zeros(1, 2), torch.tensor([1]), 1.5, 1.0)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("blocks", "side"), [(0, 8), (1, 4), (2, 2), (3, 1)])
def test_each_block_halves_the_resolution_and_doubles_the_width(blocks, side):
    branch = Branch(4, blocks, 10, 3)
    x = torch.randn(2, 4, 8, 8)
    assert branch.body(x).shape == (2, 10, side, side)
    assert branch(x).shape == (2, 3)
    pointwise = [m.out_channels for m in branch.body.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1]
    assert pointwise == {0: [10], 1: [4, 10], 2: [4, 8, 8, 10], 3: [4, 8, 8, 16, 16, 10]}[blocks]


def test_terms_are_the_weighted_losses(make, batch):
    method = make(
        "ofa", gamma=(1.0, 1.2, 1.4, 1.6), logit_weight=2.0, stage_weight=3.0, ofa_temperature=2.0, kd_weight=0.5
    )
    one = batch(method)
    terms = method.losses(one)
    out, target = method.student(one.images, features=True), method.teach(one, "logits").logits
    logits = [branch(x) for branch, x in zip(method.branches, out.stages, strict=True)]
    of_stages = [
        ofa_loss(each, target, one.labels, gamma, 2.0) for each, gamma in zip(logits, (1.0, 1.2, 1.4), strict=True)
    ]
    assert terms.keys() == {"ce", "ofa", "stages", "kd"}
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(out.logits, one.labels).item())
    assert terms["ofa"].item() == pytest.approx(2 * ofa_loss(out.logits, target, one.labels, 1.6, 2.0).item())
    assert terms["stages"].item() == pytest.approx(3 * sum(of_stages).item())
    exits = method.exits(one.images)
    assert all(torch.equal(found, each) for found, each in zip(exits.values(), logits, strict=True))


def test_one_gamma_is_that_of_all_classifiers(make, batch):
    one, four = make("ofa", gamma=(1.4,)), make("ofa", gamma=(1.4,) * 4)
    drawn = batch(one)
    first, second = ({n: term.item() for n, term in each.losses(drawn).items()} for each in (one, four))
    assert first == second


def test_another_number_of_gammas_is_refused(make):
    with pytest.raises(
        RunError, match=r"ofa needs one value of OFA\.gamma, or 4, for 3 stages and the logits; it has 2"
    ):
        make("ofa", gamma=(1.0, 1.2))


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "resnet18"), ("resnet18", "resnet8"), ("vit_tiny", "resnet8")]
)
def test_branches_follow_the_student_alone(make, batch, student, teacher):
    method = make("ofa", student=student, teacher=teacher, image=(1, 16, 16))
    stages = len(method.stage_shapes())
    assert [
        len(branch.body) if isinstance(branch.body, torch.nn.Sequential) else 0 for branch in method.branches
    ] == list(range(stages - 1, -1, -1))
    width = max(method.student.fc.in_features, method.teacher.fc.in_features)
    assert {branch.fc.in_features for branch in method.branches} == {width}
    one = batch(method)
    shares = F.one_hot(one.labels, 4).float() * 0.7 + 0.1
    assert all(term.isfinite() for term in method.losses(replace(one, labels=shares)).values())
