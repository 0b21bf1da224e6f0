import pytest
import torch
import torch.nn.functional as F

from kdbench.method.branches import ramp_up
from kdbench.methods.one import ensemble_loss, gated

generator = torch.Generator().manual_seed(2)
LOGITS = list(torch.randn(3, 5, 6, generator=generator, dtype=torch.float64).unbind())


def test_the_total_is_the_reference(apart):
    case = apart("one")
    *logits, feature = case.student.values()
    labels = case.fixed["labels"]
    hidden = F.linear(feature, case.fixed["gate_weight"], case.fixed["gate_bias"])
    ensemble = gated(logits, F.batch_norm(hidden, None, None, training=True).relu().softmax(dim=1))
    ce = sum(F.cross_entropy(z, labels) for z in [*logits, ensemble])
    kd = ramp_up(40, 80) * ensemble_loss(logits, ensemble, 3.0, case.params["eps"])
    assert ce.item() == pytest.approx(case.entry["parts"]["ce"], rel=1e-6)
    assert kd.item() == pytest.approx(case.entry["parts"]["kl_weighted"], rel=1e-6)
    case.check(ce + kd)


def test_the_gate_weighs_the_branches_of_each_image():
    gate = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]).double()
    expected = [[sum(gate[i, b] * LOGITS[b][i, k] for b in range(3)) for k in range(6)] for i in range(5)]
    torch.testing.assert_close(gated(LOGITS, gate), torch.tensor(expected, dtype=torch.float64))


def test_the_ensemble_is_not_taught():
    logits, ensemble = [z.clone().requires_grad_() for z in LOGITS], LOGITS[0].clone().requires_grad_()
    *reached, none = torch.autograd.grad(ensemble_loss(logits, ensemble, 3.0), [*logits, ensemble], allow_unused=True)
    assert none is None
    assert [g.abs().max().item() > 1e-9 for g in reached] == [False, True, True]


@pytest.mark.parametrize(("progress", "factor"), [(0.0, ramp_up(0, 1)), (0.1, ramp_up(0.2, 1)), (0.7, 1.0)])
def test_terms_are_the_weighted_losses(make, batch, progress, factor):
    method = make("one", ramp=0.5, weight=2.0, temperature=4.0).eval()
    one = batch(method, progress=progress)
    own = method.student(one.images, features=True)
    shared = own.stages[1]
    logits = [own.logits, *(branch(shared).logits for branch in method.branches)]
    assert len(logits) == 3
    ensemble = gated(logits, method.gate(shared.mean(dim=(2, 3))))
    terms = method.losses(one)
    torch.testing.assert_close(terms["ce"], sum(F.cross_entropy(z, one.labels) for z in logits))
    torch.testing.assert_close(terms["ensemble_ce"], F.cross_entropy(ensemble, one.labels))
    torch.testing.assert_close(terms["kd"], 2 * factor * ensemble_loss(logits, ensemble, 4.0))


def test_the_first_branch_is_kept_and_the_others_and_the_ensemble_are_shown(make, batch):
    method = make("one").eval()
    exits = method.exits(batch(method).images)
    assert method.deployed() is method.student
    assert list(exits) == ["branch2", "branch3", "gated"]
    assert not torch.equal(exits["branch2"], exits["branch3"])


def test_the_number_of_branches_is_a_parameter(make, batch):
    method = make("one", count=2, student="four_stages", image=(1, 16, 16))
    sum(method.losses(batch(method)).values()).backward()
    assert len(method.branches) == 1
    assert all(p.grad is not None for p in method.parameters())
