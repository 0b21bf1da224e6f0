import pytest
import torch
from torch import nn

from kdbench.method import Share, Update
from kdbench.method.update import added


class Half(Share):
    """A rank with half of the images, whose neighbour computed the same."""

    weight = 0.5

    def weighted(self, loss):
        return loss * 0.5


def doubled(gradients):
    for gradient in gradients:
        gradient.mul_(2)


@pytest.fixture
def network():
    """Two layers one after the other, and one that nothing reaches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)]).double()


def terms(network):
    """Of the first layer, of the first two, and of the second alone."""
    hidden = network[0](torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)).tanh()
    return {
        "first": hidden.square().mean(),
        "both": network[1](hidden).sin().sum(),
        "second": network[1](hidden.detach()).square().mean(),
    }


def updater(network, clip_norm=0.0, lr=0.1, share=None, sum_gradients=lambda gradients: None, optimisers=None):
    parameters = list(network.parameters())
    optimisers = optimisers or {"sgd": torch.optim.SGD(parameters, lr=lr)}
    return Update(parameters, optimisers, share or Share(), sum_gradients, clip_norm)


def norm(gradient):
    return torch.cat([g.flatten() for g in gradient if g is not None]).norm().item()


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_by_term_add_up_to_the_gradient_of_the_total(network, shared):
    update = updater(network, **({"share": Half(), "sum_gradients": doubled} if shared else {}))
    named = terms(network)
    update.backward(update.total({name: term.float() for name, term in named.items()}).double())
    whole = [p.grad for p in update.parameters]
    apart = [update.gradient(term, keep_graph=True) for term in terms(network).values()]
    for expected, total in zip(whole, added(*apart), strict=True):
        if expected is None:
            assert total is None
        else:
            torch.testing.assert_close(total, expected)
    assert [p.grad for p in update.parameters] == whole, "a gradient by itself leaves .grad alone"


def test_what_a_term_does_not_reach_has_none(network):
    update = updater(network)
    named = terms(network)
    reached = {name: [g is not None for g in update.gradient(t, keep_graph=True)] for name, t in named.items()}
    assert reached == {
        "first": [True, True, False, False, False, False],
        "both": [True, True, True, True, False, False],
        "second": [False, False, True, True, False, False],
    }
    first = update.gradient(terms(network)["first"])
    second = update.gradient(terms(network)["second"])
    total = added(first, second)
    assert torch.equal(total[0], first[0])
    assert torch.equal(total[2], second[2])
    assert total[4] is None


def test_the_sum_of_gradients_is_what_the_optimiser_gets(network):
    before = [p.detach().clone() for p in network.parameters()]
    update = updater(network)
    named = terms(network)
    first, both = update.gradient(named["first"], keep_graph=True), update.gradient(named["both"])
    update.set_gradient(first, both)
    update.step()
    for parameter, start, g, h in zip(network.parameters(), before, first, both, strict=True):
        gradient = sum(part for part in (g, h) if part is not None)
        torch.testing.assert_close(parameter.detach(), start - 0.1 * gradient)


def test_a_backward_pass_forgets_the_one_before(network):
    update = updater(network)
    update.backward(terms(network)["both"])
    update.backward(terms(network)["first"])
    assert [p.grad is not None for p in update.parameters] == [True, True, False, False, False, False]


def test_a_gradient_that_two_parameters_share_can_be_changed_in_place():
    pair = nn.ParameterList([nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))])
    update = updater(pair)
    gradient = update.gradient((pair[0] + pair[1]).sum())
    update.clip(gradient, norm=0.5)
    assert norm(gradient) == pytest.approx(0.5, rel=1e-5)
    assert torch.equal(gradient[0], gradient[1])


def test_gradients_are_clipped_by_one_factor_to_the_norm_of_their_sum(network):
    update = updater(network, clip_norm=0.01)
    named = terms(network)
    first, both = update.gradient(named["first"], keep_graph=True), update.gradient(named["both"])
    ratio = norm(first) / norm(both)
    before = norm(added(first, both))
    assert before > 0.01
    update.clip(first, both)
    assert norm(added(first, both)) == pytest.approx(0.01, rel=1e-3)
    assert norm(first) / norm(both) == pytest.approx(ratio)
    update.clip(first, norm=100.0)
    assert norm(first) / norm(both) == pytest.approx(ratio), "what is short enough stays"


def test_without_clipping_in_the_recipe_nothing_is_scaled(network):
    update = updater(network)
    gradient = update.gradient(terms(network)["both"])
    before = [None if g is None else g.clone() for g in gradient]
    update.clip(gradient)
    assert all(g is b or torch.equal(g, b) for g, b in zip(gradient, before, strict=True))
    update.clip([None] * len(gradient), norm=1.0)


def test_a_step_clips_and_moves_the_parameters_of_the_named_optimiser_alone(network):
    optimisers = {str(number): torch.optim.SGD(layer.parameters(), lr=1.0) for number, layer in enumerate(network)}
    update = updater(network, clip_norm=0.01, optimisers=optimisers)
    before = [p.detach().clone() for p in network.parameters()]
    update.backward(terms(network)["both"])
    update.step("1")
    moved = [p.detach() - start for p, start in zip(network.parameters(), before, strict=True)]
    assert [move.any().item() for move in moved] == [False, False, True, True, False, False]
    assert norm(moved) == pytest.approx(0.01, rel=1e-3)


def test_the_rate_reaches_every_group_by_its_factor(network):
    first, second, _ = (list(layer.parameters()) for layer in network)
    groups = [{"params": first}, {"params": second, "rate_factor": 0.1}]
    update = updater(network, optimisers={"sgd": torch.optim.SGD(groups, lr=9.0)})
    update.set_rate(0.5)
    assert [group["lr"] for group in update.optimisers["sgd"].param_groups] == [0.5, 0.05]
    assert update.rate == 0.5
