"""Random resized crops, against torchvision's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from kdbench.config.settings import Augment, Dataset
from kdbench.config.switches import ResizedCrop
from kdbench.data.augment import Augmenter
from kdbench.data.images import Images
from kdbench.data.readers import photographs
from kdbench.data.resized_crop import box, resized
from kdbench.errors import UserError
from kdbench.plan import expand, request

CROP = ResizedCrop(min_area=0.08)


@given(st.integers(0, 2**62), st.integers(1, 500), st.integers(1, 500))
def test_a_part_lies_in_its_image(number, width, height):
    left, top, right, bottom = box(number, width, height, CROP)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_parts_are_drawn_as_torchvision_draws_them():
    ours = np.array([box(number, 200, 150, CROP) for number in range(4000)])
    torch.manual_seed(0)
    image = torch.zeros(3, 150, 200)
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    top, left, height, width = theirs.T
    theirs = np.stack([left, top, left + width, top + height], axis=1)
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 4
    assert np.abs(ours.std(axis=0) - theirs.std(axis=0)).max() < 4


def test_resizing_is_pillows_up_to_rounding():
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
    boxes = [box(number, 24, 24, CROP) for number in range(6)]
    ours = resized(torch.from_numpy(pixels), boxes).numpy()
    for image, part, result in zip(pixels, boxes, ours, strict=True):
        cut = Image.fromarray(image).crop(part).resize((24, 24), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(cut).astype(int) - result).max() <= 1


def test_the_whole_image_is_left_as_it_is():
    pixels = torch.randint(256, (2, 8, 8, 1), dtype=torch.uint8)
    assert torch.equal(resized(pixels, [(0, 0, 8, 8)] * 2), pixels)


def test_a_part_of_a_file_is_cut_and_resized_as_pillow_does_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def wanted(box, side):
        part = Image.fromarray(pixels).crop(box).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(part).astype(int)

    part = photographs.square(tmp_path / "a.png", 16, part=lambda width, height: (10, 5, width - 20, height - 5))
    assert np.abs(part - wanted((10, 5, 40, 35), 16)).max() <= 1
    middle = photographs.square(tmp_path / "a.png", 20, share=0.5)
    assert np.array_equal(middle, pixels[10:30, 20:40])


def test_images_in_memory_are_cropped_and_mirrored():
    pixels = torch.randint(256, (5, 8, 8, 1), dtype=torch.uint8)
    task = Images(pixels, torch.zeros(5, dtype=torch.int64))
    dataset = Dataset("x", (0.0,), (1.0,), True)
    augmenter = Augmenter(task, Augment(0.125, 0, True, 0.0), dataset, crop=CROP)
    draws = augmenter.draw(3, torch.Generator().manual_seed(0))
    places = torch.tensor([4, 0, 2])
    boxes = [box(number, 8, 8, CROP) for number in draws.crop[:, 0].tolist()]
    wanted = resized(pixels[places], boxes)
    wanted[draws.mirror == 1] = wanted[draws.mirror == 1].flip(2)
    assert torch.allclose(augmenter(places, draws), wanted.permute(0, 3, 1, 2) / 255, atol=1e-6)


def test_the_other_choices_are_those_without_crops():
    task = Images(torch.zeros(5, 8, 8, 1, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    dataset = Dataset("x", (0.0,), (1.0,), True)
    plain, cropping = (
        Augmenter(task, Augment(0.0, 0, True, 0.5), dataset, crop=crop).draw(5, torch.Generator().manual_seed(0))
        for crop in (ResizedCrop(), CROP)
    )
    others = [name for name in plain._fields if name != "crop"]
    assert all(torch.equal(getattr(plain, name), getattr(cropping, name)) for name in others)


@pytest.mark.parametrize("word", ["ResizedCrop.min_area=2", "ResizedCrop.max_ratio=0.5", "ResizedCrop.test_share=0.5"])
def test_values_out_of_range_are_refused(word):
    with pytest.raises(UserError, match="ResizedCrop"):
        expand.plan(request.parse(["methods=ce", "dataset=digits", word]))
