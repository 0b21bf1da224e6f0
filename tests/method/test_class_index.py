import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.method.class_index import ClassIndex

LABELS = st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(lambda labels: len(set(labels)) > 1)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(LABELS, st.integers(0, 100))
def test_partners_are_of_the_right_class(labels, seed):
    labels = torch.tensor(labels)
    class_index = ClassIndex(labels)
    images = torch.arange(len(labels)).repeat(5)

    same = class_index.same_class(images, stream(seed))
    assert (labels[same] == labels[images]).all()
    alone = labels.bincount()[labels[images]] == 1
    assert ((same == images) == alone).all()

    other = class_index.other_class(labels[images], stream(seed))
    assert (labels[other] != labels[images]).all()

    for each in class_index.several_of_class(images, 3, stream(seed)).unbind(dim=1):
        assert (labels[each] == labels[images]).all()
        assert ((each == images) == alone).all()

    many = class_index.other_images(labels[images], 7, stream(seed))
    assert many.shape == (len(images), 7)
    assert (labels[many] != labels[images].unsqueeze(1)).all()


def test_every_candidate_is_drawn_with_the_same_chance():
    labels = torch.tensor([2, 0, 4, 2, 0, 2, 4, 4, 4, 2])  # classes 1 and 3 are empty, the blocks are shuffled
    class_index = ClassIndex(labels)
    draws = 20_000
    for label in (0, 2, 4):
        drawn = class_index.other_images(torch.tensor([label]), draws, stream(label))[0].bincount(minlength=10) / draws
        others = labels != label
        torch.testing.assert_close(drawn, others / others.sum(), atol=0.02, rtol=0)


def test_other_images_of_the_same_class_have_equal_chances():
    labels = torch.tensor([1, 0, 1, 0, 1, 1])
    drawn = ClassIndex(labels).same_class(torch.full((9000,), 2), stream()).bincount(minlength=6) / 9000
    torch.testing.assert_close(drawn, torch.tensor([1, 0, 0, 0, 1, 1]) / 3, atol=0.03, rtol=0)


def test_the_image_itself_is_a_partner_if_that_is_asked_for():
    labels = torch.tensor([1, 0, 1, 0, 1, 1])
    drawn = ClassIndex(labels).same_class(torch.full((8000,), 2), stream(), itself=True).bincount(minlength=6) / 8000
    torch.testing.assert_close(drawn, torch.tensor([1, 0, 1, 0, 1, 1]) / 4, atol=0.03, rtol=0)


def test_several_images_of_a_class_are_different_where_it_has_enough():
    class_index = ClassIndex(torch.tensor([1, 0, 1, 0, 1, 1, 1]))
    drawn = class_index.several_of_class(torch.full((6000,), 2), 3, stream()).sort(dim=1).values
    triplets, counts = drawn.unique(dim=0, return_counts=True)
    assert triplets.tolist() == [[0, 4, 5], [0, 4, 6], [0, 5, 6], [4, 5, 6]]
    torch.testing.assert_close(counts / 6000, torch.full((4,), 0.25), atol=0.03, rtol=0)
    few = class_index.several_of_class(torch.full((10,), 1), 3, stream())
    assert (few == 3).all(), "the only other image of the class, several times"


def test_other_classes_have_equal_chances_whatever_their_size():
    labels = torch.tensor([0] * 5 + [1] * 50 + [3])
    other = ClassIndex(labels).other_class(torch.zeros(9000, dtype=torch.int64), stream())
    torch.testing.assert_close(labels[other].bincount() / 9000, torch.tensor([0, 0.5, 0, 0.5]), atol=0.03, rtol=0)
    within = other[labels[other] == 1].bincount(minlength=55)[5:55]
    assert (within > 0).all()


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        ClassIndex(torch.tensor([3, 3, 3]))
