"""Class folders of image files: the order of their labels, and each file decoded to the pixels that it holds."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdbench.errors import RunError, reason

if TYPE_CHECKING:
    import numpy as np
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")
"""The formats that are read. Pillow knows others, some of which it hands to another program (EPS to Ghostscript)."""

_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archivers, network drives and operating systems leave."""

_GREY_OR_COLOUR = ("1", "L", "P", "RGB", "RGBX", "LA", "La", "PA", "RGBA", "RGBa")
"""Pillow's modes of 8 bits or fewer per channel that become RGB without rounding, if no pixel is transparent."""

_ORIENTATION = 0x0112
"""EXIF tag: how a picture lies in its file; 1 is upright."""


def label_order(names: Iterable[str]) -> list[str]:
    """Names of classes in the order of their labels: by number where each has another number, else alphabetically.

    Numbers are 0 … 99, also with one beginning for all (class_0 … class_99), or in front of other words (0_cat, 10_dog).
    """
    names = sorted(names)
    begins = os.path.commonprefix(names).rstrip("0123456789")  # noqa: RUF071
    numbers = [re.match("[0-9]+", name.removeprefix(begins)) for name in names]
    by_number = {int(number[0]): name for number, name in zip(numbers, names, strict=True) if number}
    return [by_number[number] for number in sorted(by_number)] if len(by_number) == len(names) else names


def class_names(folder: Path) -> list[str]:
    """The names of the class folders in a folder, in the order of their labels."""
    with os.scandir(folder) as entries:
        return label_order(e.name for e in entries if e.is_dir() and not is_left_behind(e.name))


class Decoded(NamedTuple):
    """The images of class folders.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64.
        others: the files that are not images and were passed by.
    """

    images: np.ndarray
    labels: np.ndarray
    others: list[Path]


def read_classes(folders: Sequence[Path], size: tuple[int, int]) -> Decoded:
    """All images of class folders.

    Args:
        folders: one for each label, in order.
        size: width and height that every image must have.

    Raises:
        RunError: a folder has no images, or a file cannot be read or does not fit; the sentence names it.
    """
    import numpy as np

    # Pillow lets go of the GIL only inside its decoders, little for images this small: the threads are there to wait
    # for the disk or the network together. A task is a whole class; 60,000 tasks would cost more than they bring.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(max_workers=4) as pool:
        parts = list(pool.map(lambda folder: _read_class(folder, size), folders))
    labels = np.repeat(np.arange(len(parts), dtype=np.int64), [len(images) for images, _ in parts])
    others = [file for _, passed_by in parts for file in passed_by]
    return Decoded(np.concatenate([images for images, _ in parts]), labels, others)


def first_size(folder: Path) -> tuple[int, int] | None:
    """Width and height of the first image of a class folder; None if it has none that can be read."""
    from PIL import Image

    for file in _files(folder):
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
                return image.size
        except Exception:  # see `decode`
            return None
    return None


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of an image file, whose pixels are not decoded.

    Raises:
        RunError: the file cannot be read as an image.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            return image.size
    except Exception as error:  # see `decode`
        raise RunError(f"{file} cannot be read as an image: {reason(error)}") from error


def _read_class(folder: Path, size: tuple[int, int]) -> tuple[np.ndarray, list[Path]]:
    import numpy as np

    decoded = {file: decode(file, size) for file in _files(folder)}
    images = [pixels for pixels in decoded.values() if pixels is not None]
    if not images:
        raise RunError(f"the class folder {folder} " + ("holds no images" if decoded else "is empty"))
    return np.stack(images), [file for file, pixels in decoded.items() if pixels is None]


def _files(folder: Path) -> list[Path]:
    """The files of a class folder, by name, without the hidden files of file managers."""
    with os.scandir(folder) as entries:
        names = {e.name: e.is_file() for e in entries if not is_left_behind(e.name)}
    for name, is_file in names.items():
        if not is_file:  # opening a pipe would wait for ever
            raise RunError(f"{folder / name} is not a file; a class folder holds nothing but images")
    return [folder / name for name in sorted(names)]


