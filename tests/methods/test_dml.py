import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.method import softened_kl
from kdbench.methods.dml import mutual_loss

generator = torch.Generator().manual_seed(2)
LOGITS = list(torch.randn(3, 5, 6, generator=generator, dtype=torch.float64).unbind())


@pytest.mark.parametrize("name", ["dml_2", "dml_3"])
def test_the_sum_over_the_networks_is_the_reference(apart, name):
    case = apart(name)
    logits, labels = list(case.student.values()), case.fixed["labels"]
    of_each = [F.cross_entropy(z, labels) + mutual_loss(logits, n, 1.0) for n, z in enumerate(logits)]
    assert [one.item() for one in of_each] == pytest.approx(list(case.entry["parts"].values()), rel=1e-6)
    case.check(sum(of_each))


def test_the_target_is_each_of_the_others_or_the_mean_of_their_logits():
    first, second, third = LOGITS
    each = (4 * softened_kl(first, second, 2.0) + 4 * softened_kl(first, third, 2.0)) / 2
    torch.testing.assert_close(mutual_loss(LOGITS, 0, 2.0), each)
    mean = 4 * softened_kl(second, (first + third) / 2, 2.0)
    torch.testing.assert_close(mutual_loss(LOGITS, 1, 2.0, target="mean"), mean)


@pytest.mark.parametrize("target", ["each", "mean"])
def test_targets_have_a_gradient_only_if_they_are_not_detached(target):
    logits = [z.clone().requires_grad_() for z in LOGITS]
    first, *others = torch.autograd.grad(mutual_loss(logits, 0, 1.0, target), logits, allow_unused=True)
    assert first is not None
    assert others == [None, None]
    undetached = torch.autograd.grad(mutual_loss(logits, 0, 1.0, target, detached=False), logits)
    torch.testing.assert_close(undetached[0], first)
    assert all(gradient.abs().max() > 0 for gradient in undetached)


@pytest.mark.parametrize("given", [{}, {"target": "mean", "detached": False, "temperature": 3.0}])
def test_terms_are_sums_over_the_networks(make, batch, given):
    method = make("dml", cohort=(None, "resnet14"), mutual_weight=0.5, **given)
    one = batch(method)
    logits = [network(one.images) for network in make("dml", cohort=(None, "resnet14")).networks()]
    terms = method.losses(one)
    options = {"temperature": 1.0, **given}
    torch.testing.assert_close(terms["mutual"], sum(0.5 * mutual_loss(logits, n, **options) for n in range(3)))
    torch.testing.assert_close(terms["ce"], sum(method.cross_entropy(z, one.labels) for z in logits))
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in method.parameters())


def test_equal_networks_stay_equal_and_do_not_teach(make, batch):
    method = make("dml").eval()
    (peer,) = method.peers
    peer.load_state_dict(method.student.state_dict())
    terms = method.losses(batch(method))
    assert terms["mutual"].item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(terms["mutual"], method.student.fc.weight)
    assert gradient.abs().max() < 1e-6


def test_the_student_is_kept_and_the_others_are_shown(make, batch):
    method = make("dml", cohort=(None, "resnet14")).eval()
    images = batch(method).images
    exits = method.exits(images)
    assert method.deployed() is method.student
    assert list(exits) == ["peer1", "peer2"]
    assert torch.equal(exits["peer2"], method.peers[1](images))


def test_the_variant_has_three_networks(make, gin_parameters):
    assert len(make("dml", **gin_parameters("dml_3")).networks()) == 3


def test_a_student_alone_is_refused(make):
    with pytest.raises(RunError, match=r"^dml needs at least one network besides the student"):
        make("dml", cohort=())
