import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.data.split import validation_split

labels = st.lists(st.integers(0, 6), max_size=80).map(lambda values: np.array(values, dtype=np.int64))
shares = st.floats(0, 0.99)
seeds = st.integers(0, 2**32)


@given(labels, shares, seeds)
def test_sorted_disjoint_and_complete(labels, share, seed):
    train, validation = validation_split(labels, share, seed)
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert sorted([*train, *validation]) == list(range(len(labels)))


@given(labels, shares, seeds)
def test_size_is_exact_and_classes_have_equal_shares(labels, share, seed):
    _, validation = validation_split(labels, share, seed)
    assert len(validation) == round(share * len(labels))
    for label in np.unique(labels):
        exact = share * (labels == label).sum()
        assert abs((labels[validation] == label).sum() - exact) < 1


@given(labels, shares, seeds)
def test_only_the_arguments_count(labels, share, seed):
    first = validation_split(labels, share, seed)
    np.random.seed(seed % 100)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    second = validation_split(labels, share, seed)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@given(labels, seeds)
def test_share_0_keeps_everything_for_training(labels, seed):
    train, validation = validation_split(labels, 0, seed)
    assert train.tolist() == list(range(len(labels)))
    assert len(validation) == 0


@given(labels, shares, seeds)
def test_names_of_labels_do_not_matter(labels, share, seed):
    assert (validation_split(labels, share, seed)[1] == validation_split(labels * 10 + 3, share, seed)[1]).all()


def test_largest_remainders_get_one_more():
    labels = np.repeat([0, 1, 2], [11, 19, 15])
    _, validation = validation_split(labels, 0.1, 0)  # 1.1, 1.9 and 1.5: 4 in all
    assert np.bincount(labels[validation]).tolist() == [1, 2, 1]


def test_exact_shares_are_exact():
    labels = np.tile(np.arange(100), 500)
    _, validation = validation_split(labels, 0.1, 0)
    assert np.bincount(labels[validation]).tolist() == [50] * 100


def test_seed_changes_the_draw_and_every_image_may_be_drawn():
    labels = np.zeros(20, dtype=np.int64)
    drawn = [tuple(validation_split(labels, 0.25, seed)[1]) for seed in range(100)]
    assert len(set(drawn)) > 90
    assert {index for some in drawn for index in some} == set(range(20))


def test_the_draw_is_the_same_for_ever():
    # Other numbers mean that committed results were validated on other images.
    assert validation_split(np.repeat([0, 1], 10), 0.3, 0)[1].tolist() == [1, 2, 3, 11, 13, 15]


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match="share"):
        validation_split(np.array([0, 1]), share, 0)
