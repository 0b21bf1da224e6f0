"""Image files of any size as squares of one size."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import images
from kdbench.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from PIL.ImageFile import ImageFile

VERSION = 2
"""Changes with the pixels that a file becomes: decoded images that were stored under another version are not used."""


def square(
    file: str | Path,
    side: int,
    box: tuple[int, int, int, int] | None = None,
    part: Callable[[int, int], tuple[int, int, int, int]] | None = None,
    share: float = 1.0,
) -> np.ndarray:
    """The pixels (side, side, 3) uint8 of an image file of any size: its centre square, or another part of it, resized.

    A JPEG is decoded at the smallest of its own scales at which the part is at least as large as the result.

    Args:
        box: left, top, right and bottom of what is cut out first, in pixels of the upright image.
        part: from width and height (of the box, if there is one) to left, top, right and bottom of the part.
        share: share of the short side that the centre square takes.

    Raises:
        RunError: the file is not an image, cannot be read, or cannot become 8-bit RGB without loss.
    """
    path = Path(file)

    def read(image: ImageFile) -> np.ndarray:
        orientation = images.orientation_of(image)
        width, height = image.size[::-1] if orientation in images.TURNED else image.size
        outer = _inside(path, box, width, height)
        inner = _centre(*_lengths(outer), share) if part is None else part(*_lengths(outer))
        left, top, right, bottom = (outer[n % 2] + edge for n, edge in enumerate(inner))
        least = max(side / (right - left), side / (bottom - top))
        whole = _jpeg(image, least)
        if whole is None:
            whole = images.rgb(image, path, lossless=False)
        whole = images.upright(image, whole)
        across, down = whole.shape[1] / width, whole.shape[0] / height
        return _resized(whole, (left * across, top * down, right * across, bottom * down), side)

    pixels = images.read_with(path, read)
    if pixels is None:
        raise RunError(f"{path} is not an image")
    return pixels


def _inside(
    file: Path, box: tuple[int, int, int, int] | None, width: int, height: int
) -> tuple[float, float, float, float]:
    """The part of a bounding box that lies in the image; all of the image without one."""
    if box is None:
        return 0, 0, width, height
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if left >= right or top >= bottom:
        raise RunError(f"{file} has no pixels in its bounding box {box}")
    return left, top, right, bottom


def _lengths(box: tuple[float, float, float, float]) -> tuple[int, int]:
    return int(box[2] - box[0]), int(box[3] - box[1])


def _centre(width: int, height: int, share: float) -> tuple[float, float, float, float]:
    length = share * min(width, height)
    left, top = (width - length) / 2, (height - length) / 2
    return left, top, left + length, top + length


def _jpeg(image: ImageFile, least: float) -> np.ndarray | None:
    """The pixels (H, W, 3) of a grey or RGB JPEG as it lies in its file: Pillow's pixels, in little more than half of its time.

    Args:
        least: the image may be smaller by up to this factor.

    Returns:
        None for other images, and for damaged ones: Pillow names the fault.
    """
    if image.format != "JPEG" or image.mode not in ("L", "RGB") or image.fp is None:
        return None
    import simplejpeg

    image.fp.seek(0)
    sizes = (ceil(length * min(least, 1)) for length in (image.height, image.width))
    try:
        # Scales between 1/2 and 1 take longer than the whole image.
        pixels: np.ndarray = simplejpeg.decode_jpeg(image.fp.read(), "RGB", False, False, *sizes, min_factor=2)
    except ValueError:
        return None
    return pixels


def _resized(pixels: np.ndarray, box: tuple[float, float, float, float], side: int) -> np.ndarray:
    """A part of an image, cut at whole pixels and resized to (side, side, 3) as torchvision resizes images in uint8."""
    import torch
    from torch.nn.functional import interpolate

    height, width, _ = pixels.shape
    left, top = min(round(box[0]), width - 1), min(round(box[1]), height - 1)
    right, bottom = max(round(box[2]), left + 1), max(round(box[3]), top + 1)
    # A copy in the order of the file is channels last for torch, which has its fastest loop for that.
    cut = torch.from_numpy(pixels[top:bottom, left:right].copy())[None].permute(0, 3, 1, 2)
    if cut.shape[2:] != (side, side):
        cut = interpolate(cut, (side, side), mode="bilinear", antialias=True)
    return cut.permute(0, 2, 3, 1).contiguous()[0].numpy()
