import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.config.settings import Augment, Dataset
from kdbench.data.anchors import Anchors
from kdbench.data.augment import Augmenter, Draws
from kdbench.streams import Streams

N = 10
AUGMENTER = Augmenter(
    torch.zeros(N, 8, 8, 1, dtype=torch.uint8),
    Augment(padding=0.25, fill=0, flip=True, cutout=0.25),
    Dataset(source="x", mean=(0.0,), std=(1.0,), mirrored=True),
)


def taken(sizes, seed=0, position=0):
    anchors = Anchors(N, AUGMENTER, Streams(seed), position)
    parts = [anchors.take(size) for size in sizes]
    return torch.cat([p for p, _ in parts]), Draws.join([d for _, d in parts])


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=1, max_size=8))
def test_the_sequence_is_the_same_whatever_the_size_of_the_pieces(sizes):
    places, draws = taken(sizes)
    expected_places, expected_draws = taken([sum(sizes)])
    assert torch.equal(places, expected_places)
    assert all(torch.equal(a, b) for a, b in zip(draws, expected_draws, strict=True))


@given(position=st.integers(0, 35))
def test_it_goes_on_from_any_position(position):
    whole, whole_draws = taken([60])
    rest, rest_draws = taken([60 - position], position=position)
    assert torch.equal(whole[position:], rest)
    assert torch.equal(whole_draws.top[position:], rest_draws.top)


def test_every_pass_holds_every_image_once_in_a_new_order():
    places, draws = taken([3 * N])
    passes = places.reshape(3, N)
    assert all(sorted(each.tolist()) == list(range(N)) for each in passes)
    assert len({tuple(each.tolist()) for each in passes}) == 3
    assert not torch.equal(draws.top[:N], draws.top[N : 2 * N])


def test_the_seed_decides():
    assert not torch.equal(taken([N], seed=0)[0], taken([N], seed=1)[0])
