import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.method import distillation
from kdbench.method.branches import floored_distillation, fork, ramp_up
from kdbench.methods.okddip import attention, peer_loss, peer_targets

generator = torch.Generator().manual_seed(2)
LOGITS = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
QUERIES, KEYS = torch.randn(2, 3, 5, 2, generator=generator, dtype=torch.float64)


def test_the_total_is_the_reference(apart):
    case = apart("okddip")
    *parts, leader = case.student.values()
    peers, features = torch.stack(parts[:3]), torch.stack(parts[3:])
    labels, eps, weight = case.fixed["labels"], case.params["eps"], case.params["consistency_weight"]
    weights = attention(*(F.linear(features, case.fixed[f"{name}_weight"]) for name in ("query", "key")))
    kl_peers = peer_loss(peers, weights, 3.0, eps)
    ce_peers = sum(F.cross_entropy(z, labels) for z in peers)
    of_leader = F.cross_entropy(leader, labels) + weight * floored_distillation(leader, peers.mean(dim=0), 3.0, eps)
    assert ce_peers.item() == pytest.approx(case.entry["parts"]["ce_peers"], rel=1e-6)
    assert kl_peers.item() == pytest.approx(case.entry["parts"]["kl_peers"], rel=1e-6)
    case.check(ce_peers + weight * kl_peers + of_leader)


def test_targets_are_mixtures_by_attention():
    weights = attention(QUERIES, KEYS)
    targets = peer_targets(LOGITS, weights)
    for i in range(5):
        for a in range(3):
            scores = [math.exp(sum(QUERIES[a, i, d] * KEYS[b, i, d] for d in range(2))) for b in range(3)]
            expected = sum(score / sum(scores) * LOGITS[b, i] for b, score in enumerate(scores))
            torch.testing.assert_close(targets[a, i], expected)


@pytest.mark.parametrize("detached", [False, True])
def test_terms_are_the_weighted_losses(make, batch, detached):
    method = make("okddip", weight=2.0, leader_detached=detached).eval()
    one = batch(method, progress=0.1)
    leader, *peers = fork(method.student, method.branches, one.images)
    logits, features = (torch.stack([getattr(peer, name) for peer in peers]) for name in ("logits", "pooled"))
    weight = 2 * ramp_up(0.1, 0.2667)
    terms = method.losses(one)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(leader.logits, one.labels))
    torch.testing.assert_close(terms["peer_ce"], sum(F.cross_entropy(z, one.labels) for z in logits))
    weights = attention(method.query(features), method.key(features))
    torch.testing.assert_close(terms["peer_kd"], weight * peer_loss(logits, weights, 3.0))
    torch.testing.assert_close(terms["kd"], weight * distillation(leader.logits, logits.mean(dim=0), 3.0))
    assert torch.autograd.grad(terms["peer_kd"], method.query.weight, retain_graph=True)[0].abs().max() > 0
    (of_peer,) = torch.autograd.grad(terms["kd"], method.branches[0].fc.weight, allow_unused=True)
    assert (of_peer is None) == detached


def test_the_leader_is_kept_and_the_peers_are_shown(make, batch):
    method = make("okddip").eval()
    assert method.deployed() is method.student
    assert list(method.exits(batch(method).images)) == ["branch1", "branch2", "branch3"]


def test_one_peer_is_refused(make):
    with pytest.raises(RunError, match=r"^okddip needs at least two peers"):
        make("okddip", count=1)
