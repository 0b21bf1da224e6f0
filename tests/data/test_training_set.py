"""The training set: validation split, few images, long tails and wrong labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config.settings import Split
from kdbench.config.switches import Labels
from kdbench.data.readers.superclasses import FINE, SUPERCLASSES
from kdbench.data.split import validation_split
from kdbench.data.training_set import CONFUSED, training_set
from kdbench.errors import RunError, UserError
from kdbench.plan import expand, request

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LABELS = np.repeat(np.arange(10), 50)
SPLIT = Split(0.2, 0)


def chosen(**changes):
    return training_set(LABELS, TEN, SPLIT, Labels(**changes))


def test_without_changes_it_is_the_rest_of_the_split():
    train, validation = validation_split(LABELS, 0.2, 0)
    plain = chosen()
    assert np.array_equal(plain.train, train)
    assert np.array_equal(plain.validation, validation)
    assert np.array_equal(plain.labels, LABELS[train])


@given(st.integers(0, 99), st.sampled_from([{"per_class": 7}, {"imbalance": 10.0}, {"noise": 0.3}]))
def test_the_validation_split_never_moves(seed, change):
    changed, plain = chosen(seed=seed, **change), chosen()
    assert np.array_equal(changed.validation, plain.validation)
    if "noise" not in change:
        assert np.array_equal(changed.validation_labels, plain.validation_labels)
    assert set(changed.train) <= set(plain.train)
    assert len(changed.labels) == len(changed.train)
    again = chosen(seed=seed, **change)
    assert all(map(np.array_equal, changed, again))


@given(st.floats(0.05, 0.95), st.integers(0, 99))
def test_so_many_labels_of_each_class_are_wrong(noise, seed):
    noisy = chosen(noise=noise, seed=seed)
    true = LABELS[noisy.train]
    for label in range(10):
        assert (noisy.labels[true == label] != label).sum() == round(noise * 40)
        held_out = noisy.validation_labels[LABELS[noisy.validation] == label]
        assert (held_out != label).sum() == round(noise * 10)
    assert set(noisy.labels) <= set(range(10))


def test_symmetric_noise_reaches_all_other_classes():
    noisy = training_set(np.repeat(np.arange(10), 2000), TEN, Split(0.0, 0), Labels(noise=0.9))
    counts = np.bincount(noisy.labels[:2000], minlength=10)
    assert counts[0] == 200
    assert counts[1:].min() > 150


def test_asymmetric_noise_goes_to_the_class_that_is_confused():
    noisy = chosen(noise=0.4, noise_kind="asymmetric")
    true = LABELS[noisy.train]
    for label, name in enumerate(TEN):
        wrong = noisy.labels[(true == label) & (noisy.labels != true)]
        assert {TEN[other] for other in wrong} == ({CONFUSED[name]} if name in CONFUSED else set())
    fine = training_set(np.repeat(np.arange(100), 10), FINE, Split(0.0, 0), Labels(noise=0.4, noise_kind="asymmetric"))
    superclass = {name: each for each, names in SUPERCLASSES.items() for name in names}
    for true, given_ in zip(np.repeat(np.arange(100), 10), fine.labels, strict=True):
        assert superclass[FINE[true]] == superclass[FINE[given_]]
    other = training_set(LABELS, tuple("abcdefghij"), Split(0.0, 0), Labels(noise=0.4, noise_kind="asymmetric"))
    assert set(((other.labels - LABELS) % 10).tolist()) == {0, 1}


def test_few_images_and_long_tails():
    assert np.bincount(chosen(per_class=7).labels).tolist() == [7] * 10
    counts = np.bincount(chosen(imbalance=10.0).labels)
    assert counts[0] == 40
    assert counts[-1] == 4
    assert (np.diff(counts) <= 0).all()
    ratios = counts[:-1] / counts[1:]
    assert ratios.mean() == pytest.approx(10 ** (1 / 9), rel=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"per_class": 41}, "Labels.per_class=41 asks for more than the 40 training images of the class 'airplane'"),
        ({"imbalance": 1000.0}, "leaves no training image of the class 'dog'"),
    ],
)
def test_what_is_impossible_is_one_sentence(change, sentence):
    with pytest.raises(RunError, match=sentence):
        chosen(**change)


@pytest.mark.parametrize("words", [["Labels.noise=1"], ["Labels.per_class=2", "Labels.imbalance=2"], ["Labels.seed=1"]])
def test_values_that_cannot_be(words):
    with pytest.raises(UserError, match="Labels"):
        expand.plan(request.parse(["methods=ce", "dataset=digits", *words]))
