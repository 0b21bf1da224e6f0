import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.config.settings import Augment, Dataset
from kdbench.config.switches import KINDS, NO_CROP, ResizedCrop, Strong
from kdbench.data.augment import Augmenter, Draws, normalise
from kdbench.data.images import Images
from kdbench.run.group import Group

PLAIN = Dataset(source="x", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), mirrored=True)


GREY = Dataset("x", (0.0,) * 3, (1 / 255,) * 3, True)  # grey levels as they are


def images(count=6, size=8, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, size, size, channels), dtype=torch.uint8, generator=generator)


def augmenter(dataset=PLAIN, strong=None, **changed):
    recipe = Augment(**{"padding": 0.25, "fill": 128, "flip": True, "cutout": 0.5, **changed})
    return Augmenter(Images(images(), torch.zeros(6, dtype=torch.int64)), recipe, dataset, strong)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


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
    stream = generator(seed)
    made = augmenter(flip=flip, cutout=cutout)
    index = torch.randint(6, (5,), generator=stream)
    draws = made.draw(5, stream)
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
    draws = Draws(
        *(torch.tensor([v]) for v in (2, 2, 1, 0, 0)),
        torch.empty(1, 0, 3, dtype=torch.int64),
        *[torch.empty(1, 0, dtype=torch.int64)] * 2,
    )
    assert torch.equal(augmenter(digits, cutout=0.0)(torch.tensor([0]), draws), normalise(images()[:1], PLAIN))


def test_switching_one_thing_off_moves_no_other_choice():
    full = augmenter().draw(50, torch.Generator().manual_seed(3))
    less = augmenter(cutout=0.0, flip=False).draw(50, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(full, less, strict=True))


def test_every_crop_of_the_padded_image_comes_up():
    draws = augmenter().draw(2000, torch.Generator().manual_seed(0))
    assert set(draws.top.tolist()) == set(draws.left.tolist()) == set(range(5))
    assert set(draws.mirror.tolist()) == {0, 1}


def test_both_kinds_draw_the_same_crop_mirror_and_place_of_the_cutout():
    made = augmenter(strong=Strong())
    recipe, strong = (made.draw(50, generator(1), kind) for kind in KINDS)
    assert equal(recipe[:5], strong[:5])
    assert equal(recipe, augmenter().draw(50, generator(1)))
    assert (recipe.operations.shape, strong.operations.shape) == ((50, 0, 3), (50, 2, 3))


def test_a_strong_view_without_operations_is_the_view_of_the_recipe():
    made = augmenter(strong=Strong(operations=0, cutout=0.5))
    index, stream = torch.tensor([3, 1, 0]), generator(2)
    draws = made.draw(3, stream)
    assert torch.equal(made(index, draws, "strong"), made(index, draws, "recipe"))


def test_a_strong_view_is_cropped_and_mirrored_then_changed_then_normalised_and_cut():
    made = augmenter(strong=Strong(cutout=0.25), cutout=0.0)
    index, draws = torch.arange(6), made.draw(6, generator(3), "strong")
    plain = augmenter(cutout=0.0, dataset=GREY)
    cropped = plain(index, draws._replace(operations=torch.empty(6, 0, 3).long())).permute(0, 2, 3, 1).round().byte()
    changed = normalise(made.policy["strong"](cropped, draws.operations), PLAIN)
    got = made(index, draws, "strong")
    for b in range(6):
        y, x = (torch.arange(8) - int(corner[b]) + 1 for corner in (draws.cut_y, draws.cut_x))
        cut = ((y >= 0) & (y < 2))[:, None] & ((x >= 0) & (x < 2))
        torch.testing.assert_close(got[b], changed[b] * ~cut)
        assert cut.any()


def test_views_are_blocks_in_the_order_of_their_kinds():
    made = augmenter(strong=Strong())
    index, kinds = torch.tensor([5, 0, 2]), ("recipe", "strong", "strong")
    draws = [made.draw(3, generator(view), kind) for view, kind in enumerate(kinds)]
    got = made.views(index, draws, kinds)
    assert got.shape == (9, 3, 8, 8)
    assert got.is_contiguous(memory_format=torch.channels_last)
    for view, (each, kind) in enumerate(zip(draws, kinds, strict=True)):
        assert torch.equal(got[3 * view : 3 * view + 3], made(index, each, kind))
    assert torch.equal(made.views(index, draws[:1], kinds[:1]), made(index, draws[0]))
    assert not torch.equal(got[3:6], got[6:])


