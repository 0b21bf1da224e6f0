import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.measures.corruptions import NAMES, SEVERITIES, corrupt, geometry, in_8_bits, with_noise
from kdbench.measures.corruptions.draws import Draws
from kdbench.streams import Streams


def scenes(size, channels, count=120):
    """Images with shapes, edges and gradients, as pictures have them."""
    draws = Draws(Streams(5)(size, channels), torch.device("cpu"))
    clouds = torch.cat([draws.clouds(torch.empty(count, 1, size, size), 1.5) for _ in range(channels)], dim=1)
    things = (draws.clouds(torch.empty(count, 1, size, size), 2.5) > 0.6) * draws.uniform(count, channels, 1, 1)
    return in_8_bits(0.6 * clouds + 0.4 * things)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), (64, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_every_severity_is_further_from_the_clean_image(name, size, channels):
    clean = scenes(size, channels, count=120 if size < 64 else 24)
    by_severity = [corrupt(clean, name, severity, Streams(0)(name, severity)) for severity in SEVERITIES]
    distances = [(images - clean).abs().mean().item() for images in by_severity]
    assert distances == sorted(set(distances)), distances
    assert distances[0] > 1 / 1000
    for images in by_severity:
        assert images.shape == clean.shape
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1
        assert torch.equal(in_8_bits(images), images), "as read from an 8-bit file"


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_is_its_generator_and_leaves_its_images_alone(name):
    clean = scenes(16, 3, count=6)
    kept = clean.clone()
    torch.manual_seed(1)
    first = corrupt(clean, name, 3, Streams(0)("a"))
    torch.manual_seed(2)
    assert torch.equal(corrupt(clean, name, 3, Streams(0)("a")), first)
    assert torch.equal(clean, kept)


@pytest.mark.parametrize("name", NAMES)
def test_black_and_white_images_stay_finite(name):
    for value in (0.0, 1.0):
        corrupted = corrupt(torch.full((3, 3, 8, 8), value), name, 5, Streams(0)("a"))
        assert corrupted.isfinite().all()


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(NAMES), st.integers(1, 5), st.integers(8, 20), st.integers(8, 20), st.sampled_from([1, 2, 3, 4]))
def test_every_size_and_number_of_channels(name, severity, height, width, channels):
    clean = torch.rand(2, channels, height, width, generator=Streams(0)("images"))
    corrupted = corrupt(clean, name, severity, Streams(0)("a"))
    assert corrupted.shape == clean.shape
    assert 0 <= corrupted.min() <= corrupted.max() <= 1


def test_the_noise_has_the_deviation_it_is_asked_for():
    grey = torch.full((20, 3, 32, 32), 0.5)
    noisy = with_noise(grey, 0.1, Streams(0)("a"))
    assert (noisy - grey).std().item() == pytest.approx(0.1, rel=0.02)


def test_contrast_and_brightness_by_hand():
    image = torch.tensor([[0.2, 0.6], [0.4, 0.4]]).repeat(4, 4).expand(1, 3, 8, 8)
    weak = corrupt(image, "contrast", 2, Streams(0)("a"))
    assert torch.allclose(weak, in_8_bits(0.4 + 0.5 * (image - 0.4)))
    red = torch.tensor([0.6, 0.3, 0.0])[None, :, None, None].expand(1, 3, 8, 8)
    bright = corrupt(red, "brightness", 3, Streams(0)("a"))
    assert torch.allclose(bright, in_8_bits(red * 0.75 / 0.6)), "value 0.6 becomes 0.75, hue and saturation stay"


def test_a_displacement_by_whole_pixels_is_a_shift():
    images = torch.rand(2, 3, 8, 8, generator=Streams(0)("images"))
    by = torch.zeros(2, 8, 8, 2)
    by[..., 0] = 1
    assert torch.allclose(geometry.displaced(images, by)[..., :-1], images[..., 1:], atol=1e-5)


def test_an_average_over_points_by_hand():
    images = torch.rand(2, 3, 9, 9, generator=Streams(0)("images"))
    right_and_half_down = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    moved = geometry.averaged(images, right_and_half_down)[..., 2:6, 2:6]
    right, here, down = images[..., 2:6, 3:7], images[..., 2:6, 2:6], images[..., 3:7, 2:6]
    assert torch.allclose(moved, (right + (here + down) / 2) / 2, atol=1e-6)


def test_cells_of_two_pixels_are_their_means():
    images = torch.rand(2, 3, 8, 8, generator=Streams(0)("images"))
    means = torch.nn.functional.avg_pool2d(images, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    moved = geometry.in_cells(images, 2.0, torch.tensor([[0.0, 0.0], [0.0, 0.5]]))
    assert torch.allclose(moved[0], means[0], atol=1e-6)
    assert torch.allclose(moved[1, :, :2, 1], images[1, :, :2, 1:3].mean(dim=(1, 2))[:, None], atol=1e-6), (
        "half a cell on"
    )
