import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.data import erasing


def boxes(seed=0, count=200, size=(32, 32), probability=1.0, max_area=0.4):
    return erasing.draw(count, size, probability, max_area, torch.Generator().manual_seed(seed))


@given(st.integers(0, 200), st.sampled_from([(32, 32), (8, 8), (8, 20), (24, 9)]), st.sampled_from([0.1, 0.4]))
def test_boxes_lie_in_the_image_and_have_no_more_than_the_largest_area(seed, size, max_area):
    top, left, height, width = boxes(seed, 50, size, max_area=max_area).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    assert ((height - 0.5).clamp(min=0) * (width - 0.5).clamp(min=0) <= max_area * size[0] * size[1]).all()


def test_the_share_of_images_and_of_pixels():
    drawn = boxes(count=20000, size=(64, 64), probability=0.5)
    erased = drawn[drawn[:, 2] > 0]
    assert len(erased) / 20000 == pytest.approx(0.5, abs=0.02)
    areas = (erased[:, 2] * erased[:, 3]) / 64**2
    assert areas.mean().item() == pytest.approx(0.21, abs=0.01)  # uniform between 0.02 and 0.4
    ratios = erased[:, 2] / erased[:, 3]
    assert ratios.min() > 0.25
    assert ratios.max() < 3.8


def test_the_same_generator_gives_the_same_boxes_and_none_are_drawn_at_probability_0():
    assert torch.equal(boxes(5), boxes(5))
    assert not torch.equal(boxes(5), boxes(6))
    assert not boxes(probability=0.0).any()


def test_an_image_that_no_box_fits_stays_as_it_is():
    assert not boxes(size=(1, 1000))[:, 2].any()