def test_the_rows_of_a_rank_are_those_of_the_whole():
    """Three anchors with two images each, in two views, on two ranks."""
    made = augmenter(strong=Strong())
    index, kinds = torch.tensor([5, 0, 2, 1, 3, 4]), ("recipe", "strong")
    draws = [made.draw(6, generator(view), kind) for view, kind in enumerate(kinds)]
    whole = made.views(index, draws, kinds).chunk(2)
    for rank in range(2):
        share = Group(rank, 2).share(3)
        part = made.views(share.own(index), [each.map(share.own) for each in draws], kinds)
        assert torch.equal(part, torch.cat([share.own(view) for view in whole]))


def test_kinds_that_are_not_there_and_draws_for_another_kind_are_refused():
    with pytest.raises(ValueError, match="makes views of the kinds recipe, not 'strong'"):
        augmenter().draw(2, generator(0), "strong")
    made = augmenter(strong=Strong())
    with pytest.raises(ValueError, match="makes views of the kinds recipe, strong, not 'weak'"):
        made.draw(2, generator(0), "weak")
    with pytest.raises(ValueError, match="the draws are not for the kind 'strong'"):
        made(torch.tensor([0]), made.draw(1, generator(0)), "strong")
    with pytest.raises(ValueError, match="argument 2 is longer"):
        made.views(torch.tensor([0]), [made.draw(1, generator(0))], KINDS)


def test_draws_on_a_device_keep_their_order_and_what_the_cpu_reads():
    draws = Draws(
        *(torch.full((3,), number) for number in range(5)), torch.zeros(3, 2, 3), torch.zeros(3, 1), torch.zeros(3, 4)
    )
    assert draws.to(torch.device("cpu")) is draws
    moved = draws.to(torch.device("meta"))
    assert [choice.device.type for choice in moved] == ["meta"] * 5 + ["cpu"] * 2 + ["meta"]
    assert [choice.shape for choice in moved] == [choice.shape for choice in draws]


def test_a_policy_of_the_recipe_changes_what_was_cropped_and_mirrored():
    made, plain = augmenter(cutout=0.0, policy="randaugment"), augmenter(cutout=0.0, dataset=GREY)
    index, draws = torch.arange(6), made.draw(6, generator(3))
    assert draws.operations.shape == (6, 2, 3)
    cropped = plain(index, draws._replace(operations=draws.operations[:, :0])).permute(0, 2, 3, 1).round().byte()
    assert torch.equal(made(index, draws), normalise(made.policy["recipe"](cropped, draws.operations), PLAIN))


@pytest.mark.parametrize("crop", [NO_CROP, ResizedCrop(min_area=0.3)])
def test_a_policy_and_erasing_move_no_other_choice(crop):
    task = Images(images(), torch.zeros(6, dtype=torch.int64))
    plain, full = (
        Augmenter(task, Augment(0.25, 0, True, 0.5, **own), PLAIN, Strong(), crop)
        for own in ({}, {"policy": "trivialaugment", "erasing": 0.5})
    )
    less, more = plain.draw(40, generator(1)), full.draw(40, generator(1))
    assert equal([*less[:5], less.crop], [*more[:5], more.crop])
    assert (less.operations.shape, more.operations.shape) == ((40, 0, 3), (40, 1, 3))
    assert equal(plain.draw(40, generator(1), "strong"), full.draw(40, generator(1), "strong"))
    without = Augmenter(task, Augment(0.25, 0, True, 0.5, erasing=0.5), PLAIN, crop=crop).draw(40, generator(1))
    assert (less.erase.shape, without.erase.shape) == ((40, 0), (40, 4))


def test_a_box_of_each_image_is_erased():
    made, plain = augmenter(cutout=0.0, erasing=0.7), augmenter(cutout=0.0)
    index, draws = torch.arange(6), made.draw(6, generator(2))
    got, whole = made(index, draws), plain(index, draws)
    for b, (top, left, height, width) in enumerate(draws.erase.tolist()):
        expected = whole[b].clone()
        expected[:, top : top + height, left : left + width] = 0
        assert torch.equal(got[b], expected)
    assert 0 < (draws.erase[:, 2] > 0).sum() < 6


def test_a_strong_view_is_not_erased():
    made = augmenter(strong=Strong(operations=0, cutout=0.0), cutout=0.0, erasing=1.0)
    index, draws = torch.arange(6), made.draw(6, generator(2), "strong")
    assert draws.erase.shape == (6, 0)
    assert torch.equal(made(index, draws, "strong"), augmenter(cutout=0.0)(index, draws))


def test_draws_with_boxes_come_back_from_a_device_in_their_places():
    draws = augmenter(erasing=1.0).draw(5, generator(0))
    together = torch.stack([*draws[:5], *draws.erase.unbind(1)])
    assert torch.equal(together[5:].t(), draws.erase)
    whole = Draws.join([draws.pick(slice(0, 2)), draws.pick(slice(2, 5))])
    assert equal(whole, draws)
