import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.config.settings import Augment, Dataset
from kdbench.data.augment import Augmenter, Draws, normalise

PLAIN = Dataset(source="x", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), mirrored=True)


def images(count=6, size=8, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, size, size, channels), dtype=torch.uint8, generator=generator)


def augmenter(dataset=PLAIN, **changed):
    return Augmenter(
        images(), Augment(**{"padding": 0.25, "fill": 128, "flip": True, "cutout": 0.5, **changed}), dataset
    )


def one_by_one(index, draws, pad, fill, flip, cut):
    """The same, image by image and pixel by pixel."""
    out = []
    for b, which in enumerate(index.tolist()):
        source = images()[which].float() / 255
        picture = torch.full((8, 8, 3), fill / 255)
        for y in range(8):
            for x in range(8):
                from_x = 7 - x if flip and draws.mirror[b] else x
                sy, sx = y + int(draws.top[b]) - pad, from_x + int(draws.left[b]) - pad
                if 0 <= sy < 8 and 0 <= sx < 8:
                    picture[y, x] = source[sy, sx]
        picture = (picture - torch.tensor(PLAIN.mean)) / torch.tensor(PLAIN.std)
        for y in range(8):
            for x in range(8):
                dy, dx = y - int(draws.cut_y[b]) + cut // 2, x - int(draws.cut_x[b]) + cut // 2
                if 0 <= dy < cut and 0 <= dx < cut:
                    picture[y, x] = 0
        out.append(picture.permute(2, 0, 1))
    return torch.stack(out)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), flip=st.booleans(), cutout=st.sampled_from([0.0, 0.375, 0.5]))
def test_a_batch_is_what_pixel_by_pixel_gives(seed, flip, cutout):
    generator = torch.Generator().manual_seed(seed)
    made = augmenter(flip=flip, cutout=cutout)
    index = torch.randint(6, (5,), generator=generator)
    draws = made.draw(5, generator)
    expected = one_by_one(index, draws, pad=2, fill=128, flip=flip, cut=round(cutout * 8))
    torch.testing.assert_close(made(index, draws), expected, atol=1e-5, rtol=1e-5)


def test_with_everything_off_only_the_normalisation_is_left():
    made = augmenter(padding=0.0, flip=False, cutout=0.0)
    index = torch.tensor([3, 1])
    got = made(index, made.draw(2, torch.Generator().manual_seed(1)))
    assert torch.equal(got, normalise(images()[index], PLAIN))
    expected = (images()[index].permute(0, 3, 1, 2) / 255 - torch.tensor(PLAIN.mean)[:, None, None]) / torch.tensor(
        PLAIN.std
    )[:, None, None]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_images_that_are_no_mirror_images_are_never_flipped():
    digits = Dataset(source="x", mean=PLAIN.mean, std=PLAIN.std, mirrored=False)
    draws = Draws(*(torch.tensor([v]) for v in (2, 2, 1, 0, 0)))
    assert torch.equal(augmenter(digits, cutout=0.0)(torch.tensor([0]), draws), normalise(images()[:1], PLAIN))


def test_switching_one_thing_off_moves_no_other_choice():
    full = augmenter().draw(50, torch.Generator().manual_seed(3))
    less = augmenter(cutout=0.0, flip=False).draw(50, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(full, less, strict=True))


def test_every_crop_of_the_padded_image_comes_up():
    draws = augmenter().draw(2000, torch.Generator().manual_seed(0))
    assert set(draws.top.tolist()) == set(draws.left.tolist()) == set(range(5))
    assert set(draws.mirror.tolist()) == {0, 1}
