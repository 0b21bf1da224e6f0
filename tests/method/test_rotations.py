import pytest
import torch

from kdbench.errors import RunError
from kdbench.method.rotations import check_square, joint_labels, rotations, turned


def test_rotations_turn_each_image_block_by_block():
    images = torch.arange(2 * 9.0).view(2, 1, 3, 3)
    blocks = rotations(images).unflatten(0, (4, 2))
    assert torch.equal(blocks[0], images)
    assert blocks[1, 0, 0].tolist() == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
    assert torch.equal(blocks[2], images.flip(2, 3))
    assert torch.equal(blocks[3].rot90(1, dims=(2, 3)), images)


def test_copies_of_images_are_turned_by_their_block():
    images = torch.arange(2 * 9.0).view(2, 1, 3, 3)
    assert torch.equal(turned(images.repeat(4, 1, 1, 1)), rotations(images))
    assert torch.equal(turned(rotations(images))[4:6], images.rot90(4, dims=(2, 3)))


def test_each_class_and_rotation_has_a_label():
    assert joint_labels(torch.tensor([0, 3])).tolist() == [0, 12, 1, 13, 2, 14, 3, 15]


def test_images_that_are_not_square_are_refused():
    check_square("turn", (3, 8, 8))
    with pytest.raises(RunError, match="turn needs square images, which it rotates, not 8 × 10"):
        check_square("turn", (1, 8, 10))
