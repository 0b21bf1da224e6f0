import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.methods.afd_online import Discriminator, deceiving_loss, discriminator_loss


def test_losses_are_their_definitions():
    own, other = torch.rand(2, 5, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, second = own.flatten().tolist(), other.flatten().tolist()
    expected = sum((1 - x) ** 2 for x in second) / 30 + sum(x**2 for x in first) / 30
    assert discriminator_loss(own, other).item() == pytest.approx(expected)
    assert deceiving_loss(own).item() == pytest.approx(sum((1 - x) ** 2 for x in first) / 30)


@pytest.mark.parametrize(
    ("shape", "scores"), [((8, 8, 8), (6, 6)), ((8, 2, 2), (1, 1)), ((8, 1, 1), (1, 1)), ((8, 4, 1), (2, 1))]
)
def test_discriminators_score_maps_of_any_size(shape, scores):
    maps = torch.randn(2, 3, *shape)
    out = Discriminator(shape)(*maps)
    assert [each.shape for each in out] == [(3, 1, *scores)] * 2
    assert all(0 < score < 1 for each in out for score in each.flatten().tolist())


def test_terms_are_the_weighted_losses(make, batch):
    method = make("afd_online", mutual_weight=2.0, adversarial_weight=3.0, temperature=4.0)
    one = batch(method)
    a, b = (network(one.images, features=True) for network in method.networks())
    first, second = method.discriminators
    scores = [first(a.stages[-1], b.stages[-1]), second(b.stages[-1], a.stages[-1])]
    expected = {
        "ce": F.cross_entropy(a.logits, one.labels) + F.cross_entropy(b.logits, one.labels),
        "mutual": 2 * (distillation(a.logits, b.logits, 4.0) + distillation(b.logits, a.logits, 4.0)),
        "deceive": 3 * sum(deceiving_loss(own) for own, _ in scores),
        "discriminate": sum(discriminator_loss(*each) for each in scores),
    }
    terms = {name: term.item() for name, term in method.losses(one).items()}
    assert terms == pytest.approx({name: term.item() for name, term in expected.items()}, rel=1e-4)


def reached(term, module):
    gradients = torch.autograd.grad(term, list(module.parameters()), retain_graph=True, allow_unused=True)
    return any(g is not None and g.abs().max() > 0 for g in gradients)


def test_discriminators_do_not_move_networks_and_each_network_deceives_its_own(make, batch):
    method = make("afd_online")
    terms = method.losses(batch(method))
    assert not any(reached(terms["discriminate"], network) for network in method.networks())
    assert all(reached(terms["discriminate"], each) for each in method.discriminators)
    assert all(reached(terms["deceive"], network) for network in method.networks())
    out = [network(batch(method).images, features=True).stages[-1] for network in method.networks()]
    alone = deceiving_loss(method.discriminators[0](out[0], out[1].detach())[0])
    assert reached(alone, method.student)
    assert not reached(alone, method.peers[0])


def test_discriminators_and_networks_step_in_turn_each_by_its_own_losses(make, batch, updater, take, sgd):
    method, twin = make("afd_online", discriminator_rate=0.01), make("afd_online")
    one = batch(method)
    terms = twin.losses(one)
    update = updater(method)
    assert update.optimisers["discriminators"].param_groups[0]["lr"] == pytest.approx(0.01)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    take(method, update, one)
    networks = {n: p for n, p in twin.named_parameters() if not n.startswith("discriminators.")}
    loss = terms["ce"] + terms["mutual"] + terms["deceive"]
    gradients = torch.autograd.grad(loss, list(networks.values()), retain_graph=True)
    after = dict(method.named_parameters())
    for (name, old), gradient in zip(networks.items(), gradients, strict=True):
        torch.testing.assert_close(
            after[name], old - sgd.lr * (gradient + sgd.weight_decay * old), rtol=1e-4, atol=1e-6
        )
    moved = [after[n] - before[n] for n in before if n.startswith("discriminators.") and before[n].dim() == 4]
    assert all(0 < each.abs().max() <= 0.0101 for each in moved)  # Adam's first step is at most its rate


def test_a_few_steps_of_the_discriminators_lower_their_loss(make, batch, updater, take):
    method = make("afd_online", discriminator_rate=0.005, adversarial_weight=0.0)
    one, update = batch(method), updater(method)
    values = [take(method, update, one)["discriminate"].item() for _ in range(8)]
    assert values[-1] < 0.8 * values[0]


def test_a_network_with_maps_of_another_shape_is_refused(make):
    with pytest.raises(RunError, match=r"^afd_online needs two networks with deepest maps of one shape"):
        make("afd_online", peer="resnet8x4")
    assert len(make("afd_online", peer="resnet14").discriminators) == 2
