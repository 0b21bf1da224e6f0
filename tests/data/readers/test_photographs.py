"""Photographs: what becomes of a JPEG, against Pillow."""

import numpy as np
import pytest
from PIL import Image

from kdbench.data.readers import photographs
from kdbench.errors import RunError


@pytest.fixture
def photograph():
    """A picture without noise, (48, 64, 3), which JPEG changes little."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack([4 * rows, 3 * columns, 255 - 2 * rows - 2 * columns], axis=2).astype(np.uint8)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 100}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_becomes_pillows_pixels(options, mode, photograph, tmp_path):
    Image.fromarray(photograph).convert(mode).save(tmp_path / "a.jpg", **options)
    whole = photographs.square(tmp_path / "a.jpg", 48, part=lambda width, height: (8, 0, 56, 48))
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.array_equal(whole, np.asarray(image.convert("RGB"))[:, 8:56])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_reduced_and_turned(orientation, photograph, tmp_path):
    large = Image.fromarray(photograph).resize((1280, 960), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    large.save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = photographs.square(tmp_path / "a.jpg", 48)
    turns = [None, *(getattr(Image.Transpose, name) for name in (
        "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"
    ))]  # fmt: skip
    upright = large if orientation == 1 else large.transpose(turns[orientation - 1])
    left, top = (length // 2 - 480 for length in upright.size)
    wanted = upright.crop((left, top, left + 960, top + 960)).resize((48, 48), Image.Resampling.BILINEAR)
    assert np.abs(found - np.asarray(wanted).astype(int)).max() <= 6


def test_a_part_narrower_than_a_pixel_is_one_pixel(photograph, tmp_path):
    Image.fromarray(photograph).save(tmp_path / "a.png")
    part = photographs.square(tmp_path / "a.png", 8, share=0.001)
    assert (part == part[0, 0]).all()


def test_a_cut_jpeg_is_one_sentence(photograph, tmp_path):
    Image.fromarray(photograph).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(RunError, match=r"a\.jpg cannot be read as an image: image file is truncated"):
        photographs.square(tmp_path / "a.jpg", 16)
