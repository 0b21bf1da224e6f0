"""Image files in the forms in which people keep them, and damaged ones: the same pixels, or one sentence that names the file."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdbench.data.readers import images
from kdbench.errors import RunError

SIZE = (8, 6)
FEW = np.random.default_rng(0).integers(0, 2, (6, 8), dtype=np.uint8) * 255
GREY = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 4, (6, 8, 3), dtype=np.uint8) * 85


def rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def palette(pixels):
    return Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)


def with_alpha(pixels, alpha, mode):
    image = Image.fromarray(pixels)
    image.putalpha(alpha)
    return image.convert(mode)


def turned(pixels, orientation):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    return image, {"exif": exif}


def save(tmp_path, image, name="1.png"):
    image, options = image if isinstance(image, tuple) else (image, {})
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("image", "name", "pixels"),
    [
        (Image.fromarray(COLOUR), "1.png", COLOUR),
        (Image.fromarray(COLOUR), "1.PNG", COLOUR),
        (Image.fromarray(COLOUR), "1.bmp", COLOUR),
        (Image.fromarray(COLOUR), "1.tif", COLOUR),
        (Image.fromarray(COLOUR), "1.ppm", COLOUR),
        ((Image.fromarray(COLOUR), {"lossless": True}), "1.webp", COLOUR),
        (palette(COLOUR), "1.png", COLOUR),
        (palette(COLOUR), "1.gif", COLOUR),
        (with_alpha(COLOUR, 255, "RGBA"), "1.png", COLOUR),
        (Image.fromarray(GREY), "1.png", rgb(GREY)),
        (with_alpha(GREY, 255, "LA"), "1.png", rgb(GREY)),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "1.png", rgb(GREY)),
        (Image.fromarray(FEW).convert("1"), "1.png", rgb(FEW)),
        ((palette(COLOUR), {"transparency": 255}), "1.png", COLOUR),
        (turned(COLOUR, 1), "1.png", COLOUR),
        (turned(COLOUR, 3), "1.png", COLOUR[::-1, ::-1]),
    ],
)
def test_equal_pixels_are_equal_in_whatever_form(tmp_path, image, name, pixels):
    file = save(tmp_path, image, name)
    assert (images.decode(file, SIZE) == pixels).all()
    file.rename(tmp_path / "no ending")
    assert (images.decode(tmp_path / "no ending", SIZE) == pixels).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_viewers_turn_it(tmp_path, orientation):
    from PIL import ImageOps

    file = save(tmp_path, turned(COLOUR, orientation))
    with Image.open(file) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert (images.decode(file, (upright.shape[1], upright.shape[0])) == upright).all()


def animation():
    return Image.fromarray(COLOUR), {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)]}


def sixteen_bits_per_channel():
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 256 + 7)
    header = struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "name", "sentence"),
    [
        (Image.fromarray(COLOUR.transpose(1, 0, 2)), "1.png", "1.png must be 8x6, not 6x8"),
        (Image.fromarray(np.zeros((9, 9, 3), np.uint8)), "1.png", "1.png must be 8x6, not 9x9"),
        (with_alpha(COLOUR, 254, "RGBA"), "1.png", "1.png has transparent pixels"),
        ((palette(COLOUR), {"transparency": 0}), "1.png", "1.png has transparent pixels"),
        (Image.fromarray(GREY.astype(np.uint16) * 256 + 1), "1.png", "has 16 bits per pixel"),
        (sixteen_bits_per_channel(), "1.png", "has 16 bits per channel"),
        (b"P6\n8 6\n65535\n" + bytes(288), "1.ppm", "has 16 bits per channel"),
        (Image.fromarray(COLOUR).convert("CMYK"), "1.jpg", "1.jpg is CMYK, which becomes RGB in several ways"),
        (animation(), "1.gif", "1.gif holds several images"),
        (animation(), "1.png", "1.png holds several images"),
        (animation(), "1.tif", "1.tif holds several images"),
        (b"", "1.png", "1.png cannot be read as an image: it is empty"),
        (b"text", "1.JPG", "1.JPG cannot be read as an image: its 4 bytes are none of PNG, JPEG"),
    ],
)
def test_what_would_lose_something_is_refused(tmp_path, image, name, sentence):
    if isinstance(image, bytes):
        (tmp_path / name).write_bytes(image)
    else:
        save(tmp_path, image, name)
    with pytest.raises(RunError) as error:
        images.decode(tmp_path / name, SIZE)
    assert sentence in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_no_other_program_is_asked(tmp_path, monkeypatch):
    # Pillow hands EPS to Ghostscript, whatever the file's ending is.
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\n/bin/touch {tmp_path}/ran\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    (tmp_path / "1.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(RunError, match="none of PNG"):
        images.decode(tmp_path / "1.png", SIZE)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "2", "0"], ["0", "2", "10"]),
        (["010", "002", "000"], ["000", "002", "010"]),
        (["class_10", "class_9", "class_1"], ["class_1", "class_9", "class_10"]),
        (["class_10", "class_11", "class_100"], ["class_10", "class_11", "class_100"]),
        (["10_dog", "2_cat", "0_bird"], ["0_bird", "2_cat", "10_dog"]),
        (["n02", "n010"], ["n02", "n010"]),
        (["cat10", "cat9", "dog1"], ["cat10", "cat9", "dog1"]),
        (["7", "007", "1"], ["007", "1", "7"]),
        (["train", "apple", "bus"], ["apple", "bus", "train"]),
        ([], []),
    ],
)
def test_labels_are_numbers_where_all_names_are(names, ordered):
    assert images.label_order(names) == ordered


def _files():
    for image, name in (
        (Image.fromarray(COLOUR), "png"),
        (palette(COLOUR), "png"),
        (Image.fromarray(COLOUR), "jpeg"),
        (palette(COLOUR), "gif"),
        (Image.fromarray(COLOUR), "bmp"),
        (Image.fromarray(COLOUR), "tiff"),
        (Image.fromarray(COLOUR), "webp"),
        (Image.fromarray(COLOUR), "ppm"),
        (turned(COLOUR, 6), "png"),
    ):
        image, options = image if isinstance(image, tuple) else (image, {})
        image.save(content := io.BytesIO(), name, **options)
        yield content.getvalue()


DAMAGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "repeat"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    max_size=4,
)


def damaged(content, damages):
    for kind, share, piece in damages:
        at = int(share * len(content))
        match kind:
            case "flip":
                content = content[:at] + piece + content[at + len(piece) :]
            case "cut":
                content = content[:at]
            case "insert":
                content = content[:at] + piece + content[at:]
            case "repeat":
                content = content[:at] + content[at : at + 64] * 3 + content[at + 64 :]
    return content


@settings(max_examples=int(os.environ.get("KDBENCH_FUZZ", 150)))
@given(st.sampled_from(list(_files())), DAMAGES, st.sampled_from(["1.png", "1.JPG", "1.db", "1"]))
def test_whatever_a_file_holds_it_is_pixels_or_one_sentence(tmp_path_factory, content, damages, name):
    file: Path = tmp_path_factory.getbasetemp() / name
    file.write_bytes(damaged(content, damages))
    pixels, sentence = None, None
    with warnings.catch_warnings(action="ignore"):
        try:
            pixels = images.decode(file, SIZE)
        except RunError as error:
            sentence = str(error)
    assert pixels is None or (pixels.shape == (6, 8, 3) and pixels.dtype == np.uint8)
    assert sentence is None or (str(file) in sentence and "\n" not in sentence)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(RunError, match=r"1\.png"):
        images.decode(tmp_path / "1.png", SIZE)
