import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.methods.kdcl import collaborative_target, least_logits, surest_logits

generator = torch.Generator().manual_seed(2)
LOGITS = list(torch.randn(2, 5, 6, generator=generator, dtype=torch.float64).unbind())
LABELS = torch.tensor([0, 3, 5, 5, 2])


def test_the_mean_of_logits_is_the_reference(apart):
    case = apart("kdcl_mean")
    logits, labels = list(case.student.values()), case.fixed["labels"]
    target = collaborative_target(logits, labels, "mean").detach()
    of_each = [0.5 * F.cross_entropy(z, labels) + 0.5 * distillation(z, target, 4.0) for z in logits]
    assert [one.item() for one in of_each] == pytest.approx(list(case.entry["parts"].values()), rel=1e-6)
    case.check(sum(of_each))


def test_minlogit_is_the_reference_which_averages_over_the_classes_and_has_gradient_in_the_target(apart):
    case = apart("kdcl_minlogit")
    logits, labels = list(case.student.values()), case.fixed["labels"]
    target = collaborative_target(logits, labels, "min")
    expected = torch.tensor(case.entry["target_logits"], dtype=torch.float64)
    torch.testing.assert_close(target, expected)
    case.check(sum(distillation(z, target, 2.0) for z in logits) / expected.shape[1])


def test_least_logits_are_below_those_of_each_network():
    target = least_logits(LOGITS, LABELS)
    expected = [[min(z[i, k] - z[i, y] for z in LOGITS) for k in range(6)] for i, y in enumerate(LABELS.tolist())]
    torch.testing.assert_close(target, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(target[torch.arange(5), LABELS], torch.zeros(5, dtype=torch.float64))


def test_the_surest_network_is_chosen_for_each_image():
    target = surest_logits(LOGITS, LABELS)
    for i, y in enumerate(LABELS.tolist()):
        best = max(LOGITS, key=lambda z: z[i].softmax(dim=0)[y].item())
        assert torch.equal(target[i], best[i])


@pytest.mark.parametrize("target", ["min", "mean", "naive"])
@pytest.mark.parametrize("detached", [True, False])
def test_terms_are_the_weighted_losses_and_each_network_sees_its_own_view(make, batch, target, detached):
    method = make("kdcl", target=target, detached=detached, ce_weight=0.5, kd_weight=2.0, peer="resnet14").eval()
    one = batch(method)
    first, second = one.images.chunk(2)
    assert not torch.equal(first, second)
    labels = one.labels[: len(first)]
    logits = [method.student(first), method.peers[0](second)]
    wanted = collaborative_target(logits, labels, target)
    wanted = wanted.detach() if detached else wanted
    kd = 2 * sum(distillation(z, wanted, 2.0) for z in logits)
    terms = method.losses(one)
    torch.testing.assert_close(terms["ce"], 0.5 * sum(F.cross_entropy(z, labels) for z in logits))
    torch.testing.assert_close(terms["kd"], kd)
    weight = method.student.fc.weight
    ours, theirs = (torch.autograd.grad(each, weight, retain_graph=True)[0] for each in (terms["kd"], kd))
    torch.testing.assert_close(ours, theirs)


def test_images_pass_once_through_each_network(make, batch):
    method = make("kdcl")
    one = batch(method)
    before = [network.images_passed for network in method.networks()]
    method.losses(one)
    passed = [network.images_passed - b for network, b in zip(method.networks(), before, strict=True)]
    assert passed == [len(one.images) // 2] * 2
    assert method.deployed() is method.student
    assert list(method.eval().exits(one.images)) == ["peer1"]
