import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.dks import synergy


@pytest.mark.parametrize("name", ["dks", "dks_selfkdlib"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    exits, labels = case.student["exit_logits"], case.fixed["labels"]
    ce = torch.stack([F.cross_entropy(z, labels) for z in exits]).sum()
    # The authors add eps to the probabilities, which logits do without: these logits give the probabilities with it.
    eps = case.params.get("eps", 0.0)
    smoothed = exits if not eps else ((exits.softmax(dim=2) + eps) / (1 + exits.shape[2] * eps)).log()
    case.check(ce + synergy(list(smoothed), case.params["temperature"]))


def test_every_classifier_teaches_the_others_and_none_is_taught_by_itself():
    logits = torch.randn(3, 5, 7, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(synergy(list(logits), 1.0), logits)
    p = logits.softmax(dim=2)
    expected = torch.stack([sum(p[i] - p[j] for j in range(3) if j != i) for i in range(3)]) / 5
    torch.testing.assert_close(gradient, expected)
    assert synergy([logits[0]] * 3, 4.0).item() == pytest.approx(0, abs=1e-12)


def test_terms_add_up_to_the_definition(make, batch):
    method = make("dks", weight=0.5, temperature=2.0).eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    first = method.further[0](out.stages[0]).logits
    second = method.further[1](out.stages[1]).logits
    expected = {
        "ce": F.cross_entropy(out.logits, one.labels).item(),
        "branch_ce": (F.cross_entropy(first, one.labels) + F.cross_entropy(second, one.labels)).item(),
        "synergy": 0.5 * synergy([out.logits, first, second], 2.0).item(),
    }
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)
    exits = method.exits(one.images)
    assert list(exits) == ["branch1", "branch2"]
    assert torch.equal(exits["branch2"], second)


@pytest.mark.parametrize(
    ("student", "branches", "stages"),
    [("resnet8", 2, [2, 1]), ("resnet8", 1, [1]), ("four_stages", 2, [2, 1]), ("four_stages", 9, [3, 2, 1])],
)
def test_branches_follow_the_stages_before_the_deepest(make, batch, student, branches, stages):
    method = make("dks", student=student, branches=branches, image=(1, 16, 16))
    assert [len(branch.stages) for branch in method.further] == stages
    assert all(z.shape == (6, 4) for z in method.exits(batch(method).images).values())


def test_the_branches_share_nothing(make):
    method = make("dks")
    owned = [{id(p) for p in module.parameters()} for module in (method.student, *method.further)]
    assert sum(map(len, owned)) == len(set().union(*owned))
    first, second = method.further
    assert not torch.equal(first.fc.weight, method.student.fc.weight)
    assert not torch.equal(first.fc.weight, second.fc.weight)
