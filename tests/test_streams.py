import random

import numpy as np
import torch

from kdbench import streams
from kdbench.run.resume import dump, parse
from kdbench.streams import Streams, global_state, restore_global_state


def draw(generator):
    return torch.rand(8, generator=generator)


def test_a_stream_depends_on_seed_name_and_counter_alone():
    assert torch.equal(draw(Streams(1)("order", 3)), draw(Streams(1)("order", 3)))
    others = [Streams(2)("order", 3), Streams(1)("order", 4), Streams(1)("augment", 3)]
    assert all(not torch.equal(draw(Streams(1)("order", 3)), draw(other)) for other in others)


def test_streams_below_a_path_are_the_same_as_the_whole_path():
    assert torch.equal(draw(Streams(1)("method", 7, "negatives")), draw(Streams(1).within("method", 7)("negatives")))


def test_paths_that_join_to_the_same_letters_are_different_streams():
    assert Streams(1).number("a", 11) != Streams(1).number("a", 1, 1)
    assert Streams(1).number("1", "a") != Streams(11).number("a")


def test_what_one_stream_draws_moves_no_other():
    streams = Streams(5)
    draw(streams("method", 0))
    assert torch.equal(draw(streams("order", 0)), draw(Streams(5)("order", 0)))


def test_as_global_seeds_the_global_generator_inside_and_leaves_it_as_it_was():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    with Streams(1).as_global("init"):
        inside = torch.rand(4)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(999)
    with Streams(1).as_global("init"):
        assert torch.equal(inside, torch.rand(4))


def drawn():
    """Draws from each global generator, of kinds that keep something for the next one."""
    return torch.randn(3).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1), random.sample(range(99), 3)  # noqa: NPY002


def test_the_generators_of_numpy_and_python_are_seeded_too_and_left_as_they_were():
    before = drawn()
    np.random.seed(1), random.seed(1)  # noqa: NPY002
    expected = np.random.randn(), random.gauss(0, 1)  # noqa: NPY002
    np.random.seed(1), random.seed(1)  # noqa: NPY002
    with Streams(1).as_global("training"):
        inside = drawn()
    assert (np.random.randn(), random.gauss(0, 1)) == expected  # noqa: NPY002
    with Streams(1).as_global("training"):
        assert drawn() == inside != before
    with Streams(2).as_global("training"):
        assert drawn() != inside


def test_the_state_of_the_global_generators_goes_through_a_state_file():
    cpu = torch.device("cpu")
    with Streams(1).as_global("training"):
        drawn()
        state = parse(dump({"random": global_state(cpu)}))["random"]
        following = drawn()
    with Streams(2).as_global("training"):
        restore_global_state(state, cpu)
        assert drawn() == following
        restore_global_state({"cpu": state["cpu"]}, cpu)  # of an older version


def test_seeding_for_a_block_keeps_nothing_for_an_accelerator_that_is_not_there():
    queues = torch.cuda._queued_calls, torch.xpu._queued_calls
    before = [len(queue) for queue in queues]
    with Streams(1).as_global("training"):
        pass
    assert [len(queue) for queue in queues] == before


def test_the_cpu_draws_the_same_where_there_is_an_accelerator(monkeypatch):
    with Streams(1).as_global("training"):
        expected = drawn()
    monkeypatch.setattr(streams, "_has_accelerator", lambda: True)
    with Streams(1).as_global("training"):
        assert drawn() == expected
