"""Image files of any size as squares of one size."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import images
from kdbench.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile


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
    import numpy as np

    path = Path(file)

    def read(image: ImageFile) -> np.ndarray:
        from PIL import Image

        orientation = images.orientation_of(image)
        width, height = image.size[::-1] if orientation in images.TURNED else image.size
        outer = _inside(path, box, width, height)
        inner = _centre(*_lengths(outer), share) if part is None else part(*_lengths(outer))
        left, top, right, bottom = (outer[n % 2] + edge for n, edge in enumerate(inner))
        least = max(side / (right - left), side / (bottom - top))
        wanted = math.ceil(image.width * least), math.ceil(image.height * least)
        if least < 1:
            image.draft(image.mode, wanted)
        if image.mode == "RGB" and image.format == "JPEG" and orientation == 1:
            whole: PillowImage = image  # most photographs, whose pixels need no copy
        else:
            whole = Image.fromarray(images.upright(image, images.rgb(image, path, lossless=False)))
        across, down = whole.width / width, whole.height / height
        cut = (left * across, top * down, right * across, bottom * down)
        return np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR, box=cut))

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
