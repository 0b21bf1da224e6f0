import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.dcm import crossed


def test_the_loss_is_the_reference(reference):
    case = reference("dcm")
    networks, labels = list(case.student.values()), case.fixed["labels"]
    ce = torch.stack([F.cross_entropy(z, labels) for logits in networks for z in logits]).sum()
    # The authors add eps to the probabilities, which logits do without: these logits give the probabilities with it.
    eps = case.params["eps"]
    smoothed = [list(((z.softmax(dim=2) + eps) / (1 + z.shape[2] * eps)).log()) for z in networks]
    case.check(ce + crossed(*smoothed, case.params["temperature"]))


def test_every_classifier_learns_from_those_of_the_other_network_alone():
    logits = torch.randn(2, 3, 5, 7, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(crossed(*map(list, logits), 1.0), logits)
    p = logits.softmax(dim=3)
    expected = torch.stack([3 * p[one] - p[1 - one].sum(dim=0) for one in range(2)]) / 5
    torch.testing.assert_close(gradient, expected)


def test_terms_add_up_to_the_definition(make, batch):
    method = make("dcm", weight=0.5, temperature=2.0).eval()
    one = batch(method)
    own, other = [], []
    for logits, network, branches in (
        (own, method.student, method.further),
        (other, method.peers[0], method.peer_further),
    ):
        out = network(one.images, features=True)
        logits += [branches[0](out.stages[0]).logits, branches[1](out.stages[1]).logits, out.logits]
    ce = [F.cross_entropy(z, one.labels).item() for z in (*own, *other)]
    expected = {
        "ce": ce[2],
        "branch_ce": ce[0] + ce[1],
        "peer_ce": sum(ce[3:]),
        "crossed": 0.5 * crossed(own, other, 2.0).item(),
    }
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)
    exits = {
        "branch1": own[0],
        "branch2": own[1],
        "peer1": other[2],
        "peer1_branch1": other[0],
        "peer1_branch2": other[1],
    }
    torch.testing.assert_close(method.exits(one.images), exits)


def test_the_networks_start_differently_and_share_nothing(make):
    method = make("dcm")
    parts = (method.student, method.peers[0], *method.further, *method.peer_further)
    owned = [{id(p) for p in module.parameters()} for module in parts]
    assert sum(map(len, owned)) == len(set().union(*owned))
    assert not torch.equal(method.student.fc.weight, method.peers[0].fc.weight)


def test_the_peer_may_be_another_network(make, batch):
    method = make("dcm", student="four_stages", peer="resnet8", image=(1, 16, 16), branches=3)
    assert [len(branch.stages) for branch in method.further] == [3, 2, 1]
    assert [len(branch.stages) for branch in method.peer_further] == [2, 1]
    assert all(term.isfinite() for term in method.losses(batch(method)).values())
