import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from kdbench.config.switches import Strong
from kdbench.data.randaugment import MAGNITUDES, OPERATIONS, RandAugment

FILL = 77
MOVES = "ShearX", "ShearY", "Rotate"
EXACT = sorted({*OPERATIONS} - {*MOVES, "Color", "Sharpness", "Contrast"})
POLICIES = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}


def policy(name="randaugment", size=(16, 16), **changed):
    return RandAugment(Strong(policy=name, **changed), *size, FILL)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=4, height=16, width=16, channels=3, seed=0):
    """Noise, and smooth images without the lowest and highest levels."""
    noise = torch.randint(256, (count, height, width, channels), dtype=torch.uint8, generator=generator(seed))
    smooth = noise.float().cumsum(1).cumsum(2) % 97 + 30
    return torch.cat([noise[: count // 2], smooth[count // 2 :].byte()])


def reference(name, operation, magnitude, negative, pictures):
    """What torchvision makes of the images (B, H, W, C), and the signed magnitude."""
    theirs = POLICIES[name](fill=FILL)
    values, signed = theirs._AUGMENTATION_SPACE[operation]
    values = values(MAGNITUDES, *pictures.shape[1:3])
    amount = 0.0 if values is None else float(values[magnitude])
    amount = -amount if signed and negative else amount
    pictures = pictures.permute(0, 3, 1, 2)
    made = theirs._apply_image_or_video_transform(pictures, operation, amount, theirs.interpolation, theirs._fill)
    return made.permute(0, 2, 3, 1), amount


def ours(made, operation, magnitude, negative, pictures):
    drawn = torch.tensor([OPERATIONS.index(operation), magnitude, negative]).expand(len(pictures), 1, 3)
    return made(pictures, drawn)


def cases():
    return [(magnitude, negative) for magnitude in range(MAGNITUDES) for negative in (0, 1)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", EXACT)
@pytest.mark.parametrize("name", POLICIES)
def test_these_operations_are_exactly_those_of_torchvision(name, operation, channels):
    pictures, made = images(height=13, channels=channels), policy(name, (13, 16))
    for magnitude, negative in cases():
        expected, _ = reference(name, operation, magnitude, negative, pictures)
        assert torch.equal(ours(made, operation, magnitude, negative, pictures), expected), (magnitude, negative)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", ["Contrast", "Color", "Sharpness"])
@pytest.mark.parametrize("name", POLICIES)
def test_blends_differ_from_torchvision_by_a_grey_level_at_most_and_rarely(name, operation, channels):
    """It sums rounded products, which can end just below a whole number."""
    pictures, made, others = images(height=13, channels=channels), policy(name, (13, 16)), 0.0
    for magnitude, negative in cases():
        expected, _ = reference(name, operation, magnitude, negative, pictures)
        difference = (ours(made, operation, magnitude, negative, pictures).int() - expected.int()).abs()
        assert difference.max() <= 1
        others += difference.float().mean().item() / len(cases())
    assert others < 0.01


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
@pytest.mark.parametrize("operation", MOVES)
@pytest.mark.parametrize("name", POLICIES)
def test_moves_are_those_of_torchvision_but_where_the_source_is_midway_between_pixels(name, operation, size):
    height, width = size
    pictures, made = images(height=height, width=width), policy(name, size)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    midway_share = 0.0
    for magnitude, negative in cases():
        expected, amount = reference(name, operation, magnitude, negative, pictures)
        if operation == "Rotate":
            cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
            from_x = cosine * (x - (width - 1) / 2) - sine * (y - (height - 1) / 2) + (width - 1) / 2
            from_y = sine * (x - (width - 1) / 2) + cosine * (y - (height - 1) / 2) + (height - 1) / 2
        else:
            from_x = x + amount * (y + 0.5) * (operation == "ShearX")
            from_y = y + amount * (x + 0.5) * (operation == "ShearY")
        midway = torch.zeros(size, dtype=torch.bool)
        for place in (from_x, from_y):
            midway |= (place - place.floor() - 0.5).abs() < 2e-3
        got = ours(made, operation, magnitude, negative, pictures)
        assert torch.equal(got[:, ~midway], expected[:, ~midway]), (magnitude, negative)
        midway_share += midway.double().mean().item() / len(cases())
    assert midway_share < 0.05


def everything(count, seed=0):
    """Two operations for each of `count` images such that all operations and signs come up."""
    drawn = policy(magnitude=30, random_magnitude=True).draw(count, generator(seed))
    drawn[:, 0, 0] = torch.arange(count) % len(OPERATIONS)
    return drawn


def test_a_batch_is_what_its_images_give_one_by_one():
    made, pictures, drawn = policy(), images(60), everything(60)
    batch = made(pictures, drawn)
    assert torch.equal(batch, torch.cat([made(pictures[b : b + 1], drawn[b : b + 1]) for b in range(60)]))
    for b in range(0, 60, 7):  # and step by step
        once = made(pictures[b : b + 1], drawn[b : b + 1, :1])
        assert torch.equal(batch[b : b + 1], made(once, drawn[b : b + 1, 1:]))


def test_neither_order_nor_the_other_images_matter():
    made, pictures, drawn = policy(), images(40), everything(40)
    batch, order = made(pictures, drawn), torch.randperm(40, generator=generator())
    assert torch.equal(made(pictures[order], drawn[order]), batch[order])
    assert torch.equal(made(pictures[:9], drawn[:9]), batch[:9])
    assert torch.equal(made(pictures.flip(0).flip(0).contiguous(), drawn), batch)


def test_the_images_are_left_as_they_are():
    pictures = images(40)
    before = pictures.clone()
    policy()(pictures, everything(40))
    assert torch.equal(pictures, before)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 20),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
    name=st.sampled_from(sorted(POLICIES)),
)
def test_any_number_and_size_of_images(count, height, width, channels, seed, name):
    made, pictures = policy(name, (height, width)), images(count, height, width, channels, seed)
    drawn = made.draw(count, generator(seed))
    got = made(pictures, drawn)
    assert got.shape == pictures.shape
    assert got.dtype == torch.uint8
    assert torch.equal(got, torch.cat([made(pictures[b : b + 1], drawn[b : b + 1]) for b in range(count)]))


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("operation", ["Contrast", "Color", "Sharpness", "AutoContrast", "Equalize", "Identity"])
def test_an_image_of_one_grey_level_stays_one(operation, level):
    pictures = torch.full((1, 8, 8, 1), level, dtype=torch.uint8)
    assert torch.equal(ours(policy(size=(8, 8)), operation, 30, 0, pictures), pictures)


def test_what_comes_from_outside_has_the_fill():
    pictures = torch.full((1, 16, 16, 3), 200, dtype=torch.uint8)
    moved = ours(policy(), "TranslateX", 30, 0, pictures)  # by 150 / 331 of the width: 7 pixels to the right
    assert (moved[:, :, :7] == FILL).all()
    assert (moved[:, :, 7:] == 200).all()


def test_magnitude_zero_changes_nothing_and_the_sign_is_a_direction():
    pictures = images(6)
    for operation in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Contrast", "Color"):
        assert torch.equal(ours(policy(), operation, 0, 1, pictures), pictures), operation
        there, back = (ours(policy(), operation, 30, negative, pictures) for negative in (0, 1))
        assert not torch.equal(there, back), operation


def test_draws_depend_on_the_generator_alone():
    made = policy(operations=3, magnitude=12, random_magnitude=True)
    first = made.draw(500, generator(1))
    made.draw(7, generator(5))
    assert torch.equal(first, made.draw(500, generator(1)))
    assert not torch.equal(first, made.draw(500, generator(2)))
    operation, magnitude, negative = first.unbind(2)
    assert operation.unique().tolist() == list(range(len(OPERATIONS)))
    assert magnitude.unique().tolist() == list(range(13))
    assert negative.unique().tolist() == [0, 1]


def test_a_setting_moves_no_other_choice():
    full = policy(operations=3).draw(50, generator())
    assert torch.equal(policy(operations=2).draw(50, generator()), full[:, :2])
    assert (full[:, :, 1] == 9).all()
    strongest = policy(operations=3, magnitude=30, random_magnitude=True).draw(50, generator())
    assert torch.equal(strongest[:, :, ::2], full[:, :, ::2])
    trivial = policy("trivialaugment").draw(50, generator())
    assert torch.equal(trivial, strongest[:, :1])


def test_no_operations_leave_the_images():
    made, pictures = policy(operations=0), images()
    assert torch.equal(made(pictures, made.draw(4, generator())), pictures)
