import pytest
import torch
from examples import each_method
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench.config import places
from kdbench.measures import flops
from kdbench.method.base import Batch
from kdbench.streams import Streams

EVERY = sorted(places.sources())
FULL = torch.autocast("cpu", enabled=False)


def first_batch(made, anchors=6):
    index = made.sample(torch.arange(anchors), Streams(0)).repeat(len(made.views))
    images = torch.randn(len(index), *made.info.image_shape, generator=Streams(0)("images"))
    return Batch(images, made.info.train_labels[index], index, 0, Streams(0), view_count=len(made.views))


@torch.no_grad()
def by_torch(network, image_shape):
    """FLOPs of one image through a network in evaluation mode, as torch's own counter has them."""
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *image_shape))
    network.train()
    return counter.get_total_flops()


def test_flops_of_a_network_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 10))
    count = flops.of_outputs(lambda: {"own": network(torch.zeros(1, 3, 4, 4))})["own"]
    assert count == 2 * (8 * 3 * 9 * 16) + 2 * (8 * 16 * 10)
    assert count == by_torch(network, (3, 4, 4))


def test_what_an_output_needs_by_hand():
    trunk, shallow, deep = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 5)
    x = torch.randn(1, 4)

    def compute():
        hidden = trunk(x)
        first = shallow(hidden)
        nn.Linear(8, 100)(hidden)  # nobody needs it
        return {"first": first, "second": deep(hidden.relu_())}

    counts = flops.of_outputs(compute)
    assert counts == {
        "first": 2 * 4 * 8 + 2 * 8 * 3,
        "second": 2 * 4 * 8 + 2 * 8 * 5,
        "ensemble": 2 * 4 * 8 + 16 * (3 + 5),
    }


def test_what_is_computed_twice_counts_once_in_the_ensemble():
    trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
    heads = nn.Linear(4 * 36, 3), nn.Linear(4 * 36, 3)
    x = torch.randn(1, 1, 8, 8)
    once, head = 2 * 9 * 4 * 36, 2 * 4 * 36 * 3
    counts = flops.of_outputs(lambda: {"a": heads[0](trunk(x)), "b": heads[1](trunk(x))})
    assert counts == {"a": once + head, "b": once + head, "ensemble": once + 2 * head}
    other = flops.of_outputs(lambda: {"a": heads[0](trunk(x)), "b": heads[1](trunk(2 * x))})
    assert other["ensemble"] == 2 * (once + head), "of other images it is not the same"


@pytest.mark.parametrize("name", each_method(EVERY))
def test_exits_cost_no_less_the_deeper_they_are_and_less_than_all_together(make, name):
    made = make(name, student="resnet14").eval()
    image = torch.zeros(1, *made.info.image_shape)
    counts = flops.of_outputs(lambda: {**made.exits(image), "own": made.deployed()(image)})
    assert counts["own"] == by_torch(made.deployed(), made.info.image_shape)
    *exits, together = (number for key, number in counts.items() if key != "own")
    assert exits == sorted(exits), "copies of one stage cost the same"
    assert together <= sum(exits) + counts["own"]
    assert together >= max([*exits, counts["own"]]) if exits else together == counts["own"]


@pytest.mark.parametrize("name", each_method(EVERY))
def test_training_costs_what_student_teacher_and_the_methods_own_parts_cost(make, name):
    made = make(name)
    student = by_torch(made.student, made.info.image_shape)
    least = student + (by_torch(made.teacher, made.info.image_shape) if made.needs_teacher else 0)
    one = first_batch(made)
    phases = [[(phase.losses or made.losses, 1.0)] for phase in made.phases()]
    count = max(flops.of_method(made, one, FULL, each)["cost.flops_training"] for each in phases)
    # The numerical library may know matrix products beside those of networks. No phase needs to ask all networks.
    assert count >= least
    if name in ("ce", "kd"):
        assert count == least


def test_the_entries_of_a_method_with_exits_and_of_one_without(make):
    plain, with_exits = make("ce"), make("byot")
    assert set(flops.of_method(plain, first_batch(plain), FULL)) == {"cost.flops", "cost.flops_training"}
    entries = flops.of_method(with_exits, first_batch(with_exits), FULL)
    assert entries["cost.flops"] == by_torch(with_exits.deployed(), with_exits.info.image_shape)
    assert set(entries) == {
        "cost.flops",
        "cost.flops.exit1",
        "cost.flops.exit2",
        "cost.flops.ensemble",
        "cost.flops_training",
    }
    assert entries["cost.flops_training"] == entries["cost.flops.ensemble"], "training computes every classifier once"


def test_training_in_phases_costs_their_mean_by_the_share_of_steps(make):
    made = make("byot")
    batch = first_batch(made)

    def student_alone(batch):
        return {"ce": made.cross_entropy(made.student(batch.images), batch.labels)}

    whole, alone = (flops.of_losses(losses, batch) / len(batch.images) for losses in (made.losses, student_alone))
    assert whole > alone == by_torch(made.student, made.info.image_shape)
    phases = [(made.losses, 0.25), (student_alone, 0.75)]
    assert flops.of_method(made, batch, FULL, phases)["cost.flops_training"] == round(0.25 * whole + 0.75 * alone)
    of_fewer = flops.of_method(made, batch, FULL, phases, images=3)["cost.flops_training"]
    assert of_fewer == round(len(batch.images) / 3 * (0.25 * whole + 0.75 * alone)), "for each image that is passed"