def is_left_behind(name: str) -> bool:
    """True for a hidden file, or a folder that archivers, network drives and operating systems leave."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def decode(file: Path, size: tuple[int, int]) -> np.ndarray | None:
    """The pixels (H, W, 3) uint8 of an image file, in any form that they are stored in.

    A palette, black and white, grey, and an alpha channel without transparent pixels become RGB. A grey image of 16 bits
    per pixel becomes one of 8 where nothing is lost. An image that its EXIF orientation turns is turned.

    Args:
        size: width and height that it must have.

    Returns:
        None for a file that is not an image and not named like one (Thumbs.db, README.txt).

    Raises:
        RunError: the image cannot be read, has another size, or cannot become 8-bit RGB without loss.
    """

    def read(image: ImageFile) -> np.ndarray:
        if sorted(image.size) != sorted(size):  # before its pixels take memory
            raise RunError(f"{file} must be {_by(size)}, not {_by(image.size)}")
        return upright(image, rgb(image, file))

    pixels = read_with(file, read)
    if pixels is not None and pixels.shape[1::-1] != size:
        raise RunError(f"{file} must be {_by(size)}, not {_by(pixels.shape[1::-1])}")
    return pixels


def read_with(file: Path, read: Callable[[ImageFile], np.ndarray]) -> np.ndarray | None:
    """`read` of an opened image; None for a file that is not an image and not named like one."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            if getattr(image, "is_animated", False):
                raise RunError(f"{file} holds several images (an animation, or pages); save one of them alone")
            return read(image)
    except RunError:
        raise
    except UnidentifiedImageError:
        Image.init()  # only then are all endings known
        if file.suffix.lower() not in Image.registered_extensions():
            return None
        raise RunError(f"{file} cannot be read as an image: {_content(file)}") from None
    except Exception as error:  # a damaged image raises anything: SyntaxError, struct.error, zlib.error, MemoryError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{file} cannot be read as an image: {reason}") from error


def rgb(image: ImageFile, file: Path, lossless: bool = True) -> np.ndarray:
    """The pixels (H, W, 3) uint8.

    Args:
        lossless: refuse what cannot become RGB without loss or choice. Photographs are converted as Pillow does it, as for
            all published numbers on ImageNet, which has some images in CMYK.
    """
    import numpy as np

    if not lossless and image.mode in (*_GREY_OR_COLOUR, "CMYK", "YCbCr"):
        return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB"))
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF or (values % 0x101).any():
            raise RunError(f"{file} has 16 bits per pixel, which 8 bits cannot hold without loss; convert it to 8 bits")
        return np.repeat((values // 0x101).astype(np.uint8)[..., None], 3, axis=2)
    if _has_16_bits(image):
        raise RunError(f"{file} has 16 bits per channel, of which reading would drop 8; convert it to 8 bits")
    if image.mode not in _GREY_OR_COLOUR:
        raise RunError(f"{file} is {image.mode}, which becomes RGB in several ways; save it as RGB")
    if "transparency" not in image.info and image.mode in ("1", "L", "P", "RGB", "RGBX"):
        return np.asarray(image.convert("RGB"))
    with_alpha = np.asarray(image.convert("RGBA"))
    if with_alpha[..., 3].min() < 255:
        raise RunError(f"{file} has transparent pixels, whose colour is undefined; save it without transparency")
    return np.ascontiguousarray(with_alpha[..., :3])


def _has_16_bits(image: ImageFile) -> bool:
    """True if Pillow cuts 16 bits per channel to 8 as it reads an image."""
    raw_modes = [tile[3] for tile in image.tile]
    if image.format == "PPM":
        return any(isinstance(mode, tuple) and mode[-1] > 255 for mode in raw_modes)
    return any(";16" in str(mode) for mode in raw_modes)


def upright(image: ImageFile, pixels: np.ndarray) -> np.ndarray:
    """The pixels turned as the EXIF data of an image say; damaged EXIF data say nothing."""
    import numpy as np

    orientation = orientation_of(image)
    if orientation in TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def orientation_of(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # see `decode`
        return 1


TURNED = (5, 6, 7, 8)
"""Orientations that exchange rows and columns."""


def _content(file: Path) -> str:
    size = file.stat().st_size
    if not size:
        return "it is empty"
    return f"its {size} bytes are none of {', '.join(FORMATS)}"


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"
