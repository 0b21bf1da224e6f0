import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.config.settings import Augment, Dataset
from kdbench.config.switches import Strong
from kdbench.data.anchors import Anchors
from kdbench.data.augment import Augmenter, Draws
from kdbench.data.images import Images
from kdbench.streams import Streams

N = 10
AUGMENTER = Augmenter(
    Images(torch.zeros(N, 8, 8, 1, dtype=torch.uint8), torch.zeros(N, dtype=torch.int64)),
    Augment(padding=0.25, fill=0, flip=True, cutout=0.25),
    Dataset(source="x", mean=(0.0,), std=(1.0,), mirrored=True),
    Strong(),
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


def test_the_kind_adds_operations_and_moves_nothing_else():
    places, draws = Anchors(N, AUGMENTER, Streams(0)).take(3 * N)
    strong_places, strong = Anchors(N, AUGMENTER, Streams(0), kind="strong").take(3 * N)
    assert torch.equal(places, strong_places)
    assert all(torch.equal(a, b) for a, b in zip(draws[:5], strong[:5], strict=True))
    assert (draws.operations.shape, strong.operations.shape) == ((3 * N, 0, 3), (3 * N, 2, 3))


def test_anchors_are_those_that_runs_have_always_had():
    places, draws = Anchors(N, AUGMENTER, Streams(0)).take(6)
    assert torch.stack([places, *draws[:5]]).tolist() == [
        [1, 6, 0, 8, 7, 9], [3, 1, 3, 0, 4, 3], [4, 1, 2, 0, 1, 4], [1, 0, 1, 1, 1, 1], [3, 5, 7, 5, 1, 0], [3, 3, 0, 7, 2, 6],
    ]  # fmt: skip
